//! The journal from a child's bytes to its reader, by way of ring, spool and memory: nothing is lost or out of order
//! without a gap that says so, whatever the disk does, and wherever the supervisor is killed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rustix::fd::AsFd;
use tailrace_core::journal::Source;
use tailrace_core::ledger::{Ledger, Receipt};
use tailrace_core::record::{Record, Records};

use super::*;
use crate::clock::SECOND;
use crate::ring;
use crate::spool::tests::{Place, fail};
use crate::spool::{self, Spool};

const RING_BYTES: usize = RING_BYTES_MIN;

/// What was written to a channel, in order; neighbours of one channel are one.
type Written = Vec<(String, Vec<u8>)>;

fn add(written: &mut Written, channel: Channel<'_>, data: &[u8]) {
    match written.last_mut() {
        Some((last, bytes)) if *last == channel.key() => bytes.extend_from_slice(data),
        _ => written.push((channel.key(), data.to_vec())),
    }
}

/// A supervisor's journal with its reader.
struct Scene {
    place: Place,
    book: Book,
    reader: ring::Reader,
    /// All that the reader has read.
    read: Vec<u8>,
    spool_bytes_max: u64,
    when_full: WhenFull,
    now: Micros,
}

impl Scene {
    fn new(spool_bytes_max: u64, when_full: WhenFull) -> Self {
        let place = Place::new("book");
        let file = ring::create_file(place.open().as_fd(), "journal.ring", RING_BYTES).unwrap();
        let shelf = Shelf::new(ring::Writer::map(&file).unwrap(), Spool::new(place.open(), spool_bytes_max), 0);
        let book = Book::new(shelf, Ledger::new(), when_full);
        let reader = ring::Reader::open(place.0.join("journal.ring")).unwrap();
        Self { place, book, reader, read: Vec::new(), spool_bytes_max, when_full, now: mono() }
    }

    /// What the supervisor's loop does in a turn.
    fn turn(&mut self) {
        self.book.tend(self.now).unwrap();
        self.book.poll(mono() + SECOND);
        self.book.tend(self.now).unwrap();
        assert!(self.place.bytes() <= self.spool_bytes_max);
    }

    fn take(&mut self, bytes: usize) {
        let at = self.read.len() as u64;
        let records = (&self.reader as &dyn Source).copy_records(at, bytes).unwrap();
        self.read.extend_from_slice(&records);
        self.reader.release(self.read.len() as u64);
    }

    /// A reader that takes everything, until nothing comes any more.
    fn take_all(&mut self) {
        loop {
            self.now += 2 * SECOND;
            self.turn();
            let before = self.read.len();
            self.take(usize::MAX);
            self.turn();
            if self.read.len() == before && self.reader.end() == before as u64 {
                return;
            }
        }
    }

    /// The supervisor is killed, and another takes over.
    fn recover(self) -> Self {
        let Self { place, book, reader, read, spool_bytes_max, when_full, now } = self;
        drop(book);
        let file = rustix::fs::open(place.0.join("journal.ring"), rustix::fs::OFlags::RDWR, 0.into()).unwrap();
        let (ring, left) = ring::Writer::recover(&file).unwrap();
        let (spool, ledger) = spool::inherit(place.open(), spool_bytes_max, left.ledger).unwrap();
        let book = Book::inherit(Shelf::new(ring, spool, ledger.offset()), ledger, when_full, ("SupervisorLost", "x"));
        Self { place, book, reader, read, spool_bytes_max, when_full, now }
    }

