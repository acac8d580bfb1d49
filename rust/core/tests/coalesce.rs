//! The coalescer: nothing is lost, reordered or late, and the times of lines are those of a splitter byte by byte.

mod model;

use model::{CHANNELS, Push, line_times};
use proptest::prelude::*;
use tailrace_core::channel::Channel;
use tailrace_core::coalesce::{Coalescer, DELAY_US, PIECE_BYTES, Sink};
use tailrace_core::journal::Writer;
use tailrace_core::ledger::Ledger;
use tailrace_core::limits::LOG_DATA_BYTES_MAX;
use tailrace_core::record::{Piece, Record, Records, encode_log, runs};

const WALL_US: u64 = 1_700_000_000_000_000;

/// Takes pieces as records, and notes when.
#[derive(Default)]
struct Clocked {
    now_us: u64,
    records: Vec<u8>,
    passed: Vec<(u64, usize)>,
}

impl Sink for Clocked {
    fn piece(&mut self, piece: &Piece<'_>) {
        encode_log(piece, &mut self.records);
        self.passed.push((self.now_us, piece.len()));
    }
}

/// Pushes everything, polling whenever it is due.
fn run(pushes: &[Push]) -> Clocked {
    let (mut coalescer, mut sink) = (Coalescer::new(), Clocked::default());
    for push in pushes {
        while let Some(deadline) = coalescer.deadline().filter(|&deadline| deadline <= push.at_us) {
            sink.now_us = deadline;
            coalescer.poll(deadline, &mut sink);
        }
        sink.now_us = push.at_us;
        coalescer.push(CHANNELS[push.channel], &push.data, WALL_US + push.at_us, push.at_us, &mut sink);
    }
    sink.now_us = coalescer.deadline().unwrap_or(sink.now_us);
    let end = sink.now_us;
    coalescer.poll(end, &mut sink);
    assert_eq!(coalescer.waiting(), 0);
    sink
}

