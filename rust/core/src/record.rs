//! Records: what journals and transfers are made of (PROTOCOL.md sections 6 and 7).
//!
//! [`whole`] and [`Records`] cut bytes into records, [`Record::decode`] says what one holds, borrowing from it. A log
//! record is made in two steps, so that its data is moved once: [`Head`] is all that stands before the
//! data, then whoever stores it appends the parts of the data behind. Nothing is done for each line but what the times cost.

use crate::channel::Channel;
use crate::error::ProtocolError;
use crate::limits::{CHUNK_BYTES_MAX, LOG_DATA_BYTES_MAX, LOG_NAME_BYTES_MAX, RECORD_BYTES_MAX};
use crate::line::{is_partial, lines_begun};
use crate::varint;

/// Kind bytes of records.
pub mod kind {
    /// Log data of stdout.
    pub const STDOUT: u8 = 0x01;
    /// Log data of stderr.
    pub const STDERR: u8 = 0x02;
    /// Log data that Tailrace itself writes about a command.
    pub const HEADER: u8 = 0x03;
    /// Log data of a named log.
    pub const LOG: u8 = 0x04;
    /// Structured results.
    pub const UPDATE: u8 = 0x10;
    /// Bytes that were not delivered.
    pub const GAP: u8 = 0x20;
    /// The command is over.
    pub const COMPLETE: u8 = 0x30;
    /// What was sent, to be compared.
    pub const RECEIPT: u8 = 0x31;
    /// A piece of a file.
    pub const CHUNK: u8 = 0x40;
    /// Times for the file.
    pub const UTIME: u8 = 0x41;
    /// The tar stream is complete.
    pub const UNPACK: u8 = 0x42;
    /// Length and digest of the file.
    pub const CLOSE: u8 = 0x43;
    /// From here on, who does not know a kind skips it.
    pub const OPTIONAL: u8 = 0x80;
}

const JOURNAL: u8 = 6;
const TRANSFER: u8 = 7;
/// Bytes of a record's length prefix.
pub const PREFIX: usize = 4;
const CONTINUES: u8 = 1;
const PARTIAL: u8 = 2;

/// So many lines began at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many, at least one.
    pub lines: u64,
    /// Microseconds after the record's first byte.
    pub at_us: u64,
}

/// A piece of one channel's bytes that is about to become a record.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Whose bytes.
    pub channel: Channel<'a>,
    /// The first byte continues a line that began in an earlier piece.
    pub continues: bool,
    /// Unix time of the first byte, in microseconds.
    pub wall_us: u64,
    /// Monotonic time of the first byte, in microseconds.
    pub mono_us: u64,
    /// The lines that begin in it, in order of time.
    pub runs: &'a [Run],
    /// The bytes, in up to two parts: 1 byte to 256 KiB together.
    pub data: [&'a [u8]; 2],
}

impl Piece<'_> {
    /// The number of data bytes.
    pub fn len(&self) -> usize {
        self.data.iter().map(|part| part.len()).sum()
    }

    /// Never so for a piece that may become a record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of lines that begin in it.
    pub fn lines(&self) -> u64 {
        self.runs.iter().map(|run| run.lines).sum()
    }

    /// Whether it ends inside a line.
    pub fn is_partial(&self) -> bool {
        let [first, second] = self.data;
        is_partial(if second.is_empty() { first } else { second })
    }

    /// All that stands before the data.
    pub fn head(&self) -> Head<'_> {
        let Self { channel, continues, wall_us, mono_us, runs, .. } = *self;
        Head { channel, continues, partial: self.is_partial(), wall_us, mono_us, runs, data_bytes: self.len() }
    }
}

/// All of a log record but its data.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Whose bytes.
    pub channel: Channel<'a>,
    /// The first byte continues a line that began in an earlier record.
    pub continues: bool,
    /// The last byte is not `\n`.
    pub partial: bool,
    /// Unix time of the first byte, in microseconds.
    pub wall_us: u64,
    /// Monotonic time of the first byte, in microseconds.
    pub mono_us: u64,
    /// The lines that begin in it, in order of time.
    pub runs: &'a [Run],
    /// How much data follows: 1 byte to 256 KiB.
    pub data_bytes: usize,
}

impl Head<'_> {
    /// The most that a head takes up, whatever the channel's name, with `runs` runs.
    pub const fn bytes_max(runs: usize) -> usize {
        PREFIX + 2 + LOG_NAME_BYTES_MAX + (5 + 2 * runs) * varint::BYTES_MAX
    }

    /// The number of lines that begin in the data.
    pub fn lines(&self) -> u64 {
        self.runs.iter().map(|run| run.lines).sum()
    }

    /// Appends it. The data belongs right behind.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend([0; PREFIX]);
        out.push(self.channel.kind());
        if let Channel::Log(name) = self.channel {
            varint::encode_str(name, out);
        }
        out.push((u8::from(self.continues) * CONTINUES) | (u8::from(self.partial) * PARTIAL));
        for number in [self.wall_us, self.mono_us, self.lines(), self.runs.len() as u64] {
            varint::encode(number, out);
        }
        let mut before = 0;
        for run in self.runs {
            varint::encode(run.lines, out);
            varint::encode(run.at_us.saturating_sub(before), out);
            before = before.max(run.at_us);
        }
        let length = out.len() - begin - PREFIX + self.data_bytes;
        put_length(out, begin, length);
    }
}

