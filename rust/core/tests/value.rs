//! Values (PROTOCOL.md section 1): the shortest forms go out, all forms come in, and nothing else.

mod support;

use proptest::prelude::*;
use support::hex;
use tailrace_core::value::{Value, decode_all, encode};

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out).unwrap();
    out
}

#[test]
fn integers_go_out_in_their_shortest_form() {
    for (number, bytes) in [
        (0, "00"),
        (127, "7f"),
        (-1, "ff"),
        (-32, "e0"),
        (-33, "d0df"),
        (128, "cc80"),
        (256, "cd0100"),
        (65536, "ce00010000"),
        (1 << 32, "cf0000000100000000"),
        (i64::MAX, "cf7fffffffffffffff"),
        (-129, "d1ff7f"),
        (-32769, "d2ffff7fff"),
        (i64::MIN, "d38000000000000000"),
    ] {
        assert_eq!(encoded(&Value::Int(number)), hex(bytes), "{number}");
        assert_eq!(decode_all(&hex(bytes)), Ok(Value::Int(number)));
    }
}

#[test]
fn any_length_comes_in() {
    for (bytes, value) in [
        ("d305".to_owned() + "00000000000000", Value::Int(5 << 56)),
        ("cf0000000000000005".to_owned(), Value::Int(5)),
        ("d9026869".to_owned(), "hi".into()),
        ("db000000026869".to_owned(), "hi".into()),
        ("c600000001ff".to_owned(), Value::Bin(vec![0xff])),
        ("dd00000001c3".to_owned(), Value::Array(vec![Value::Bool(true)])),
        ("df00000001da000161c0".to_owned(), Value::Map(vec![("a".to_owned(), Value::Nil)])),
        ("cb3ff8000000000000".to_owned(), Value::Float(1.5)),
    ] {
        assert_eq!(decode_all(&hex(&bytes)), Ok(value), "{bytes}");
    }
}

#[test]
fn what_this_wire_does_not_know_is_refused() {
    for bytes in [
        "",                   // nothing
        "c1",                 // never used
        "ca00000000",         // float 32
        "d40000",             // ext
        "c7000000",           // ext
        "cf8000000000000000", // beyond 64 bits with a sign
        "81c0c0",             // a key that is no str
        "82a161c0a161c0",     // a key twice
        "a1ff",               // not UTF-8
        "a2ff",               // cut off
        "dcffff",             // cut off
        "ddffffffff",         // cut off, and too many
        "c0c0",               // two values
    ] {
        assert!(decode_all(&hex(bytes)).is_err(), "{bytes}");
    }
}

#[test]
fn sixteen_levels_are_enough() {
    let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
    assert!(decode_all(&nested(16)).is_ok());
    assert!(decode_all(&nested(17)).is_err());
    assert!(decode_all(&nested(1 << 20)).is_err());
    let deep = (0..17).fold(Value::Nil, |value, _| Value::Array(vec![value]));
    assert!(encode(&deep, &mut Vec::new()).is_err());
}

#[test]
fn a_million_values_are_enough() {
    let many = |count: u32| [vec![0xdd], count.to_be_bytes().to_vec(), vec![0xc0; count as usize]].concat();
    assert!(decode_all(&many((1 << 20) - 1)).is_ok());
    assert!(decode_all(&many(1 << 20)).is_err());
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1000..1000i64).prop_map(Value::Int),
        any::<f64>().prop_filter("NaN is not itself", |number| !number.is_nan()).prop_map(Value::Float),
        ".{0,40}".prop_map(Value::Str),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Bin),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            prop::collection::btree_map(".{0,8}", inner, 0..20)
                .prop_map(|entries| Value::Map(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_goes_out_comes_in(value in values()) {
        let bytes = encoded(&value);
        prop_assert_eq!(decode_all(&bytes), Ok(value));
        for end in 0..bytes.len() {
            prop_assert!(decode_all(&bytes[..end]).is_err());
        }
    }
}
