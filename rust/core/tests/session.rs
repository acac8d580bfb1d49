//! What a session promises after the login (PROTOCOL.md sections 2, 4, 5 and 8).

mod support;

use bytes::Bytes;
use support::{Pair, carry, events, hex, receive, record, sent};
use tailrace_core::event::Event;
use tailrace_core::frame::StreamRole::{Download, Journal, Upload};
use tailrace_core::limits::{CALLS_MAX, PINGS_MAX, STREAM_QUEUE_BYTES_MAX};
use tailrace_core::session::Session;
use tailrace_core::value::{Value, map};

fn text(length: usize) -> Value {
    map([("text", "x".repeat(length).as_str().into())])
}

/// The worker has sent `data` as one journal.
fn journal(pair: &mut Pair, data: &[u8]) -> u64 {
    let stream = pair.worker.open(Journal, &format!("command {}", pair.worker.statistics().streams), 0).unwrap();
    pair.worker.write(stream, data).unwrap();
    pair.pump();
    pair.forget();
    stream
}

#[track_caller]
fn refused_by(session: &mut Session, frames: &str, why: &str) {
    session.receive_data(&hex(frames));
    events(session);
    let error = session.next_event().expect_err("this must not be accepted").to_string();
    assert!(error.contains(why), "{error:?} is not about {why:?}");
}

mod calls {
    use super::*;

    #[test]
    fn answers_come_in_any_order() {
        let mut pair = Pair::open();
        let first = pair.master.call("print", map([])).unwrap();
        let second = pair.master.call("print", map([])).unwrap();
        pair.pump();
        pair.worker.fail(second, "Error", "no").unwrap();
        pair.worker.reply(first, Value::Int(7)).unwrap();
        let (_, heard) = pair.heard();
        let failed = Event::CallFailed { call: second, kind: "Error".to_owned(), text: "no".to_owned() };
        assert_eq!(heard, [failed, Event::Replied { call: first, value: Value::Int(7) }]);
        assert_eq!(pair.master.statistics().calls + pair.worker.statistics().calls, 0);
    }

    #[test]
    fn a_call_of_any_size_up_to_16_mib_arrives() {
        for length in [65_400, 65_500, 65_536, 70_000, 1 << 20, (16 << 20) - 100] {
            let mut pair = Pair::open();
            pair.master.call("m", text(length)).unwrap();
            let (heard, _) = pair.heard();
            assert_eq!(heard, [Event::Called { call: 0, method: "m".to_owned(), args: text(length) }]);
            let statistics = (pair.master.statistics(), pair.worker.statistics());
            assert_eq!((statistics.0.streams, statistics.1.streams), (0, 0));
        }
    }

    #[test]
    fn a_larger_one_is_refused_before_a_byte_is_made() {
        let mut pair = Pair::open();
        assert!(pair.master.call("m", text(16 << 20)).is_err());
        assert!(sent(&mut pair.master).is_empty());
        assert_eq!(pair.master.call("m", map([])), Ok(0));
    }

    #[test]
    fn small_calls_overtake_large_ones() {
        let mut pair = Pair::open();
        pair.master.call("large", text(1 << 20)).unwrap();
        pair.master.call("small", map([])).unwrap();
        let (heard, _) = pair.heard();
        let calls: Vec<u64> =
            heard.iter().map(|event| if let Event::Called { call, .. } = event { *call } else { 99 }).collect();
        assert_eq!(calls, [1, 0]);
    }

    #[test]
    fn several_large_messages_arrive_one_after_the_other() {
        let mut pair = Pair::open();
        for _ in 0..5 {
            pair.master.call("m", text(10 << 20)).unwrap();
        }
        assert_eq!(pair.heard().0.len(), 5);
    }

    #[test]
    fn a_thousand_calls_may_wait_and_not_one_more() {
        let mut pair = Pair::open();
        for _ in 0..CALLS_MAX {
            pair.master.call("m", map([])).unwrap();
        }
        assert!(pair.master.call("m", map([])).is_err());
        assert_eq!(pair.heard().0.len(), CALLS_MAX);
        pair.worker.reply(5, Value::Nil).unwrap();
        pair.pump();
        assert!(pair.master.call("m", map([])).is_ok());
    }

    #[test]
    fn what_a_peer_may_not_do_with_calls() {
        for (frames, why) in [
            ("11 000002 00 c0", "does not wait"),
            ("12 000005 00 01 45 01 74", "does not wait"),
            ("10 000004 00 01 6d 80  10 000004 00 01 6d 80", "second time"),
            ("10 000005 8210 01 6d 80", "call 2050"),
        ] {
            refused_by(&mut Pair::open().worker, frames, why);
        }
    }

