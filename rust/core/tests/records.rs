//! Records, batches and journals: what is malformed is refused, whatever the bytes, and what is well is told exactly.

use bytes::Bytes;
use proptest::prelude::*;
use tailrace_core::batch::{Batch, LogRecord};
use tailrace_core::chain::Chain;
use tailrace_core::channel::Channel;
use tailrace_core::journal::{MemoryJournal, Source, Writer};
use tailrace_core::ledger::{LOGS_MAX, Ledger};
use tailrace_core::line::{count_newlines, line_start, lines_begun, utf8_tail};
use tailrace_core::record::{Gap, Piece, Record, Records, Run, encode, encode_log, kind, whole};
use tailrace_core::value::{Value, map};

/// A journal with everything in it.
fn journal() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer.log(Channel::Header, b"sh -c ...\n", 1_000_000, 5).unwrap();
    writer.log(Channel::Stdout, b"one\ntw", 1_000_100, 105).unwrap();
    writer.log(Channel::Stdout, b"o\nthree", 1_000_200, 205).unwrap();
    writer.log(Channel::Log("a"), b"a\n", 1_000_300, 305).unwrap();
    writer.log(Channel::Stderr, b"e\n", 1_000_300, 305).unwrap();
    writer.log(Channel::Log("b"), b"b\n", 1_000_300, 305).unwrap();
    writer.gap(&Gap { channel: Channel::Log("b"), bytes: 7, lines: 2, reason: "masked" }).unwrap();
    writer.update(&map([("rc", Value::Int(1))])).unwrap();
    writer.update(&map([("elapsed", Value::Float(0.5)), ("rc", Value::Int(0))])).unwrap();
    writer.finish(Some(("OSError", "no such file"))).unwrap();
    writer.tail().clone()
}

fn batch() -> Batch {
    Batch::new(100, Bytes::from(journal()))
}

#[test]
fn a_batch_tells_what_is_in_it() {
    let batch = batch();
    assert_eq!(batch.count().unwrap(), 11);
    assert_eq!(batch.data(Channel::Stdout).unwrap().concat(), b"one\ntwo\nthree");
    let channels = [Channel::Header, Channel::Stdout, Channel::Log("a"), Channel::Stderr, Channel::Log("b")];
    assert_eq!(batch.channels().unwrap(), channels);
    assert_eq!(batch.updates().unwrap().last().unwrap(), &("rc".to_owned(), Value::Int(0)));
    assert_eq!(batch.complete().unwrap().unwrap().unwrap().1, "no such file");
    let receipt = batch.receipt().unwrap().unwrap();
    assert_eq!(receipt.records, 10);
    assert_eq!(receipt.channels["stdout"].lines, 3);
    assert_eq!(receipt.channels["log:b"].missing, 7);
}

#[test]
fn no_part_holds_two_named_logs_or_goes_on_behind_complete() {
    let batch = batch();
    let parts = batch.parts().unwrap();
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[0].start(), 100);
    for pair in parts.windows(2) {
        assert_eq!(pair[0].end(), pair[1].start());
    }
    assert_eq!(parts[0].channels().unwrap().last(), Some(&Channel::Stderr));
    assert!(parts[1].complete().unwrap().is_some() && parts[1].receipt().unwrap().is_none());
    assert!(parts[2].receipt().unwrap().is_some());
    assert_eq!(parts.iter().map(|part| part.bytes().to_vec()).collect::<Vec<_>>().concat(), journal());
}

#[test]
fn a_record_that_is_cut_begins_with_a_line() {
    let batch = batch();
    let (offset, log) = batch.logs().nth(2).unwrap().unwrap();
    let record = LogRecord::new(&batch, offset, &log);
    assert!(record.continues());
    let cut = record.cut(0);
    assert_eq!((cut.data().as_ref(), cut.lines(), cut.continues()), (b"three".as_slice(), 1, false));
    assert_eq!(cut.times().collect::<Vec<_>>(), [Run { lines: 1, at_us: 1_000_200 }]);
    assert!(record.cut(1).data().is_empty());
}

