//! What is sent compressed is what would have been sent (PROTOCOL.md section 5, "Compression").

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use support::{Pair, events, hex, knows_zstd, master_config, record, worker_config};
use tailrace_core::channel::Channel;
use tailrace_core::frame::Frame;
use tailrace_core::frame::StreamRole::{Download, Journal, Upload};
use tailrace_core::journal::MemoryJournal;
use tailrace_core::session::{Config, Session};
use tailrace_core::value::map;

const ALWAYS: u64 = u64::MAX;

/// Two who know of it, and of whom the master welcomes it.
fn pair() -> Pair {
    let mut pair = Pair::open_with(knows_zstd(worker_config()), knows_zstd(master_config()));
    pair.master.welcome_compressed(true);
    pair.pump();
    pair
}

/// Ten bytes that are always the same, and two that nobody knows.
fn log(length: usize) -> Vec<u8> {
    let mut random = 7_u64;
    let mut lines = Vec::with_capacity(length + 12);
    while lines.len() < length {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        lines.extend_from_slice(b"compiling ");
        lines.extend_from_slice(&random.to_be_bytes()[..2]);
    }
    lines.truncate(length);
    lines
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = blake3::Hasher::new().finalize_xof();
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// A record of these bytes.
fn chunk(data: &[u8]) -> Vec<u8> {
    let mut bytes = record(5 + data.len());
    bytes[5..].copy_from_slice(data);
    bytes
}

/// Sends `data` as one upload, which is taken at once. What came, and how many bytes that were on the wire.
fn upload(pair: &mut Pair, data: &[u8]) -> (Vec<u8>, u64) {
    let stream = pair.worker.open(Upload, "c", 0).unwrap();
    let before = pair.master.statistics().bytes_received;
    let (mut got, mut rest) = (Vec::new(), data);
    while got.len() < data.len() {
        let room = pair.worker.room(stream).unwrap().min(rest.len());
        pair.worker.write(stream, &rest[..room]).unwrap();
        rest = &rest[room..];
        pair.pump();
        while let Some((_, records)) = pair.master.take(stream, 1 << 20).unwrap() {
            got.extend_from_slice(&records);
            pair.master.settle(stream, got.len() as u64, got.len() as u64).unwrap();
        }
    }
    pair.worker.end(stream).unwrap();
    pair.pump();
    assert!(pair.master.is_ended(stream).unwrap());
    (got, pair.master.statistics().bytes_received - before)
}

#[track_caller]
fn refused_by(session: &mut Session, frame: &Frame<'_>, why: &str) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes).unwrap();
    session.receive_data(&bytes);
    events(session);
    let error = session.next_event().expect_err("this must not be accepted").to_string();
    assert!(error.contains(why), "{error:?} is not about {why:?}");
}

#[test]
fn it_is_smaller_on_the_wire_and_nowhere_else() {
    let mut pair = pair();
    let data: Vec<u8> = log(3 << 20).chunks(200_000).flat_map(chunk).collect();
    let (got, plain) = upload(&mut pair, &data);
    assert!(got == data && plain > data.len() as u64);
    pair.worker.compress(1, ALWAYS);
    let (got, small) = upload(&mut pair, &data);
    assert!(got == data && small < data.len() as u64 / 3, "{small}");
    let saved = pair.worker.statistics().bytes_saved;
    // Frames' heads are not counted.
    assert!((small + saved).abs_diff(data.len() as u64) < data.len() as u64 / 1000, "{small} and {saved}");
    assert_eq!(pair.master.statistics().unsettled, 0);
}

#[test]
fn so_many_bytes_go_compressed_and_then_as_they_are() {
    let mut pair = pair();
    let data = chunk(&log(1 << 20));
    pair.worker.compress(3, 512 << 10);
    let (got, sent) = upload(&mut pair, &data);
    assert!(got == data && (600 << 10..800 << 10).contains(&sent), "{sent}");
}

#[test]
fn only_while_it_is_welcome() {
    let mut pair = Pair::open_with(knows_zstd(worker_config()), knows_zstd(master_config()));
    pair.worker.compress(1, ALWAYS);
    let data = chunk(&log(100_000));
    for (welcome, is_small) in [(false, false), (true, true), (true, true), (false, false), (true, true)] {
        pair.master.welcome_compressed(welcome);
        pair.pump();
        let (got, sent) = upload(&mut pair, &data);
        assert!(got == data && (sent < 50_000) == is_small, "{welcome}: {sent}");
    }
}

#[test]
fn only_between_two_that_know_of_it() {
    for (worker, master) in [
        (worker_config(), master_config()),
        (knows_zstd(worker_config()), master_config()),
        (worker_config(), knows_zstd(master_config())),
    ] {
        let mut pair = Pair::open_with(worker, master);
        pair.worker.compress(1, ALWAYS);
        pair.master.welcome_compressed(true);
        let (got, sent) = upload(&mut pair, &chunk(&log(100_000)));
        assert!(got.len() == 100_005 && sent > 100_000);
        refused_by(&mut pair.worker, &Frame::Compress { welcome: true }, "does not know");
        refused_by(
            &mut pair.master,
            &Frame::ZData { stream: 1, offset: 0, length: 1, compressed: b"" },
            "does not know",
        );
    }
}

#[test]
fn it_is_said_once_and_not_before_the_login() {
    let mut master = Session::new(knows_zstd(master_config())).unwrap();
    master.welcome_compressed(true);
    assert!(master.data_to_send(1000).is_empty());
    let mut pair = pair();
    pair.master.welcome_compressed(true);
    assert!(pair.master.data_to_send(1000).is_empty());
    pair.master.welcome_compressed(false);
    assert_eq!(pair.master.data_to_send(1000).concat(), hex("28 000001 00"));
    pair.master.close("bye", "").unwrap();
    pair.master.welcome_compressed(true);
    assert_eq!(pair.master.data_to_send(1000).concat()[0], 0x3f);
}

#[test]
fn what_nobody_can_make_smaller_is_seldom_tried() {
    let mut pair = pair();
    pair.worker.compress(1, ALWAYS);
    let data: Vec<u8> = noise(5 << 20).chunks(1 << 20).flat_map(chunk).collect();
    let (got, sent) = upload(&mut pair, &data);
    assert!(got == data && sent < data.len() as u64 * 1001 / 1000);
    assert_eq!(pair.worker.statistics().bytes_saved, 0);
    // What follows is found to be another kind of thing, if not at once.
    let data: Vec<u8> =
        noise(1 << 20).into_iter().chain(log(4 << 20)).collect::<Vec<u8>>().chunks(1 << 20).flat_map(chunk).collect();
    let (got, sent) = upload(&mut pair, &data);
    assert!(got == data && sent < 4 << 20, "{sent}");
}

#[test]
fn small_pieces_go_as_they_are_and_keep_nobody_from_trying() {
    let mut pair = pair();
    pair.worker.compress(1, ALWAYS);
    let stream = pair.worker.open(Journal, "c", 0).unwrap();
    for length in [300, 60_000] {
        let before = pair.master.statistics().bytes_received;
        pair.worker.write(stream, &chunk(&log(length))).unwrap();
        pair.pump();
        let sent = pair.master.statistics().bytes_received - before;
        assert_eq!(sent < length as u64 / 2, length > 512, "{sent} for {length}");
    }
}

#[test]
fn journals_and_large_messages_go_compressed_too() {
    let mut pair = pair();
    pair.worker.compress(1, ALWAYS);
    let source = Arc::new(MemoryJournal::new());
    for piece in log(1 << 20).chunks(100_000) {
        source.write(|writer| writer.log(Channel::Stdout, piece, 1, 1)).unwrap();
    }
    let stream = pair.worker.open(Journal, "c", 0).unwrap();
    pair.worker.write_journal(stream, source).unwrap();
    pair.worker.call("m", map([("text", String::from_utf8_lossy(&log(1 << 20)).as_ref().into())])).unwrap();
    for _ in 0..20 {
        pair.pump();
        while let Some((start, records)) = pair.master.take(stream, 1 << 20).unwrap() {
            let end = start + records.len() as u64;
            pair.master.settle(stream, end, end).unwrap();
        }
    }
    assert!(pair.heard().1.iter().any(|event| matches!(event, tailrace_core::event::Event::Called { .. })));
    assert!(pair.worker.statistics().bytes_saved > 1 << 20);
}

#[test]
fn what_is_staged_at_once_is_bounded_before_compression_as_well() {
    // Its streams may send a lot from their begin on.
    let mut pair = Pair::open_with(
        knows_zstd(worker_config()),
        Config { connection_window: 4 << 30, ..knows_zstd(master_config()) },
    );
    pair.master.welcome_compressed(true);
    let stream = pair.worker.open(Upload, "c", 0).unwrap();
    pair.pump();
    pair.worker.compress(1, ALWAYS);
    pair.worker.write_block(stream, chunk(&vec![b'x'; 1 << 20]).into()).unwrap();
    for turn in 1..4 {
        assert!(pair.worker.data_to_send(100_000).concat().len() < 1000);
        assert!((turn * 100_000..turn * 170_000).contains(&pair.worker.saved()), "{}", pair.worker.saved());
    }
    assert!(!pair.worker.is_held());
}

#[test]
fn who_waits_for_credit_is_held() {
    let mut pair = pair();
    let [first, second] = [("a", Upload), ("b", Journal)].map(|(name, role)| pair.worker.open(role, name, 0).unwrap());
    assert!(!pair.worker.is_held());
    for _ in 0..40 {
        for stream in [first, second] {
            let room = pair.worker.room(stream).unwrap();
            if room > 0 {
                pair.worker.write(stream, &record(room.max(5))[..room]).unwrap();
            }
        }
        pair.pump();
    }
    assert!(pair.worker.is_held());
    pair.worker.reset(first, "no").unwrap();
    assert!(pair.worker.is_held());
    pair.worker.reset(second, "no").unwrap();
    pair.pump();
    assert!(!pair.worker.is_held());
}

#[test]
fn what_is_wrong_with_it_is_said() {
    let good = zstd::bulk::compress(&record(1000), 1).unwrap();
    let twice = [good.clone(), good.clone()].concat();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    for (compressed, length, why) in [
        (&good[..], 1001, "has only 1000"),
        (&good[..], 999, "is not what it should be"),
        (&good[..], 0, "is not of 1 to 65536"),
        (&good[..], 65_537, "is not of 1 to 65536"),
        (&good[..], u64::MAX >> 1, "is not of 1 to 65536"),
        (&good[..good.len() - 1], 1000, "is not what it should be"),
        (&twice[..], 1000, "is not what it should be"),
        (&bomb[..], 65_536, "is not what it should be"),
        (b"", 1000, "has only 0"),
        (b"no frame of zstd", 1000, "is not what it should be"),
    ] {
        let mut pair = pair();
        pair.worker.open(Upload, "c", 0).unwrap();
        pair.pump();
        refused_by(&mut pair.master, &Frame::ZData { stream: 1, offset: 0, length, compressed }, why);
    }
}

#[test]
fn it_is_refused_where_it_was_never_welcome() {
    let mut pair = Pair::open_with(knows_zstd(worker_config()), knows_zstd(master_config()));
    pair.master.welcome_compressed(false);
    pair.worker.open(Upload, "c", 0).unwrap();
    pair.pump();
    let compressed = zstd::bulk::compress(&record(1000), 1).unwrap();
    let frame = Frame::ZData { stream: 1, offset: 0, length: 1000, compressed: &compressed };
    refused_by(&mut pair.master, &frame, "was not welcome");
}

#[test]
fn it_keeps_to_the_rules_of_data() {
    let compressed = zstd::bulk::compress(&record(1000), 1).unwrap();
    let frame = |stream, offset| Frame::ZData { stream, offset, length: 1000, compressed: &compressed };
    for (stream, offset, why) in [(1, 5, "DATA at 5"), (3, 0, "never opened"), (2, 0, "never opened")] {
        let mut pair = pair();
        pair.worker.open(Upload, "c", 0).unwrap();
        pair.pump();
        refused_by(&mut pair.master, &frame(stream, offset), why);
    }
    let mut config = knows_zstd(master_config());
    (config.stream_window, config.connection_window) = (900, 100_000);
    let mut pair = Pair::open_with(knows_zstd(worker_config()), config);
    pair.master.welcome_compressed(true);
    pair.worker.open(Upload, "c", 0).unwrap();
    pair.pump();
    refused_by(&mut pair.master, &frame(1, 0), "beyond the limit");
}

/// What an upload or a download carries, cut and compressed as it may be.
fn pieces() -> impl Strategy<Value = Vec<(Vec<u8>, i32, u64)>> {
    let data = prop_oneof![(1_usize..200_000).prop_map(log), (1_usize..200_000).prop_map(noise)];
    prop::collection::vec((data, prop::sample::select(vec![-5, 1, 6, 19]), 0_u64..400_000), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The slow twin is the same stream without compression.
    #[test]
    fn the_same_bytes_arrive_however_they_went(pieces in pieces(), piece in 1_usize..100_000, is_download: bool, window in 5_000_u64..300_000) {
        let [plain, small] = [false, true].map(|compresses| {
            let (mut worker, mut master) = (knows_zstd(worker_config()), knows_zstd(master_config()));
            for config in [&mut worker, &mut master] {
                (config.stream_window, config.connection_window) = (window, 8 * window);
            }
            let mut pair = Pair::open_with(worker, master);
            pair.piece = piece;
            let (role, mut from, mut to) = if is_download { (Download, pair.master, pair.worker) } else { (Upload, pair.worker, pair.master) };
            to.welcome_compressed(compresses);
            let stream = from.open(role, "c", 0).unwrap();
            let mut got = Vec::new();
            for (data, level, bytes) in &pieces {
                from.compress(*level, *bytes);
                let record = chunk(data);
                let mut rest = record.as_slice();
                loop {
                    let room = from.room(stream).unwrap().min(rest.len());
                    if room > 0 {
                        from.write(stream, &rest[..room]).unwrap();
                        rest = &rest[room..];
                    }
                    let there = support::carry(&mut from, &mut to, piece);
                    assert!(to.next_event().is_ok());
                    while let Some((at, records)) = to.take(stream, 1 << 18).unwrap() {
                        assert_eq!(at, got.len() as u64);
                        got.extend_from_slice(&records);
                        to.settle(stream, got.len() as u64, got.len() as u64).unwrap();
                    }
                    let back = support::carry(&mut to, &mut from, piece);
                    events(&mut from);
                    if rest.is_empty() && there + back == 0 {
                        break;
                    }
                }
            }
            assert!(from.statistics().bytes_saved == 0 || compresses);
            got
        });
        prop_assert!(plain == small);
        prop_assert!(plain == pieces.iter().flat_map(|(data, ..)| chunk(data)).collect::<Vec<u8>>());
    }
}
