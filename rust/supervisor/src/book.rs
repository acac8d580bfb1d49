//! The command's journal as the supervisor writes it: bytes are coalesced, become records, are chained, and go to the shelf.

use std::io;

use tailrace_core::channel::Channel;
use tailrace_core::coalesce::Coalescer;
use tailrace_core::error::UsageError;
use tailrace_core::journal;
use tailrace_core::ledger::Ledger;
use tailrace_core::record::Gap;
use tailrace_core::value::Value;

use crate::clock::{Micros, mono, wall};
use crate::ring::Identity;
use crate::shelf::{RESERVED_BYTES, Shelf};

/// How much is read or added at a time.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// The smallest ring in which there is room to write.
pub(crate) const RING_BYTES_MIN: usize = 2 * RESERVED_BYTES;

/// What is done when the spool is full, or its disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// The child waits.
    Wait,
    /// It writes on, and a gap says how much of that was dropped.
    Gap,
}

pub(crate) struct Book {
    journal: journal::Writer<Shelf>,
    coalescer: Coalescer,
    when_full: WhenFull,
    dropped: Vec<Dropped>,
}

/// A run of bytes of one channel that were read and dropped.
struct Dropped {
    kind: u8,
    name: String,
    bytes: u64,
    lines: u64,
    why: String,
}

impl Dropped {
    fn channel(&self) -> Channel<'_> {
        Channel::of_kind(self.kind, &self.name).unwrap_or(Channel::Header)
    }
}

impl Book {
    /// One that goes on behind what `ledger` has counted.
    pub(crate) fn new(shelf: Shelf, ledger: Ledger, when_full: WhenFull) -> Self {
        let journal = journal::Writer::resume(shelf, ledger);
        Self { journal, coalescer: Coalescer::new(), when_full, dropped: Vec::new() }
    }

    /// One that a supervisor takes over from a dead one: it gets its end, if it has none, with this (type, text).
    pub(crate) fn inherit(mut shelf: Shelf, ledger: Ledger, when_full: WhenFull, failure: (&str, &str)) -> Self {
        if ledger.is_ended() {
            shelf.finish();
        }
        let mut book = Self::new(shelf, ledger, when_full);
        if !book.is_over() {
            // This cannot fail: the journal is open, and what is said is short.
            let _ = book.finish(Some(failure));
        }
        book
    }

    /// Whether what has no room in the ring may go to the disk, from now on.
    pub(crate) fn spool(&mut self, on: bool) {
        self.journal.tail_mut().spool(on);
    }

    /// Whether the daemon has said whose command this is.
    pub(crate) fn is_labelled(&mut self) -> bool {
        self.journal.tail_mut().ring().is_labelled()
    }

    /// How long the journal is.
    pub(crate) fn length(&self) -> u64 {
        self.journal.ledger().offset()
    }

    /// Leaves word, for who may have to clean up, which child runs.
    pub(crate) fn note_child(&mut self, process: Identity) {
        self.journal.tail_mut().ring().set_child(process);
    }

    /// Moves what waits behind the ring to where it can go.
    pub(crate) fn tend(&mut self, now: Micros) -> io::Result<()> {
        self.journal.tail_mut().tend(now)
    }

    /// Whether `READ_BYTES` more may be added.
    pub(crate) fn has_room(&mut self) -> bool {
        self.journal.tail_mut().has_room(self.coalescer.waiting())
    }

    /// As `has_room`; if there is none, the reader will ring when it has released something.
    pub(crate) fn has_room_or_asks(&mut self) -> bool {
        self.has_room() || (!self.journal.tail_mut().wants_room() && self.has_room())
    }

    /// Whether a child's output may be read: there is room for it, or it may be dropped.
    pub(crate) fn takes_output(&mut self) -> bool {
        self.has_room() || self.drops()
    }

