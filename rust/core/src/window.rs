//! Credit (PROTOCOL.md section 5, "Credit"): the only arithmetic on it.
//!
//! All numbers are absolute: offsets of a stream, or sums over a connection. A sender has a [`SendWindow`] per stream and one
//! for the connection. A receiver has a [`ReceiveWindow`] per stream, one [`ConnectionWindow`], and a [`Pool`].
//!
//! **Why a pool.** Consumers may stall: a page that nobody scrolls, a disk that is full. Their streams must not eat the
//! connection's window, or every other stream stops too. So a stream starts with a small *floor* that is too little to matter,
//! and what it holds beyond that comes out of half the connection's window, the pool, of which one stream may hold no more
//! than what it leaves free (dynamic thresholds, as in switches with a shared buffer: n greedy streams hold 1/(n+1) each, and
//! something is always left for the next one). The window of a stream grows with what arrives, so that silent streams hold
//! nothing but their floor.
//!
//! **Large records.** A record can be larger than all of this, and is of no use before it is whole. Its missing bytes are lent:
//! beyond the stream's window and the connection's, from a budget that a peer cannot raise.

use crate::error::{ProtocolError, UsageError};
use crate::limits::{LENT_BYTES_MAX, OPEN_COST, UNTOLD_BYTES_MAX};
use crate::varint;

/// A stream starts with this part of the connection's window: half of it is left when 256 streams stall at once.
const FLOOR_PART: u64 = 512;

/// Credit is given in lumps of these parts of a window: to a stream whose receiver is behind, where more that is under way only
/// waits longer, and is lost with the connection; and to one that is taken as it comes, where on a long line all of a window is
/// under way only if lumps are small.
const LUMP_PARTS: (u64, u64) = (2, 4);

/// How many bytes a stream may have under way for each byte that arrived: the window of a busy stream opens within a few
/// round trips, that of a silent one not at all.
const GROWTH: u64 = 4;

/// How far we may send, in a stream or on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendWindow {
    sent: u64,
    limit: u64,
}

impl SendWindow {
    /// A window that begins at `start` and lets `size` bytes pass.
    pub fn new(start: u64, size: u64) -> Self {
        Self { sent: start, limit: cap(start, size) }
    }

    /// Up to which offset was sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The limit that the peer stated last.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How much may be sent now.
    pub fn available(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    /// Takes credit for `n` bytes. False: there is not that much, and nothing was taken.
    #[must_use]
    pub fn take(&mut self, n: u64) -> bool {
        let enough = n <= self.available();
        if enough {
            self.sent += n;
        }
        enough
    }

    /// The peer states a limit. False: it is lower than one before, and nothing was changed.
    #[must_use]
    pub fn raise(&mut self, limit: u64) -> bool {
        let higher = limit >= self.limit;
        self.limit = self.limit.max(limit);
        higher
    }
}

/// What a receiver tells of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Up to which offset it was taken.
    pub next: u64,
    /// Up to which offset it is safe.
    pub durable: u64,
    /// Up to which offset the peer may send.
    pub limit: u64,
}

/// How far the peer may send in one stream.
#[derive(Debug, Clone)]
pub struct ReceiveWindow {
    start: u64,
    arrived: u64,
    now: Told,
    told: Told,
    lent: u64,
    finished: bool,
}

impl ReceiveWindow {
    /// A window that begins at `start` with the limit that our hello promised.
    pub fn new(start: u64, floor: u64) -> Self {
        // What came before `start` was taken, but what of it is safe our side has to state anew.
        let now = Told { next: start, durable: 0, limit: cap(start, floor) };
        Self { start, arrived: start, now, told: now, lent: 0, finished: false }
    }

    /// Up to which offset bytes have arrived.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// What the peer is to know.
    pub fn now(&self) -> Told {
        self.now
    }

    /// Bytes that arrived and were not settled.
    pub fn unsettled(&self) -> u64 {
        self.arrived - self.now.next
    }