/// Appends a whole log record. For data that is in one place already.
pub fn encode_log(piece: &Piece<'_>, out: &mut Vec<u8>) {
    piece.head().encode(out);
    for part in piece.data {
        out.extend_from_slice(part);
    }
}

/// Appends a record of `kind` with this body. `RECORD_BYTES_MAX` is the caller's to keep.
pub fn encode(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend([0; PREFIX]);
    out.push(kind);
    out.extend_from_slice(body);
    put_length(out, begin, 1 + body.len());
}

/// Log data as it stands in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log<'a> {
    /// Whose bytes.
    pub channel: Channel<'a>,
    /// The first byte continues a line of an earlier record.
    pub continues: bool,
    /// The last byte is not `\n`.
    pub partial: bool,
    /// Unix time of the first byte, in microseconds.
    pub wall_us: u64,
    /// Monotonic time of the first byte, in microseconds.
    pub mono_us: u64,
    /// The number of lines that begin here.
    pub lines: u64,
    /// Their times, encoded and checked: see [`runs`].
    pub times: &'a [u8],
    /// The bytes.
    pub data: &'a [u8],
}

impl Log<'_> {
    /// Checks what decoding does not, because it costs a look at every byte: that `lines` is what `data` says.
    pub fn check_lines(&self) -> Result<(), ProtocolError> {
        let begun = lines_begun(self.data, self.continues);
        if begun == self.lines {
            return Ok(());
        }
        Err(error(JOURNAL, format!("a record says that {} lines begin in it, and {begun} do", self.lines)))
    }
}

/// The runs of a checked [`Log::times`].
pub fn runs(mut times: &[u8]) -> impl Iterator<Item = Run> {
    let mut at_us = 0u64;
    std::iter::from_fn(move || {
        let lines = varint::decode(&mut times).ok()?;
        at_us = at_us.saturating_add(varint::decode(&mut times).ok()?);
        Some(Run { lines, at_us })
    })
}

/// Bytes that were not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap<'a> {
    /// Whose bytes.
    pub channel: Channel<'a>,
    /// How many.
    pub bytes: u64,
    /// How many lines began in them.
    pub lines: u64,
    /// Why, for people.
    pub reason: &'a str,
}

impl Gap<'_> {
    /// Appends the gap as a record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = vec![self.channel.kind()];
        varint::encode_str(self.channel.name().unwrap_or_default(), &mut body);
        varint::encode(self.bytes, &mut body);
        varint::encode(self.lines, &mut body);
        varint::encode_str(self.reason, &mut body);
        encode(kind::GAP, &body, out);
    }
}

