//! Where the journal's records lie: in the ring, the oldest; then in the spool; then, for the moment, in memory.
//!
//! Once a record had to go behind the ring, all that follow go behind it, until the ring has had them: order is all there is.
//! A reader of the ring knows nothing of it. What waits in memory is little: what one turn of the supervisor's loop
//! brings, and the end of the journal if the disk refuses to take it.

use std::io;

use tailrace_core::chain::Chain;
use tailrace_core::channel::Channel;
use tailrace_core::journal::Tail;
use tailrace_core::ledger::Ledger;

use crate::clock::{Micros, SECOND};
use crate::ring;
use crate::spool::Spool;

/// What stays free in the ring when nothing more is read: room for what waits in the coalescer and for the end of the
/// journal, so that a command can end although nobody takes its output, and whatever the disk says.
pub(crate) const RESERVED_BYTES: usize = 1 << 20;

/// The largest update. Larger ones are refused: several must fit the ring.
const RECORD_BYTES_MAX: usize = 256 << 10;

/// What may wait in memory before more is read.
const BACKLOG_BYTES_MAX: usize = 256 << 10;

/// What one read may become, with some heads of records and of a block.
const READ_ROOM: usize = 384 << 10;

/// How long one waits until a disk that refused is tried again.
const RETRY: Micros = SECOND;

pub(crate) struct Shelf {
    ring: ring::Writer,
    spool: Spool,
    backlog: Vec<u8>,
    /// Behind the last record of the backlog.
    chain: Chain,
    /// What was counted up to the ring's end, while something waits behind it.
    counted: Option<Ledger>,
    /// The offset behind everything.
    end: u64,
    spooling: bool,
    /// The receipt is among the records.
    ended: bool,
    refused: Option<Refused>,
}

/// Why the disk did not take what it was to take, and when it is asked again.
struct Refused {
    why: String,
    until: Micros,
}

impl Shelf {
    /// `spool` holds what goes on where the ring ends, up to `end`.
    pub(crate) fn new(ring: ring::Writer, spool: Spool, end: u64) -> Self {
        Self {
            ring,
            spool,
            backlog: Vec::new(),
            chain: Chain::default(),
            counted: None,
            end,
            spooling: false,
            ended: false,
            refused: None,
        }
    }

    /// Whether records may go to the disk, from now on.
    pub(crate) fn spool(&mut self, on: bool) {
        self.spooling = on;
    }

    /// Whether they may.
    pub(crate) fn is_spooling(&self) -> bool {
        self.spooling
    }

    /// Whether a read, and the `waiting` bytes that were read before it, may be added.
    pub(crate) fn has_room(&mut self, waiting: usize) -> bool {
        if self.is_straight() && self.ring.free() >= RESERVED_BYTES + waiting {
            return true;
        }
        self.spooling && !self.is_full(waiting) && self.backlog.len() + waiting <= BACKLOG_BYTES_MAX
    }

    /// Whether the spool cannot take a read and the `waiting` bytes: it is full, or its disk refuses.
    pub(crate) fn is_full(&self, waiting: usize) -> bool {
        self.refused.is_some() || self.spool.room() < (self.backlog.len() + waiting + READ_ROOM) as u64
    }

    /// Why there is no room, for people.
    pub(crate) fn why_full(&self) -> String {
        self.refused.as_ref().map_or_else(|| "the worker's spool is full".to_owned(), |refused| refused.why.clone())
    }

    /// Moves what waits to where it can go. If some still waits behind the ring, its reader will ring.
    pub(crate) fn tend(&mut self, now: Micros) -> io::Result<()> {
        loop {
            self.refill()?;
            self.put_away(now);
            if self.is_straight() {
                self.end_ring();
                return Ok(());
            }
            if self.ring.wants_room() {
                return Ok(());
            }
        }
    }

    /// When `tend` has something to do that nobody rings for.
    pub(crate) fn deadline(&self) -> Option<Micros> {
        self.wants_disk().then(|| self.refused.as_ref().map_or(0, |refused| refused.until))
    }

    /// The ring of this journal, for what else is to be left there.
    pub(crate) fn ring(&mut self) -> &mut ring::Writer {
        &mut self.ring
    }

    /// No record follows.
    pub(crate) fn finish(&mut self) {
        self.ended = true;
        self.end_ring();
    }

