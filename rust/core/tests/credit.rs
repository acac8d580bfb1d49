//! Credit (PROTOCOL.md section 5): nobody sends beyond it, and it always comes back.

mod support;

use proptest::prelude::*;
use support::{Pair, events, hex, master_config, record, worker_config};
use tailrace_core::event::Event;
use tailrace_core::frame::StreamRole::{Journal, Upload};
use tailrace_core::limits::{RECORD_BYTES_MAX, UNTOLD_BYTES_MAX};

/// The worker's stream takes whatever it has room for, of an endless sequence of records.
struct Source {
    stream: u64,
    record: Vec<u8>,
    at: usize,
}

impl Source {
    fn new(pair: &mut Pair, name: &str, record: Vec<u8>) -> Self {
        Self { stream: pair.worker.open(Journal, name, 0).unwrap(), record, at: 0 }
    }

    fn fill(&mut self, pair: &mut Pair) {
        loop {
            let room = pair.worker.room(self.stream).unwrap();
            let left = &self.record[self.at..];
            let part = &left[..room.min(left.len())];
            if part.is_empty() {
                return;
            }
            pair.worker.write(self.stream, part).unwrap();
            self.at = (self.at + part.len()) % self.record.len();
        }
    }
}

/// Takes and settles everything that is there. Says how much it was.
fn consume(pair: &mut Pair, stream: u64) -> u64 {
    let mut end = 0;
    while let Some((start, records)) = pair.master.take(stream, 1 << 20).unwrap() {
        end = start + records.len() as u64;
        pair.master.settle(stream, end, end).unwrap();
    }
    end
}

#[test]
fn a_stream_stops_at_its_window_and_goes_on_when_it_was_taken() {
    let mut pair = Pair::open();
    let mut source = Source::new(&mut pair, "c", record(1000));
    for _ in 0..100 {
        source.fill(&mut pair);
        pair.pump();
    }
    let arrived = pair.master.statistics().bytes_received;
    assert!((2 << 20..=(4 << 20) + 10_000).contains(&arrived), "{arrived}");
    let end = consume(&mut pair, source.stream);
    for _ in 0..100 {
        source.fill(&mut pair);
        pair.pump();
    }
    assert!(consume(&mut pair, source.stream) > end + (2 << 20) - 2000);
}

#[test]
fn what_may_still_come_is_what_the_peer_was_let_send() {
    let mut pair = Pair::open();
    assert_eq!(pair.master.may_come(), 0);
    let mut source = Source::new(&mut pair, "c", record(1000));
    for _ in 0..100 {
        source.fill(&mut pair);
        pair.pump();
    }
    assert_eq!(pair.master.may_come(), 0);
    consume(&mut pair, source.stream);
    assert_eq!(pair.master.may_come(), 0, "the peer was not told yet");
    pair.master.data_to_send(1000);
    assert!(pair.master.may_come() >= 1 << 20);
    // Of the stream that brought something last.
    let other = pair.worker.open(Journal, "d", 0).unwrap();
    pair.worker.write(other, &record(1000)).unwrap();
    pair.pump();
    assert!((1..100_000).contains(&pair.master.may_come()));
}

#[test]
fn stalled_streams_do_not_stop_the_others() {
    for stalled in [1, 10, 40, 200] {
        let mut pair = Pair::open();
        let mut sources: Vec<Source> =
            (0..stalled).map(|n| Source::new(&mut pair, &n.to_string(), record(200_000))).collect();
        // They were busy first, so that each has a large window.
        for round in 0..60 {
            for source in &mut sources {
                source.fill(&mut pair);
                pair.pump();
                if round < 20 {
                    consume(&mut pair, source.stream);
                }
            }
        }
        let mut lively = Source::new(&mut pair, "lively", record(1000));
        let mut total = 0;
        for _ in 0..200 {
            lively.fill(&mut pair);
            pair.pump();
            total = total.max(consume(&mut pair, lively.stream));
        }
        assert!(total > 4 << 20, "{stalled} stalled streams left {total} bytes for the lively one");
        pair.master.call("print", tailrace_core::value::map([("m", "x".repeat(200_000).as_str().into())])).unwrap();
        pair.forget();
        assert!(pair.heard().0.iter().any(|event| matches!(event, Event::Called { .. })));
    }
}

#[test]
fn memory_is_bounded_by_the_connection_window() {
    let mut pair = Pair::open();
    let mut sources: Vec<Source> = (0..1000).map(|n| Source::new(&mut pair, &n.to_string(), record(1000))).collect();
    for _ in 0..20 {
        for source in &mut sources {
            source.fill(&mut pair);
        }
        pair.pump();
    }
    assert!(pair.master.statistics().bytes_received <= 33 << 20);
}