/// One record, borrowed from its bytes. Bodies that are a `value` are left encoded: [`crate::value`] reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// Log data.
    Log(Log<'a>),
    /// A `value` map.
    Update(&'a [u8]),
    /// Bytes that are missing.
    Gap(Gap<'a>),
    /// A `value`: nil, or how the command failed.
    Complete(&'a [u8]),
    /// A `value` map.
    Receipt(&'a [u8]),
    /// A piece of a file.
    Chunk(&'a [u8]),
    /// A `value`.
    Utime(&'a [u8]),
    /// The tar stream is complete.
    Unpack,
    /// A `value` map.
    Close(&'a [u8]),
    /// A kind from 0x80 on that this version does not know.
    Unknown(u8),
}

impl<'a> Record<'a> {
    /// Decodes one whole record, its length prefix included.
    pub fn decode(record: &'a [u8]) -> Result<Self, ProtocolError> {
        let (prefix, mut rest) = record.split_first_chunk().ok_or_else(|| short(JOURNAL))?;
        if length(*prefix)? != record.len() {
            return Err(error(
                JOURNAL,
                format!("a record of {} bytes says that it has {}", record.len(), length(*prefix)?),
            ));
        }
        let kind = varint::decode_u8(&mut rest)?;
        match kind {
            kind::STDOUT | kind::STDERR | kind::HEADER => Ok(Self::Log(decode_log(kind, "", rest)?)),
            kind::LOG => {
                let name = varint::decode_str_max(&mut rest, LOG_NAME_BYTES_MAX)?;
                Ok(Self::Log(decode_log(kind, name, rest)?))
            }
            kind::UPDATE => Ok(Self::Update(rest)),
            kind::GAP => Ok(Self::Gap(decode_gap(rest)?)),
            kind::COMPLETE => Ok(Self::Complete(rest)),
            kind::RECEIPT => Ok(Self::Receipt(rest)),
            kind::CHUNK if rest.len() <= CHUNK_BYTES_MAX => Ok(Self::Chunk(rest)),
            kind::CHUNK => Err(error(TRANSFER, format!("a chunk of {} bytes", rest.len()))),
            kind::UTIME => Ok(Self::Utime(rest)),
            kind::UNPACK if rest.is_empty() => Ok(Self::Unpack),
            kind::UNPACK => Err(error(TRANSFER, "an unpack record with a body")),
            kind::CLOSE => Ok(Self::Close(rest)),
            kind::OPTIONAL.. => Ok(Self::Unknown(kind)),
            _ => Err(error(JOURNAL, format!("a record of unknown kind {kind:#04x}"))),
        }
    }
}

/// The size of a whole record, its length prefix included, of which these are the first four bytes.
pub fn length(prefix: [u8; PREFIX]) -> Result<usize, ProtocolError> {
    let length = u32::from_be_bytes(prefix) as usize;
    if (1..=RECORD_BYTES_MAX).contains(&length) {
        return Ok(PREFIX + length);
    }
    Err(error(JOURNAL, format!("a record of {length} bytes, where 1 to {RECORD_BYTES_MAX} are allowed")))
}

/// How many of the first bytes are whole records: at most `max` bytes, but the first record in any case if it is whole.
pub fn whole(bytes: &[u8], max: usize) -> Result<usize, ProtocolError> {
    let mut end = 0;
    while let Some(prefix) = bytes.get(end..).and_then(<[u8]>::first_chunk) {
        let next = end + length(*prefix)?;
        if next > bytes.len() || (next > max && end > 0) {
            break;
        }
        end = next;
    }
    Ok(end)
}

/// Cuts bytes that are whole records; an incomplete one at the end is an error. Ends after an error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// The records in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn cut(&mut self) -> Result<(usize, &'a [u8]), ProtocolError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let prefix = rest.first_chunk().ok_or_else(|| short(JOURNAL))?;
        let record = rest.get(..length(*prefix)?).ok_or_else(|| short(JOURNAL))?;
        let at = self.at;
        self.at += record.len();
        Ok((at, record))
    }
}

impl<'a> Iterator for Records<'a> {
    /// Where the record begins in the bytes, and all of it.
    type Item = Result<(usize, &'a [u8]), ProtocolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let cut = self.cut();
        if cut.is_err() {
            self.at = self.bytes.len();
        }
        Some(cut)
    }
}

fn decode_log<'a>(kind: u8, name: &'a str, mut body: &'a [u8]) -> Result<Log<'a>, ProtocolError> {
    let channel = channel(kind, name)?;
    let flags = varint::decode_u8(&mut body)?;
    let [wall_us, mono_us, lines, runs] = take_varints(&mut body)?;
    let times = body;
    let mut begun = 0u64;
    for _ in 0..runs {
        let [lines, _delta_us] = take_varints(&mut body)?;
        begun = begun.checked_add(lines).filter(|_| lines > 0).ok_or_else(|| error(JOURNAL, "a run of no lines"))?;
    }
    let times = times.get(..times.len() - body.len()).unwrap_or_default();
    let (continues, partial) = (flags & CONTINUES != 0, flags & PARTIAL != 0);
    if flags > CONTINUES | PARTIAL || partial != is_partial(body) {
        return Err(error(JOURNAL, format!("flags {flags:#04x} do not fit the data")));
    }
    if body.is_empty() || body.len() > LOG_DATA_BYTES_MAX {
        return Err(error(JOURNAL, format!("{} bytes of log data in a record", body.len())));
    }
    if begun != lines || lines > body.len() as u64 {
        return Err(error(JOURNAL, format!("{lines} lines in {} bytes, with times for {begun}", body.len())));
    }
    Ok(Log { channel, continues, partial, wall_us, mono_us, lines, times, data: body })
}

fn decode_gap(mut body: &[u8]) -> Result<Gap<'_>, ProtocolError> {
    let kind = varint::decode_u8(&mut body)?;
    let name = varint::decode_str_max(&mut body, LOG_NAME_BYTES_MAX)?;
    let [bytes, lines] = take_varints(&mut body)?;
    let reason = varint::decode_str(&mut body)?;
    if !body.is_empty() {
        return Err(error(JOURNAL, format!("{} bytes too many in a gap record", body.len())));
    }
    Ok(Gap { channel: channel(kind, name)?, bytes, lines, reason })
}

fn channel(kind: u8, name: &str) -> Result<Channel<'_>, ProtocolError> {
    Channel::of_kind(kind, name).ok_or_else(|| error(JOURNAL, format!("no channel of kind {kind:#04x} named {name:?}")))
}

fn take_varints<const N: usize>(bytes: &mut &[u8]) -> Result<[u64; N], ProtocolError> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = varint::decode(bytes)?;
    }
    Ok(numbers)
}

fn put_length(out: &mut [u8], begin: usize, length: usize) {
    debug_assert!(length <= RECORD_BYTES_MAX, "a record of {length} bytes");
    if let Some(prefix) = out.get_mut(begin..begin + PREFIX) {
        prefix.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

fn short(section: u8) -> ProtocolError {
    error(section, "a record that ends too early")
}

fn error(section: u8, what: impl Into<String>) -> ProtocolError {
    ProtocolError::new(section, what)
}