    #[test]
    fn more_calls_than_may_wait_are_an_error() {
        let mut pair = Pair::open();
        for call in 0..CALLS_MAX {
            let frame = tailrace_core::frame::Frame::Call { call: call as u64, method: "m", args: map([]) };
            let mut bytes = Vec::new();
            frame.encode(&mut bytes).unwrap();
            pair.worker.receive_data(&bytes);
        }
        assert_eq!(events(&mut pair.worker).len(), CALLS_MAX);
        refused_by(&mut pair.worker, "10 000005 8008 01 6d 80", "1024 calls");
    }

    #[test]
    fn a_peer_that_does_not_read_its_answers_cannot_make_them_pile_up() {
        let mut pair = Pair::open();
        for call in 0..CALLS_MAX as u64 {
            let frame = tailrace_core::frame::Frame::Call { call, method: "m", args: map([]) };
            let mut bytes = Vec::new();
            frame.encode(&mut bytes).unwrap();
            pair.worker.receive_data(&bytes);
            assert_eq!(events(&mut pair.worker).len(), 1);
            pair.worker.reply(call, Value::Nil).unwrap();
        }
        refused_by(&mut pair.worker, "10 000005 8008 01 6d 80", "1024 calls");
    }

    #[test]
    fn a_peer_that_reads_its_answers_may_call_on() {
        let mut pair = Pair::open();
        for call in 0..2 * CALLS_MAX as u64 {
            pair.master.call("m", map([])).unwrap();
            pair.pump();
            pair.worker.reply(call, Value::Nil).unwrap();
            pair.pump();
        }
        assert_eq!(pair.worker.statistics().calls, 0);
    }

    #[test]
    fn a_call_is_answered_once() {
        let mut pair = Pair::open();
        pair.master.call("m", map([])).unwrap();
        pair.pump();
        pair.worker.reply(0, Value::Nil).unwrap();
        assert!(pair.worker.reply(0, Value::Nil).is_err());
        assert!(pair.worker.fail(0, "E", "").is_err());
        assert!(pair.worker.reply(1, Value::Nil).is_err());
    }

    #[test]
    fn a_large_call_that_the_peer_stops_has_failed() {
        let mut pair = Pair::open();
        pair.master.call("m", text(10 << 20)).unwrap();
        pair.master.data_to_send(1000);
        pair.master.receive_data(&hex("26 000004 02 02 6e6f"));
        let heard = events(&mut pair.master);
        assert!(matches!(heard.as_slice(), [Event::CallFailed { call: 0, .. }]), "{heard:?}");
    }
}

mod streams {
    use super::*;

    #[test]
    fn whole_records_are_taken_and_nothing_else() {
        let mut pair = Pair::open();
        let records = [record(100), record(200), record(50)].concat();
        let stream = journal(&mut pair, &records[..320]);
        assert_eq!(pair.master.take(stream, 1000).unwrap(), Some((0, records[..300].to_vec().into())));
        assert_eq!(pair.master.take(stream, 1000).unwrap(), None);
        pair.worker.write(stream, &records[320..]).unwrap();
        assert_eq!(pair.heard().1, [Event::StreamReadable { stream }]);
        assert_eq!(pair.master.take(stream, 1000).unwrap(), Some((300, records[300..].to_vec().into())));
    }

