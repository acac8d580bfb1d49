//! A journal in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Mark, Source, Tail, Writer};
use crate::chain::Chain;
use crate::channel::Channel;
use crate::error::{ProtocolError, UsageError};
use crate::ledger::Ledger;
use crate::limits::LOG_DATA_BYTES_MAX;
use crate::line::{count_newlines, is_partial};
use crate::record::{Head, Run};

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
/// What is appended piece by piece goes together up to here.
const SEGMENT_BYTES: usize = 64 << 10;

/// The bytes that were not released, and the chain at some boundaries in them.
///
/// They lie in segments of whole records. One that is wanted whole is shared, not copied: so what arrived together is best
/// one segment, however large, and is written to where it stays.
#[derive(Debug, Default)]
pub struct Kept {
    /// Segments that do not change any more, each with the offset of its first byte.
    sealed: VecDeque<(u64, Bytes)>,
    /// The last segment, which grows.
    open: Vec<u8>,
    end: u64,
    marks: VecDeque<Mark>,
}

impl Tail for Kept {
    fn append(&mut self, parts: [&[u8]; 3], _channel: Option<Channel<'_>>, ledger: &Ledger) {
        self.expect(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.open.extend_from_slice(part);
        }
        self.grown(ledger);
    }
}

impl Kept {
    /// So many bytes are about to be appended: they are to lie together.
    fn expect(&mut self, bytes: usize) {
        if self.open.len() + bytes > self.open.capacity().max(SEGMENT_BYTES) {
            self.seal();
        }
        if bytes > SEGMENT_BYTES {
            self.open.reserve_exact(bytes);
        }
    }

    fn grown(&mut self, ledger: &Ledger) {
        self.end = ledger.offset();
        if self.end - self.marks.back().map_or(0, |(at, _)| *at) >= MARK_BYTES {
            self.marks.push_back((self.end, Chain::from(*ledger.chain())));
        }
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            let begin = self.open_begin();
            self.sealed.push_back((begin, Bytes::from(std::mem::take(&mut self.open))));
        }
    }

    fn open_begin(&self) -> u64 {
        self.end - self.open.len() as u64
    }

    /// The last segment, if it begins here.
    fn last_segment(&mut self, offset: u64, max: usize) -> Option<Bytes> {
        if offset == self.open_begin() && self.open.len() <= max {
            self.seal();
        }
        let (begin, bytes) = self.sealed.back().filter(|_| self.open.is_empty())?;
        (*begin == offset && bytes.len() <= max).then(|| bytes.clone())
    }

    /// The bytes from `offset` on, segment by segment.
    fn from(&self, offset: u64) -> impl Iterator<Item = &[u8]> {
        let first = self.sealed.partition_point(|(begin, _)| *begin <= offset).saturating_sub(1);
        let sealed = self.sealed.iter().skip(first).map(|(begin, bytes)| (*begin, bytes.as_ref()));
        sealed.chain([(self.open_begin(), self.open.as_slice())]).filter_map(move |(begin, bytes)| {
            let skip = usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX);
            bytes.get(skip..).filter(|rest| !rest.is_empty())
        })
    }

    /// Nobody needs what stands before `begin`. A segment goes as a whole.
    fn forget(&mut self, begin: u64) {
        while self.sealed.front().is_some_and(|(at, bytes)| at + bytes.len() as u64 <= begin) {
            self.sealed.pop_front();
        }
        while self.marks.front().is_some_and(|(at, _)| *at < begin) {
            self.marks.pop_front();
        }
        if begin == self.end {
            // What was needed once is not held on to.
            *self = Self { end: self.end, ..Self::default() };
        }
    }
}

