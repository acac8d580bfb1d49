//! Integers, bytes and strings on the wire (PROTOCOL.md section 1).
//!
//! Decoders take from the front of a slice and leave it behind what they took. They are given a whole frame or record,
//! so bytes that are missing are an error, not a reason to wait.

use crate::error::ProtocolError;
use crate::limits::STR_BYTES_MAX;

/// The largest integer that a varint holds: nine groups of seven bits.
pub const MAX: u64 = (1 << 63) - 1;

/// Bytes of the longest varint.
pub const BYTES_MAX: usize = 9;

/// Appends `n`, which is at most [`MAX`], in its shortest form.
pub fn encode(n: u64, out: &mut Vec<u8>) {
    debug_assert!(n <= MAX, "{n} does not fit a varint");
    let mut rest = n & MAX;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// How many bytes `encode` makes of `n`.
pub const fn len(n: u64) -> usize {
    let bits = 64 - (n | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes an integer from the front of `input`.
pub fn decode(input: &mut &[u8]) -> Result<u64, ProtocolError> {
    let (n, bytes) = match **input {
        // Most are small: kinds, counts, differences.
        [byte @ 0..0x80, ..] => (u64::from(byte), 1),
        // The others are times, of which each record has two.
        [a, b, c, d, e, f, g, h, ..] => {
            decode_word(u64::from_le_bytes([a, b, c, d, e, f, g, h])).map_or_else(|| decode_bytewise(input), Ok)?
        }
        _ => decode_bytewise(input)?,
    };
    // In its shortest form the last group is not zero.
    if bytes > 1 && n >> (7 * (bytes - 1)) == 0 {
        return Err(malformed("an integer is not in its shortest form"));
    }
    *input = input.get(bytes..).unwrap_or_default();
    Ok(n)
}

/// The integer at the front of eight bytes, the first lowest, and how long it is; `None`: it is longer than they are.
fn decode_word(word: u64) -> Option<(u64, usize)> {
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return None;
    }
    // All bits up to the first byte that ends an integer, then without the high bits, then two groups and two groups together.
    let n = word & (ends ^ (ends - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
    let n = (n & 0x007f_007f_007f_007f) | ((n & 0x7f00_7f00_7f00_7f00) >> 1);
    let n = (n & 0x0000_3fff_0000_3fff) | ((n & 0x3fff_0000_3fff_0000) >> 2);
    let n = (n & 0x0fff_ffff) | ((n & 0x0fff_ffff_0000_0000) >> 4);
    Some((n, ends.trailing_zeros() as usize / 8 + 1))
}

fn decode_bytewise(input: &[u8]) -> Result<(u64, usize), ProtocolError> {
    let mut n = 0;
    for (index, &byte) in input.iter().take(BYTES_MAX).enumerate() {
        n |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((n, index + 1));
        }
    }
    Err(malformed(if input.len() < BYTES_MAX { "an integer is cut off" } else { "an integer is longer than 9 bytes" }))
}

/// Takes one byte from the front of `input`.
pub fn decode_u8(input: &mut &[u8]) -> Result<u8, ProtocolError> {
    input.split_off_first().copied().ok_or_else(|| malformed("a byte is missing"))
}

/// Takes `n` bytes from the front of `input`.
pub fn decode_bytes<'a>(input: &mut &'a [u8], n: usize) -> Result<&'a [u8], ProtocolError> {
    let have = input.len();
    input.split_off(..n).ok_or_else(|| malformed(format!("{n} bytes are announced and {have} are there")))
}

/// Appends a `str`. The caller has checked its length.
pub fn encode_str(text: &str, out: &mut Vec<u8>) {
    encode(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Takes a `str` of the usual length, at most 4,096 bytes.
pub fn decode_str<'a>(input: &mut &'a [u8]) -> Result<&'a str, ProtocolError> {
    decode_str_max(input, STR_BYTES_MAX)
}

/// Takes a `str` of at most `max` bytes.
pub fn decode_str_max<'a>(input: &mut &'a [u8], max: usize) -> Result<&'a str, ProtocolError> {
    let length = decode(input)?;
    if length > max as u64 {
        return Err(malformed(format!("a string of {length} bytes, more than {max}")));
    }
    str::from_utf8(decode_bytes(input, length as usize)?).map_err(|_| malformed("a string is not UTF-8"))
}

/// Nothing may follow the last field.
pub fn decode_end(input: &[u8]) -> Result<(), ProtocolError> {
    if input.is_empty() { Ok(()) } else { Err(malformed(format!("{} bytes after the last field", input.len()))) }
}

fn malformed(what: impl Into<String>) -> ProtocolError {
    ProtocolError::new(1, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_as_specified() {
        for (n, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ] {
            let mut out = Vec::new();
            encode(n, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(len(n), bytes.len());
            let mut input = bytes;
            assert_eq!(decode(&mut input), Ok(n));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn eight_bytes_at_once_say_the_same_as_one_by_one() {
        let sizes = (0..63).flat_map(|bit| [1 << bit, (1 << bit) - 1, (1 << bit) | 1, MAX >> bit]);
        for (n, behind) in sizes.flat_map(|n| [0x00, 0x7f, 0x80, 0xff].map(|behind| (n, behind))) {
            let mut bytes = Vec::new();
            encode(n, &mut bytes);
            bytes.extend([behind; 8]);
            let mut input = bytes.as_slice();
            assert_eq!(decode(&mut input), Ok(n));
            assert_eq!(input, [behind; 8]);
            assert_eq!(decode_bytewise(&bytes), Ok((n, len(n))));
        }
    }

    #[test]
    fn a_last_group_of_zero_is_refused_wherever_it_stands() {
        for length in 2..=9 {
            let mut bytes = vec![0x81; length];
            bytes[length - 1] = 0;
            for behind in [0, 8] {
                bytes.resize(length + behind, 0x55);
                assert!(decode(&mut &bytes[..]).is_err(), "{bytes:x?}");
            }
        }
    }

    #[test]
    fn long_forms_cut_ones_and_ten_bytes_are_refused() {
        for bytes in [&[0x80, 0x00][..], &[0x80], &[], &[0xff; 9], &[0x80; 10]] {
            assert!(decode(&mut &bytes[..]).is_err(), "{bytes:x?}");
        }
    }
}
