//! Whole records of one stream, as they are handed from layer to layer: the bytes, and where they stand in the stream.
//!
//! Nothing is decoded before it is asked for, and what is made shares the bytes.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::channel::Channel;
use crate::error::ProtocolError;
use crate::journal::Mark;
use crate::ledger::Receipt;
use crate::line::{line_start, utf8_tail};
use crate::record::{Log, Piece, Record, Records, Run, encode_log, runs};
use crate::value::{Value, decode_all};

/// Whole records, [start, end).
#[derive(Debug, Clone)]
pub struct Batch {
    start: u64,
    bytes: Bytes,
    /// What a ledger found out about the records, for all parts of the batch.
    marks: Arc<OnceLock<Vec<Mark>>>,
}

impl Batch {
    /// Records that begin at the offset `start` of their stream.
    pub fn new(start: u64, bytes: Bytes) -> Self {
        Self { start, bytes, marks: Arc::default() }
    }

    /// The chain at its start, at some record boundaries in it and at its end, once a ledger has added it (or what it is a part
    /// of, and then also elsewhere); else nothing. Hashing is most of the work that records make, and is not to be done twice.
    pub fn marks(&self) -> &[Mark] {
        self.marks.get().map_or(&[], Vec::as_slice)
    }

    /// Notes what [`Batch::marks`] says. The first time counts.
    pub(crate) fn set_marks(&self, marks: Vec<Mark>) {
        let _ = self.marks.set(marks);
    }

    /// The offset of the first record.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The offset behind the last record.
    pub const fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The records as on the wire.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// All records in order, each with its offset in the stream.
    pub fn records(&self) -> impl Iterator<Item = Result<(u64, Record<'_>), ProtocolError>> {
        Records::new(&self.bytes).map(|cut| {
            let (at, bytes) = cut?;
            Ok((self.start + at as u64, Record::decode(bytes)?))
        })
    }

    /// The number of records.
    pub fn count(&self) -> Result<usize, ProtocolError> {
        Records::new(&self.bytes).try_fold(0, |count, cut| cut.map(|_| count + 1))
    }

