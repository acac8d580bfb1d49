//! What the daemon asks of a supervisor and what it is answered: `value` maps (PROTOCOL.md section 1) with an `op`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::process::Signal;
use tailrace_core::value::{self, Value};

use crate::clock::{Micros, from_seconds};
use crate::signal;
use crate::stop::Manner;

/// What the daemon asks.
#[derive(Debug)]
pub(crate) enum Request {
    /// What must keep its order and is answered when it is done.
    Work(i64, Work),
    /// Stop what runs, and start nothing any more.
    Interrupt { why: String, orphaned: bool },
    /// The reader released something.
    Room,
    /// Whether the journal's reader is away, so that what it does not take goes to the disk.
    Spooling(bool),
    /// Kill what is left, if the command is not over, and go.
    Leave,
    /// The command is over, and all of its journal was released: be there for another one.
    Again,
}

/// What is done in order.
#[derive(Debug)]
pub(crate) enum Work {
    /// Run a child to its end.
    Spawn(Box<Child>),
    /// Add bytes to `stdout`, `stderr` or `header`.
    Append(String, Vec<u8>),
    /// Add structured results.
    Update(Value),
    /// End the journal.
    Finish(Option<(String, String)>),
}

/// A child to run; the fields are those of Python's `Child`.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) argv: Vec<OsString>,
    pub(crate) cwd: PathBuf,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) pty: bool,
    pub(crate) stdin: Option<Vec<u8>>,
    pub(crate) want: [bool; 2],
    pub(crate) silence: Option<Micros>,
    pub(crate) max_time: Option<Micros>,
    pub(crate) max_lines: Option<u64>,
    pub(crate) manner: Manner,
    pub(crate) logfiles: Vec<LogFile>,
    pub(crate) capture: bool,
    pub(crate) last: bool,
    /// What stands in the journal before it is started.
    pub(crate) header: Option<Vec<u8>>,
    /// The daemon will say what becomes of the supervisor when all is over: `again`, or `leave`.
    pub(crate) stays: bool,
}

/// A log file to watch.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) follow: bool,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exit {
    pub(crate) rc: i32,
    pub(crate) signal: Option<String>,
    pub(crate) reason: Option<&'static str>,
    pub(crate) elapsed: f64,
    pub(crate) captured: Vec<u8>,
}

impl Request {
    /// The request that `message` holds; an error has the request's number, if it had one, and what is wrong.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, (i64, String)> {
        let mut request = value::decode_all(message).map_err(|error| (0, error.to_string()))?;
        let id = request.entry("id").and_then(Value::as_int).unwrap_or_default();
        Self::of(id, &mut Fields(&mut request)).map_err(|what| (id, what))
    }

    fn of(id: i64, fields: &mut Fields<'_>) -> Result<Self, String> {
        let work = match fields.text("op")?.as_str() {
            "spawn" => Work::Spawn(Box::new(Child::of(fields)?)),
            "append" => Work::Append(fields.text("channel")?, fields.bytes("data")?),
            "update" => Work::Update(fields.take("values")),
            "finish" => match fields.take("failure") {
                Value::Nil => Work::Finish(None),
                failure => Work::Finish(Some(pair(&failure).ok_or("failure is not a pair of texts")?)),
            },
            "interrupt" => {
                let (why, orphaned) = (fields.text("why")?, fields.flag("orphaned"));
                return Ok(Self::Interrupt { why, orphaned });
            }
            "room" => return Ok(Self::Room),
            "spooling" => return Ok(Self::Spooling(fields.flag("on"))),
            "leave" => return Ok(Self::Leave),
            "again" => return Ok(Self::Again),
            other => return Err(format!("no request {other:?}")),
        };
        Ok(Self::Work(id, work))
    }
}

impl Child {
    fn of(fields: &mut Fields<'_>) -> Result<Self, String> {
        let manner = Manner {
            term: fields.seconds("term_s")?,
            signal: interrupt_signal(&fields.text("signal")?)?,
            grace: fields.seconds("kill_grace_s")?.ok_or("kill_grace_s is missing")?,
        };
        let env = fields.list("env", |item| match item.as_array() {
            Some([Value::Bin(name), Value::Bin(value)]) => Some((os(name), os(value))),
            _ => None,
        })?;
        Ok(Self {
            argv: fields.list("argv", |item| item.as_bin().map(os))?,
            cwd: os(&fields.bytes("cwd")?).into(),
            env,
            pty: fields.flag("pty"),
            stdin: fields.optional_bytes("stdin"),
            want: [fields.flag("want_stdout"), fields.flag("want_stderr")],
            silence: fields.seconds("timeout_s")?,
            max_time: fields.seconds("max_time_s")?,
            max_lines: fields.take("max_lines").as_int().and_then(|lines| lines.try_into().ok()),
            manner,
            logfiles: fields.list("logfiles", log_file)?,
            capture: fields.flag("capture"),
            last: fields.flag("final"),
            header: fields.optional_bytes("header"),
            stays: fields.flag("stays"),
        })
    }
}

