//! A tar stream means the same whole and in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace_core::tar::{Decoder, Event};

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, data) = input;
    assert_eq!(entries(data, usize::MAX), entries(data, usize::from(piece) + 1));
});

/// The entries with their data, and what was wrong.
fn entries(data: &[u8], piece: usize) -> (Vec<(String, Vec<u8>)>, Option<String>) {
    let mut decoder = Decoder::new();
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
    for part in data.chunks(piece).map(Some).chain([None]) {
        match part {
            Some(part) => decoder.receive_data(part),
            None => decoder.receive_eof(),
        }
        loop {
            match decoder.next_event() {
                Ok(Some(Event::Entry(entry))) => found.push((format!("{entry:?}"), Vec::new())),
                Ok(Some(Event::Data(data))) => {
                    let (_, file) = found.last_mut().expect("data follow an entry");
                    file.extend_from_slice(&data);
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error.to_string())),
            }
        }
    }
    (found, None)
}
