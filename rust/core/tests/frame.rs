//! Every frame as bytes (PROTOCOL.md section 2), in both directions, whole and in pieces.

mod support;

use support::hex;
use tailrace_core::decoder::Decoder;
use tailrace_core::frame::{Frame, StreamRole, data_header};
use tailrace_core::value::{Value, map};

fn frames() -> Vec<(&'static str, Frame<'static>)> {
    vec![
        ("01 000001 80", Frame::Hello(&[0x80])),
        ("02 000020 0707070707070707070707070707070707070707070707070707070707070707", Frame::Proof(&[7; 32])),
        ("03 000008 03 6e6f77 03 627573", Frame::Refused { reason: "now", text: "bus" }),
        (
            "10 00000d 05 05 7072696e74 81 a16d a26869",
            Frame::Call { call: 5, method: "print", args: map([("m", "hi".into())]) },
        ),
        ("11 000003 ac02 c0", Frame::Reply { call: 300, value: Value::Nil }),
        ("12 000005 00 01 45 01 74", Frame::Failed { call: 0, kind: "E", text: "t" }),
        ("20 000006 03 00 02 6964 00", Frame::Open { stream: 3, role: StreamRole::Journal, name: "id", offset: 0 }),
        ("20 000005 04 02 01 64 07", Frame::Open { stream: 4, role: StreamRole::Download, name: "d", offset: 7 }),
        ("21 000006 03 8001 616263", Frame::Data { stream: 3, offset: 128, payload: b"abc" }),
        ("22 000005 03 02 01 8001", Frame::Window { stream: 3, next: 2, durable: 1, limit: 128 }),
        ("23 000009 ffffffffffffffff7f", Frame::Credit { limit: (1 << 63) - 1 }),
        ("24 000002 03 05", Frame::End { stream: 3, offset: 5 }),
        ("25 000005 03 05 02 6e6f", Frame::Reset { stream: 3, offset: 5, reason: "no" }),
        ("26 000004 03 02 6e6f", Frame::Stop { stream: 3, reason: "no" }),
        ("27 000006 03 8001 05 6162", Frame::ZData { stream: 3, offset: 128, length: 5, compressed: b"ab" }),
        ("28 000001 01", Frame::Compress { welcome: true }),
        ("28 000001 00", Frame::Compress { welcome: false }),
        ("30 000001 09", Frame::Ping { nonce: 9 }),
        ("31 000001 09", Frame::Pong { nonce: 9 }),
        ("3f 000005 03 627965 00", Frame::Close { reason: "bye", text: "" }),
    ]
}

#[test]
fn every_frame_is_encoded_as_specified() {
    for (bytes, frame) in frames() {
        let mut out = Vec::new();
        frame.encode(&mut out).unwrap();
        assert_eq!(out, hex(bytes), "{frame:?}");
    }
    assert_eq!(data_header(3, 128, 3), hex("21 000006 03 8001"));
}

#[test]
fn every_frame_is_decoded_whole() {
    for (bytes, frame) in frames() {
        let bytes = [b"TAILRACE".to_vec(), hex(bytes)].concat();
        let mut decoder = Decoder::default();
        let mut input = bytes.as_slice();
        assert_eq!(decoder.next(&mut input), Ok(Some(frame)));
        assert_eq!(decoder.next(&mut input), Ok(None));
    }
}

#[test]
fn every_frame_is_decoded_byte_by_byte() {
    let all: Vec<u8> = frames().into_iter().flat_map(|(bytes, _)| hex(bytes)).collect();
    let bytes = [b"TAILRACE".to_vec(), all].concat();
    let mut decoder = Decoder::default();
    let mut kinds = Vec::new();
    for byte in &bytes {
        let mut input = std::slice::from_ref(byte);
        while let Some(frame) = decoder.next(&mut input).unwrap() {
            kinds.push(frame.kind());
        }
    }
    kinds.dedup(); // DATA comes in pieces
    let mut expected: Vec<u8> = frames().iter().map(|(_, frame)| frame.kind()).collect();
    expected.dedup();
    assert_eq!(kinds, expected);
}

#[test]
fn the_pieces_of_a_payload_know_their_place() {
    let bytes = [b"TAILRACE".to_vec(), hex("21 00001e 03 8001"), (0..27).collect()].concat();
    for split in 0..bytes.len() {
        let mut decoder = Decoder::default();
        let mut payload = Vec::new();
        for part in [&bytes[..split], &bytes[split..]] {
            let mut input = part;
            while let Some(frame) = decoder.next(&mut input).unwrap() {
                let Frame::Data { stream: 3, offset, payload: piece } = frame else { panic!("{frame:?}") };
                assert_eq!(offset, 128 + payload.len() as u64);
                payload.extend_from_slice(piece);
            }
        }
        assert_eq!(payload, (0..27).collect::<Vec<u8>>(), "split at {split}");
    }
}

#[test]
fn optional_frames_are_skipped() {
    let bytes = [b"TAILRACE".to_vec(), hex("80 000003 010203 ff 000000 30 000001 09")].concat();
    for piece in [1, 2, 5, bytes.len()] {
        let mut decoder = Decoder::default();
        let mut pings = 0;
        for mut input in bytes.chunks(piece) {
            while let Some(frame) = decoder.next(&mut input).unwrap() {
                assert_eq!(frame, Frame::Ping { nonce: 9 });
                pings += 1;
            }
        }
        assert_eq!(pings, 1);
    }
}

#[test]
fn what_breaks_a_rule_is_refused() {
    for bytes in [
        "05 000000",                          // an unknown type that is not optional
        "30 000002 09 00",                    // bytes after the last field
        "30 000000",                          // a field is missing
        "30 000002 89 00",                    // not the shortest form
        "30 00000a ffffffffffffffffff 01",    // more than nine bytes
        "21 000002 03 00",                    // DATA without a byte
        "21 000001 03",                       // DATA without an offset
        "21 00000b 03 ffffffffffffffff7f 61", // DATA beyond the last offset
        "20 000005 03 07 01 64 00",           // an unknown role
        "27 000002 03 8001",                  // ZDATA without a length
        "28 000001 02",                       // neither welcome nor not
        "28 000002 01 00",                    // bytes after the last field
        "3f 000004 02 ffff 00",               // not UTF-8
        "26 000003 03 02 6e",                 // a str that is cut off
        "10 000003 00 01 6d",                 // a call without arguments
        "10 000004 00 01 6d 90",              // arguments that are no map
        "02 000001 07",                       // a short proof
        "30 001000",                          // longer than 4,096 bytes before the login is over
    ] {
        let bytes = [b"TAILRACE".to_vec(), hex(bytes)].concat();
        for piece in [1, bytes.len()] {
            let mut decoder = Decoder::default();
            let result = bytes.chunks(piece).try_for_each(|mut input| {
                while decoder.next(&mut input)?.is_some() {}
                Ok::<_, tailrace_core::error::ProtocolError>(())
            });
            assert!(result.is_err(), "{bytes:x?}");
        }
    }
}

#[test]
fn the_first_wrong_byte_of_a_preface_is_enough() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.next(&mut &b"TAI"[..]), Ok(None));
    assert!(decoder.next(&mut &b"R"[..]).is_err());
}
