//! How often a child's output is read: at once when there is some, but of one that writes line by line only once in a
//! millisecond. To be woken for each line costs more than to read it.
//!
//! And how often a full ring is looked at: in a flood there is room again within moments, and to be woken for it costs its
//! reader more than what it reads meanwhile.

use rustix::fd::AsFd;

use crate::clock::{MILLISECOND, Micros, SECOND};

/// So many small reads in a row show that a child writes line by line.
const SMALL_READS: u32 = 8;
/// What is small, as a part of the pipe. Beyond that a child may soon have to wait.
const SMALL_PART: usize = 8;
/// The same of what is no pipe.
const SMALL_BYTES: usize = 128 << 10;
const NAP: Micros = MILLISECOND;

/// So long a full ring is looked at, again and again, before its reader is asked to ring.
const FULL: Micros = 20 * MILLISECOND;
/// How often it is looked at after that, should a daemon have died before it rang.
const LONG_FULL: Micros = SECOND / 10;

pub(crate) struct Pace {
    /// What is small, of stdout and of stderr.
    small_bytes: [usize; 2],
    in_a_row: u32,
    until: Micros,
}

impl Pace {
    /// Of these outputs, a child's stdout and stderr.
    pub(crate) fn new<F: AsFd>(outputs: &[Option<F>; 2]) -> Self {
        let size = |output: &F| rustix::pipe::fcntl_getpipe_size(output).ok();
        let small = |size: Option<usize>| size.map_or(SMALL_BYTES, |size| size / SMALL_PART);
        let small_bytes = outputs.each_ref().map(|output| small(output.as_ref().and_then(size)));
        Self { small_bytes, in_a_row: 0, until: 0 }
    }

    /// So much was read of an output (0: stdout, 1: stderr), the last time at `before`.
    pub(crate) fn note(&mut self, channel: usize, read: usize, now: Micros, before: Micros) {
        let is_small = read < self.small_bytes[channel] && now < before + 2 * NAP;
        self.in_a_row = if is_small { self.in_a_row.saturating_add(1) } else { 0 };
        if self.in_a_row >= SMALL_READS {
            self.until = now + NAP;
        }
    }

    /// Until when nothing is to be read.
    pub(crate) fn nap_until(&self) -> Micros {
        self.until
    }

    /// The child has ended: what is left is read at once, and always.
    pub(crate) fn wake(&mut self) {
        (self.until, self.small_bytes) = (0, [0; 2]);
    }
}

/// Since when the ring is full.
#[derive(Default)]
pub(crate) struct Full(Option<Micros>);

impl Full {
    pub(crate) fn note(&mut self, is_full: bool, now: Micros) {
        self.0 = is_full.then(|| self.0.unwrap_or(now));
    }

    /// Whether the reader is to ring when there is room.
    pub(crate) fn asks(&self, now: Micros) -> bool {
        self.0.is_some_and(|since| now >= since + FULL)
    }

    /// When it is looked at again.
    pub(crate) fn look_at(&self, now: Micros) -> Option<Micros> {
        self.0.map(|_| now + if self.asks(now) { LONG_FULL } else { NAP })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(size: usize) -> Pace {
        let (ours, childs) = rustix::pipe::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&childs, size).unwrap();
        Pace::new(&[Some(ours), None])
    }

    fn reads(pace: &mut Pace, read: usize) -> bool {
        (1..=u64::from(SMALL_READS)).for_each(|turn| pace.note(0, read, turn, turn - 1));
        pace.nap_until() > u64::from(SMALL_READS)
    }

    #[test]
    fn who_writes_line_by_line_is_read_a_millisecond_at_a_time() {
        assert!(reads(&mut pace(1 << 20), 80));
        assert!(reads(&mut pace(1 << 20), 100 << 10));
        assert!(!reads(&mut pace(1 << 20), 200 << 10));
    }

    #[test]
    fn a_small_pipe_that_is_full_is_no_line_by_line() {
        assert!(!reads(&mut pace(64 << 10), 64 << 10));
        assert!(!reads(&mut pace(4 << 10), 4 << 10));
        assert!(reads(&mut pace(64 << 10), 80));
    }

    #[test]
    fn a_pause_ends_the_row_and_the_end_of_the_child_the_nap() {
        let mut pace = pace(1 << 20);
        assert!(reads(&mut pace, 80));
        pace.wake();
        assert_eq!(pace.nap_until(), 0);
        assert!(!reads(&mut pace, 80));
        let mut other = Pace::new::<rustix::fd::OwnedFd>(&[None, None]);
        (1..100).for_each(|turn| other.note(1, 80, turn * 3 * NAP, (turn - 1) * 3 * NAP));
        assert_eq!(other.nap_until(), 0);
    }
    #[test]
    fn the_reader_is_asked_to_ring_when_looking_has_not_helped() {
        let mut full = Full::default();
        assert!(!full.asks(5));
        assert_eq!(full.look_at(5), None);
        for now in [10, 1000, 10 + FULL - 1] {
            full.note(true, now);
            assert!(!full.asks(now));
            assert_eq!(full.look_at(now), Some(now + NAP));
        }
        assert!(full.asks(10 + FULL));
        assert_eq!(full.look_at(10 + FULL), Some(10 + FULL + LONG_FULL));
        full.note(false, 11 + FULL);
        full.note(true, 12 + FULL);
        assert!(!full.asks(12 + FULL));
    }
}