#[test]
fn a_record_larger_than_every_window_arrives() {
    for (stream_window, connection_window) in [(1, 64), (1000, 100_000), (4 << 20, 8 << 20)] {
        let mut master = master_config();
        (master.stream_window, master.connection_window) = (stream_window, connection_window);
        let mut pair = Pair::open_with(worker_config(), master);
        let large = record(4 + RECORD_BYTES_MAX.min(connection_window as usize * 3));
        let mut source = Source::new(&mut pair, "c", large.clone());
        let mut end = 0;
        for _ in 0..3000 {
            source.fill(&mut pair);
            pair.pump();
            end = end.max(consume(&mut pair, source.stream));
            if end >= 2 * large.len() as u64 {
                break;
            }
        }
        assert!(end >= 2 * large.len() as u64, "{end} of {} with {stream_window}, {connection_window}", large.len());
    }
}

#[test]
fn a_stream_with_much_room_is_told_of_seldom_and_with_whatever_is_said() {
    let mut pair = Pair::open();
    pair.waits = true;
    let (stream, piece) = (pair.worker.open(Journal, "c", 0).unwrap(), record(64_000));
    let (mut end, mut told, mut windows) = (0, 0, 0);
    for round in 0..100 {
        assert!(pair.worker.room(stream).unwrap() >= piece.len());
        pair.worker.write(stream, &piece).unwrap();
        pair.pump();
        end = consume(&mut pair, stream);
        if round % 10 == 9 {
            pair.worker.ping(round).unwrap();
        }
        for event in pair.heard().0 {
            if let Event::StreamProgress { next, durable, .. } = event {
                assert_eq!(next, durable);
                (told, windows) = (next, windows + 1);
            }
        }
        assert!(end - told < UNTOLD_BYTES_MAX && (round % 10 < 9 || end == told), "{told} of {end}");
    }
    assert!((20..=35).contains(&windows), "{windows}");
    pair.worker.end(stream).unwrap();
    let last = Event::StreamProgress { stream, next: end, durable: end, done: true };
    assert!(pair.heard().0.contains(&last));
}

#[test]
fn many_large_records_arrive_even_if_some_are_never_taken() {
    let mut pair = Pair::open();
    let large = record(4 + RECORD_BYTES_MAX);
    let mut sources: Vec<Source> = (0..8).map(|n| Source::new(&mut pair, &n.to_string(), large.clone())).collect();
    let mut arrived = std::collections::HashSet::new();
    for _ in 0..2000 {
        for source in &mut sources {
            source.fill(&mut pair);
        }
        pair.pump();
        for source in &sources[2..] {
            if consume(&mut pair, source.stream) > 0 {
                arrived.insert(source.stream);
            }
        }
        if arrived.len() == 6 {
            return;
        }
    }
    panic!("only {} large records arrived", arrived.len());
}

#[test]
fn a_reset_stream_returns_its_credit() {
    let mut master = master_config();
    master.connection_window = 1 << 20;
    let mut pair = Pair::open_with(worker_config(), master);
    for n in 0..50 {
        let mut source = Source::new(&mut pair, &n.to_string(), record(1000));
        for _ in 0..20 {
            source.fill(&mut pair);
            pair.pump();
        }
        match n % 3 {
            0 => pair.worker.reset(source.stream, "no").unwrap(),
            1 => pair.master.stop(source.stream, "no").unwrap(),
            _ => {
                pair.master.take(source.stream, 1 << 20).unwrap();
                pair.worker.reset(source.stream, "no").unwrap();
            }
        }
        pair.pump();
    }
    assert!(pair.master.statistics().bytes_received > 5 << 20);
    assert_eq!(pair.master.statistics().streams + pair.worker.statistics().streams, 0);
}

#[test]
fn the_opening_of_a_stream_is_paid_for() {
    let mut master = master_config();
    master.connection_window = 3 * 64;
    let mut pair = Pair::open_with(worker_config(), master);
    let mut bytes = Vec::new();
    for stream in 0..4u8 {
        bytes.extend_from_slice(&[0x20, 0, 0, 5, 2 * stream + 1, 0, 1, b'a' + stream, 0]);
    }
    pair.master.receive_data(&bytes);
    assert_eq!(events(&mut pair.master).len(), 3);
    assert!(pair.master.next_event().unwrap_err().to_string().contains("connection's limit"));

    for n in 0..100 {
        let mut pair = Pair::open_with(worker_config(), {
            let mut master = master_config();
            master.connection_window = 3 * 64;
            master
        });
        for m in 0..n {
            pair.worker.open(Upload, &m.to_string(), 0).unwrap();
        }
        pair.pump();
        assert_eq!(pair.at_master.len(), n, "credit for them comes back");
    }
}

#[test]
fn who_sends_beyond_a_limit_is_in_error() {
    let mut master = master_config();
    master.stream_window = 8;
    let mut pair = Pair::open_with(worker_config(), master);
    pair.master.receive_data(&hex("20 000005 01 00 01 63 00  21 00000a 01 00 00000004 01020304"));
    assert!(pair.master.next_event().is_ok());
    pair.master.receive_data(&hex("21 000003 01 08 00"));
    events(&mut pair.master);
    assert!(pair.master.next_event().unwrap_err().to_string().contains("beyond the limit of stream 1"));
}

