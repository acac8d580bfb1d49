//! What the writer has counted, in the ring's header, so that the journal of a supervisor that died can be ended truly.
//!
//! Everything is there twice. The older one is written anew for a record, with the offset behind that record, before the
//! ring's end is moved there: at any moment one of the two is true for where the ring ends.

use std::sync::atomic::{AtomicU64, Ordering};

use tailrace_core::channel::Channel;
use tailrace_core::journal::Mark;
use tailrace_core::ledger::{Account, Count, Ledger};

/// Words of a log's name, which has at most 255 bytes.
const NAME_WORDS: usize = 32;

/// `N` numbers as of an offset; twice.
#[repr(C)]
struct Twice<const N: usize>([Versioned<N>; 2]);

#[repr(C)]
struct Versioned<const N: usize> {
    /// From where on it holds; none if it is being written.
    offset: AtomicU64,
    numbers: [AtomicU64; N],
}

const NONE: u64 = u64::MAX;

impl<const N: usize> Twice<N> {
    fn set(&self, offset: u64, numbers: [u64; N]) {
        let [first, second] = &self.0;
        let age = |version: &Versioned<N>| version.offset.load(Ordering::SeqCst).wrapping_add(1);
        let older = if age(first) <= age(second) { first } else { second };
        older.offset.store(NONE, Ordering::SeqCst);
        for (place, number) in older.numbers.iter().zip(numbers) {
            place.store(number, Ordering::SeqCst);
        }
        older.offset.store(offset, Ordering::SeqCst);
    }

    fn clear(&self) {
        for version in &self.0 {
            for number in &version.numbers {
                number.store(0, Ordering::SeqCst);
            }
            version.offset.store(0, Ordering::SeqCst);
        }
    }

    /// What held when the journal ended at `end`.
    fn get(&self, end: u64) -> [u64; N] {
        let versions = self.0.iter().map(|version| (version.offset.load(Ordering::SeqCst), version));
        let holds = versions.filter(|(offset, _)| *offset <= end).max_by_key(|(offset, _)| *offset);
        holds.map_or([0; N], |(_, version)| std::array::from_fn(|at| version.numbers[at].load(Ordering::SeqCst)))
    }
}

#[repr(C)]
struct Place {
    /// Kind byte of the channel, and the length of its name; 0: nobody's.
    kind: AtomicU64,
    name_bytes: AtomicU64,
    name: [AtomicU64; NAME_WORDS],
    counts: Twice<5>,
}

#[repr(C)]
pub(super) struct Accounts {
    /// Records, and whether complete stands.
    journal: Twice<2>,
    places: [Place; Account::MAX],
}

impl Accounts {
    /// The journal is about to end at the ledger's offset, behind a record of `channel`.
    pub(super) fn write(&self, ledger: &Ledger, channel: Option<Channel<'_>>) {
        if let Some(account) = channel.and_then(|channel| ledger.account(channel)) {
            self.write_account(&account, ledger.offset());
        }
        self.write_journal(ledger);
    }

    /// As `write`, behind records of any channel.
    pub(super) fn write_all(&self, ledger: &Ledger) {
        for account in ledger.accounts() {
            self.write_account(&account, ledger.offset());
        }
        self.write_journal(ledger);
    }

    fn write_journal(&self, ledger: &Ledger) {
        self.journal.set(ledger.offset(), [ledger.records(), u64::from(ledger.is_complete())]);
    }

    fn write_account(&self, account: &Account<'_>, offset: u64) {
        let Some(place) = self.places.get(account.index) else { return };
        if place.kind.load(Ordering::Relaxed) == 0 {
            place.name_it(account.channel);
        }
        let Count { bytes, lines, missing, masked } = account.count;
        place.counts.set(offset, [bytes, lines, missing, masked, account.next]);
    }

    /// Forgets all of it, as it is in a file that was just made.
    pub(super) fn clear(&self) {
        self.journal.clear();
        for place in self.places.iter().take_while(|place| place.kind.load(Ordering::Relaxed) != 0) {
            place.counts.clear();
            place.kind.store(0, Ordering::SeqCst);
        }
    }

    /// What was counted when the journal ended at `mark`. A torn header makes it wrong, but no more than that.
    pub(super) fn read(&self, mark: Mark) -> Ledger {
        let [records, complete] = self.journal.get(mark.0);
        let names: Vec<_> = self.places.iter().map_while(Place::whose).collect();
        let accounts = names.iter().enumerate().zip(&self.places).filter_map(|((index, (kind, name)), place)| {
            let [bytes, lines, missing, masked, next] = place.counts.get(mark.0);
            let count = Count { bytes, lines, missing, masked };
            // One that was about to get its first record has none.
            let occurred = bytes > 0 || missing > 0;
            let channel = Channel::of_kind(*kind, name).filter(|_| occurred)?;
            Some(Account { index, channel, count, next })
        });
        Ledger::restore(mark, records, complete != 0, accounts)
    }
}

impl Place {
    fn name_it(&self, channel: Channel<'_>) {
        let name = channel.name().unwrap_or_default().as_bytes();
        for (word, bytes) in self.name.iter().zip(name.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Ordering::SeqCst);
        }
        self.name_bytes.store(name.len() as u64, Ordering::SeqCst);
        self.kind.store(u64::from(channel.kind()), Ordering::SeqCst);
    }

    fn whose(&self) -> Option<(u8, String)> {
        let kind = u8::try_from(self.kind.load(Ordering::SeqCst)).ok().filter(|kind| *kind != 0)?;
        let words = self.name.iter().flat_map(|word| word.load(Ordering::SeqCst).to_ne_bytes());
        let name: Vec<u8> = words.take(self.name_bytes.load(Ordering::SeqCst) as usize).collect();
        Some((kind, String::from_utf8_lossy(&name).into_owned()))
    }
}