    /// Bytes that may still arrive.
    pub fn available(&self) -> u64 {
        self.told.limit - self.arrived
    }

    /// Bytes that are lent to it.
    pub fn lent(&self) -> u64 {
        self.lent
    }

    /// `n` bytes arrive.
    pub fn arrive(&mut self, n: u64) -> Result<(), ProtocolError> {
        match self.arrived.checked_add(n) {
            Some(arrived) if arrived <= self.told.limit => {
                self.arrived = arrived;
                Ok(())
            }
            _ => Err(ProtocolError::new(
                5,
                format!("{n} bytes at {}, beyond the limit {}", self.arrived, self.told.limit),
            )),
        }
    }

    /// Our side has taken the bytes before `next`, and has those before `durable` safe. Says how many were newly taken.
    pub fn settle(&mut self, next: u64, durable: u64, taken: u64) -> Result<u64, UsageError> {
        let Told { next: next_before, durable: durable_before, .. } = self.now;
        if next < next_before || durable < durable_before {
            return Err(UsageError(format!("settled back from {next_before}, {durable_before} to {next}, {durable}")));
        }
        if durable > next || next > taken {
            return Err(UsageError(format!("settled {next} and durable {durable} of {taken} that were taken")));
        }
        (self.now.next, self.now.durable) = (next, durable);
        Ok(next - next_before)
    }

    /// Lets the peer have up to `size` bytes beyond what was taken, if that makes a lump.
    pub fn grant(&mut self, size: u64) {
        let limit = cap(self.now.next, size);
        let part = if self.unsettled() > size / 8 { LUMP_PARTS.0 } else { LUMP_PARTS.1 };
        if !self.finished && limit.saturating_sub(self.now.limit) >= size.div_ceil(part) {
            self.now.limit = limit;
        }
    }

    /// How large this stream's window may be: the floor, and beyond it what its traffic warrants and the pool has.
    pub fn size(&self, floor: u64, window: u64, pool: &Pool) -> u64 {
        let warranted = (self.arrived - self.start).saturating_mul(GROWTH);
        let beyond = warranted.min(pool.share(self.pooled(floor))).min(window.saturating_sub(floor));
        floor + beyond
    }

    /// What this stream holds of the pool.
    pub fn pooled(&self, floor: u64) -> u64 {
        let end = if self.finished { self.arrived } else { self.now.limit };
        (end - self.now.next).saturating_sub(floor).saturating_sub(self.lent)
    }

    /// What would have to be lent for the record that ends at `end`.
    pub fn missing(&self, end: u64) -> u64 {
        end.saturating_sub(self.now.limit)
    }

    /// Lends what is missing up to `end`.
    pub fn lend(&mut self, end: u64) {
        let missing = self.missing(end);
        self.lent += missing;
        self.now.limit += missing;
    }

    /// Takes back what was lent, as far as the peer could send as much with a window of `size`. Says how much.
    pub fn repay(&mut self, size: u64) -> u64 {
        let beyond = self.now.limit.saturating_sub(cap(self.now.next, size));
        let repaid = self.lent.saturating_sub(beyond);
        self.lent -= repaid;
        repaid
    }

    /// Nothing more will arrive, and nothing is lent to what does not come. Says how much was.
    pub fn finish(&mut self) -> u64 {
        self.finished = true;
        self.now.limit = self.told.limit;
        std::mem::take(&mut self.lent)
    }

    /// Whether a WINDOW is due: a higher limit at once (grants are lumps), the rest when nothing is left to take.
    pub fn is_due(&self, drained: bool) -> bool {
        self.now.limit > self.told.limit || (drained && self.now != self.told)
    }

    /// Whether a WINDOW that is due may wait until something else is sent: the peer has more than half left of what the last one
    /// let through, and knows of almost all that was taken and is safe.
    pub fn can_wait(&self) -> bool {
        let untold = (self.now.next - self.told.next).max(self.now.durable - self.told.durable);
        let let_through = self.told.limit - self.told.next;
        untold < UNTOLD_BYTES_MAX && self.available() > let_through / 2
    }

