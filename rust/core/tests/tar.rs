//! Tar streams: what is encoded is decoded, however it is cut, and no bytes make the decoder panic.

use proptest::prelude::*;
use tailrace_core::tar::{BLOCK, Decoder, EXTENSION_BYTES_MAX, Encoder, Entry, Event, Kind, TarError};

fn decode(bytes: &[u8], step: usize) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut decoder = Decoder::new();
    let mut entries: Vec<(Entry, Vec<u8>)> = Vec::new();
    let mut take = |decoder: &mut Decoder| {
        while let Some(event) = decoder.next_event()? {
            match event {
                Event::Entry(entry) => entries.push((entry, Vec::new())),
                Event::Data(data) => entries.last_mut().unwrap().1.extend_from_slice(&data),
            }
        }
        Ok(())
    };
    for piece in bytes.chunks(step) {
        decoder.receive_data(piece);
        take(&mut decoder)?;
    }
    decoder.receive_eof();
    take(&mut decoder)?;
    assert!(decoder.is_finished());
    Ok(entries)
}

fn encode(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    for (entry, data) in entries {
        encoder.entry(entry).unwrap();
        if !data.is_empty() {
            encoder.data(data).unwrap();
        }
    }
    encoder.finish().unwrap();
    encoder.take()
}

fn path(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![6 => b'a'..=b'z', 2 => Just(b'/'), 1 => 1u8..=255];
    proptest::collection::vec(byte, 1..most).prop_filter("ends in a slash", |path| path.last() != Some(&b'/'))
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let kind = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..2000).prop_map(|data| (Kind::File(data.len() as u64), data)),
        1 => Just((Kind::Directory, Vec::new())),
        1 => path(300).prop_map(|target| (Kind::Symlink(target), Vec::new())),
        1 => path(300).prop_map(|target| (Kind::Hardlink(target), Vec::new())),
    ];
    let time = prop_oneof![0i64..1 << 34, -1000i64..1000, -(1i64 << 50)..1 << 50];
    let nanos = prop_oneof![Just(0u32), 0u32..1_000_000_000];
    (path(400), kind, 0u32..0o10000, time, nanos)
        .prop_map(|(path, (kind, data), mode, mtime, mtime_ns)| (Entry { path, kind, mode, mtime, mtime_ns }, data))
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(entries in proptest::collection::vec(entry(), 0..8), step in 1usize..3000) {
        let bytes = encode(&entries);
        prop_assert_eq!(bytes.len() % BLOCK, 0);
        prop_assert_eq!(decode(&bytes, step).unwrap(), entries);
    }

    #[test]
    fn damage_never_panics_and_a_cut_never_passes(
        entries in proptest::collection::vec(entry(), 1..4), at in any::<usize>(), with in any::<u8>(), step in 1usize..3000,
    ) {
        let mut bytes = encode(&entries);
        let at = at % bytes.len();
        prop_assert!(decode(&bytes[..at], step).is_err());
        bytes[at] = with;
        let _ = decode(&bytes, step);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000), step in 1usize..3000) {
        let _ = decode(&bytes, step);
    }
}