    /// What the reader has read, with the gaps as (bytes, lines) of each channel, and the receipt.
    fn told(&self) -> (Written, BTreeMap<String, (u64, u64)>, Receipt) {
        let (mut written, mut gaps, mut receipt, mut ledger) = (Written::new(), BTreeMap::new(), None, Ledger::new());
        ledger.add(&self.read).unwrap();
        for record in Records::new(&self.read) {
            match Record::decode(record.unwrap().1).unwrap() {
                Record::Log(log) => add(&mut written, log.channel, log.data),
                Record::Gap(gap) => {
                    let (bytes, lines): &mut (u64, u64) = gaps.entry(gap.channel.key()).or_default();
                    *bytes += gap.bytes;
                    *lines += gap.lines;
                }
                Record::Receipt(body) => receipt = Some(Receipt::decode(body).unwrap()),
                _ => {}
            }
        }
        let receipt = receipt.expect("the journal has its end");
        assert!(ledger.agrees(&receipt) && self.reader.ended());
        (written, gaps, receipt)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize),
    Take(usize),
    Spool(bool),
    NewReader,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![1..100_usize, 1..READ_BYTES + 1];
    let step = prop_oneof![
        8 => (0..CHANNELS.len(), size).prop_map(|(channel, size)| Step::Write(channel, size)),
        2 => (0..RING_BYTES).prop_map(Step::Take),
        2 => prop::bool::weighted(0.7).prop_map(Step::Spool),
        1 => Just(Step::NewReader),
    ];
    prop::collection::vec(step, 1..120)
}

const CHANNELS: [Channel<'static>; 4] = [Channel::Stdout, Channel::Stderr, Channel::Log("a"), Channel::Log("b")];

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| if (at * 31 + seed).is_multiple_of(67) { b'\n' } else { (at * 7 + seed) as u8 }).collect()
}

/// Does the steps; gives what was written, and how much of it was at the shelf's in the end.
fn play(scene: &mut Scene, steps: &[Step]) -> Written {
    let mut written = Written::new();
    for (count, step) in steps.iter().enumerate() {
        match step {
            Step::Write(channel, size) => {
                if scene.book.takes_output() {
                    let data = bytes(*size, count);
                    scene.book.push_output(CHANNELS[*channel], &data);
                    add(&mut written, CHANNELS[*channel], &data);
                }
            }
            Step::Take(bytes) => scene.take(*bytes),
            Step::Spool(on) => scene.book.spool(*on),
            Step::NewReader => scene.reader = ring::Reader::open(scene.place.0.join("journal.ring")).unwrap(),
        }
        scene.turn();
    }
    written
}

fn by_channel(written: &Written) -> BTreeMap<String, Vec<u8>> {
    let mut channels = BTreeMap::<String, Vec<u8>>::new();
    for (channel, bytes) in written {
        channels.entry(channel.clone()).or_default().extend_from_slice(bytes);
    }
    channels
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn what_was_written_is_what_is_read(steps in steps(), quota in prop_oneof![Just(1_u64 << 20), Just(64 << 20)]) {
        let mut scene = Scene::new(quota, WhenFull::Wait);
        let written = play(&mut scene, &steps);
        scene.book.finish(None).unwrap();
        scene.take_all();
        let (read, gaps, _) = scene.told();
        prop_assert!(read == written && gaps.is_empty());
        prop_assert!(scene.book.is_settled_or_asks());
        prop_assert_eq!(scene.place.bytes(), 0);
    }

    #[test]
    fn with_gaps_it_is_delivered_or_counted(steps in steps()) {
        let mut scene = Scene::new(1 << 20, WhenFull::Gap);
        let written = play(&mut scene, &steps);
        scene.book.finish(None).unwrap();
        scene.take_all();
        let (read, gaps, receipt) = scene.told();
        for (channel, bytes) in by_channel(&written) {
            let delivered = by_channel(&read).remove(&channel).unwrap_or_default();
            let (missing, missing_lines) = gaps.get(&channel).copied().unwrap_or_default();
            prop_assert_eq!(delivered.len() as u64 + missing, bytes.len() as u64);
            prop_assert_eq!(receipt.channels[&channel].missing, missing);
            let lines = tailrace_core::line::lines_begun(&bytes, false);
            prop_assert_eq!(receipt.channels[&channel].lines + missing_lines, lines);
        }
    }

    #[test]
    fn a_killed_supervisor_leaves_all_but_what_its_last_turn_had_in_hand(steps in steps(), in_hand in 0..2_000_usize) {
        let mut scene = Scene::new(64 << 20, WhenFull::Wait);
        scene.book.spool(true);
        let mut written = play(&mut scene, &steps);
        let safe: usize = written.iter().map(|(_, bytes)| bytes.len()).sum();
        if in_hand > 0 && scene.book.takes_output() {
            let data = bytes(in_hand, 1);
            scene.book.push_output(Channel::Stdout, &data);
            add(&mut written, Channel::Stdout, &data);
        }
        let spooled = scene.book.journal.tail().is_spooling();
        scene = scene.recover();
        scene.take_all();
        let (read, gaps, _) = scene.told();
        prop_assert!(gaps.is_empty());
        let delivered: usize = read.iter().map(|(_, bytes)| bytes.len()).sum();
        prop_assert!(delivered >= safe || !spooled, "{} of {}", delivered, safe);
        for ((channel, bytes), (of, all)) in read.iter().zip(&written) {
            prop_assert!(channel == of && all.starts_with(bytes));
        }
        prop_assert_eq!(scene.place.bytes(), 0);
    }
}

