//! Banana: what is encoded is decoded, however it is cut; nothing else does more than fail.

use bytes::Bytes;
use proptest::prelude::*;
use tailrace_core::banana::{DEPTH_MAX, Decoder, EXPRESSION_ELEMENTS_MAX, Element, Encoder, LENGTH_MAX};

fn elements() -> impl Strategy<Value = Element> {
    let leaf = prop_oneof![
        any::<i64>().prop_filter("its magnitude fits", |number| *number != i64::MIN).prop_map(Element::Int),
        any::<f64>().prop_filter("equal to itself", |number| !number.is_nan()).prop_map(Element::Float),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Element::Bytes(bytes.into())),
        prop_oneof![Just("list"), Just("None"), Just("uncache"), Just("unicode")]
            .prop_map(|word| Element::Bytes(Bytes::from_static(word.as_bytes()))),
        (any::<bool>(), proptest::collection::vec(0_u8..128, 9..63), 1_u8..128).prop_map(
            |(negative, mut digits, last)| {
                digits.push(last);
                Element::Long { negative, digits: digits.into() }
            }
        ),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| proptest::collection::vec(inner, 0..6).prop_map(Element::List))
}

fn encoded(element: &Element, vocabulary: bool) -> Vec<u8> {
    let mut encoder = Encoder::new(vocabulary);
    encoder.element(element).unwrap();
    encoder.finish()
}

fn decoder(vocabulary: bool) -> Decoder {
    let mut decoder = Decoder::new();
    if vocabulary {
        decoder.use_vocabulary();
    }
    decoder
}

fn drain(decoder: &mut Decoder, out: &mut Vec<Element>) -> bool {
    loop {
        match decoder.next_expression() {
            Ok(Some(element)) => out.push(element),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(element in elements(), vocabulary in any::<bool>(), step in 1_usize..20) {
        let bytes = encoded(&element, vocabulary);
        let mut decoder = decoder(vocabulary);
        let mut out = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.receive_data(piece);
            prop_assert!(drain(&mut decoder, &mut out));
        }
        prop_assert_eq!(out, vec![element]);
        prop_assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn any_bytes_are_decoded_alike_however_they_come(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..20) {
        let (mut whole, mut cut) = (Vec::new(), Vec::new());
        let mut one = decoder(true);
        one.receive_data(&bytes);
        let fine = drain(&mut one, &mut whole);
        let mut other = decoder(true);
        let mut still_fine = true;
        for piece in bytes.chunks(step) {
            other.receive_data(piece);
            still_fine &= drain(&mut other, &mut cut);
        }
        prop_assert_eq!(fine, still_fine);
        prop_assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn large_pieces_are_decoded_as_small_ones_are(
        lengths in proptest::collection::vec(prop_oneof![0usize..300, 10_000usize..100_000], 1..20),
        cuts in proptest::collection::vec(prop_oneof![1usize..100, 10_000usize..80_000], 1..40),
    ) {
        let string = |(index, length): (usize, &usize)| Element::Bytes(vec![index as u8; *length].into());
        let elements: Vec<Element> = lengths.iter().enumerate().map(string).collect();
        let mut rest = Bytes::from(encoded(&Element::List(elements.clone()), true));
        let (mut decoder, mut out) = (decoder(true), Vec::new());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            decoder.receive_bytes(rest.split_to(*cut.min(&rest.len())));
            prop_assert!(drain(&mut decoder, &mut out));
        }
        prop_assert_eq!(out, vec![Element::List(elements)]);
        prop_assert_eq!(decoder.buffered(), 0);
    }
}

#[test]
fn an_announced_length_reserves_nothing() {
    // Lists in lists, each of which announces as much as it may: three bytes are all that there is of each.
    let mut encoder = Encoder::new(true);
    encoder.list(LENGTH_MAX).unwrap();
    let head = encoder.finish();
    for _ in 0..1000 {
        let mut decoder = decoder(true);
        for _ in 0..DEPTH_MAX {
            decoder.receive_data(&head);
        }
        assert_eq!(decoder.next_expression(), Ok(None));
    }
}

#[test]
fn elements_are_counted_over_all_lists() {
    let mut decoder = decoder(true);
    let mut encoder = Encoder::new(true);
    encoder.list(LENGTH_MAX).unwrap();
    let head = encoder.finish();
    decoder.receive_data(b"\x02\x80");
    for _ in 0..2 {
        decoder.receive_data(&head);
        decoder.receive_data(&vec![0x80; LENGTH_MAX]);
    }
    let error = decoder.next_expression().unwrap_err();
    assert!(error.to_string().contains(&EXPRESSION_ELEMENTS_MAX.to_string()));
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn too_large_is_refused_before_a_byte_is_written() {
    let mut encoder = Encoder::new(true);
    assert!(encoder.bytes(&vec![0; LENGTH_MAX + 1]).is_err());
    assert!(encoder.list(LENGTH_MAX + 1).is_err());
    assert!(encoder.long(true, &[1; 65]).is_err());
    assert_eq!(encoder.finish(), b"");
}
