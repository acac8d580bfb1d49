//! Reading a log: in order, or from a line, a time or an offset on. Memory for one block at a time.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tailrace_core::record::{self, Record, Records};

use crate::directory::Directory;
use crate::disk::{Disk, Handle, Real};
use crate::error::StoreError;
use crate::format::{Gap, State};
use crate::index::{Index, Mark};
use crate::live::{Active, Live, Now};
use crate::segment::{Block, Segment};
use crate::totals::{Select, Totals};

/// A reader of one run's log. Any number of them may read while one writer appends.
#[derive(Debug)]
pub struct LogReader {
    live: Arc<Live>,
    open: Option<Open>,
    /// The block that is at hand: its offset and its records.
    block: (u64, Bytes),
}

/// Records of one block that are a batch by themselves where readers share: together with the next they would be copied.
const SHARED_BYTES_MIN: usize = 32 << 10;

/// The segment at hand.
#[derive(Debug)]
struct Open {
    start: u64,
    segment: Segment<Handle>,
    marks: Option<(Totals, Index)>,
    /// Where the next block begins: journal offset and position in the file.
    next: (u64, u64),
}

/// Where a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The offset of its record.
    pub offset: u64,
    /// How many lines begin in that record before it.
    pub skip: u64,
}

impl LogReader {
    /// Reads a log that nobody writes to any more, up to its last good record.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(Real), directory)
    }

    /// The same, on another disk.
    pub fn open_on(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, StoreError> {
        let directory = Directory::new(disk, directory);
        let starts = directory.list()?.starts;
        let mut now = Now { starts, ..Now::default() };
        let mut open = None;
        while let Some(&start) = now.starts.last() {
            let mut segment = directory.open(start)?;
            if let Some((end, index)) = segment.index()? {
                open = Some(Open::new(start, segment, Some((end.totals.clone(), index))));
                now.end = end;
                break;
            }
            let scan = segment.scan()?;
            if scan.state.offset > start {
                now.end = scan.state;
                now.active = Some(Active { start, file_end: scan.end, index: scan.index });
                open = Some(Open::new(start, segment, None));
                break;
            }
            // Begun, and nothing more.
            now.starts.pop();
        }
        let mut reader = Self::new(Arc::new(Live::new(directory, now)));
        reader.open = open;
        Ok(reader)
    }

    pub(crate) fn new(live: Arc<Live>) -> Self {
        live.enter();
        Self { live, open: None, block: (0, Bytes::new()) }
    }

    /// One more reader of the same log.
    pub fn another(&self) -> Self {
        Self::new(Arc::clone(&self.live))
    }

    /// The state behind the last record.
    pub fn end(&self) -> State {
        self.live.now().end.clone()
    }

    /// The state before the next record that its writer appends.
    pub fn next(&self) -> State {
        self.live.now().next().clone()
    }

    /// The offset behind the last record.
    pub fn end_offset(&self) -> u64 {
        self.live.now().end.offset
    }

    /// Lines begun so far.
    pub fn lines(&self, select: &Select) -> u64 {
        self.live.now().end.totals.lines(select)
    }

    /// Whether the last record is a receipt: behind it nothing follows, and the log tells how its command ended.
    pub fn is_ended(&mut self) -> Result<bool, StoreError> {
        let end = self.end_offset();
        self.enter_last(|start| start.offset < end)?;
        self.seek(|_, index| index.before_offset(end.saturating_sub(1)))?;
        let mut last = None;
        while let Some(block) = self.next_block()? {
            last = Some(block);
        }
        let Some(block) = last else { return Ok(false) };
        let records = self.records(&block)?;
        let record = Records::new(&records).last().transpose().map_err(|_| self.malformed(&block))?;
        Ok(record.is_some_and(|(_, record)| matches!(Record::decode(record), Ok(Record::Receipt(_)))))
    }

    /// Whole records from `offset` on, and the offset of the first: at least one, else at most `max` bytes. They begin later if the log
    /// has a gap there. None: `offset` is the end.
    pub fn batch(&mut self, offset: u64, max: usize) -> Result<Option<(u64, Bytes)>, StoreError> {
        let mut start = offset;
        let mut parts: Vec<Bytes> = Vec::new();
        let mut length = 0usize;
        loop {
            let rest = match self.block_from(start + length as u64) {
                Ok(Some((at, rest))) if length == 0 => {
                    start = at;
                    rest
                }
                Ok(Some((at, rest))) if at == start + length as u64 => rest,
                Ok(_) => break,
                // What is good comes first, and the error when nothing else is left.
                Err(_) if length > 0 => break,
                Err(error) => return Err(error),
            };
            let room = max.saturating_sub(length);
            let taken = if rest.len() <= room { rest.len() } else { self.whole(&rest, room, start + length as u64)? };
            if length > 0 && taken > room {
                break;
            }
            length += taken;
            let all = taken == rest.len();
            parts.push(rest.slice(..taken));
            if !all || length >= max || (length >= SHARED_BYTES_MIN && self.live.is_shared()) {
                break;
            }
        }
        self.forget(start + length as u64);
        Ok(match parts.as_slice() {
            [] => None,
            [one] => Some((start, one.clone())),
            many => Some((start, many.concat().into())),
        })
    }

    /// The same, if that needs no reading because another reader has just done it. It may be less.
    pub fn at_hand(&mut self, offset: u64, max: usize) -> Result<Option<(u64, Bytes)>, StoreError> {
        if !self.holds(offset) && !self.finds_recent(offset) {
            return Ok(None);
        }
        let Some((start, rest)) = self.block_from(offset)? else { return Ok(None) };
        let taken = if rest.len() <= max { rest.len() } else { self.whole(&rest, max, start)? };
        self.forget(start + taken as u64);
        Ok(Some((start, rest.slice(..taken))))
    }

    /// What is missing in the log: the state behind each gap, and where and why it began.
    pub fn gaps(&self) -> Result<Vec<(State, Gap)>, StoreError> {
        let starts = self.live.now().starts.clone();
        let mut gaps = Vec::new();
        for start in starts {
            let segment = self.live.directory.open(start)?;
            gaps.extend(segment.gap().map(|gap| (segment.start().clone(), gap.clone())));
        }
        Ok(gaps)
    }

    /// Where the `line`th line begins, from 1. None: it has not begun.
    pub fn find_line(&mut self, line: u64, select: &Select) -> Result<Option<Line>, StoreError> {
        if line == 0 {
            return Err(StoreError::Usage("lines are counted from 1".to_owned()));
        }
        if self.lines(select) < line {
            return Ok(None);
        }
        self.enter_last(|start| start.totals.lines(select) < line)?;
        let mut totals = self.seek(|totals, index| index.before_line(totals, select, line))?;
        while let Some(block) = self.next_block()? {
            let begun = totals.lines(select);
            totals.follow(&block.after.totals).ok_or_else(|| self.malformed(&block))?;
            if totals.lines(select) >= line {
                return self.line_in(&block, select, line.saturating_sub(begun));
            }
        }
        Ok(None)
    }

    /// The first log record that is not older than `time_us`; the end, if all are.
    pub fn find_time(&mut self, time_us: u64) -> Result<u64, StoreError> {
        self.enter_last(|start| start.time_us < time_us)?;
        self.seek(|_, index| index.before_time(time_us))?;
        while let Some(block) = self.next_block()? {
            if block.after.time_us < time_us {
                continue;
            }
            let records = self.take_up(&block)?;
            for record in Records::new(&records) {
                let (at, record) = record.map_err(|_| self.malformed(&block))?;
                if matches!(Record::decode(record), Ok(Record::Log(log)) if log.wall_us >= time_us) {
                    return Ok(block.offset() + at as u64);
                }
            }
        }
        Ok(self.end_offset())
    }

    fn line_in(&mut self, block: &Block, select: &Select, mut line: u64) -> Result<Option<Line>, StoreError> {
        let records = self.take_up(block)?;
        for record in Records::new(&records) {
            let (at, record) = record.map_err(|_| self.malformed(block))?;
            let Ok(Record::Log(log)) = Record::decode(record) else { continue };
            if !select.takes(log.channel) {
                continue;
            }
            if log.lines >= line {
                return Ok(Some(Line { offset: block.offset() + at as u64, skip: line.saturating_sub(1) }));
            }
            line -= log.lines;
        }
        Err(self.malformed(block))
    }

    /// The records of the block that holds `offset`, or else of the first behind it: from there on, and from where. None: it is the end.
    fn block_from(&mut self, offset: u64) -> Result<Option<(u64, Bytes)>, StoreError> {
        let end = self.end_offset();
        if offset >= end {
            let beyond = || StoreError::Usage(format!("offset {offset} is beyond the end, {end}"));
            return if offset == end { Ok(None) } else { Err(beyond()) };
        }
        if !self.holds(offset) && !self.finds_recent(offset) {
            self.load(offset)?;
        }
        let (begin, records) = &self.block;
        let skip = offset.saturating_sub(*begin) as usize;
        if skip > 0 && record::whole(records.get(..skip).unwrap_or_default(), usize::MAX) != Ok(skip) {
            return Err(StoreError::Usage(format!("no record begins at offset {offset}")));
        }
        Ok(Some((begin + skip as u64, records.slice(skip.min(records.len())..))))
    }

    /// Makes the block that holds `offset`, or else the first behind it, the one at hand.
    fn load(&mut self, offset: u64) -> Result<(), StoreError> {
        if self.open.as_ref().is_none_or(|open| open.next.0 != offset) {
            self.enter_last(|start| start.offset <= offset)?;
            self.seek(|_, index| index.before_offset(offset))?;
        }
        while let Some(block) = self.next_block()? {
            if block.after.offset > offset {
                return self.take_up(&block).map(drop);
            }
        }
        Err(StoreError::Usage(format!("the log has no offset {offset}")))
    }

    /// Opens the last segment whose first state fulfils this, or else the first one, by bisection.
    fn enter_last(&mut self, holds: impl Fn(&State) -> bool) -> Result<(), StoreError> {
        let starts = self.live.now().starts.clone();
        let (mut low, mut high) = (0, starts.len());
        // The end is what is asked for most, and its segment is open in a log that was opened just now.
        let mut middle = high.saturating_sub(1);
        while high - low > 1 {
            let Some(&start) = starts.get(middle) else { break };
            self.enter(start)?;
            let holds = self.open.as_ref().is_some_and(|open| holds(open.segment.start()));
            if holds {
                low = middle
            } else {
                high = middle
            }
            middle = low + (high - low) / 2;
        }
        starts.get(low).map_or(Ok(()), |&start| self.enter(start))
    }

    /// Opens the segment behind one that ends at `end`.
    fn enter_next(&mut self, end: u64) -> Result<(), StoreError> {
        let next = {
            let now = self.live.now();
            now.starts.get(now.starts.partition_point(|&start| start < end)).copied()
        };
        self.enter(next.unwrap_or(end))?;
        match &self.open {
            Some(open) if !open.segment.follows(end) => {
                Err(open.segment.damaged(0, "a segment that does not follow the one before"))
            }
            _ => Ok(()),
        }
    }

    fn enter(&mut self, start: u64) -> Result<(), StoreError> {
        if self.open.as_ref().is_none_or(|open| open.start != start) {
            self.open = Some(Open::new(start, self.live.directory.open(start)?, None));
        }
        Ok(())
    }

    /// Moves within the segment at hand to the mark that is chosen, or to its beginning. The totals there.
    fn seek(&mut self, choose: impl for<'a> Fn(&Totals, &'a Index) -> Option<&'a Mark>) -> Result<Totals, StoreError> {
        let Some(open) = &mut self.open else { return Ok(Totals::default()) };
        let chosen = |totals: &Totals, index: &Index| {
            choose(totals, index).map(|mark| ((mark.offset, mark.position), totals.with(&mark.counts)))
        };
        let live = {
            let now = self.live.now();
            now.active(open.start).map(|active| chosen(&now.end.totals, &active.index))
        };
        let found = match live {
            Some(found) => found,
            None => {
                if open.marks.is_none() {
                    // Without an index everything is still there, only slower to find.
                    open.marks =
                        Some(open.segment.index()?.map(|(end, index)| (end.totals, index)).unwrap_or_default());
                }
                open.marks.as_ref().and_then(|(totals, index)| chosen(totals, index))
            }
        };
        let first = || ((open.start, open.segment.blocks_at()), open.segment.start().totals.clone());
        let (next, totals) = found.unwrap_or_else(first);
        open.next = next;
        Ok(totals)
    }

    /// The next block's head, in this segment or the one behind it. None: the log ends here.
    fn next_block(&mut self) -> Result<Option<Block>, StoreError> {
        loop {
            let Some(open) = &mut self.open else { return Ok(None) };
            let (end, limit) = {
                let now = self.live.now();
                (now.end.offset, now.active(open.start).map_or(u64::MAX, |active| active.file_end))
            };
            let (offset, position) = open.next;
            if offset >= end {
                return Ok(None);
            }
            match open.segment.block(position, limit)? {
                Some(block) if block.offset() == offset => {
                    open.next = (block.after.offset, block.end());
                    return Ok(Some(block));
                }
                Some(_) => return Err(open.segment.damaged(position, "a block that does not continue the one before")),
                None if open.start == offset => {
                    return Err(open.segment.damaged(position, "a segment without a block"));
                }
                None => self.enter_next(offset)?,
            }
        }
    }

    /// Makes it the block at hand: who was told of a place in it reads from there.
    fn take_up(&mut self, block: &Block) -> Result<Bytes, StoreError> {
        let records = self.records(block)?;
        self.block = (block.offset(), records.clone());
        if self.live.is_shared() {
            self.live.recent().keep(self.block.0, &records);
        }
        Ok(records)
    }

    fn records(&mut self, block: &Block) -> Result<Bytes, StoreError> {
        match &mut self.open {
            Some(open) => open.segment.records(block).map(Bytes::from),
            None => Ok(Bytes::new()),
        }
    }

    /// A reader that waits at `offset` for more keeps nothing of what is before it.
    fn forget(&mut self, offset: u64) {
        if self.holds(offset) {
            return;
        }
        self.block = (offset, Bytes::new());
        if self.live.is_shared() {
            // Most of what follows is read by others.
            self.open = None;
        }
    }

    fn holds(&self, offset: u64) -> bool {
        let (begin, records) = &self.block;
        offset >= *begin && offset - begin < records.len() as u64
    }

    /// Whether another reader has just read the block that holds `offset`, which is at hand then.
    fn finds_recent(&mut self, offset: u64) -> bool {
        let found = if self.live.is_shared() { self.live.recent().find(offset) } else { None };
        found.map(|block| self.block = block).is_some()
    }

    /// The length of the whole records in `rest`, which begins at `offset`: at least one.
    fn whole(&self, rest: &[u8], room: usize, offset: u64) -> Result<usize, StoreError> {
        match record::whole(rest, room) {
            Ok(length) if length > 0 => Ok(length),
            _ => Err(StoreError::Record { offset, what: "no whole record".to_owned() }),
        }
    }

    fn malformed(&self, block: &Block) -> StoreError {
        let what = "a payload that is not what its head says";
        match &self.open {
            Some(open) => open.segment.damaged(block.position, what),
            None => StoreError::Record { offset: block.offset(), what: what.to_owned() },
        }
    }
}

impl Open {
    /// Stands before its first block.
    const fn new(start: u64, segment: Segment<Handle>, marks: Option<(Totals, Index)>) -> Self {
        let next = (start, segment.blocks_at());
        Self { start, segment, marks, next }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.live.leave();
    }
}