#[test]
fn what_contradicts_itself_is_refused() {
    let piece = Piece {
        channel: Channel::Stdout,
        continues: false,
        wall_us: 1,
        mono_us: 1,
        runs: &[Run { lines: 2, at_us: 0 }],
        data: [b"a\nb", b"\n"],
    };
    let record = |change: fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode_log(&piece, &mut out);
        change(&mut out);
        Record::decode(&out).map(|_| ()).and_then(|()| Ledger::new().add(&out))
    };
    assert_eq!(record(|_| {}), Ok(()));
    // The head: length 4, kind, flags, wall, mono, lines, runs, (lines, delta); then the data.
    for change in [
        (|out: &mut Vec<u8>| out[3] += 1) as fn(&mut Vec<u8>),
        |out| out[4] = 0x05,
        |out| out[5] = 2,
        |out| out[5] = 4,
        |out| out[5] = 1,
        |out| out[8] = 1,
        |out| out[9] = 2,
        |out| out[10] = 1,
        |out| (out[8], out[10]) = (1, 1),
        |out| (out[8], out[10]) = (3, 3),
        |out| out[13] = b'x',
    ] {
        assert!(record(change).is_err());
    }
}

#[test]
fn the_ledger_watches_the_whole_journal() {
    let log = |continues, data: &'static [u8]| {
        let lines = lines_begun(data, continues);
        let runs = [Run { lines, at_us: 0 }];
        let runs = if lines > 0 { &runs[..] } else { &[] };
        let mut out = Vec::new();
        encode_log(
            &Piece { channel: Channel::Stdout, continues, wall_us: 1, mono_us: 1, runs, data: [data, b""] },
            &mut out,
        );
        out
    };
    let mut gap = Vec::new();
    Gap { channel: Channel::Stdout, bytes: 1, lines: 1, reason: "" }.encode(&mut gap);
    let accepts = |records: &[&[u8]]| Ledger::new().add(&records.concat()).is_ok();
    assert!(accepts(&[&log(false, b"a"), &log(true, b"b\n"), &log(false, b"c")]));
    assert!(!accepts(&[&log(true, b"a")]));
    assert!(!accepts(&[&log(false, b"a"), &log(false, b"b")]));
    assert!(!accepts(&[&log(false, b"a\n"), &log(true, b"b")]));
    assert!(accepts(&[&gap, &log(true, b"a\n")]));
    let journal = journal();
    assert!(accepts(&[&journal]));
    assert!(!accepts(&[&journal, &log(false, b"a")]));
    let mut complete = Vec::new();
    encode(kind::COMPLETE, &[0xc0], &mut complete);
    assert!(!accepts(&[&complete, &log(false, b"a")]));
    let mut chunk = Vec::new();
    encode(kind::CHUNK, b"x", &mut chunk);
    assert!(!accepts(&[&chunk]));
    let mut optional = Vec::new();
    encode(kind::OPTIONAL, b"later", &mut optional);
    assert!(accepts(&[&optional]));
}

#[test]
fn a_flood_of_named_logs_is_refused() {
    let mut writer = Writer::new(Vec::new());
    for index in 0..=LOGS_MAX {
        writer.log(Channel::Log(&index.to_string()), b"x", 1, 1).unwrap();
    }
    assert!(Ledger::new().add(writer.tail()).is_err());
}