/// A header with these fields exchanged, its checksum made right.
fn header(fields: &[(usize, &[u8])]) -> Vec<u8> {
    let entry = Entry { path: b"f".to_vec(), kind: Kind::File(0), mode: 0o644, mtime: 0, mtime_ns: 0 };
    let mut block = encode(&[(entry, Vec::new())])[..BLOCK].to_vec();
    for (at, bytes) in fields {
        block[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// An extension header with this body.
fn extension(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(&[(156, &[kind]), (124, format!("{:011o}\0", body.len()).as_bytes())]);
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn refused(parts: &[Vec<u8>]) -> String {
    let bytes = [parts.concat(), vec![0; 2 * BLOCK]].concat();
    decode(&bytes, 1000).unwrap_err().to_string()
}

#[test]
fn what_two_readers_could_take_for_two_things_is_refused() {
    let plain = || header(&[]);
    let pax = |body: &[u8]| extension(b'x', body);
    for (parts, why) in [
        (vec![pax(b"9 size=5\n"), header(&[(124, b"00000000004\0")])], "4 bytes and 5 bytes"),
        (vec![pax(b"9 size=5\n"), plain()], "0 bytes and 5 bytes"),
        (vec![pax(b"9 size=5\n9 size=5\n"), plain()], "one thing twice"),
        (vec![pax(b"10 path=a\n"), pax(b"10 path=a\n"), plain()], "two extension headers"),
        (vec![pax(b"10 path=a\n"), extension(b'L', b"b\0"), plain()], "two ways"),
        (vec![pax(b"10 path=\0\n"), plain()], "malformed pax path"),
        (vec![pax(b"8 path=\n"), plain()], "malformed pax path"),
        (vec![pax(b"11 path=a\n"), plain()], "malformed pax header"),
        (vec![pax(b"99999999999 path=a\n"), plain()], "malformed pax header"),
        (vec![pax(b"22 GNU.sparse.major=1\n"), plain()], "sparse"),
        (vec![extension(b'g', b"10 path=a\n"), plain()], "global"),
        (vec![extension(b'L', b"a\0b\0"), plain()], "malformed long name"),
        (vec![pax(b"10 path=a\n")], "without an entry"),
        (vec![vec![0; BLOCK], plain()], "behind a block of zeros"),
        (vec![vec![0; 2 * BLOCK], plain()], "behind the archive's end"),
        (vec![header(&[(156, b"S")])], "unknown type"),
        (vec![header(&[(156, b"5"), (124, b"00000000004\0")])], "for what is not a file"),
        (vec![header(&[(257, b"abcde")])], "neither ustar nor GNU"),
        (vec![header(&[(124, b"0000000000x\0")])], "malformed size"),
        (
            vec![header(&[(124, &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])])],
            "malformed size",
        ),
        (vec![header(&[(0, b"\0")])], "without a name"),
    ] {
        let said = refused(&parts);
        assert!(said.contains(why), "{why}: {said}");
    }
    let mut wrong = plain();
    wrong[0] = b'g';
    assert!(refused(&[wrong]).contains("checksum"));
}

#[test]
fn large_extension_headers_are_refused_before_they_are_read() {
    let size = format!("{:011o}\0", EXTENSION_BYTES_MAX + 1);
    assert!(refused(&[header(&[(156, b"x"), (124, size.as_bytes())])]).contains("an extension header of"));
}

#[test]
fn sizes_beyond_the_octal_field_are_told_by_pax() {
    let size = (1 << 33) + 7;
    let entry = Entry { path: b"f".to_vec(), kind: Kind::File(size), mode: 0o644, mtime: 0, mtime_ns: 0 };
    let mut encoder = Encoder::new();
    encoder.entry(&entry).unwrap();
    let mut decoder = Decoder::new();
    decoder.receive_data(&encoder.take());
    assert_eq!(decoder.next_event().unwrap(), Some(Event::Entry(entry)));
}

#[test]
fn an_encoder_keeps_its_entries_whole() {
    let entry = |size| Entry { path: b"f".to_vec(), kind: Kind::File(size), mode: 0o644, mtime: 0, mtime_ns: 0 };
    let mut encoder = Encoder::new();
    encoder.entry(&entry(3)).unwrap();
    assert!(encoder.data(b"four").is_err());
    encoder.data(b"12").unwrap();
    assert!(encoder.finish().is_err() && encoder.entry(&entry(0)).is_err());
    encoder.data(b"3").unwrap();
    encoder.finish().unwrap();
    for path in [b"".as_slice(), b"a\0b"] {
        assert!(encoder.entry(&Entry { path: path.to_vec(), ..entry(0) }).is_err());
    }
}