fn pushes() -> impl Strategy<Value = Vec<Push>> {
    let short = proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'x'), any::<u8>()], 0..40);
    let long = (1usize..400_000, 1usize..100_000).prop_map(|(length, line)| {
        (0..length).map(|at| if at % line == line - 1 { b'\n' } else { b'y' }).collect::<Vec<u8>>()
    });
    let data = prop_oneof![8 => short, 1 => long];
    let gap = prop_oneof![Just(0u64), 1u64..1000, 1u64..50_000];
    proptest::collection::vec((0usize..4, data, gap), 0..60).prop_map(|steps| {
        let mut at_us = 1000;
        let push = |(channel, data, gap)| {
            at_us += gap;
            Push { channel, data, at_us }
        };
        steps.into_iter().map(push).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn concatenating_the_pieces_gives_back_the_input_in_order(pushes in pushes()) {
        let sink = run(&pushes);
        let mut read = Vec::new();
        for push in &pushes {
            read.extend(push.data.iter().map(|&byte| (CHANNELS[push.channel], byte)));
        }
        let mut passed = Vec::new();
        for record in Records::new(&sink.records) {
            let Record::Log(log) = Record::decode(record.unwrap().1).unwrap() else { unreachable!() };
            passed.extend(log.data.iter().map(|&byte| (log.channel, byte)));
        }
        prop_assert!(read == passed);
    }

    #[test]
    fn lines_and_their_times_are_those_of_the_slow_splitter(pushes in pushes()) {
        let sink = run(&pushes);
        for (index, channel) in CHANNELS.into_iter().enumerate() {
            let of_channel = pushes.iter().filter(|push| push.channel == index);
            let expected = line_times(of_channel.map(|push| (push.data.as_slice(), WALL_US + push.at_us)));
            let mut times = Vec::new();
            for record in Records::new(&sink.records) {
                let Record::Log(log) = Record::decode(record.unwrap().1).unwrap() else { unreachable!() };
                if log.channel == channel {
                    times.extend(runs(log.times).flat_map(|run| vec![log.wall_us + run.at_us; run.lines as usize]));
                    log.check_lines().unwrap();
                    prop_assert_eq!(log.wall_us - log.mono_us, WALL_US);
                }
            }
            prop_assert_eq!(times, expected);
        }
    }

    #[test]
    fn the_ledger_accepts_what_the_writer_makes_and_agrees(pushes in pushes()) {
        let mut writer = Writer::new(Vec::new());
        let mut coalescer = Coalescer::new();
        for push in &pushes {
            coalescer.push(CHANNELS[push.channel], &push.data, WALL_US, push.at_us, &mut writer);
        }
        coalescer.flush(u64::MAX / 2, &mut writer);
        let counted = writer.ledger().receipt();
        writer.finish(None).unwrap();
        let journal = writer.tail().clone();
        let mut ledger = Ledger::new();
        ledger.add(&journal).unwrap();
        prop_assert_eq!(ledger.chain(), writer.ledger().chain());
        prop_assert_eq!(ledger.offset(), journal.len() as u64);
        prop_assert!(ledger.agrees(&writer.ledger().receipt()));
        prop_assert_eq!(&ledger.receipt().channels, &counted.channels);
        prop_assert_eq!(counted.channels.values().map(|count| count.bytes).sum::<u64>(),
            pushes.iter().map(|push| push.data.len() as u64).sum::<u64>());
    }

    #[test]
    fn nothing_waits_longer_than_the_delay_and_no_piece_is_too_large(pushes in pushes()) {
        let sink = run(&pushes);
        let mut arrivals = pushes.iter().flat_map(|push| std::iter::repeat_n(push.at_us, push.data.len()));
        for &(now_us, length) in &sink.passed {
            prop_assert!((1..=LOG_DATA_BYTES_MAX).contains(&length));
            for arrived in arrivals.by_ref().take(length) {
                prop_assert!(now_us >= arrived && now_us - arrived <= DELAY_US);
            }
        }
    }
}

fn lengths(sink: &Clocked) -> Vec<usize> {
    sink.passed.iter().map(|&(_, length)| length).collect()
}

fn push(data: &[u8], at_us: u64) -> Push {
    Push { channel: 0, data: data.to_vec(), at_us }
}

#[test]
fn first_bytes_go_at_once_whole_line_or_not() {
    assert_eq!(run(&[push(b"incompl", 5)]).passed, [(5, 7)]);
    assert_eq!(run(&[push(b"a", 5), push(b"b", 5 + DELAY_US)]).passed, [(5, 1), (5 + DELAY_US, 1)]);
}

#[test]
fn a_header_holds_no_first_line_back() {
    let mut sink = Clocked::default();
    let mut coalescer = Coalescer::new();
    for (channel, at_us) in [(Channel::Header, 0), (Channel::Stdout, 1_000), (Channel::Stdout, 2_000)] {
        sink.now_us = at_us;
        coalescer.push(channel, b"line\n", WALL_US + at_us, at_us, &mut sink);
    }
    assert_eq!(sink.passed, [(0, 5), (1_000, 5)]);
    assert_eq!(coalescer.deadline(), Some(1_000 + DELAY_US));
}

#[test]
fn under_load_pieces_wait_for_the_deadline() {
    let sink = run(&[push(b"a", 0), push(b"b", 10), push(b"c", 19_000)]);
    assert_eq!(sink.passed, [(0, 1), (DELAY_US, 2)]);
}

#[test]
fn the_begin_of_a_line_that_whole_lines_leave_behind_goes_at_its_own_deadline() {
    let long = vec![b'x'; PIECE_BYTES];
    let sink = run(&[push(b"a\n", 0), push(b"b\nbegun", 5_000), push(&long, 19_000)]);
    assert_eq!(sink.passed, [(0, 2), (19_000, 2), (5_000 + DELAY_US, 5 + PIECE_BYTES)]);
}

#[test]
fn full_pieces_end_with_a_line() {
    let line = [[b'x'; 79].as_slice(), b"\n"].concat().repeat(PIECE_BYTES / 80 + 1);
    let sink = run(&[push(b"a\n", 0), push(&line, 1), push(b"tail", 2)]);
    assert_eq!(lengths(&sink), [2, line.len(), 4]);
    let cut = run(&[push(b"a\n", 0), push(&[&line, b"rest".as_slice()].concat(), 1)]);
    assert_eq!(lengths(&cut), [2, line.len(), 4]);
}

#[test]
fn without_a_line_end_a_piece_grows_to_the_most() {
    let sink = run(&[push(b"a", 0), push(&vec![b'x'; 3 * LOG_DATA_BYTES_MAX + 5], 1)]);
    let most = LOG_DATA_BYTES_MAX;
    assert_eq!(lengths(&sink), [1, most, most, most, 5]);
}

#[test]
fn a_million_bytes_one_by_one_cost_thousands_of_records_at_most() {
    for line in [1, 80, usize::MAX] {
        let (mut coalescer, mut out) = (Coalescer::new(), Vec::new());
        for at in 0..1_000_000usize {
            let byte = if at % line == line - 1 { b"\n" } else { b"x" };
            let now_us = 3 * at as u64;
            coalescer.poll(now_us, &mut out);
            coalescer.push(Channel::Stdout, byte, now_us, now_us, &mut out);
        }
        coalescer.flush(4_000_000, &mut out);
        let records = Records::new(&out).count();
        assert!(records < 1000, "{records} records");
    }
}