#[test]
fn a_credit_that_is_lower_than_before_is_ignored() {
    let mut pair = Pair::open();
    pair.worker.receive_data(&hex("23 000001 01"));
    let stream = pair.worker.open(Journal, "c", 0).unwrap();
    pair.worker.write(stream, &record(1000)).unwrap();
    pair.pump();
    assert!(pair.master.take(stream, 1000).unwrap().is_some());
}

/// What happens in the property below.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize),
    Carry(usize),
    CarryBack,
    Take(usize, usize),
    Settle(usize, bool),
    Large(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            (0..3usize, 1..3000usize).prop_map(|(stream, length)| Step::Write(stream, length)),
            (1..5000usize).prop_map(Step::Carry),
            Just(Step::CarryBack),
            (0..3usize, 1..2000usize).prop_map(|(stream, max)| Step::Take(stream, max)),
            (0..3usize, any::<bool>()).prop_map(|(stream, durable)| Step::Settle(stream, durable)),
            (0..3usize).prop_map(Step::Large),
        ],
        1..200,
    )
}

/// The slow twin of a stream: all bytes that were written, and how far each side has come.
#[derive(Default)]
struct Model {
    written: Vec<u8>,
    taken: usize,
    settled: u64,
    durable: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens in whatever order: bytes in are bytes out, limits hold (the sessions are each other's judges, and
    /// debug builds check the sums), and when everybody goes on, everything arrives.
    #[test]
    fn bytes_in_are_bytes_out(
        steps in steps(),
        stream_window in 1..2000u64,
        connection_window in 64..6000u64,
        piece in 1..300usize,
        waits in any::<bool>(),
    ) {
        let mut master = master_config();
        (master.stream_window, master.connection_window) = (stream_window, connection_window);
        let mut pair = Pair::open_with(worker_config(), master);
        pair.waits = waits;
        let streams: Vec<u64> = (0..3).map(|n| pair.worker.open(Journal, &n.to_string(), 0).unwrap()).collect();
        pair.pump();
        let mut models: Vec<Model> = streams.iter().map(|_| Model::default()).collect();
        for step in steps {
            match step {
                Step::Write(n, length) => write(&mut pair, streams[n], &mut models[n], length.max(5)),
                Step::Large(n) => write(&mut pair, streams[n], &mut models[n], 20_000),
                Step::Carry(max) => {
                    for part in pair.worker.data_to_send(max).concat().chunks(piece) {
                        pair.master.receive_data(part);
                    }
                }
                Step::CarryBack if waits && !pair.master.is_urgent() => {}
                Step::CarryBack => {
                    let bytes = support::sent(&mut pair.master);
                    pair.worker.receive_data(&bytes);
                }
                Step::Take(n, max) => {
                    take(&mut pair, streams[n], &mut models[n], max)?;
                }
                Step::Settle(n, durable) => settle(&mut pair, streams[n], &mut models[n], durable)?,
            }
        }
        for &stream in &streams {
            pair.worker.end(stream).unwrap();
        }
        for _ in 0..100_000 {
            pair.pump();
            for (&stream, model) in streams.iter().zip(&mut models) {
                while take(&mut pair, stream, model, 1 << 20)? {}
                settle(&mut pair, stream, model, true)?;
            }
            if pair.worker.statistics().streams == 0 {
                break;
            }
        }
        for (&stream, model) in streams.iter().zip(&models) {
            prop_assert_eq!(model.taken, model.written.len());
            prop_assert!(pair.master.is_ended(stream).unwrap());
        }
        prop_assert_eq!(pair.master.statistics().streams, 0);
        prop_assert!(pair.master.next_event().is_ok() && pair.worker.next_event().is_ok());
    }
}

fn write(pair: &mut Pair, stream: u64, model: &mut Model, length: usize) {
    if pair.worker.room(stream).unwrap() >= length {
        let record = record(length);
        pair.worker.write(stream, &record).unwrap();
        model.written.extend_from_slice(&record);
    }
}

fn take(pair: &mut Pair, stream: u64, model: &mut Model, max: usize) -> Result<bool, TestCaseError> {
    let Some((start, records)) = pair.master.take(stream, max).unwrap() else { return Ok(false) };
    prop_assert_eq!(start, model.taken as u64);
    let end = model.taken + records.len();
    prop_assert_eq!(&records[..], &model.written[model.taken..end]);
    model.taken = end;
    Ok(true)
}

fn settle(pair: &mut Pair, stream: u64, model: &mut Model, durable: bool) -> Result<(), TestCaseError> {
    model.settled = model.taken as u64;
    if durable {
        model.durable = model.settled;
    }
    prop_assert!(pair.master.settle(stream, model.settled, model.durable).is_ok());
    Ok(())
}
