//! A disk that loses its power after any operation, or fails at any: what was said to be safe is there.

mod support;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use support::Model;
use tailrace_core::channel::Channel;
use tailrace_store::simulated::{Chance, Fault, Simulated};
use tailrace_store::{LogReader, LogWriter, StoreError, seal_next_on};

const SEGMENT_BYTES: u64 = 5_000;
const SCENARIOS: u64 = 40;
const SEEDS: u64 = 3_000;
const STATES_MIN: usize = 2_000;
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// splitmix64: every seed is as good as any other.
struct Seed(u64);

impl Chance for Seed {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// Says which seed it was, if the test fails in it.
struct Told(String);

impl Drop for Told {
    #[expect(clippy::print_stderr, reason = "it is for who reads the test's output")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with {}", self.0);
        }
    }
}

fn directory() -> &'static Path {
    Path::new("/run")
}

/// One master's work on one log: what its worker sends, in batches, and what the master has said to be safe.
struct Work {
    model: Model,
    /// Where batches begin.
    batches: Vec<u64>,
    safe: u64,
    chance: Seed,
}

impl Work {
    fn new(seed: u64) -> Self {
        let mut work = Self { model: Model::default(), batches: Vec::new(), safe: 0, chance: Seed(seed) };
        for number in 0..24 {
            work.batches.push(work.model.bytes.len() as u64);
            for _ in 0..=work.chance.below(3) {
                let (lines, width) = (work.chance.below(3), work.chance.below(900) as usize);
                work.model.log(Channel::Stdout, lines, width, number);
            }
        }
        work.batches.push(work.model.bytes.len() as u64);
        work
    }

    /// The next batch of a log that ends at `at`, which need not be where one began.
    fn batch(&self, at: u64) -> Option<Vec<u8>> {
        let end = self.batches.iter().find(|&&batch| batch > at)?;
        Some(self.model.bytes[at as usize..*end as usize].to_vec())
    }

    /// Goes on with the log to its end, with all that a master does: syncs, leaves something out, dies, closes, seals.
    fn go_on(&mut self, disk: &Simulated, mut writer: LogWriter) -> Result<(), StoreError> {
        while let Some(batch) = self.batch(writer.next().offset) {
            let at = writer.next().offset;
            match self.chance.below(12) {
                0 => writer.skip(&batch, at, None, "chance")?,
                _ => writer.append(&batch, at, None)?,
            }
            match self.chance.below(10) {
                0..4 => self.sync(&mut writer)?,
                4 => {
                    drop(writer);
                    writer = LogWriter::recover_on(Arc::new(disk.clone()), directory(), SEGMENT_BYTES)?;
                }
                _ => {}
            }
        }
        writer.close()?;
        self.sync(&mut writer)?;
        drop(writer);
        while seal_next_on(Arc::new(disk.clone()), directory())? {}
        Ok(())
    }

    fn start(&mut self, disk: &Simulated) -> Result<(), StoreError> {
        let writer = LogWriter::create_on(Arc::new(disk.clone()), directory(), SEGMENT_BYTES)?;
        self.go_on(disk, writer)
    }

    fn recover(&self, disk: &Simulated) -> Result<LogWriter, StoreError> {
        LogWriter::recover_on(Arc::new(disk.clone()), directory(), SEGMENT_BYTES)
    }

    fn sync(&mut self, writer: &mut LogWriter) -> Result<(), StoreError> {
        let end = writer.end().offset;
        writer.syncing().run()?;
        self.safe = end;
        Ok(())
    }

    /// Everything that can be read is what was sent, and as far as it must be. Where it ends.
    fn check(&self, mut reader: LogReader) -> u64 {
        let gaps = reader.gaps().unwrap();
        let mut offset = 0;
        while let Some((start, batch)) = reader.batch(offset, 2_000).unwrap() {
            let is_told = gaps.iter().any(|(behind, gap)| behind.offset == start && gap.from == offset);
            assert!(start == offset || is_told, "bytes {offset} to {start} are missing");
            offset = start + batch.len() as u64;
            assert_eq!(batch, self.model.bytes[start as usize..offset as usize]);
        }
        assert_eq!(offset, reader.end_offset());
        assert!(offset >= self.safe, "safe up to {}, but it ends at {offset}", self.safe);
        offset
    }

    fn open(&self, disk: &Simulated) -> LogReader {
        LogReader::open_on(Arc::new(disk.clone()), directory()).unwrap()
    }
}

