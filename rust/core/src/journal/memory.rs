//! A journal in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Mark, Source, Tail, Writer};
use crate::chain::Chain;
use crate::channel::Channel;
use crate::ledger::Ledger;

/// A journal in memory, for commands that have no child. Its owner bounds it by what it appends before a release.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    writer: Writer<Kept>,
    /// Where the bytes begin.
    begin: Mark,
}

/// How far marks are apart: a chain is found by hashing no more than that, and one record.
const MARK_BYTES: u64 = 4096;

/// The bytes that were not released, and the chain at some boundaries in them.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: VecDeque<u8>,
    end: u64,
    marks: VecDeque<Mark>,
}

impl Tail for Kept {
    fn append(&mut self, parts: [&[u8]; 3], _channel: Option<Channel<'_>>, ledger: &Ledger) {
        for part in parts {
            self.bytes.extend(part);
            self.end += part.len() as u64;
        }
        if self.end - self.marks.back().map_or(0, |(at, _)| *at) >= MARK_BYTES {
            self.marks.push_back((self.end, Chain::from(*ledger.chain())));
        }
    }
}

impl MemoryJournal {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends by `write`.
    pub fn write<R>(&self, write: impl FnOnce(&mut Writer<Kept>) -> R) -> R {
        write(&mut self.lock().writer)
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for MemoryJournal {
    fn begin(&self) -> u64 {
        self.lock().begin.0
    }

    fn end(&self) -> u64 {
        self.lock().writer.ledger.offset()
    }

    fn ended(&self) -> bool {
        self.lock().writer.ledger.is_ended()
    }

    fn read(&self, offset: u64, max: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let memory = self.lock();
        let bytes = &memory.writer.tail.bytes;
        let Some(skip) = offset.checked_sub(memory.begin.0).and_then(|skip| usize::try_from(skip).ok()) else {
            return 0;
        };
        if skip >= bytes.len() {
            return 0;
        }
        let (first, second) = bytes.as_slices();
        let in_first = first.get(skip..).unwrap_or_default();
        let in_second = second.get(skip.saturating_sub(first.len())..).unwrap_or_default();
        let mut count = 0;
        for part in [in_first, in_second] {
            let part = part.get(..part.len().min(max - count)).unwrap_or_default();
            if !part.is_empty() {
                sink(part);
                count += part.len();
            }
        }
        count
    }

    fn lend(self: Arc<Self>, offset: u64, max: usize) -> Bytes {
        let mut piece = Vec::with_capacity(max);
        self.read(offset, max, &mut |part| piece.extend_from_slice(part));
        Bytes::from(piece)
    }

    fn release(&self, offset: u64) -> bool {
        let source: &dyn Source = self;
        let boundary = source.boundary(offset.min(self.end()));
        let memory = &mut *self.lock();
        // Another thread may have released more meanwhile.
        if let Some(boundary) = boundary.filter(|(at, _)| *at > memory.begin.0) {
            let kept = &mut memory.writer.tail;
            kept.bytes.drain(..(boundary.0 - memory.begin.0) as usize);
            memory.begin = boundary;
            while kept.marks.front().is_some_and(|(at, _)| *at < boundary.0) {
                kept.marks.pop_front();
            }
            if kept.bytes.is_empty() {
                // What was needed once is not held on to.
                (kept.bytes, kept.marks) = (VecDeque::new(), VecDeque::new());
            }
        }
        false
    }

    fn mark(&self, offset: u64) -> Option<Mark> {
        let memory = self.lock();
        let marks = &memory.writer.tail.marks;
        let nearest = marks.partition_point(|(at, _)| *at <= offset).checked_sub(1).and_then(|index| marks.get(index));
        Some(nearest.copied().unwrap_or(memory.begin)).filter(|(at, _)| *at <= offset)
    }
}