    #[test]
    fn a_take_is_bounded_but_holds_one_record_at_least() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &[record(100), record(100), record(500), record(10)].concat());
        let mut lengths = Vec::new();
        while let Some((_, records)) = pair.master.take(stream, 250).unwrap() {
            lengths.push(records.len());
        }
        assert_eq!(lengths, [200, 500, 10]);
    }

    #[test]
    fn blocks_go_whole_in_order_and_without_a_copy() {
        let mut pair = Pair::open();
        let (small, block) = (record(100), Bytes::from(record(900_000)));
        let stream = pair.worker.open(Upload, "c", 0).unwrap();
        pair.worker.write(stream, &small).unwrap();
        pair.worker.write_block(stream, block.clone()).unwrap();
        assert_eq!((pair.worker.sent(stream).unwrap(), pair.worker.room(stream).unwrap()), (900_100, 0));
        assert!(pair.worker.write_block(stream, block.clone()).is_err());
        assert!(pair.worker.write(stream, b"x").is_err());
        let slices = pair.worker.data_to_send(50_000);
        let inside = block.as_ptr_range();
        let shared = slices.iter().filter(|slice| inside.contains(&slice.as_ptr())).map(|slice| slice.len());
        assert!(shared.sum::<usize>() > 49_000);
        assert_eq!(pair.worker.room(stream).unwrap(), 0);
        pair.master.receive_data(&slices.concat());
        drop(slices);
        let (at_worker, _) = pair.heard();
        assert!(at_worker.contains(&Event::StreamWritable { stream }));
        pair.worker.write_block(stream, block.slice(..10)).unwrap();
        pair.worker.write(stream, &block[10..20]).unwrap();
        pair.worker.write_block(stream, block.slice(20..)).unwrap();
        pair.worker.end(stream).unwrap();
        pair.pump();
        let mut got = Vec::new();
        while let Some((at, records)) = pair.master.take(stream, 4 << 20).unwrap() {
            assert_eq!(at, got.len() as u64);
            got.extend_from_slice(&records);
            pair.master.settle(stream, got.len() as u64, 0).unwrap();
            pair.pump();
        }
        // Not `assert_eq`: it would print megabytes.
        assert!(got == [&small, &*block, &*block].concat());
        assert!(pair.master.is_ended(stream).unwrap());
    }

    #[test]
    fn a_block_is_dropped_with_its_stream() {
        let mut pair = Pair::open();
        let block = Bytes::from(record(900_000));
        let stream = pair.worker.open(Upload, "c", 0).unwrap();
        pair.worker.write_block(stream, block.clone()).unwrap();
        assert!(!block.is_unique());
        pair.worker.reset(stream, "enough").unwrap();
        pair.pump();
        assert!(block.is_unique());
        assert!(pair.worker.write_block(stream, block).is_err());
        assert_eq!(pair.worker.statistics().queued, 0);
    }

    #[test]
    fn readable_is_said_once_until_take() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(10));
        for _ in 0..3 {
            pair.worker.write(stream, &record(10)).unwrap();
            assert_eq!(pair.heard().1, []);
        }
        pair.master.take(stream, 10).unwrap();
        pair.worker.write(stream, &record(10)).unwrap();
        assert_eq!(pair.heard().1, [Event::StreamReadable { stream }]);
    }

    #[test]
    fn a_stream_ends_when_everything_is_durable() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(100));
        pair.worker.end(stream).unwrap();
        assert!(pair.worker.write(stream, b"x").is_err());
        pair.pump();
        assert!(!pair.master.is_ended(stream).unwrap());
        pair.master.take(stream, 1000).unwrap();
        assert!(pair.master.is_ended(stream).unwrap());
        pair.master.settle(stream, 100, 0).unwrap();
        assert_eq!(pair.heard().0, [Event::StreamProgress { stream, next: 100, durable: 0, done: false }]);
        pair.master.settle(stream, 100, 100).unwrap();
        assert_eq!(pair.heard().0, [Event::StreamProgress { stream, next: 100, durable: 100, done: true }]);
        assert!(pair.master.is_ended(stream).unwrap());
        assert_eq!(pair.worker.statistics().streams + pair.master.statistics().streams, 0);
    }

    #[test]
    fn an_end_after_everything_was_durable_is_answered_at_once() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(100));
        pair.master.take(stream, 1000).unwrap();
        pair.master.settle(stream, 100, 100).unwrap();
        pair.heard();
        pair.worker.end(stream).unwrap();
        let (at_worker, at_master) = pair.heard();
        assert_eq!(at_worker, [Event::StreamProgress { stream, next: 100, durable: 100, done: true }]);
        assert_eq!(at_master, [Event::StreamReadable { stream }]);
        assert!(pair.master.is_ended(stream).unwrap());
        assert!(pair.master.is_ended(stream).unwrap());
    }

    #[test]
    fn an_empty_stream_ends() {
        let mut pair = Pair::open();
        let stream = pair.master.open(Download, "c", 0).unwrap();
        pair.master.end(stream).unwrap();
        let (at_worker, at_master) = pair.heard();
        let name = "c".to_owned();
        let opened = Event::StreamOpened { stream, role: Download, name, offset: 0 };
        assert_eq!(at_worker, [opened, Event::StreamReadable { stream }]);
        assert_eq!(at_master, [Event::StreamProgress { stream, next: 0, durable: 0, done: true }]);
    }

    #[test]
    fn a_stream_continues_where_it_is_opened() {
        let mut pair = Pair::open();
        let stream = pair.worker.open(Upload, "c", 1 << 40).unwrap();
        pair.worker.write(stream, &record(10)).unwrap();
        assert_eq!(pair.worker.sent(stream), Ok((1 << 40) + 10));
        pair.pump();
        assert_eq!(pair.master.take(stream, 100).unwrap().unwrap().0, 1 << 40);
    }

    #[test]
    fn a_reset_drops_what_waits_and_what_was_not_taken() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(1000));
        pair.worker.write(stream, &record(500)).unwrap();
        pair.worker.reset(stream, "interrupted").unwrap();
        pair.worker.reset(stream, "again").unwrap();
        let (_, at_master) = pair.heard();
        assert_eq!(at_master, [Event::StreamReset { stream, reason: "interrupted".to_owned() }]);
        assert_eq!(pair.master.take(stream, 1000).unwrap(), None);
        assert!(!pair.master.is_ended(stream).unwrap());
        pair.master.settle(stream, 1000, 1000).unwrap();
        assert_eq!(pair.worker.statistics().streams + pair.master.statistics().streams, 0);
    }

    #[test]
    fn a_stream_that_is_reset_before_it_was_opened_is_told_all_the_same() {
        let mut pair = Pair::open();
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        pair.worker.write(stream, &record(500)).unwrap();
        pair.worker.reset(stream, "no").unwrap();
        let next = pair.worker.open(Journal, "c", 0).unwrap();
        let (_, at_master) = pair.heard();
        assert!(matches!(
            at_master.as_slice(),
            [Event::StreamOpened { stream: old, .. }, Event::StreamReset { stream: gone, reason }, Event::StreamOpened { stream: new, .. }]
                if *old == stream && *gone == stream && reason == "no" && *new == next
        ));
        pair.worker.reset(next, "no").unwrap();
        pair.pump();
        assert_eq!(pair.worker.statistics().streams + pair.master.statistics().streams, 0);
    }

    #[test]
    fn a_stop_is_answered_with_reset() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(1000));
        pair.worker.write(stream, &record(500)[..300]).unwrap();
        pair.master.stop(stream, "disk full").unwrap();
        pair.master.stop(stream, "again").unwrap();
        let (at_worker, at_master) = pair.heard();
        assert_eq!(at_worker, [Event::StreamStopped { stream, reason: "disk full".to_owned() }]);
        assert_eq!(at_master, []);
        assert_eq!(pair.worker.room(stream), Ok(0));
        assert!(pair.worker.write(stream, b"x").is_err());
        assert_eq!(pair.worker.statistics().streams + pair.master.statistics().streams, 0);
    }

    #[test]
    fn a_stop_that_crosses_the_end_closes_the_stream_without_a_promise() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(1000));
        pair.worker.end(stream).unwrap();
        let end = sent(&mut pair.worker);
        pair.master.stop(stream, "disk full").unwrap();
        let stop = sent(&mut pair.master);
        pair.master.receive_data(&end);
        pair.worker.receive_data(&stop);
        let (at_worker, at_master) = pair.heard();
        assert_eq!(at_worker, [Event::StreamStopped { stream, reason: "disk full".to_owned() }]);
        assert_eq!(at_master, []);
        assert_eq!(pair.worker.statistics().streams + pair.master.statistics().streams, 0);
    }

    #[test]
    fn a_stop_after_the_end_was_seen_promises_nothing_either() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(1000));
        pair.worker.end(stream).unwrap();
        pair.pump();
        pair.master.take(stream, 1000).unwrap();
        pair.master.stop(stream, "damaged").unwrap();
        let (at_worker, _) = pair.heard();
        assert_eq!(at_worker, [Event::StreamStopped { stream, reason: "damaged".to_owned() }]);
        assert_eq!(pair.worker.statistics().streams + pair.master.statistics().streams, 0);
    }

    #[test]
    fn what_was_settled_to_its_end_cannot_be_stopped_any_more() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(1000));
        pair.worker.end(stream).unwrap();
        pair.pump();
        pair.master.take(stream, 1000).unwrap();
        pair.master.settle(stream, 1000, 1000).unwrap();
        pair.master.stop(stream, "too late").unwrap();
        let (at_worker, _) = pair.heard();
        assert_eq!(at_worker, [Event::StreamProgress { stream, next: 1000, durable: 1000, done: true }]);
    }

    #[test]
    fn no_more_streams_than_allowed_are_open_and_the_others_wait() {
        let mut master = support::master_config();
        master.streams_max = 2;
        let mut pair = Pair::open_with(support::worker_config(), master);
        let streams: Vec<u64> = (0..4).map(|n| pair.worker.open(Journal, &n.to_string(), 0).unwrap()).collect();
        for &stream in &streams {
            pair.worker.write(stream, &record(10)).unwrap();
            pair.worker.end(stream).unwrap();
        }
        let mut opened = Vec::new();
        for _ in 0..4 {
            for event in pair.heard().1 {
                if let Event::StreamOpened { stream, .. } = event {
                    opened.push(stream);
                }
            }
            assert!(pair.master.statistics().streams <= 2);
            let stream = opened[opened.len() - 1];
            for &stream in &opened {
                pair.master.take(stream, 10).unwrap();
                pair.master.settle(stream, 10, 10).unwrap();
            }
            assert!(streams.contains(&stream));
        }
        assert_eq!(opened, streams);
    }

    #[test]
    fn a_name_is_open_once() {
        let mut pair = Pair::open();
        pair.worker.open(Journal, "c", 0).unwrap();
        assert!(pair.worker.open(Journal, "c", 0).is_err());
        assert!(pair.worker.open(Upload, "c", 0).is_ok());
    }

    #[test]
    fn what_was_taken_can_be_settled_once_and_not_beyond() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(100));
        assert!(pair.master.settle(stream, 100, 0).is_err(), "not taken yet");
        pair.master.take(stream, 100).unwrap();
        assert!(pair.master.settle(stream, 50, 60).is_err(), "durable beyond next");
        pair.master.settle(stream, 100, 50).unwrap();
        assert!(pair.master.settle(stream, 90, 50).is_err(), "back");
        assert!(pair.master.settle(stream, 100, 40).is_err(), "back");
        pair.master.settle(stream, 100, 50).unwrap();
        assert!(pair.master.settle(77, 0, 0).is_err(), "never opened");
    }

    #[test]
    fn what_a_peer_may_not_do_with_streams() {
        let open = "20 000005 01 00 01 63 00 ";
        for (frames, why) in [
            ("20 000005 02 00 01 63 00", "cannot be stream 2"),
            ("20 000005 01 02 01 63 00", "cannot be stream 1"),
            ("20 000005 05 00 01 63 00 20 000005 03 00 01 64 00", "cannot be stream 3 after 5"),
            ("20 000005 01 00 01 63 00 20 000005 03 00 01 63 00", "open already"),
            ("21 000003 01 00 61", "never opened"),
            ("24 000002 01 00", "never opened"),
            ("25 000003 01 00 00", "never opened"),
            ("22 000004 02 00 00 00", "never opened"),
            ("26 000002 02 00", "never opened"),
            (&format!("{open} 21 000003 01 01 61"), "which is at 0"),
            (&format!("{open} 21 000003 01 00 00 21 000003 01 02 61"), "which is at 1"),
            (&format!("{open} 24 000002 01 07"), "which is at 0"),
            (&format!("{open} 25 000003 01 07 00"), "which is at 0"),
            (&format!("{open} 21 000003 01 00 00 24 000002 01 01"), "within a record"),
            (&format!("{open} 21 000006 01 00 00000000"), "a record of 0 bytes"),
            (&format!("{open} 21 000006 01 00 01000001"), "a record of 16777217 bytes"),
            ("20 000005 01 03 01 30 00 21 000003 01 00 30 24 000002 01 01", "no CALL"),
            ("01 000001 80", "HELLO"),
            ("03 000002 00 00", "REFUSED"),
        ] {
            refused_by(&mut Pair::open().master, frames, why);
        }
    }

    #[test]
    fn frames_of_a_stream_that_is_over_are_ignored() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(10));
        assert_eq!(stream, 1);
        pair.worker.reset(stream, "no").unwrap();
        pair.pump();
        pair.forget();
        pair.master.receive_data(&hex("21 000003 01 0a 61  24 000002 01 0b  25 000003 01 0b 00"));
        pair.worker.receive_data(&hex("22 000004 01 7f 7f 7f  26 000002 01 00"));
        let heard = pair.heard();
        assert_eq!(heard, (vec![], vec![]));
        assert!(pair.master.next_event().is_ok() && pair.worker.next_event().is_ok());
    }

    #[test]
    fn windows_never_go_back_nor_beyond_what_was_sent() {
        for (frames, fine) in [
            ("22 000004 01 05 03 7f", true),
            ("22 000004 01 05 03 7f 22 000004 01 05 03 7f", true),
            ("22 000004 01 05 03 7f 22 000004 01 04 03 7f", false),
            ("22 000004 01 05 03 7f 22 000004 01 05 02 7f", false),
            ("22 000004 01 05 03 7f 22 000004 01 05 03 7e", false),
            ("22 000004 01 03 05 7f", false),
            ("22 000004 01 0b 03 7f", false),
        ] {
            // The first limit must be below the ones in the frames.
            let mut master = support::master_config();
            master.stream_window = 20;
            let mut pair = Pair::open_with(support::worker_config(), master);
            journal(&mut pair, &record(10));
            pair.worker.receive_data(&hex(frames));
            let heard = events(&mut pair.worker);
            assert_eq!(pair.worker.next_event().is_ok(), fine, "{frames} gave {heard:?}");
            assert_eq!(
                heard,
                [Event::StreamProgress { stream: 1, next: 5, durable: 3, done: false }]
                    [..usize::from(frames.contains("05 03"))]
            );
        }
    }
}