    /// The log records.
    pub fn logs(&self) -> impl Iterator<Item = Result<(u64, Log<'_>), ProtocolError>> {
        self.records().filter_map(|record| match record {
            Ok((offset, Record::Log(log))) => Some(Ok((offset, log))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// The data of one channel, in order.
    pub fn data<'a>(&'a self, channel: Channel<'_>) -> Result<Vec<&'a [u8]>, ProtocolError> {
        self.logs()
            .filter(|log| log.as_ref().map_or(true, |(_, log)| log.channel == channel))
            .map(|log| Ok(log?.1.data))
            .collect()
    }

    /// The channels that occur, in order of first occurrence.
    pub fn channels(&self) -> Result<Vec<Channel<'_>>, ProtocolError> {
        let mut channels = Vec::new();
        for log in self.logs() {
            let (_, log) = log?;
            if !channels.contains(&log.channel) {
                channels.push(log.channel);
            }
        }
        Ok(channels)
    }

    /// Split so that no part holds two different named logs, nor records behind `complete`.
    pub fn parts(&self) -> Result<Vec<Self>, ProtocolError> {
        let mut parts = Vec::new();
        let (mut begin, mut named, mut complete) = (self.start, None, false);
        for record in self.records() {
            let (offset, record) = record?;
            let name = if let Record::Log(log) = record { log.channel.name() } else { None };
            if complete || (named.is_some() && name.is_some() && name != named) {
                parts.push(self.between(begin..offset));
                (begin, named) = (offset, None);
            }
            named = name.or(named);
            complete = matches!(record, Record::Complete(_));
        }
        parts.push(self.between(begin..self.end()));
        Ok(parts)
    }

    /// The bytes at the end of `carry` and the channel's data that begin a UTF-8 character without finishing it.
    pub fn channel_tail(&self, channel: Channel<'_>, carry: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut near = last_three(carry).to_vec();
        for part in self.data(channel)? {
            near.extend_from_slice(last_three(part));
            near = last_three(&near).to_vec();
        }
        let tail = utf8_tail(&near);
        Ok(near.split_off(near.len() - tail))
    }

    /// The entries of all update records, in order. Of two values for one key the later counts.
    pub fn updates(&self) -> Result<Vec<(String, Value)>, ProtocolError> {
        let mut merged = Vec::new();
        for record in self.records() {
            if let (_, Record::Update(body)) = record? {
                let Value::Map(entries) = decode_all(body)? else {
                    return Err(error(6, "an update that is not a map"));
                };
                merged.extend(entries);
            }
        }
        Ok(merged)
    }

    /// How the command ended, if the complete record is here: `Some(None)` is well.
    pub fn complete(&self) -> Result<Option<Option<(String, String)>>, ProtocolError> {
        for record in self.records() {
            if let (_, Record::Complete(body)) = record? {
                let value = decode_all(body)?;
                return failure(&value)
                    .map(Some)
                    .ok_or_else(|| error(6, "a complete record that is neither nil nor a failure"));
            }
        }
        Ok(None)
    }

    /// The receipt, if it is here.
    pub fn receipt(&self) -> Result<Option<Receipt>, ProtocolError> {
        for record in self.records() {
            if let (_, Record::Receipt(body)) = record? {
                return Receipt::decode(body).map(Some);
            }
        }
        Ok(None)
    }

    /// The pieces of a file.
    pub fn chunks(&self) -> Result<Vec<&[u8]>, ProtocolError> {
        let mut chunks = Vec::new();
        for record in self.records() {
            if let (_, Record::Chunk(bytes)) = record? {
                chunks.push(bytes);
            }
        }
        Ok(chunks)
    }

    /// Access and modification time of a file, if they are here.
    pub fn utime(&self) -> Result<Option<(f64, f64)>, ProtocolError> {
        for record in self.records() {
            if let (_, Record::Utime(body)) = record? {
                let value = decode_all(body)?;
                return match value.as_array() {
                    Some([Value::Float(accessed), Value::Float(modified)]) => Ok(Some((*accessed, *modified))),
                    _ => Err(error(7, "a utime record that is not two floats")),
                };
            }
        }
        Ok(None)
    }

    /// Whether the tar stream is said to be complete.
    pub fn unpack(&self) -> Result<bool, ProtocolError> {
        for record in self.records() {
            if let (_, Record::Unpack) = record? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Length and digest of the file, if they are here.
    pub fn close(&self) -> Result<Option<(u64, [u8; 32])>, ProtocolError> {
        for record in self.records() {
            if let (_, Record::Close(body)) = record? {
                let value = decode_all(body)?;
                let length = value.entry("bytes").and_then(Value::as_int).and_then(|length| u64::try_from(length).ok());
                let digest = value.entry("blake3").and_then(Value::as_bin).and_then(|digest| digest.try_into().ok());
                return length
                    .zip(digest)
                    .map(Some)
                    .ok_or_else(|| error(7, "a close record without length and digest"));
            }
        }
        Ok(None)
    }

    fn between(&self, offsets: Range<u64>) -> Self {
        let [begin, end] = [offsets.start, offsets.end].map(|offset| (offset - self.start) as usize);
        Self { start: offsets.start, bytes: self.bytes.slice(begin..end), marks: Arc::clone(&self.marks) }
    }
}

/// A log record that keeps its bytes alive.
#[derive(Debug, Clone)]
pub struct LogRecord {
    offset: u64,
    kind: u8,
    name: String,
    continues: bool,
    wall_us: u64,
    mono_us: u64,
    lines: u64,
    /// Unix time from which the encoded times count.
    base_us: u64,
    times: Bytes,
    /// How many lines at the front of `times` were cut off.
    skipped: u64,
    data: Bytes,
}

impl LogRecord {
    /// The record `log` of `batch`.
    pub fn new(batch: &Batch, offset: u64, log: &Log<'_>) -> Self {
        Self {
            offset,
            kind: log.channel.kind(),
            name: log.channel.name().unwrap_or_default().to_owned(),
            continues: log.continues,
            wall_us: log.wall_us,
            mono_us: log.mono_us,
            lines: log.lines,
            base_us: log.wall_us,
            times: batch.bytes.slice_ref(log.times),
            skipped: 0,
            data: batch.bytes.slice_ref(log.data),
        }
    }

    /// Whose bytes.
    pub fn channel(&self) -> Channel<'_> {
        Channel::of_kind(self.kind, &self.name).unwrap_or(Channel::Header)
    }

    /// The offset of the record in its journal.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes.
    pub const fn data(&self) -> &Bytes {
        &self.data
    }

    /// The number of lines that begin here.
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// The first byte continues an earlier line.
    pub const fn continues(&self) -> bool {
        self.continues
    }

    /// The last byte is not `\n`.
    pub fn is_partial(&self) -> bool {
        crate::line::is_partial(&self.data)
    }

    /// Unix time of the first byte, in microseconds.
    pub const fn wall_us(&self) -> u64 {
        self.wall_us
    }

    /// Unix times of the lines' first bytes, in microseconds: so many lines, one time.
    pub fn times(&self) -> impl Iterator<Item = Run> {
        let mut skip = self.skipped;
        runs(&self.times).filter_map(move |Run { lines, at_us }| {
            let cut = skip.min(lines);
            skip -= cut;
            (lines > cut).then(|| Run { lines: lines - cut, at_us: self.base_us.saturating_add(at_us) })
        })
    }

    /// Without what stands before the start of the line number `index` (from 0) of those that begin here; empty if
    /// there are not so many.
    pub fn cut(&self, index: u64) -> Self {
        let start = line_start(&self.data, self.continues, index);
        let count = index.min(self.lines);
        let mut cut = self.clone();
        cut.data = self.data.slice(start.unwrap_or(self.data.len())..);
        (cut.lines, cut.skipped) = (self.lines - count, self.skipped + count);
        cut.continues = false;
        let first = cut.times().next();
        cut.wall_us = first.map_or(self.wall_us, |run| run.at_us);
        cut.mono_us = self.mono_us.saturating_add(cut.wall_us.saturating_sub(self.wall_us));
        cut
    }

    /// Appends it as a record: for who passes on a part of a journal. It must not be empty.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let since = |run: Run| Run { lines: run.lines, at_us: run.at_us.saturating_sub(self.wall_us) };
        let runs: Vec<Run> = self.times().map(since).collect();
        let piece = Piece {
            channel: self.channel(),
            continues: self.continues,
            wall_us: self.wall_us,
            mono_us: self.mono_us,
            runs: &runs,
            data: [&self.data, &[]],
        };
        encode_log(&piece, out);
    }
}

fn last_three(bytes: &[u8]) -> &[u8] {
    bytes.rchunks(3).next().unwrap_or_default()
}

/// The (type, text) in a complete record; `None` if it is malformed.
fn failure(value: &Value) -> Option<Option<(String, String)>> {
    if *value == Value::Nil {
        return Some(None);
    }
    let text = |key| value.entry(key).and_then(Value::as_str).map(str::to_owned);
    Some(Some((text("type")?, text("text")?)))
}

fn error(section: u8, what: &str) -> ProtocolError {
    ProtocolError::new(section, what)
}
