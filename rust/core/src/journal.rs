//! A journal: the append-only sequence of a command's records, addressed by absolute offset (PROTOCOL.md section 6).
//!
//! [`Source`] is what a reader needs of one, wherever its bytes lie. [`Writer`] makes the records, the chain and the
//! counts, and puts the bytes behind a [`Tail`]: a supervisor's ring, or the memory of a [`MemoryJournal`].

use crate::chain::Chain;
use crate::channel::Channel;
use crate::coalesce::Sink;
use crate::error::{ProtocolError, UsageError};
use crate::ledger::Ledger;
use crate::limits::{LOG_DATA_BYTES_MAX, RECORD_BYTES_MAX};
use crate::line::lines_begun;
use crate::record::{self, Gap, Piece, Run, kind};
use crate::value::{Value, encode, map};

mod memory;

pub use memory::{Kept, MemoryJournal};

/// Where the bytes of a journal can be read: in memory, or in a supervisor's ring.
pub trait Source: Send + Sync {
    /// Bytes before this offset were released.
    fn begin(&self) -> u64;
    /// The offset behind the last whole record.
    fn end(&self) -> u64;
    /// Whether the receipt stands: nothing follows.
    fn ended(&self) -> bool;
    /// Hands the bytes from `offset` on to `sink`, in one or two pieces, at most `max` of them, and says how many they were.
    fn read(&self, offset: u64, max: usize, sink: &mut dyn FnMut(&[u8])) -> usize;
    /// Forgets the whole records before `offset`. True: the writer waits for room and wants to be told.
    fn release(&self, offset: u64) -> bool;
    /// A record boundary in `[begin, offset]` whose chain is known, the last one that is.
    fn mark(&self, offset: u64) -> Option<Mark>;
}

/// A record boundary, and the chain over all records before it.
pub type Mark = (u64, Chain);

impl dyn Source + '_ {
    /// A copy of the whole records from `offset` on: at most `max` bytes, but at least one record if there is one.
    pub fn copy_records(&self, offset: u64, max: usize) -> Result<Vec<u8>, ProtocolError> {
        let mut bytes = self.copy(offset, max);
        let mut whole = record::whole(&bytes, max)?;
        if whole == 0 && self.end() > offset {
            bytes = self.copy(offset, record::PREFIX);
            // Nothing is there any more if the offset was released meanwhile.
            let Some(prefix) = bytes.first_chunk().copied() else { return Ok(Vec::new()) };
            bytes = self.copy(offset, record::length(prefix)?);
            whole = record::whole(&bytes, max)?;
        }
        bytes.truncate(whole);
        Ok(bytes)
    }

    /// The chain over all records before `offset`; none if that is no record boundary in `[begin, end]`. Hashes from the last
    /// mark on.
    pub fn chain_at(&self, offset: u64) -> Option<Chain> {
        self.boundary(offset).filter(|(at, _)| *at == offset).map(|(_, chain)| chain)
    }

    /// The last record boundary in `[begin, offset]`, with its chain.
    pub fn boundary(&self, offset: u64) -> Option<Mark> {
        let (mut at, mut chain) = self.mark(offset).filter(|(at, _)| *at <= offset && offset <= self.end())?;
        while let Some(record) = self.record(at).filter(|record| record.len() as u64 <= offset - at) {
            chain.push([record.as_slice()]);
            at += record.len() as u64;
        }
        Some((at, chain))
    }

    fn record(&self, offset: u64) -> Option<Vec<u8>> {
        let prefix = self.copy(offset, record::PREFIX).first_chunk().copied()?;
        let length = record::length(prefix).ok()?;
        Some(self.copy(offset, length)).filter(|record| record.len() == length)
    }

    fn copy(&self, offset: u64, max: usize) -> Vec<u8> {
        let there = usize::try_from(self.end().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(max.min(there));
        self.read(offset, max, &mut |part| bytes.extend_from_slice(part));
        bytes
    }
}

/// Where a writer's records go.
pub trait Tail {
    /// Appends one whole record that lies in these parts, of `channel` if it has one; `ledger` has counted it already.
    /// The writer's owner has seen to it that there is room.
    fn append(&mut self, parts: [&[u8]; 3], channel: Option<Channel<'_>>, ledger: &Ledger);

    /// The largest record that may be appended, its length prefix excluded.
    fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX
    }
}