mod order {
    use super::*;

    #[test]
    fn control_goes_before_data() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(10));
        pair.worker.write(stream, &record(200_000)).unwrap();
        pair.worker.ping(7).unwrap();
        let first = pair.worker.data_to_send(5).concat();
        assert_eq!(first, hex("30 000001 07"));
    }

    #[test]
    fn a_ping_waits_for_one_frame_at_most() {
        let mut pair = Pair::open();
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        pair.worker.write(stream, &record(200_000)).unwrap();
        pair.worker.data_to_send(100);
        pair.worker.ping(7).unwrap();
        let bytes = sent(&mut pair.worker);
        let ping = hex("30 000001 07");
        let before = bytes.windows(ping.len()).position(|window| window == ping).unwrap();
        assert!(before <= 65_536, "{before}");
    }

    #[test]
    fn streams_take_turns() {
        let mut pair = Pair::open();
        let streams: Vec<u64> = (0..3).map(|n| pair.worker.open(Journal, &n.to_string(), 0).unwrap()).collect();
        pair.pump();
        pair.master.next_event().unwrap();
        for &stream in &streams {
            pair.worker.write(stream, &vec![[0, 0, 0, 1, 9]; 50_000].concat()).unwrap();
        }
        let mut order = Vec::new();
        let mut decoder = tailrace_core::decoder::Decoder::default();
        decoder.allow(65_536);
        let bytes = [b"TAILRACE".to_vec(), sent(&mut pair.worker)].concat();
        let mut input = bytes.as_slice();
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            if let tailrace_core::frame::Frame::Data { stream, .. } = frame {
                order.push(stream);
            }
        }
        assert_eq!(order[..3], streams);
        let turns = |stream| order.iter().filter(|&&other| other == stream).count();
        assert_eq!(turns(streams[0]), turns(streams[2]));
    }

    #[test]
    fn at_most_so_much_is_handed_out() {
        let mut pair = Pair::open();
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        pair.worker.write(stream, &record(30_000)).unwrap();
        let mut lengths = Vec::new();
        loop {
            let bytes = pair.worker.data_to_send(1000).concat();
            if bytes.is_empty() {
                break;
            }
            lengths.push(bytes.len());
            pair.master.receive_data(&bytes);
        }
        assert!(lengths[..lengths.len() - 1].iter().all(|&length| length == 1000));
        pair.master.next_event().unwrap();
        assert_eq!(pair.master.take(stream, 30_000).unwrap().unwrap().1.len(), 30_000);
    }

    #[test]
    fn a_queue_is_bounded_and_says_when_it_has_room_again() {
        let mut pair = Pair::open();
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        assert_eq!(pair.worker.room(stream), Ok(STREAM_QUEUE_BYTES_MAX));
        assert!(pair.worker.write(stream, &record(STREAM_QUEUE_BYTES_MAX + 1)).is_err());
        pair.worker.write(stream, &record(STREAM_QUEUE_BYTES_MAX)).unwrap();
        assert_eq!(pair.worker.room(stream), Ok(0));
        assert_eq!(events(&mut pair.worker), []);
        let (at_worker, _) = pair.heard();
        assert!(at_worker.contains(&Event::StreamWritable { stream }));
        assert!(pair.worker.room(stream).unwrap() > 0);
    }
}

