//! Calls of both sides and their answers (PROTOCOL.md section 4), and pings, which are counted alike (section 8).

use std::collections::{BTreeSet, VecDeque};

use crate::error::{ProtocolError, UsageError};
use crate::limits::{CALLS_MAX, PINGS_MAX};

/// What was asked and not answered yet.
#[derive(Debug, Default)]
pub(super) struct Calls {
    ours: BTreeSet<u64>,
    ours_next: u64,
    theirs: BTreeSet<u64>,
    theirs_next: u64,
    /// Numbers of the peer that were passed over: large calls are overtaken by small ones.
    theirs_late: BTreeSet<u64>,
    pings: VecDeque<u64>,
    /// Answers to the peer's calls that wait to be sent: for the peer these calls are open still.
    answers: usize,
    /// Pongs that wait to be sent.
    pongs: usize,
}

impl Calls {
    /// The number of our next call. `begin` makes it one.
    pub(super) fn next(&self) -> Result<u64, UsageError> {
        if self.ours.len() < CALLS_MAX {
            return Ok(self.ours_next);
        }
        Err(UsageError(format!("{CALLS_MAX} calls wait for an answer already")))
    }

    pub(super) fn begin(&mut self, call: u64) {
        self.ours.insert(call);
        self.ours_next = call + 1;
    }

    /// Our call was answered, or will never be.
    pub(super) fn answered(&mut self, call: u64) -> Result<(), ProtocolError> {
        if self.ours.remove(&call) {
            return Ok(());
        }
        Err(ProtocolError::new(4, format!("an answer to call {call}, which does not wait for one")))
    }

    /// The peer calls.
    pub(super) fn called(&mut self, call: u64) -> Result<(), ProtocolError> {
        if call >= self.theirs_next {
            if call - self.theirs_next > CALLS_MAX as u64 {
                return Err(ProtocolError::new(4, format!("call {call} after call {}", self.theirs_next)));
            }
            self.theirs_late.extend(self.theirs_next..call);
            self.theirs_next = call + 1;
        } else if !self.theirs_late.remove(&call) {
            return Err(ProtocolError::new(4, format!("call {call} for the second time")));
        }
        self.theirs.insert(call);
        if self.theirs.len() + self.theirs_late.len() + self.answers <= CALLS_MAX {
            return Ok(());
        }
        Err(ProtocolError::new(4, format!("more than {CALLS_MAX} calls without an answer")))
    }

    /// Whether `call` waits for our answer.
    pub(super) fn waits(&self, call: u64) -> Result<(), UsageError> {
        if self.theirs.contains(&call) {
            return Ok(());
        }
        Err(UsageError(format!("call {call} does not wait for an answer")))
    }

    /// The answer to `call` was queued.
    pub(super) fn answer(&mut self, call: u64) {
        self.theirs.remove(&call);
        self.answers += 1;
    }

    /// What was queued is on its way.
    pub(super) fn sent(&mut self) {
        (self.answers, self.pongs) = (0, 0);
    }

    pub(super) fn ping(&mut self, nonce: u64) -> Result<(), UsageError> {
        if self.pings.len() >= PINGS_MAX {
            return Err(UsageError(format!("{PINGS_MAX} pings wait for an answer already")));
        }
        self.pings.push_back(nonce);
        Ok(())
    }

    pub(super) fn pinged(&mut self) -> Result<(), ProtocolError> {
        self.pongs += 1;
        if self.pongs <= PINGS_MAX {
            return Ok(());
        }
        Err(ProtocolError::new(8, format!("more than {PINGS_MAX} pings without an answer")))
    }

    pub(super) fn ponged(&mut self, nonce: u64) -> Result<(), ProtocolError> {
        if self.pings.front() == Some(&nonce) {
            self.pings.pop_front();
            return Ok(());
        }
        Err(ProtocolError::new(8, format!("a pong with the nonce {nonce}, which is not the oldest ping's")))
    }

    /// Calls of both sides that wait for an answer.
    pub(super) fn open(&self) -> usize {
        self.ours.len() + self.theirs.len()
    }
}
