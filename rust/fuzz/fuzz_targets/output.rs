//! Output that is taken several calls at a time is what came: the same calls, and everything else as it would have been.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailrace_core::banana::{Decoder, Element};

fuzz_target!(|data: &[u8]| {
    let (mut quick, mut slow) = (Decoder::new(), Decoder::new());
    quick.use_vocabulary();
    slow.use_vocabulary();
    for piece in data.chunks(7) {
        quick.receive_data(piece);
        slow.receive_data(piece);
        while step(&mut quick, &mut slow) {}
    }
});

/// One output or one expression of both. `false`: there is nothing more, or an error, which is the same.
fn step(quick: &mut Decoder, slow: &mut Decoder) -> bool {
    match quick.next_output() {
        Ok(Some(output)) => {
            for call in &output.calls {
                let Ok(Some(Element::List(items))) = slow.next_expression() else { panic!("no call") };
                assert_eq!(items.get(1), Some(&Element::Int(*call)));
                assert_eq!(items.get(2), Some(&Element::Int(output.target)));
            }
            for text in &output.texts {
                assert!(text.pieces.iter().all(|piece| std::str::from_utf8(piece).is_ok()));
            }
            true
        }
        Ok(None) => {
            let found = quick.next_expression();
            let same = match (&found, &slow.next_expression()) {
                (Ok(Some(one)), Ok(Some(other))) => format!("{one:?}") == format!("{other:?}"),
                (one, other) => one == other,
            };
            assert!(same);
            matches!(found, Ok(Some(_)))
        }
        Err(error) => {
            assert_eq!(slow.next_expression(), Err(error));
            false
        }
    }
}