/// The answer to work that is done.
pub(crate) fn done(id: i64) -> Vec<u8> {
    encoded([("op", "done".into()), ("id", id.into())])
}

/// The answer to a request that makes no sense.
pub(crate) fn failed(id: i64, text: &str) -> Vec<u8> {
    encoded([("op", "failed".into()), ("id", id.into()), ("text", text.into())])
}

/// The supervisor is there for another command.
pub(crate) fn fresh() -> Vec<u8> {
    encoded([("op", "fresh".into())])
}

/// The journal has grown, or ended.
pub(crate) fn grown() -> Vec<u8> {
    encoded([("op", "grown".into())])
}

/// The first message to a daemon: who speaks, which child runs and whether its end is the command's, how the last one
/// ended, and whether the journal is.
pub(crate) fn hello(pid: i32, running: Option<(i64, bool)>, last: Option<&(i64, Exit)>, over: bool) -> Vec<u8> {
    let (running, is_final) = running.map_or((Value::Nil, false), |(id, last)| (Value::Int(id), last));
    encoded([
        ("op", "hello".into()),
        ("pid", i64::from(pid).into()),
        ("running", running),
        ("final", Value::Bool(is_final)),
        ("last", last.map_or(Value::Nil, |(id, exit)| exit.to_value(*id))),
        ("over", Value::Bool(over)),
    ])
}

impl Exit {
    /// The answer to a spawn.
    pub(crate) fn answer(&self, id: i64) -> Vec<u8> {
        let mut out = Vec::new();
        value::encode(&self.to_value(id), &mut out).expect("a small value");
        out
    }

    fn to_value(&self, id: i64) -> Value {
        value::map([
            ("op", "exit".into()),
            ("id", id.into()),
            ("rc", i64::from(self.rc).into()),
            ("signal", self.signal.as_deref().map_or(Value::Nil, Into::into)),
            ("reason", self.reason.map_or(Value::Nil, Into::into)),
            ("elapsed", Value::Float(self.elapsed)),
            ("captured", Value::Bin(self.captured.clone())),
        ])
    }
}

fn encoded<const N: usize>(entries: [(&str, Value); N]) -> Vec<u8> {
    let mut out = Vec::new();
    value::encode(&value::map(entries), &mut out).expect("a small value");
    out
}

fn interrupt_signal(name: &str) -> Result<Signal, String> {
    signal::named(name).ok_or_else(|| format!("no signal {name:?}"))
}

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

fn pair(value: &Value) -> Option<(String, String)> {
    match value.as_array()? {
        [Value::Str(first), Value::Str(second)] => Some((first.clone(), second.clone())),
        _ => None,
    }
}

fn log_file(value: &Value) -> Option<LogFile> {
    match value.as_array()? {
        [Value::Str(name), Value::Bin(path), Value::Bool(follow)] => {
            Some(LogFile { name: name.clone(), path: os(path).into(), follow: *follow })
        }
        _ => None,
    }
}

/// The entries of a request, taken one by one.
struct Fields<'a>(&'a mut Value);

impl Fields<'_> {
    fn take(&mut self, key: &str) -> Value {
        let Value::Map(entries) = &mut *self.0 else { return Value::Nil };
        let found = entries.iter_mut().find(|(name, _)| name == key);
        found.map_or(Value::Nil, |(_, value)| std::mem::replace(value, Value::Nil))
    }

    fn text(&mut self, key: &str) -> Result<String, String> {
        if let Value::Str(text) = self.take(key) { Ok(text) } else { Err(format!("{key} is not a text")) }
    }

    fn optional_bytes(&mut self, key: &str) -> Option<Vec<u8>> {
        if let Value::Bin(bytes) = self.take(key) { Some(bytes) } else { None }
    }

    fn bytes(&mut self, key: &str) -> Result<Vec<u8>, String> {
        self.optional_bytes(key).ok_or_else(|| format!("{key} is not bytes"))
    }

    fn flag(&mut self, key: &str) -> bool {
        self.take(key) == Value::Bool(true)
    }

    fn seconds(&mut self, key: &str) -> Result<Option<Micros>, String> {
        match self.take(key) {
            Value::Nil => Ok(None),
            Value::Int(seconds) => Ok(Some(from_seconds(seconds as f64))),
            Value::Float(seconds) => Ok(Some(from_seconds(seconds))),
            _ => Err(format!("{key} is not a number of seconds")),
        }
    }

    fn list<T>(&mut self, key: &str, item: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, String> {
        let value = self.take(key);
        let items = value.as_array().and_then(|items| items.iter().map(item).collect());
        items.ok_or_else(|| format!("{key} is not a list of what belongs there"))
    }
}