impl Tail for Vec<u8> {
    fn append(&mut self, parts: [&[u8]; 3], _channel: Option<Channel<'_>>, _ledger: &Ledger) {
        for part in parts {
            self.extend_from_slice(part);
        }
    }
}

/// Makes a journal's records. A channel's bytes come either by [`Writer::log`] or, as a [`Sink`], from one coalescer.
#[derive(Debug, Default)]
pub struct Writer<T> {
    tail: T,
    ledger: Ledger,
    head: Vec<u8>,
}

impl<T: Tail> Writer<T> {
    /// A writer of an empty journal.
    pub fn new(tail: T) -> Self {
        Self { tail, ledger: Ledger::new(), head: Vec::new() }
    }

    /// One that goes on behind what `ledger` has counted.
    pub fn resume(tail: T, ledger: Ledger) -> Self {
        Self { tail, ledger, head: Vec::new() }
    }

    /// Where the records are.
    pub const fn tail(&self) -> &T {
        &self.tail
    }

    /// Where the records are.
    pub const fn tail_mut(&mut self) -> &mut T {
        &mut self.tail
    }

    /// What was written: offset, chain, counts.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Appends bytes of a channel at once, in records of at most 256 KiB.
    pub fn log(&mut self, channel: Channel<'_>, data: &[u8], wall_us: u64, mono_us: u64) -> Result<(), UsageError> {
        self.check_open()?;
        for part in data.chunks(LOG_DATA_BYTES_MAX) {
            let continues = self.ledger.is_inside_line(channel);
            let run = Run { lines: lines_begun(part, continues), at_us: 0 };
            let runs = if run.lines > 0 { std::slice::from_ref(&run) } else { &[] };
            self.piece(&Piece { channel, continues, wall_us, mono_us, runs, data: [part, &[]] });
        }
        Ok(())
    }

    /// Appends structured results, a `value` map.
    pub fn update(&mut self, values: &Value) -> Result<(), UsageError> {
        self.value(kind::UPDATE, values, self.tail.record_bytes_max())
    }

    /// Says that bytes are missing.
    pub fn gap(&mut self, gap: &Gap<'_>) -> Result<(), UsageError> {
        let mut record = Vec::new();
        gap.encode(&mut record);
        self.append(&record, Some(gap.channel))
    }

    /// Appends complete, with (type, text) of what went wrong if the command failed, and the receipt.
    pub fn finish(&mut self, failure: Option<(&str, &str)>) -> Result<(), UsageError> {
        let failure = failure.map(|(kind, text)| map([("type", kind.into()), ("text", text.into())]));
        self.value(kind::COMPLETE, &failure.unwrap_or(Value::Nil), self.tail.record_bytes_max())?;
        self.receipt()
    }

    /// Appends the receipt to a journal that broke off behind complete.
    pub fn receipt(&mut self) -> Result<(), UsageError> {
        // However many logs there are: a journal must come to its end.
        self.value(kind::RECEIPT, &self.ledger.receipt().to_value(), RECORD_BYTES_MAX)
    }

    fn value(&mut self, kind: u8, value: &Value, bytes_max: usize) -> Result<(), UsageError> {
        let (mut body, mut record) = (Vec::new(), Vec::new());
        encode(value, &mut body)?;
        if body.len() >= bytes_max {
            return Err(UsageError(format!("a record of {} bytes", body.len())));
        }
        record::encode(kind, &body, &mut record);
        self.append(&record, None)
    }

    fn append(&mut self, record: &[u8], channel: Option<Channel<'_>>) -> Result<(), UsageError> {
        // What other sides would refuse is not written.
        self.ledger.add(record).map_err(|error| UsageError(error.to_string()))?;
        self.tail.append([record, &[], &[]], channel, &self.ledger);
        Ok(())
    }

    fn check_open(&self) -> Result<(), UsageError> {
        if self.ledger.is_complete() {
            return Err(UsageError("the journal is complete".to_owned()));
        }
        Ok(())
    }
}

impl<T: Tail> Sink for Writer<T> {
    fn piece(&mut self, piece: &Piece<'_>) {
        self.head.clear();
        let head = piece.head();
        head.encode(&mut self.head);
        let [first, second] = piece.data;
        let parts = [self.head.as_slice(), first, second];
        self.ledger.add_own_log(&head, parts);
        self.tail.append(parts, Some(piece.channel), &self.ledger);
    }
}
