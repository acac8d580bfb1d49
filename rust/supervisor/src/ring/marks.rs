//! Marks in the ring's header: offsets between records, each with the chain over all records before it.
//!
//! The writer leaves one every so many bytes, so that a reader that takes a journal up in its midst need not hash it from
//! its beginning. There is room for more than twice as many as lie in the ring: a mark in `[begin, end]` is not overwritten.

use std::sync::atomic::{AtomicU64, Ordering};

use tailrace_core::chain::Chain;
use tailrace_core::journal::Mark;

/// How many a full ring has, one more or less.
const IN_RING: u64 = 1024;

/// How many there is room for.
const ROOM: u64 = 2 * IN_RING + 64;

/// An offset and the chain there. Only one side ever writes it.
#[repr(C)]
pub(super) struct Marked {
    offset: AtomicU64,
    chain: [AtomicU64; 4],
}

impl Marked {
    pub(super) fn offset(&self) -> u64 {
        self.offset.load(Ordering::SeqCst)
    }

    pub(super) fn get(&self) -> Mark {
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(8).zip(&self.chain) {
            place.copy_from_slice(&word.load(Ordering::SeqCst).to_ne_bytes());
        }
        (self.offset(), Chain::from(bytes))
    }

    pub(super) fn set(&self, (offset, chain): Mark) {
        for (word, bytes) in self.chain.iter().zip(chain.as_bytes().chunks_exact(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().expect("eight bytes")), Ordering::SeqCst);
        }
        self.offset.store(offset, Ordering::SeqCst);
    }
}

#[repr(C)]
pub(super) struct Marks {
    /// How many there ever were. The one behind them is the writer's: it stands at `end`.
    count: AtomicU64,
    places: [Marked; ROOM as usize],
}

impl Marks {
    /// The end of the journal is here now. `lasting`: this mark is to stay.
    pub(super) fn push(&self, mark: Mark, lasting: bool) {
        let count = self.count.load(Ordering::Relaxed);
        self.place(count).set(mark);
        if lasting {
            self.count.store(count.wrapping_add(1), Ordering::SeqCst);
        }
    }

    /// The last one in `[begin, offset]`, an offset that is not beyond the end.
    pub(super) fn last(&self, begin: u64, offset: u64) -> Option<Mark> {
        let count = self.count.load(Ordering::SeqCst);
        let lasting = (1..=count.min(IN_RING + 2)).map(|back| self.place(count - back));
        let mark = lasting.take_while(|mark| mark.offset() >= begin).find(|mark| mark.offset() <= offset)?.get();
        (begin..=offset).contains(&mark.0).then_some(mark)
    }

    /// The one at the end.
    pub(super) fn tip(&self, end: u64) -> Mark {
        let count = self.count.load(Ordering::SeqCst);
        let near = [self.place(count), self.place(count.wrapping_sub(1))];
        near.into_iter().map(Marked::get).find(|(at, _)| *at == end).unwrap_or((end, Chain::default()))
    }

    /// All from `begin` on, in order, the one at the end too.
    pub(super) fn all(&self, begin: u64) -> impl Iterator<Item = Mark> {
        let count = self.count.load(Ordering::SeqCst);
        let first = count.saturating_sub(IN_RING + 2);
        let lasting = (first..count).map(|index| self.place(index).get()).filter(move |(at, _)| *at >= begin);
        let last = self.place(count).get();
        lasting.chain((last.0 >= begin).then_some(last))
    }

    /// Forgets all of them. For a journal that begins anew where a short one has ended.
    pub(super) fn clear(&self) {
        let count = self.count.swap(0, Ordering::SeqCst);
        for index in 0..=count.min(ROOM - 1) {
            self.place(index).set((0, Chain::default()));
        }
    }

    /// Forgets what stands behind `end`; gives the offset of the last one that stays. For a writer that takes over.
    pub(super) fn cut(&self, end: Mark) -> u64 {
        let mut count = self.count.load(Ordering::SeqCst);
        while count > 0 && self.place(count - 1).offset() > end.0 {
            count -= 1;
        }
        self.count.store(count, Ordering::SeqCst);
        self.place(count).set(end);
        if count == 0 { 0 } else { self.place(count - 1).offset() }
    }

    fn place(&self, index: u64) -> &Marked {
        &self.places[(index % ROOM) as usize]
    }
}

/// How far marks are apart in a ring of this capacity.
pub(super) fn spacing(capacity: usize) -> u64 {
    capacity as u64 / IN_RING
}
