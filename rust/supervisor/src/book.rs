//! The command's journal as the supervisor writes it: bytes are coalesced, become records, are chained, and lie in the ring.

use tailrace_core::chain::Chain;
use tailrace_core::channel::Channel;
use tailrace_core::coalesce::Coalescer;
use tailrace_core::error::UsageError;
use tailrace_core::journal::{self, Tail};
use tailrace_core::record::Gap;
use tailrace_core::value::Value;

use crate::clock::{Micros, mono, wall};
use crate::ring;

/// How much is read or added at a time.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// What stays free when nothing more is read: room for what waits in the coalescer and for the end of the journal, so
/// that a command can end although nobody takes its output.
const RESERVED_BYTES: usize = 1 << 20;

/// The largest update. Larger ones are refused: several must fit the ring.
const RECORD_BYTES_MAX: usize = 256 << 10;

/// The smallest ring in which there is room to write.
pub(crate) const RING_BYTES_MIN: usize = 2 * RESERVED_BYTES;

pub(crate) struct Book {
    journal: journal::Writer<ring::Writer>,
    coalescer: Coalescer,
}

impl Book {
    pub(crate) fn new(ring: ring::Writer) -> Self {
        Self { journal: journal::Writer::new(ring), coalescer: Coalescer::new() }
    }

    /// Whether `READ_BYTES` more may be added.
    pub(crate) fn has_room(&mut self) -> bool {
        self.journal.tail_mut().free() >= RESERVED_BYTES + self.coalescer.waiting()
    }

    /// As `has_room`; if there is none, the reader will ring when it has released something.
    pub(crate) fn has_room_or_asks(&mut self) -> bool {
        self.has_room() || (!self.journal.tail_mut().wants_room() && self.has_room())
    }

    /// Adds what was read of a channel now.
    pub(crate) fn push(&mut self, channel: Channel<'_>, data: &[u8]) {
        self.coalescer.push(channel, data, wall(), mono(), &mut self.journal);
    }

    /// When `poll` has something to do.
    pub(crate) fn deadline(&self) -> Option<Micros> {
        self.coalescer.deadline()
    }

    /// Passes on what has waited long enough.
    pub(crate) fn poll(&mut self, now: Micros) {
        self.coalescer.poll(now, &mut self.journal);
    }

    /// Adds structured results.
    pub(crate) fn update(&mut self, values: &Value) -> Result<(), UsageError> {
        self.flush();
        self.journal.update(values)
    }

    /// Says that bytes of a channel are missing.
    pub(crate) fn gap(&mut self, channel: Channel<'_>, bytes: u64, lines: u64, reason: &str) -> Result<(), UsageError> {
        self.flush();
        self.journal.gap(&Gap { channel, bytes, lines, reason })
    }

    /// Ends the journal.
    pub(crate) fn finish(&mut self, failure: Option<(&str, &str)>) -> Result<(), UsageError> {
        self.flush();
        self.journal.finish(failure)?;
        self.journal.tail_mut().finish();
        Ok(())
    }

    /// Whether the journal is ended.
    pub(crate) fn is_over(&self) -> bool {
        self.journal.ledger().is_ended()
    }

    /// Whether it is ended and all of it was released; if not, the reader will ring.
    pub(crate) fn is_settled_or_asks(&mut self) -> bool {
        let ring = self.journal.tail_mut();
        ring.is_empty() || (!ring.wants_room() && ring.is_empty())
    }

    /// Whether the reader has asked for a bell that is due now.
    pub(crate) fn take_bell(&mut self) -> bool {
        self.journal.tail_mut().take_bell()
    }

    fn flush(&mut self) {
        self.coalescer.flush(mono(), &mut self.journal);
    }
}

impl Tail for ring::Writer {
    fn append(&mut self, parts: [&[u8]; 3], chain: &Chain) {
        let length = parts.iter().map(|part| part.len()).sum();
        let mut room = self.reserve(length).expect("has_room was asked before anything was added");
        for part in parts {
            let (place, rest) = room.split_at_mut(part.len());
            place.copy_from_slice(part);
            room = rest;
        }
        self.commit(length, chain);
    }

    fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX
    }
}
