//! What the writer of a log and its readers share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::directory::Directory;
use crate::error::StoreError;
use crate::format::{Gap, State};
use crate::index::Index;

/// A run's log as it stands now. Readers look, one writer moves it on.
#[derive(Debug)]
pub(crate) struct Live {
    pub directory: Directory,
    now: Mutex<Now>,
    recent: Mutex<Recent>,
    /// How many readers there are. Who syncs has the log too, for a moment, and reads nothing.
    readers: AtomicUsize,
}

/// What a writer shows of itself, and one reader: from more on, readers share what they read.
const ALONE: usize = 2;

/// What is kept of the blocks that were read last, by whomever.
const RECENT_BYTES: usize = 4 << 20;

/// Blocks that were read last, for the other readers of the same log: a thousand that follow it are about at the same place,
/// read each block once, and hold it once.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The offset of the first record, and the records. What stands before a log's end does not change any more.
    blocks: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

/// How far the log goes.
#[derive(Debug, Default)]
pub(crate) struct Now {
    /// Behind the last record.
    pub end: State,
    /// Where segments begin, rising.
    pub starts: Vec<u64>,
    /// The segment that is being written.
    pub active: Option<Active>,
    /// Where the next record begins, and why not at `end`, if it does not.
    pub ahead: Option<(State, Gap)>,
    /// Why nothing can become safe any more.
    pub failed: Option<String>,
}

/// A segment that has no index in its file yet.
#[derive(Debug)]
pub(crate) struct Active {
    /// Its first offset.
    pub start: u64,
    /// Its good bytes: what is behind them is still being written.
    pub file_end: u64,
    /// Marks over its blocks.
    pub index: Index,
}

impl Live {
    pub(crate) fn new(directory: Directory, now: Now) -> Self {
        Self { directory, now: Mutex::new(now), recent: Mutex::default(), readers: AtomicUsize::new(0) }
    }

    /// One reader more.
    pub(crate) fn enter(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    /// One less. Who is alone then keeps nothing for others.
    pub(crate) fn leave(&self) {
        if self.readers.fetch_sub(1, Ordering::Relaxed) <= ALONE + 1 {
            self.recent().clear();
        }
    }

    /// Whether readers share what they read.
    pub(crate) fn is_shared(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > ALONE
    }

    /// Held for moments only, never over I/O.
    pub(crate) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for moments only, never over I/O.
    pub(crate) fn now(&self) -> MutexGuard<'_, Now> {
        // Every change is made at once, so a panic elsewhere left nothing half done.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    /// The state before the next record.
    pub(crate) fn next(&self) -> &State {
        self.ahead.as_ref().map_or(&self.end, |(state, _)| state)
    }

    /// Refuses if nothing can become safe any more.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(StoreError::Failed(why.clone())))
    }

    /// The active segment, if it is this one.
    pub(crate) fn active(&self, start: u64) -> Option<&Active> {
        self.active.as_ref().filter(|active| active.start == start)
    }
}

impl Recent {
    /// The block that holds `offset`, if it is still here: where it begins, and its records.
    pub(crate) fn find(&self, offset: u64) -> Option<(u64, Bytes)> {
        // Who follows is near the end.
        let holds = |(begin, records): &&(u64, Bytes)| {
            offset.checked_sub(*begin).is_some_and(|skip| skip < records.len() as u64)
        };
        self.blocks.iter().rev().find(holds).cloned()
    }

    /// Keeps a block for the others. The oldest make room.
    pub(crate) fn keep(&mut self, begin: u64, records: &Bytes) {
        if self.find(begin).is_some() {
            return;
        }
        self.bytes += records.len();
        self.blocks.push_back((begin, records.clone()));
        while self.bytes > RECENT_BYTES
            && let Some((_, oldest)) = self.blocks.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// Nobody else reads any more.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