mod life {
    use super::*;

    #[test]
    fn pings_are_answered_in_order() {
        let mut pair = Pair::open();
        pair.master.ping(1).unwrap();
        pair.master.ping(2).unwrap();
        assert_eq!(pair.heard().1, [Event::Ponged { nonce: 1 }, Event::Ponged { nonce: 2 }]);
    }

    #[test]
    fn sixteen_pings_may_wait() {
        let mut pair = Pair::open();
        for nonce in 0..PINGS_MAX as u64 {
            pair.master.ping(nonce).unwrap();
        }
        assert!(pair.master.ping(99).is_err());
        for _ in 0..PINGS_MAX {
            pair.worker.receive_data(&hex("30 000001 09"));
        }
        assert!(pair.worker.next_event().is_ok());
        refused_by(&mut pair.worker, "30 000001 09", "16 pings");
    }

    #[test]
    fn a_pong_without_a_ping_is_an_error() {
        refused_by(&mut Pair::open().worker, "31 000001 09", "a pong");
    }

    #[test]
    fn an_error_is_told_to_the_peer_and_ends_everything() {
        let mut pair = Pair::open();
        pair.worker.call("held", map([])).unwrap();
        pair.worker.receive_data(&hex("31 000001 09"));
        assert!(pair.worker.eof_to_send());
        assert!(pair.worker.call("m", map([])).is_err());
        for _ in 0..3 {
            assert!(pair.worker.next_event().is_err());
        }
        pair.worker.receive_data(&hex("30 000001 09"));
        let (_, heard) = pair.heard();
        assert!(
            matches!(heard.as_slice(), [Event::Called { .. }, Event::PeerClosed { reason, .. }] if reason == "protocol")
        );
        assert!(pair.master.eof_to_send());
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut pair = Pair::open();
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        pair.worker.write(stream, &record(10)).unwrap();
        pair.worker.close("shutdown", "for\nnow").unwrap();
        pair.worker.close("again", "").unwrap();
        let (_, heard) = pair.heard();
        assert_eq!(heard, [Event::PeerClosed { reason: "shutdown".to_owned(), text: "for now".to_owned() }]);
        assert!(pair.worker.eof_to_send() && pair.master.eof_to_send());
        assert!(pair.worker.ping(1).is_err() && pair.worker.open(Journal, "d", 0).is_err());
    }