#[test]
fn what_was_safe_is_there_after_every_power_cut() {
    let mut states = HashSet::new();
    let lengths: Vec<u64> = (0..SCENARIOS).map(operations).collect();
    for seed in 0..SEEDS {
        let _told = Told(format!("seed {seed}"));
        let scenario = seed % SCENARIOS;
        let mut chance = Seed(seed.wrapping_mul(1_000_003));
        let disk = Simulated::with_directory(directory());
        disk.end_power_after(chance.below(lengths[scenario as usize]) + 1);
        let mut work = Work::new(scenario);
        let _ = work.start(&disk);
        // It may come twice: the second time while the log is recovered, or goes on.
        let disk = disk.after_power_cut(&mut chance);
        states.insert(hash(&disk));
        assert!(work.holds(&disk));
        disk.end_power_after(chance.below(120) + 1);
        if let Ok(writer) = work.recover(&disk) {
            let _ = work.go_on(&disk, writer);
        }
        let disk = disk.after_power_cut(&mut chance);
        states.insert(hash(&disk));

        let writer = work.recover(&disk).unwrap();
        let end = work.check(writer.reader());
        assert_eq!(work.check(work.open(&disk)), end);
        work.go_on(&disk, writer).unwrap();
        let disk = disk.after_power_cut(&mut chance);
        // The last batches may have been left out.
        assert_eq!(work.check(work.open(&disk)), work.safe);
        assert!(disk.files().keys().all(|path| !path.ends_with(".tmp")));
    }
    assert!(states.len() >= STATES_MIN, "only {} states", states.len());
}

/// How many there are when nothing comes in between.
fn operations(scenario: u64) -> u64 {
    let whole = Simulated::with_directory(directory());
    Work::new(scenario).start(&whole).unwrap();
    whole.operations()
}

fn hash(disk: &Simulated) -> u64 {
    let mut hasher = DefaultHasher::new();
    disk.files().hash(&mut hasher);
    hasher.finish()
}

/// Does the work in spite of errors: what a master does that waits until there is space.
fn persevere(work: &mut Work, disk: &Simulated) -> Vec<StoreError> {
    let mut errors = Vec::new();
    let mut writer = None;
    for _ in 0..500 {
        let step = match writer.take() {
            None if disk.files().is_empty() => LogWriter::create_on(Arc::new(disk.clone()), directory(), SEGMENT_BYTES),
            None => work.recover(disk),
            Some(writer) => Ok(writer),
        };
        let done = step.and_then(|mut ready| {
            let at = ready.next().offset;
            let result = match work.batch(at) {
                None => ready.close().and_then(|()| work.sync(&mut ready)).and_then(|()| {
                    while seal_next_on(Arc::new(disk.clone()), directory())? {}
                    Ok(true)
                }),
                Some(batch) => ready.append(&batch, at, None).and_then(|()| work.sync(&mut ready)).map(|()| false),
            };
            // A failed append may be repeated; whoever cannot sync begins anew.
            if !matches!(result, Err(StoreError::Failed(_))) {
                writer = Some(ready);
            }
            result
        });
        match done {
            Ok(true) => return errors,
            Ok(false) => {}
            Err(error) => errors.push(error),
        }
        assert!(work.holds(disk));
    }
    panic!("it does not come to an end: {errors:?}");
}

impl Work {
    /// Whether all that is safe would be there if the power went now.
    fn holds(&self, disk: &Simulated) -> bool {
        let after = disk.after_worst_cut();
        let writer = self.recover(&after).unwrap();
        self.check(writer.reader()) >= self.safe
    }
}

#[test]
fn whichever_operation_fails_nothing_safe_is_lost_and_the_work_is_done() {
    let whole = Simulated::with_directory(directory());
    persevere(&mut Work::new(1), &whole);
    for errno in [ENOSPC, EIO] {
        for count in [1, 2, 7] {
            for from in 0..whole.operations() {
                let _told = Told(format!("errno {errno}, operations {from} to {}", from + count));
                let disk = Simulated::with_directory(directory());
                disk.fail(Some(Fault { from, count, errno }));
                let mut work = Work::new(1);
                let errors = persevere(&mut work, &disk);
                disk.fail(None);
                assert_eq!(work.check(work.open(&disk)), work.model.bytes.len() as u64);
                for error in errors {
                    let text = error.to_string();
                    assert!(text.contains("/run"), "{text}");
                }
            }
        }
    }
}

#[test]
fn a_log_whose_sync_failed_says_so_for_ever_and_is_safe_up_to_there() {
    let disk = Simulated::with_directory(directory());
    let mut work = Work::new(2);
    let mut writer = LogWriter::create_on(Arc::new(disk.clone()), directory(), SEGMENT_BYTES).unwrap();
    for failing in [false, true] {
        let at = writer.next().offset;
        writer.append(&work.batch(at).unwrap(), at, None).unwrap();
        disk.fail(Some(Fault { from: disk.operations(), count: 1, errno: EIO }).filter(|_| failing));
        assert_eq!(work.sync(&mut writer).is_err(), failing);
    }
    let at = writer.next().offset;
    assert!(matches!(writer.append(&work.batch(at).unwrap(), at, None), Err(StoreError::Failed(_))));
    assert!(matches!(writer.syncing().run(), Err(StoreError::Failed(_))), "a later one would find nothing to write");
    // It can still be read, for as long as the machine lives.
    assert_eq!(work.check(writer.reader()), at);
    let disk = disk.after_worst_cut();
    assert_eq!(work.check(work.recover(&disk).unwrap().reader()), work.safe);
}
