//! A value that can be decoded can be encoded again, and is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace_core::value::{decode_all, encode};

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = decode_all(data) {
        let mut bytes = Vec::new();
        encode(&value, &mut bytes).expect("it was decoded");
        assert!(bytes.len() <= data.len(), "encoders write the shortest form");
        let mut again = Vec::new();
        encode(&decode_all(&bytes).expect("it was encoded"), &mut again).expect("it was decoded");
        assert_eq!(bytes, again);
    }
});