    #[test]
    fn what_has_arrived_can_be_taken_after_the_end() {
        let mut pair = Pair::open();
        let stream = journal(&mut pair, &record(100));
        pair.master.receive_eof();
        assert_eq!(events(&mut pair.master).len(), 1);
        assert!(pair.master.take(stream, 100).unwrap().is_some());
        pair.master.settle(stream, 100, 100).unwrap();
        pair.master.stop(stream, "over").unwrap();
        assert!(sent(&mut pair.master).is_empty());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut pair = Pair::open();
        pair.worker.close(&"é".repeat(3000), "").unwrap();
        let (_, heard) = pair.heard();
        assert!(matches!(heard.as_slice(), [Event::PeerClosed { reason, .. }] if reason.len() == 4096));
    }
}

mod journals {
    use super::*;
    use std::sync::Arc;
    use tailrace_core::channel::Channel;
    use tailrace_core::journal::{MemoryJournal, Source};

    const LINE: &[u8] = b"a line\n";

    fn grow(journal: &MemoryJournal, times: usize) {
        journal.write(|writer| {
            for _ in 0..times {
                writer.log(Channel::Stdout, LINE, 1, 1).unwrap();
            }
        });
    }

    fn bytes(journal: &MemoryJournal) -> Vec<u8> {
        let mut bytes = Vec::new();
        journal.read(0, usize::MAX, &mut |part| bytes.extend_from_slice(part));
        bytes
    }

