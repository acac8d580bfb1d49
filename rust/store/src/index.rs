//! Marks for seeking within one segment: few enough to be kept in memory, close enough that little is read.

use crate::format::State;
use crate::totals::{Count, Select, Totals};

/// Counts in all marks of a segment together: 1 MiB of memory, whatever a worker sends.
pub const COUNTS_MAX: usize = 65_536;
/// Journal bytes between marks: what a seek may have to read.
const SPACING_BYTES: u64 = 1 << 20;

/// The state before the block at `position`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Journal offset.
    pub offset: u64,
    /// Position of the block's head in the file.
    pub position: u64,
    /// The largest time before it.
    pub time_us: u64,
    /// Counts before it, in the order of the segment's totals.
    pub counts: Vec<Count>,
}

/// The marks of one segment, in order.
#[derive(Debug, Clone)]
pub struct Index {
    marks: Vec<Mark>,
    spacing: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self { marks: Vec::new(), spacing: SPACING_BYTES }
    }
}

impl From<Vec<Mark>> for Index {
    fn from(marks: Vec<Mark>) -> Self {
        Self { marks, ..Self::default() }
    }
}

impl Index {
    /// The marks.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Says that a block begins at `position`, in this state. Becomes a mark if the last one is far enough away.
    pub fn note(&mut self, before: &State, position: u64) {
        let due = self.marks.last().is_none_or(|last| before.offset.saturating_sub(last.offset) >= self.spacing);
        if !due {
            return;
        }
        let counts = before.totals.counts().to_vec();
        self.marks.push(Mark { offset: before.offset, position, time_us: before.time_us, counts });
        if self.marks.len() * before.totals.len().max(1) > COUNTS_MAX {
            self.thin();
        }
    }

    /// The last mark at or before this offset.
    pub fn before_offset(&self, offset: u64) -> Option<&Mark> {
        self.last(|mark| mark.offset <= offset)
    }

    /// The last mark before which this line had not begun. `totals` gives the order of the counts.
    pub fn before_line(&self, totals: &Totals, select: &Select, line: u64) -> Option<&Mark> {
        self.last(|mark| totals.lines_of(&mark.counts, select) < line)
    }

    /// The last mark before which everything was older.
    pub fn before_time(&self, time_us: u64) -> Option<&Mark> {
        self.last(|mark| mark.time_us < time_us)
    }

    fn last(&self, holds: impl Fn(&Mark) -> bool) -> Option<&Mark> {
        let number = self.marks.partition_point(holds);
        self.marks.get(number.checked_sub(1)?)
    }

    fn thin(&mut self) {
        let mut number = 0;
        self.marks.retain(|_| {
            number += 1;
            number % 2 == 1
        });
        self.spacing *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::totals::Channel;

    #[test]
    fn many_channels_make_few_marks() {
        let mut index = Index::default();
        let mut state = State::default();
        for number in 0..1_000 {
            state.totals.set(&Channel::new(4, &number.to_string()).unwrap(), Count::default());
        }
        for _ in 0..10_000 {
            index.note(&state, state.offset);
            state.offset += SPACING_BYTES;
        }
        assert!(index.marks.len() * 1_000 <= COUNTS_MAX);
        assert!(index.marks.len() > 16);
        assert_eq!(index.before_offset(0).unwrap().offset, 0);
        assert!(index.before_offset(5_000 << 20).unwrap().offset >= 4_000 << 20);
    }
}