    /// The numbers for a WINDOW that is sent now.
    pub fn tell(&mut self) -> Told {
        self.told = self.now;
        self.now
    }
}

/// How far the peer may send, all streams together.
#[derive(Debug, Clone)]
pub struct ConnectionWindow {
    window: u64,
    arrived: u64,
    settled: u64,
    limit: u64,
    lent: u64,
}

impl ConnectionWindow {
    /// The window that our hello promised.
    pub fn new(window: u64) -> Self {
        Self { window, arrived: 0, settled: 0, limit: window, lent: 0 }
    }

    /// Bytes that arrived and were not settled.
    pub fn unsettled(&self) -> u64 {
        self.arrived - self.settled
    }

    /// Bytes that may still arrive.
    pub fn available(&self) -> u64 {
        self.limit - self.arrived
    }

    /// Bytes that are lent to streams.
    pub fn lent(&self) -> u64 {
        self.lent
    }

    /// `n` bytes arrive, or an OPEN that costs as much.
    pub fn arrive(&mut self, n: u64) -> Result<(), ProtocolError> {
        match self.arrived.checked_add(n) {
            Some(arrived) if arrived <= self.limit => {
                self.arrived = arrived;
                Ok(())
            }
            _ => Err(ProtocolError::new(5, format!("{n} bytes beyond the connection's limit {}", self.limit))),
        }
    }

    /// An OPEN arrives: it is taken at once, but has to be paid.
    pub fn arrive_open(&mut self) -> Result<(), ProtocolError> {
        self.arrive(OPEN_COST)?;
        self.give_back(OPEN_COST);
        Ok(())
    }

    /// `n` bytes were taken, or dropped.
    pub fn give_back(&mut self, n: u64) {
        self.settled += n;
        debug_assert!(self.settled <= self.arrived);
    }

    /// Lends `n` bytes, if the budget has them.
    #[must_use]
    pub fn lend(&mut self, n: u64) -> bool {
        let enough = self.lent + n <= LENT_BYTES_MAX;
        if enough {
            self.lent += n;
        }
        enough
    }

    /// Takes back what was lent.
    pub fn take_back(&mut self, n: u64) {
        self.lent = self.lent.saturating_sub(n);
    }

    /// The limit to tell now, if a CREDIT is due: when at least half of what could be granted at all would be granted.
    /// Half of the whole window would wait for ever, if stalled streams held the other half.
    pub fn due(&self) -> Option<u64> {
        let limit = cap(self.settled, self.window + self.lent);
        let gain = limit.saturating_sub(self.limit);
        let grantable = limit.saturating_sub(self.arrived);
        (gain > 0 && gain >= grantable.div_ceil(2)).then_some(limit)
    }

    /// A CREDIT with this limit is sent.
    pub fn tell(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }
}

/// What streams may hold of the connection's window beyond their floors.
#[derive(Debug, Clone)]
pub struct Pool {
    size: u64,
    held: u64,
}

impl Pool {
    /// Half of the connection's window.
    pub fn new(connection_window: u64) -> Self {
        Self { size: connection_window / 2, held: 0 }
    }

    /// The most that a stream may hold that holds `own` now: as much as it leaves free.
    pub fn share(&self, own: u64) -> u64 {
        self.size.saturating_sub(self.held.saturating_sub(own)) / 2
    }

    /// A stream's part changes.
    pub fn replace(&mut self, before: u64, after: u64) {
        self.held = self.held.saturating_sub(before) + after;
    }

    /// What all streams hold together.
    pub fn held(&self) -> u64 {
        self.held
    }
}

/// The first limit of a stream, which our hello promises.
pub fn floor(stream_window: u64, connection_window: u64) -> u64 {
    stream_window.min(connection_window / FLOOR_PART).max(1)
}

fn cap(start: u64, size: u64) -> u64 {
    start.saturating_add(size).min(varint::MAX)
}