impl Writer<Kept> {
    /// Appends bytes of channels that came together and are best taken together, each in any number of pieces, as
    /// [`Writer::log`] would each channel's as a whole.
    pub fn gather<'a>(
        &mut self,
        texts: impl Iterator<Item = (Channel<'a>, &'a [Bytes])> + Clone,
        wall_us: u64,
        mono_us: u64,
    ) -> Result<(), UsageError> {
        self.check_open()?;
        let sizes = texts.clone().map(|(_, pieces)| {
            let bytes = pieces.iter().map(Bytes::len).sum::<usize>();
            bytes + bytes.div_ceil(LOG_DATA_BYTES_MAX) * Head::bytes_max(1)
        });
        self.tail.expect(sizes.sum());
        for (channel, pieces) in texts {
            for parts in Gathered::new(pieces) {
                self.gathered(channel, &parts, wall_us, mono_us);
            }
        }
        Ok(())
    }

    /// One record.
    fn gathered(&mut self, channel: Channel<'_>, parts: &[&[u8]], wall_us: u64, mono_us: u64) {
        let Some(last) = parts.last() else { return };
        let continues = self.ledger.is_inside_line(channel);
        let newlines = parts.iter().map(|part| count_newlines(part)).sum::<usize>() as u64;
        // As `lines_begun` counts them.
        let run = Run { lines: newlines + u64::from(!continues) - u64::from(!is_partial(last)), at_us: 0 };
        let head = Head {
            channel,
            continues,
            partial: is_partial(last),
            wall_us,
            mono_us,
            runs: if run.lines > 0 { std::slice::from_ref(&run) } else { &[] },
            data_bytes: parts.iter().map(|part| part.len()).sum(),
        };
        let at = self.tail.open.len();
        head.encode(&mut self.tail.open);
        for part in parts {
            self.tail.open.extend_from_slice(part);
        }
        self.ledger.add_own_log(&head, [self.tail.open.get(at..).unwrap_or_default()]);
        self.tail.grown(&self.ledger);
    }
}

/// Pieces, put together to at most what one record holds. None is empty.
struct Gathered<'a> {
    pieces: &'a [Bytes],
    /// How much of the first one was given out.
    skip: usize,
}

impl<'a> Gathered<'a> {
    const fn new(pieces: &'a [Bytes]) -> Self {
        Self { pieces, skip: 0 }
    }
}

impl<'a> Iterator for Gathered<'a> {
    type Item = Vec<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut parts, mut room) = (Vec::new(), LOG_DATA_BYTES_MAX);
        while let Some((first, rest)) = self.pieces.split_first().filter(|_| room > 0) {
            let left = first.get(self.skip..).unwrap_or_default();
            let part = left.get(..room).unwrap_or(left);
            if part.len() < left.len() {
                self.skip += part.len();
            } else {
                (self.pieces, self.skip) = (rest, 0);
            }
            if !part.is_empty() {
                room -= part.len();
                parts.push(part);
            }
        }
        (!parts.is_empty()).then_some(parts)
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

    /// The whole records from `offset` on, as [`Source::copy_records`](dyn Source::copy_records) has them, and without a copy
    /// where they arrived together.
    pub fn records(&self, offset: u64, max: usize) -> Result<Bytes, ProtocolError> {
        if let Some(segment) = self.lock().writer.tail.last_segment(offset, max) {
            return Ok(segment);
        }
        (self as &dyn Source).copy_records(offset, max).map(Bytes::from)
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
        if offset < memory.begin.0 {
            return 0;
        }
        let mut count = 0;
        for part in memory.writer.tail.from(offset) {
            let part = part.get(..max - count).unwrap_or(part);
            if part.is_empty() {
                break;
            }
            sink(part);
            count += part.len();
        }
        count
    }

    fn release(&self, offset: u64) -> bool {
        let source: &dyn Source = self;
        let boundary = source.boundary(offset.min(self.end()));
        let memory = &mut *self.lock();
        // Another thread may have released more meanwhile.
        if let Some(boundary) = boundary.filter(|(at, _)| *at > memory.begin.0) {
            memory.begin = boundary;
            memory.writer.tail.forget(boundary.0);
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