/// A child that writes while nobody takes it, then a reader that takes all.
fn small_scenario(when_full: WhenFull, failing: std::ops::Range<u64>) -> (u64, u64) {
    fail(failing);
    let mut scene = Scene::new(8 << 20, when_full);
    scene.book.spool(true);
    let mut written = Written::new();
    for count in 0..40 {
        if scene.book.takes_output() {
            let data = bytes(100_000, count);
            scene.book.push_output(Channel::Stdout, &data);
            add(&mut written, Channel::Stdout, &data);
        }
        scene.now += SECOND / 4;
        scene.turn();
    }
    scene.book.finish(None).unwrap();
    scene.turn();
    scene.take_all();
    let (read, gaps, _) = scene.told();
    let (delivered, all) = (by_channel(&read), by_channel(&written));
    let missing = gaps.get("stdout").map_or(0, |(bytes, _)| *bytes);
    assert_eq!(delivered["stdout"].len() as u64 + missing, all["stdout"].len() as u64);
    if missing == 0 {
        assert_eq!(delivered, all);
    }
    assert!(scene.book.is_settled_or_asks());
    (fail(0..0), missing)
}

#[test]
fn whichever_operation_fails_nothing_is_lost_without_a_gap() {
    for when_full in [WhenFull::Wait, WhenFull::Gap] {
        let (operations, missing) = small_scenario(when_full, 0..0);
        assert!(operations > 60 && missing == 0, "{operations} {missing}");
        for number in 0..operations {
            let (_, once) = small_scenario(when_full, number..number + 1);
            let (_, for_ever) = small_scenario(when_full, number..u64::MAX);
            assert!(when_full == WhenFull::Gap || once + for_ever == 0);
        }
    }
    assert!(small_scenario(WhenFull::Gap, 0..u64::MAX).1 > 0);
}

#[test]
fn one_run_of_dropped_bytes_is_one_gap() {
    let mut scene = Scene::new(1 << 20, WhenFull::Gap);
    scene.book.spool(true);
    for count in 0..60 {
        scene.book.push_output(CHANNELS[count % 2], &bytes(100_000, count));
        scene.turn();
    }
    scene.book.finish(None).unwrap();
    scene.take_all();
    let records: Vec<_> = Records::new(&scene.read).map(|record| Record::decode(record.unwrap().1).unwrap()).collect();
    let gaps: Vec<_> =
        records.iter().filter_map(|record| if let Record::Gap(gap) = record { Some(gap) } else { None }).collect();
    assert_eq!(gaps.iter().map(|gap| gap.channel).collect::<Vec<_>>().len(), 2);
    assert!(gaps.iter().all(|gap| gap.reason == "the worker's spool is full"));
}

#[test]
fn the_counts_of_a_thousand_logs_survive_the_supervisor() {
    let mut scene = Scene::new(1 << 20, WhenFull::Wait);
    let mut written = Written::new();
    for count in 0..3000 {
        let name = format!("{}{}", "n".repeat(250), count % 1000);
        let data = bytes(1 + count % 50, count);
        scene.book.push_output(Channel::Log(&name), &data);
        add(&mut written, Channel::Log(&name), &data);
        scene.turn();
        scene.take(1 << 20);
    }
    scene = scene.recover();
    scene.take_all();
    let (read, _, receipt) = scene.told();
    assert!(read == written);
    assert_eq!(receipt.channels.len(), 1000);
}