    fn taken(pair: &mut Pair, stream: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some((_, part)) = pair.master.take(stream, usize::MAX).unwrap() {
            bytes.extend_from_slice(&part);
            let end = bytes.len() as u64;
            pair.master.settle(stream, end, end).unwrap();
            pair.pump();
        }
        bytes
    }

    #[test]
    fn all_of_it_is_sent_and_what_it_grew_by_before_its_turn_came() {
        let mut pair = Pair::open();
        let journal = Arc::new(MemoryJournal::new());
        grow(&journal, 100_000);
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        assert_eq!(pair.worker.write_journal(stream, journal.clone()).unwrap(), journal.end());
        assert_eq!(pair.worker.write_journal(stream, journal.clone()).unwrap(), 0, "asked for already");
        assert_eq!(pair.worker.room(stream).unwrap(), 0, "until all was sent");
        grow(&journal, 10);
        pair.pump();
        assert_eq!(taken(&mut pair, stream), bytes(&journal));
        assert_eq!(pair.worker.sent(stream).unwrap(), journal.end());
        let said = pair.at_worker.iter().filter(|event| **event == Event::StreamWritable { stream }).count();
        assert_eq!(said, 1, "once, when there was nothing more");
        assert!(pair.worker.room(stream).unwrap() > 0);
    }

