//! An expression that can be decoded can be encoded again, and is the same; with and without the vocabulary.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace_core::banana::{Decoder, Encoder};

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new();
    decoder.use_vocabulary();
    for piece in data.chunks(7) {
        decoder.receive_data(piece);
        while let Ok(Some(element)) = decoder.next_expression() {
            for vocabulary in [false, true] {
                let mut encoder = Encoder::new(vocabulary);
                encoder.element(&element).expect("it was decoded");
                let bytes = encoder.finish();
                let mut again = Decoder::new();
                if vocabulary {
                    again.use_vocabulary();
                }
                again.receive_data(&bytes);
                let element = again.next_expression().expect("it was encoded").expect("all of it");
                let mut encoder = Encoder::new(vocabulary);
                encoder.element(&element).expect("it was decoded");
                assert_eq!(encoder.finish(), bytes);
            }
        }
    }
});