    /// As `takes_output`; if not, the reader will ring when it has released something.
    pub(crate) fn takes_output_or_asks(&mut self) -> bool {
        self.has_room_or_asks() || self.drops()
    }

    /// Whether what is read now is dropped, if there is no room for it.
    fn drops(&self) -> bool {
        let shelf = self.journal.tail();
        self.when_full == WhenFull::Gap && shelf.is_spooling() && shelf.is_full(self.coalescer.waiting())
    }

    /// Adds what was read of a channel now.
    pub(crate) fn push(&mut self, channel: Channel<'_>, data: &[u8]) {
        self.write_gaps();
        self.coalescer.push(channel, data, wall(), mono(), &mut self.journal);
    }

    /// As `push`, for what a child writes, when `takes_output` was so: without room it is dropped.
    pub(crate) fn push_output(&mut self, channel: Channel<'_>, data: &[u8]) {
        if self.drops() && !self.has_room() {
            self.flush();
            self.drop_output(channel, data);
        } else {
            self.push(channel, data);
        }
    }

    fn drop_output(&mut self, channel: Channel<'_>, data: &[u8]) {
        let lines = self.coalescer.skip(channel, data);
        if let Some(run) = self.dropped.iter_mut().find(|run| run.channel() == channel) {
            run.bytes += data.len() as u64;
            run.lines += lines;
            return;
        }
        let (kind, name) = (channel.kind(), channel.name().unwrap_or_default().to_owned());
        let why = self.journal.tail().why_full();
        self.dropped.push(Dropped { kind, name, bytes: data.len() as u64, lines, why });
    }

    /// Before anything else is written, what was dropped says so.
    fn write_gaps(&mut self) {
        for run in std::mem::take(&mut self.dropped) {
            // Only behind the end of the journal it cannot be; then nothing was read.
            let gap = Gap { channel: run.channel(), bytes: run.bytes, lines: run.lines, reason: &run.why };
            let _ = self.journal.gap(&gap);
        }
    }

    /// When there is something to do for `poll`, or for `tend`.
    pub(crate) fn deadline(&self) -> Option<Micros> {
        [self.coalescer.deadline(), self.journal.tail().deadline()].into_iter().flatten().min()
    }

    /// Passes on what has waited long enough.
    pub(crate) fn poll(&mut self, now: Micros) {
        self.coalescer.poll(now, &mut self.journal);
    }

    /// Adds structured results.
    pub(crate) fn update(&mut self, values: &Value) -> Result<(), UsageError> {
        self.flush();
        self.write_gaps();
        self.journal.update(values)
    }

    /// Says that bytes of a channel are missing.
    pub(crate) fn gap(&mut self, channel: Channel<'_>, bytes: u64, lines: u64, reason: &str) -> Result<(), UsageError> {
        self.flush();
        self.write_gaps();
        self.journal.gap(&Gap { channel, bytes, lines, reason })
    }

    /// Ends the journal.
    pub(crate) fn finish(&mut self, failure: Option<(&str, &str)>) -> Result<(), UsageError> {
        self.flush();
        self.write_gaps();
        if self.journal.ledger().is_complete() && !self.is_over() {
            self.journal.receipt()?;
        } else {
            self.journal.finish(failure)?;
        }
        self.journal.tail_mut().finish();
        Ok(())
    }

    /// Whether the journal is ended.
    pub(crate) fn is_over(&self) -> bool {
        self.journal.ledger().is_ended()
    }

    /// Whether it is ended and all of it was released; if not, the reader will ring.
    pub(crate) fn is_settled_or_asks(&mut self) -> bool {
        self.journal.tail_mut().is_settled_or_asks()
    }

    /// Whether the reader has asked for a bell that is due now.
    pub(crate) fn take_bell(&mut self) -> bool {
        self.journal.tail_mut().take_bell()
    }

    fn flush(&mut self) {
        self.coalescer.flush(mono(), &mut self.journal);
    }
}

#[cfg(test)]
mod tests;
