//! Hellos and proofs (PROTOCOL.md section 3).

use crate::error::{ProtocolError, UsageError};
use crate::frame::{Frame, HEADER_BYTES};
use crate::limits::FRAME_BYTES_BEFORE_LOGIN_MAX;
use crate::value::{self, Value};
use crate::varint;

/// The lowest and the highest version that we speak.
pub const VERSIONS: (u64, u64) = (1, 1);

/// The words for an unknown name and for a wrong secret, which nobody can tell apart.
pub const BAD_CREDENTIALS: &str = "unknown worker or wrong secret";

const CONTEXT: &str = "tailrace v1 login";

/// Bytes of a nonce and of a proof.
pub type Bytes32 = [u8; 32];

/// Which of the two parties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// accepts connections, and asks for commands to be run
    Master,
    /// connects, and runs them
    Worker,
}

/// What only one of the two parties says in its hello.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Party {
    Worker { versions: (u64, u64), name: String, instance: String },
    Master { version: u64, master: String },
}

/// A hello.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the table in PROTOCOL.md section 3
pub struct Hello {
    pub party: Party,
    pub nonce: Bytes32,
    pub capabilities: Vec<String>,
    pub software: String,
    pub stream_window: u64,
    pub connection_window: u64,
    pub streams_max: u64,
}

impl Hello {
    /// The payload of a HELLO frame.
    pub fn encode(&self) -> Result<Vec<u8>, UsageError> {
        let mut entries = Vec::new();
        let mut put = |key: &str, value: Value| entries.push((key.to_owned(), value));
        match &self.party {
            Party::Worker { versions: (lowest, highest), name, instance } => {
                put("role", "worker".into());
                put("versions", Value::Array(vec![integer(*lowest), integer(*highest)]));
                put("name", name.as_str().into());
                put("instance", instance.as_str().into());
            }
            Party::Master { version, master } => {
                put("role", "master".into());
                put("version", integer(*version));
                put("master", master.as_str().into());
            }
        }
        put("nonce", Value::Bin(self.nonce.to_vec()));
        put("capabilities", Value::Array(self.capabilities.iter().map(|word| word.as_str().into()).collect()));
        put("software", self.software.as_str().into());
        put("stream_window", integer(self.stream_window));
        put("connection_window", integer(self.connection_window));
        put("streams_max", integer(self.streams_max));
        let mut payload = Vec::new();
        value::encode(&Value::Map(entries), &mut payload)?;
        let whole = HEADER_BYTES + payload.len();
        if whole > FRAME_BYTES_BEFORE_LOGIN_MAX {
            return Err(UsageError(format!("a hello of {whole} bytes, more than {FRAME_BYTES_BEFORE_LOGIN_MAX}")));
        }
        Ok(payload)
    }

    /// The hello that the peer of `role` sent.
    pub fn decode(payload: &[u8], role: Role) -> Result<Self, ProtocolError> {
        let map = value::decode_all(payload)?;
        let fields = Fields(&map);
        let party = match (fields.text("role")?.as_str(), role) {
            ("worker", Role::Worker) => Party::Worker {
                versions: fields.versions()?,
                name: fields.text("name")?,
                instance: fields.text("instance")?,
            },
            ("master", Role::Master) => {
                Party::Master { version: fields.number("version")?, master: fields.text("master")? }
            }
            (other, _) => return Err(malformed(format!("a hello of the role {other:?}"))),
        };
        Ok(Self {
            party,
            nonce: fields
                .get("nonce", Value::as_bin)?
                .try_into()
                .map_err(|_| malformed("a nonce that is not 32 bytes"))?,
            capabilities: fields.words("capabilities")?,
            software: fields.text("software")?,
            stream_window: fields.number("stream_window")?,
            connection_window: fields.number("connection_window")?,
            streams_max: fields.number("streams_max")?,
        })
    }
}

/// The highest version that both sides speak.
pub fn common_version(theirs: (u64, u64)) -> Option<u64> {
    let highest = VERSIONS.1.min(theirs.1);
    (highest >= VERSIONS.0.max(theirs.0)).then_some(highest)
}

/// `T`: both hellos as they crossed the wire.
pub fn transcript(worker_hello: &[u8], master_hello: &[u8]) -> Result<Vec<u8>, UsageError> {
    let mut out = Vec::new();
    Frame::Hello(worker_hello).encode(&mut out)?;
    Frame::Hello(master_hello).encode(&mut out)?;
    Ok(out)
}

/// The worker's proof that it knows `secret`.
pub fn worker_proof(secret: &[u8], transcript: &[u8]) -> blake3::Hash {
    keyed(secret, &[b"worker", transcript])
}

/// The master's proof that it knows `secret`, and has checked the worker's.
pub fn master_proof(secret: &[u8], transcript: &[u8], worker_proof: &Bytes32) -> blake3::Hash {
    keyed(secret, &[b"master", transcript, worker_proof])
}

fn keyed(secret: &[u8], parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(CONTEXT, secret));
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// The entries of a hello. Unknown ones are skipped.
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn get<T>(&self, key: &str, kind: impl FnOnce(&'a Value) -> Option<T>) -> Result<T, ProtocolError> {
        let entry = self.0.entry(key).ok_or_else(|| malformed(format!("a hello without {key}")))?;
        kind(entry).ok_or_else(|| malformed(format!("a hello whose {key} is of the wrong type")))
    }

    fn text(&self, key: &str) -> Result<String, ProtocolError> {
        self.get(key, Value::as_str).map(str::to_owned)
    }

    fn number(&self, key: &str) -> Result<u64, ProtocolError> {
        self.get(key, natural)
    }

    fn words(&self, key: &str) -> Result<Vec<String>, ProtocolError> {
        self.get(key, |value| value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect())
    }

    fn versions(&self) -> Result<(u64, u64), ProtocolError> {
        self.get("versions", |value| match value.as_array()? {
            [lowest, highest] => Some((natural(lowest)?, natural(highest)?)),
            _ => None,
        })
    }
}

fn natural(value: &Value) -> Option<u64> {
    value.as_int().and_then(|number| u64::try_from(number).ok())
}

fn integer(number: u64) -> Value {
    Value::Int(number.min(varint::MAX) as i64)
}

fn malformed(what: impl Into<String>) -> ProtocolError {
    ProtocolError::new(3, what)
}
