//! Where lines begin and end, and where characters do. Nothing here changes, drops or copies a byte.
//!
//! A line begins at the first byte of a channel and after each `\n` that is followed by a byte. So the number of lines
//! that begin in a piece is the number of its newlines without the very last byte, plus one if the piece begins a line.
//! Carriage returns, escape sequences and encodings are views of a reader and mean nothing here.

use std::iter::zip;

/// Bytes that one vector step compares: wide enough for the compiler to use whatever registers there are.
const LANES: usize = 64;

/// Shorter data cost less where it is looked for the next newline than where lanes are summed up.
const SHORT_BYTES: usize = 256;

/// The number of `\n` in `data`. Runs at memory speed: most log bytes pass here once at each side.
pub fn count_newlines(data: &[u8]) -> usize {
    if data.len() < SHORT_BYTES {
        return memchr::memchr_iter(b'\n', data).count();
    }
    let (steps, rest) = data.as_chunks::<LANES>();
    let mut count = rest.iter().filter(|&&byte| byte == b'\n').count();
    // A lane is a byte wide, so that it overflows after 255 steps.
    for block in steps.chunks(255) {
        let mut lanes = [0u8; LANES];
        for step in block {
            for (lane, &byte) in zip(&mut lanes, step) {
                *lane += u8::from(byte == b'\n');
            }
        }
        count += lanes.iter().map(|&lane| usize::from(lane)).sum::<usize>();
    }
    count
}

/// The number of lines that begin in `data`, of which the first byte does or does not continue a line.
pub fn lines_begun(data: &[u8], continues: bool) -> u64 {
    let Some((_, before_last)) = data.split_last() else { return 0 };
    count_newlines(before_last) as u64 + u64::from(!continues)
}

/// Whether `data` ends inside a line.
pub fn is_partial(data: &[u8]) -> bool {
    data.last().is_some_and(|&byte| byte != b'\n')
}

/// Where the line number `index` (from 0) of those that begin in `data` begins; `None` if there are not so many.
pub fn line_start(data: &[u8], continues: bool, index: u64) -> Option<usize> {
    let newlines = if continues { index.checked_add(1)? } else { index };
    if newlines == 0 {
        return (!data.is_empty()).then_some(0);
    }
    let nth = usize::try_from(newlines - 1).ok()?;
    let start = memchr::memchr_iter(b'\n', data).nth(nth)? + 1;
    (start < data.len()).then_some(start)
}

/// The number of bytes at the end of `data` (0 to 3) that begin a UTF-8 character without finishing it.
pub fn utf8_tail(data: &[u8]) -> usize {
    // No lead byte can continue a character, so the last one is all that matters, and it is at most 3 bytes away.
    let near = data.rchunks(3).next().unwrap_or_default();
    let Some(back) = near.iter().rev().position(|&byte| byte >= 0xc0) else { return 0 };
    let tail = near.get(near.len() - back - 1..).unwrap_or_default();
    match std::str::from_utf8(tail) {
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => tail.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newlines_are_counted_across_blocks_and_rests() {
        for length in [0, 1, 63, 64, 65, 255, 256, 257, 64 * 255, 64 * 256 + 7] {
            assert_eq!(count_newlines(&vec![b'\n'; length]), length);
            assert_eq!(count_newlines(&vec![b'x'; length]), 0);
        }
    }

    #[test]
    fn a_final_newline_begins_no_line() {
        assert_eq!(lines_begun(b"a\nb\n", false), 2);
        assert_eq!(lines_begun(b"a\nb", false), 2);
        assert_eq!(lines_begun(b"a\nb", true), 1);
        assert_eq!(lines_begun(b"\n", true), 0);
        assert_eq!(lines_begun(b"", false), 0);
    }

    #[test]
    fn line_starts_are_found() {
        assert_eq!(line_start(b"a\nb\n", false, 0), Some(0));
        assert_eq!(line_start(b"a\nb\n", false, 1), Some(2));
        assert_eq!(line_start(b"a\nb\n", false, 2), None);
        assert_eq!(line_start(b"a\nb\n", true, 0), Some(2));
        assert_eq!(line_start(b"", false, 0), None);
    }

    #[test]
    fn only_an_unfinished_character_is_a_tail() {
        assert_eq!(utf8_tail("a€".as_bytes()), 0);
        assert_eq!(utf8_tail(b"a\xe2\x82"), 2);
        assert_eq!(utf8_tail(b"\xf0\x9f\x98"), 3);
        assert_eq!(utf8_tail(b"\xf0\x9f\x98\x80"), 0);
        assert_eq!(utf8_tail(b"\xe0\x80"), 0);
        assert_eq!(utf8_tail(b"\xff"), 0);
        assert_eq!(utf8_tail(b"\x82"), 0);
    }
}