#[test]
fn a_memory_journal_is_read_from_where_it_was_released() {
    let memory = MemoryJournal::new();
    let mut ends = vec![0];
    for _ in 0..100 {
        memory.write(|writer| writer.log(Channel::Stdout, &[b'x'; 100], 1, 1)).unwrap();
        ends.push(memory.end());
    }
    let all = (&memory as &dyn Source).copy_records(0, usize::MAX).unwrap();
    memory.release(ends[40]);
    memory.write(|writer| writer.log(Channel::Stdout, b"more", 1, 1)).unwrap();
    assert_eq!((memory.begin(), memory.ended()), (ends[40], false));
    let source: &dyn Source = &memory;
    assert!(source.copy_records(0, 1000).unwrap().is_empty());
    assert_eq!(source.copy_records(ends[40], 1).unwrap(), all[ends[40] as usize..ends[41] as usize]);
    let some = source.copy_records(ends[41], 300).unwrap();
    assert_eq!(some, all[ends[41] as usize..][..some.len()]);
    assert_eq!(some.len(), (ends[43] - ends[41]) as usize);
    assert!(source.copy_records(memory.end(), 300).unwrap().is_empty());
    memory.release(u64::MAX);
    assert_eq!(memory.begin(), memory.end());
    memory.write(|writer| writer.finish(None)).unwrap();
    assert!(memory.ended());
    assert!(memory.write(|writer| writer.log(Channel::Stdout, b"late", 1, 1)).is_err());
    assert!(memory.write(|writer| writer.finish(None)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..400, with in any::<u8>()) {
        let mut damaged = journal();
        let at = at % damaged.len();
        damaged[at] = with;
        for bytes in [bytes.clone(), damaged] {
            let _ = Ledger::new().add(&bytes);
            let _ = whole(&bytes, 50);
            let batch = Batch::new(0, Bytes::from(bytes));
            let _ = (batch.count(), batch.parts(), batch.channels(), batch.updates(), batch.complete(), batch.receipt());
            let _ = (batch.chunks(), batch.utime(), batch.unpack(), batch.close());
            let _ = batch.channel_tail(Channel::Stdout, b"\xe2");
            for (offset, log) in batch.logs().flatten() {
                let record = LogRecord::new(&batch, offset, &log);
                let _ = (record.cut(0), record.cut(u64::MAX), record.times().count());
            }
        }
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn whole_never_cuts_a_record(max in 0usize..400, have in 0usize..400) {
        let journal = journal();
        let there = &journal[..have.min(journal.len())];
        let end = whole(there, max).unwrap();
        prop_assert!(Records::new(&there[..end]).all(|record| record.is_ok()));
        let first = Records::new(&journal).next().unwrap().unwrap().1.len();
        prop_assert!(end <= max || end == first);
        prop_assert!(end > 0 || there.len() < first);
    }

    #[test]
    fn lines_are_those_of_a_stupid_splitter(
        data in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..600), continues in any::<bool>(),
    ) {
        prop_assert_eq!(count_newlines(&data), data.iter().filter(|&&byte| byte == b'\n').count());
        let starts: Vec<usize> =
            (0..data.len()).filter(|&at| if at == 0 { !continues } else { data[at - 1] == b'\n' }).collect();
        prop_assert_eq!(lines_begun(&data, continues), starts.len() as u64);
        for index in 0..=starts.len() {
            prop_assert_eq!(line_start(&data, continues, index as u64), starts.get(index).copied());
        }
    }

    #[test]
    fn only_an_unfinished_character_is_a_tail(
        text in any::<String>(), cut in 0usize..4, junk in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let bytes = &text.as_bytes()[..text.len().saturating_sub(cut)];
        let expected = bytes.len() - std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
        prop_assert_eq!(utf8_tail(bytes), expected);
        prop_assert!(utf8_tail(&[bytes, &junk].concat()) <= 3);
    }
}

/// Hashes everything from 0.
fn slow_chain(journal: &[u8], offset: usize) -> Option<Chain> {
    let (mut at, mut chain) = (0, Chain::default());
    for record in Records::new(journal).map(|record| record.unwrap().1) {
        if at >= offset {
            break;
        }
        chain.push([record]);
        at += record.len();
    }
    (at == offset).then_some(chain)
}

proptest! {
    #[test]
    fn a_memory_journal_knows_the_chain_at_every_boundary_that_it_holds(
        steps in proptest::collection::vec((1usize..3000, any::<bool>(), 0u64..20_000), 1..60), probe in any::<u64>(),
    ) {
        let memory = MemoryJournal::new();
        let (source, mut all) = (&memory as &dyn Source, Writer::new(Vec::new()));
        for (length, releases, forward) in steps {
            let data = vec![b'x'; length];
            memory.write(|writer| writer.log(Channel::Stdout, &data, 1, 1)).unwrap();
            all.log(Channel::Stdout, &data, 1, 1).unwrap();
            let before = memory.begin();
            if releases {
                memory.release(before + forward);
            }
            let (begin, end) = (memory.begin(), memory.end());
            prop_assert!(begin <= before + forward && slow_chain(all.tail(), begin as usize).is_some());
            let probed = begin + probe % (end - begin + 1);
            for offset in [begin, probed, end] {
                prop_assert_eq!(source.chain_at(offset), slow_chain(all.tail(), offset as usize));
            }
            prop_assert_eq!(source.chain_at(end + 1), None);
            prop_assert!(begin == 0 || source.chain_at(begin - 1).is_none());
            let (boundary, chain) = source.boundary(probed).unwrap();
            prop_assert!(boundary <= probed && Some(chain) == slow_chain(all.tail(), boundary as usize));
        }
        memory.release(u64::MAX);
        prop_assert_eq!(memory.begin(), memory.end());
        prop_assert_eq!(source.chain_at(memory.end()), slow_chain(all.tail(), memory.end() as usize));
    }
}

/// A text of each channel, in pieces.
fn texts() -> impl Strategy<Value = Vec<(u8, Vec<Bytes>)>> {
    let piece = prop_oneof![
        4 => proptest::collection::vec(prop_oneof![3 => Just(b'x'), 1 => Just(b'\n')], 0..40),
        1 => (1usize..700_000).prop_map(|length| b"a line\n".iter().copied().cycle().take(length).collect()),
    ];
    let pieces = proptest::collection::vec(piece.prop_map(Bytes::from), 0..4);
    proptest::collection::vec((0u8..4, pieces), 0..4)
}

fn channel(number: u8) -> Channel<'static> {
    [Channel::Stdout, Channel::Stderr, Channel::Header, Channel::Log("a log")][usize::from(number)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_gathered_is_what_each_text_as_a_whole_would_be(
        bursts in proptest::collection::vec((texts(), any::<bool>(), any::<bool>(), 0usize..2_000_000), 1..5),
    ) {
        let memory = MemoryJournal::new();
        let source: &dyn Source = &memory;
        let (mut slow, mut taken) = (Writer::new(Vec::new()), 0);
        for (texts, takes, releases, max) in bursts {
            for (number, pieces) in &texts {
                slow.log(channel(*number), &pieces.concat(), 7, 8).unwrap();
            }
            let texts = texts.iter().map(|(number, pieces)| (channel(*number), pieces.as_slice()));
            memory.write(|writer| writer.gather(texts, 7, 8)).unwrap();
            prop_assert_eq!(memory.end(), slow.ledger().offset());
            if takes {
                let records = memory.records(taken, max).unwrap();
                prop_assert_eq!(&records, &source.copy_records(taken, max).unwrap());
                prop_assert_eq!(&records, &slow.tail()[taken as usize..][..records.len()]);
                taken += records.len() as u64;
            }
            if releases {
                memory.release(taken);
            }
        }
        prop_assert_eq!(source.copy_records(taken, usize::MAX).unwrap(), &slow.tail()[taken as usize..]);
        prop_assert_eq!(source.chain_at(memory.end()), slow_chain(slow.tail(), slow.tail().len()));
        prop_assert_eq!(memory.write(|writer| writer.ledger().receipt()), slow.ledger().receipt());
    }
}

#[test]
fn what_arrived_together_is_taken_without_a_copy() {
    let memory = MemoryJournal::new();
    let pieces = [Bytes::from(vec![b'x'; 600_000])];
    memory.write(|writer| writer.gather([(Channel::Stdout, pieces.as_slice())].into_iter(), 1, 1)).unwrap();
    let [first, second] = [(); 2].map(|()| memory.records(0, usize::MAX).unwrap());
    assert_eq!((first.as_ptr(), first.len()), (second.as_ptr(), second.len()));
    memory.release(memory.end());
    assert_eq!(first, second);
}