    #[test]
    fn nothing_of_it_waits_in_memory() {
        let mut pair = Pair::open();
        let journal = Arc::new(MemoryJournal::new());
        grow(&journal, 100_000);
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        pair.worker.write_journal(stream, journal.clone()).unwrap();
        let first = pair.worker.data_to_send(1000);
        journal.release(journal.end());
        assert_eq!(first.iter().map(|slice| slice.len()).sum::<usize>(), 1000);
        // What was not staged yet is gone with the release, and that is noticed.
        pair.worker.data_to_send(usize::MAX);
        assert!(pair.worker.sent(stream).unwrap() < journal.end());
        assert_eq!(pair.worker.write_journal(stream, journal.clone()).unwrap_or(0), 0, "it cannot go on");
    }

    #[test]
    fn bytes_of_another_kind_do_not_mix_with_it() {
        let mut pair = Pair::open();
        let journal = Arc::new(MemoryJournal::new());
        grow(&journal, 1);
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        pair.worker.write(stream, &record(10)).unwrap();
        assert_eq!(pair.worker.write_journal(stream, journal.clone()).unwrap(), 0, "what was written goes first");
        let other = pair.worker.open(Journal, "d", 0).unwrap();
        pair.worker.write_journal(other, journal).unwrap();
        assert!(pair.worker.write(other, &record(10)).is_err());
    }

    #[test]
    fn an_end_waits_for_what_was_asked_for() {
        let mut pair = Pair::open();
        let journal = Arc::new(MemoryJournal::new());
        grow(&journal, 100_000);
        let stream = pair.worker.open(Journal, "c", 0).unwrap();
        pair.worker.write_journal(stream, journal.clone()).unwrap();
        pair.worker.end(stream).unwrap();
        let end = journal.end();
        grow(&journal, 1);
        pair.pump();
        let got = taken(&mut pair, stream);
        assert_eq!(got.len() as u64, end, "and not for more");
        assert!(pair.master.is_ended(stream).unwrap());
    }
}

mod transports {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a socket takes of what it is given, the peer gets the same bytes.
        #[test]
        fn what_was_not_taken_comes_again(takes in prop::collection::vec(0..3000_usize, 1..50)) {
            let say = |pair: &mut Pair| {
                let stream = pair.worker.open(Journal, "c", 0).unwrap();
                pair.worker.write(stream, &record(200_000)).unwrap();
                pair.worker.end(stream).unwrap();
                pair.worker.ping(7).unwrap();
            };
            let mut whole = Pair::open();
            say(&mut whole);
            let mut pair = Pair::open();
            say(&mut pair);
            let mut bytes = Vec::new();
            for take in takes {
                let slices = pair.worker.data_to_send(10_000);
                let offered = slices.concat();
                let gone = take.min(offered.len());
                bytes.extend_from_slice(&offered[..gone]);
                pair.worker.put_back(slices, gone);
            }
            bytes.extend(sent(&mut pair.worker));
            prop_assert_eq!(bytes, sent(&mut whole.worker));
            prop_assert_eq!(pair.worker.statistics(), whole.worker.statistics());
        }

        /// A payload that is put where it belongs is the same payload, for whichever stream, in whatever parts it comes.
        #[test]
        fn a_payload_may_go_straight_to_its_stream(
            lengths in prop::collection::vec((0..3_u64, 5..100_000_usize), 1..20),
            takes in prop::collection::vec(1..70_000_usize, 1..20),
        ) {
            let mut pair = Pair::open();
            let streams = ["a", "b", "c"].map(|name| pair.worker.open(Journal, name, 0).unwrap());
            let mut all = streams.map(|_| Vec::new());
            let (mut got, mut placed) = (streams.map(|_| Vec::new()), 0);
            for (step, &(stream, length)) in lengths.iter().enumerate() {
                let data = record(length);
                all[stream as usize].extend_from_slice(&data);
                for part in data.chunks(STREAM_QUEUE_BYTES_MAX) {
                    pair.worker.write(streams[stream as usize], part).unwrap();
                }
                loop {
                    let bytes = sent(&mut pair.worker);
                    for part in bytes.chunks(takes[step % takes.len()]) {
                        placed += receive(&mut pair.master, part, 22);
                    }
                    for (&stream, got) in streams.iter().zip(&mut got) {
                        while let Some((start, data)) = pair.master.take(stream, 1 << 20).unwrap() {
                            got.extend_from_slice(&data);
                            let end = start + data.len() as u64;
                            pair.master.settle(stream, end, end).unwrap();
                        }
                    }
                    let back = carry(&mut pair.master, &mut pair.worker, usize::MAX);
                    if bytes.len() + back == 0 {
                        break;
                    }
                }
                prop_assert!(pair.master.next_event().is_ok());
            }
            prop_assert!(got == all);
            prop_assert!(placed > 0 || lengths.iter().all(|(_, length)| *length < 5_000));
        }
    }
}