    /// Whether all was released of a journal that is ended; if not, the reader will ring.
    pub(crate) fn is_settled_or_asks(&mut self) -> bool {
        let settled = |shelf: &mut Self| shelf.is_straight() && shelf.ring.is_empty();
        settled(self) || (!self.ring.wants_room() && settled(self))
    }

    /// Asks the reader to ring when it releases something. False: it just did.
    pub(crate) fn wants_room(&mut self) -> bool {
        self.ring.wants_room()
    }

    /// Whether the reader has asked for a bell that is due now.
    pub(crate) fn take_bell(&mut self) -> bool {
        self.ring.take_bell()
    }

    /// Whether nothing waits behind the ring.
    fn is_straight(&self) -> bool {
        self.spool.is_empty() && self.backlog.is_empty()
    }

    fn end_ring(&mut self) {
        if self.ended && self.is_straight() {
            self.ring.finish();
        }
    }

    /// What must stay free in the ring behind what is put there.
    fn reserve(&self) -> usize {
        if self.ended { 0 } else { RESERVED_BYTES }
    }

    fn fits(&mut self, length: usize) -> bool {
        // What does not fit beside the reserve must fit alone.
        self.ring.free() >= length + self.reserve() || (self.ring.is_empty() && length <= self.ring.capacity())
    }

    fn refill(&mut self) -> io::Result<()> {
        while let Some(head) = self.spool.next()? {
            if !self.fits(head.length) {
                return Ok(());
            }
            let spool = &self.spool;
            put(&mut self.ring, &mut self.counted, head.length, &head.chain, |place| spool.read(&head, place))?;
            self.spool.consume(&head);
        }
        let length = self.backlog.len();
        if length > 0 && self.fits(length) {
            let backlog = self.backlog.as_slice();
            put(&mut self.ring, &mut self.counted, length, &self.chain, |place| {
                place.copy_from_slice(backlog);
                Ok(())
            })?;
            self.backlog.clear();
            self.refused = None;
        }
        if self.is_straight() {
            self.counted = None;
        }
        Ok(())
    }

    fn wants_disk(&self) -> bool {
        let length = self.backlog.len();
        length > 0 && (self.spooling || !self.spool.is_empty()) && self.spool.room() >= length as u64
    }

    /// Writes the backlog to the spool.
    fn put_away(&mut self, now: Micros) {
        if !self.wants_disk() || self.refused.as_ref().is_some_and(|refused| now < refused.until) {
            return;
        }
        match self.spool.append(&self.backlog, self.end - self.backlog.len() as u64, &self.chain) {
            Ok(()) => {
                self.backlog.clear();
                self.refused = None;
            }
            Err(error) => {
                let error = error.to_string();
                // The number is in what the standard library says, and is of no use to anyone.
                let what = error.split(" (os error").next().unwrap_or_default();
                self.refused = Some(Refused { why: format!("the worker's spool: {what}"), until: now + RETRY });
            }
        }
    }
}

/// Puts whole records into the ring, in which they fit; `counted` is what was counted up to its end.
fn put(
    ring: &mut ring::Writer,
    counted: &mut Option<Ledger>,
    length: usize,
    chain: &Chain,
    fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let counted = counted.get_or_insert_with(|| ring.counted());
    let Some(place) = ring.reserve(length) else { return Ok(()) };
    fill(place)?;
    // Every record was counted when it was made, and comes back as it was. Should it not, at least nothing stops for it.
    if counted.add(place).is_ok() {
        ring.count_all(counted);
    }
    ring.commit(length, chain);
    Ok(())
}

impl Tail for Shelf {
    fn append(&mut self, parts: [&[u8]; 3], channel: Option<Channel<'_>>, ledger: &Ledger) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        self.end = ledger.offset();
        let chain = Chain::from(*ledger.chain());
        let reserve = if self.spooling { RESERVED_BYTES } else { 0 };
        let straight = self.is_straight() && self.ring.free() >= length + reserve;
        let Some(mut room) = straight.then(|| self.ring.reserve(length)).flatten() else {
            parts.iter().for_each(|part| self.backlog.extend_from_slice(part));
            self.chain = chain;
            return;
        };
        for part in parts {
            let (place, rest) = room.split_at_mut(part.len());
            place.copy_from_slice(part);
            room = rest;
        }
        self.ring.count(ledger, channel);
        self.ring.commit(length, &chain);
    }

    fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX
    }
}
