//! What the writer of a log and its readers share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::directory::Directory;
use crate::error::StoreError;
use crate::format::{Gap, State};
use crate::index::Index;

/// A run's log as it stands now. Readers look, one writer moves it on.
#[derive(Debug)]
pub(crate) struct Live {
    pub directory: Directory,
    now: Mutex<Now>,
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
        Self { directory, now: Mutex::new(now) }
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
