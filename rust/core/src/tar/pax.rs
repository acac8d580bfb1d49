//! Pax extended headers: `LENGTH KEY=VALUE\n` again and again.

use super::{PATH_BYTES_MAX, TarError, error};

/// What a pax header says of the entry behind it, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
}

impl Pax {
    /// Reads a header that belongs to one entry.
    pub(super) fn decode(mut body: &[u8]) -> Result<Self, TarError> {
        let mut pax = Self::default();
        while !body.is_empty() {
            let (key, value) = take_record(&mut body)?;
            match key {
                b"path" => once(&mut pax.path, path(value)?)?,
                b"linkpath" => once(&mut pax.target, path(value)?)?,
                b"size" => once(&mut pax.size, decimal(value).ok_or_else(|| bad("size"))?)?,
                b"mtime" => once(&mut pax.mtime, time(value).ok_or_else(|| bad("mtime"))?)?,
                _ if key.starts_with(b"GNU.sparse.") => return error("a sparse file, which is not read"),
                _ => {}
            }
        }
        Ok(pax)
    }

    /// Checks a header for all entries: it may only hold what does not matter here.
    pub(super) fn check_global(mut body: &[u8]) -> Result<(), TarError> {
        while !body.is_empty() {
            let (key, _) = take_record(&mut body)?;
            if [b"path".as_slice(), b"linkpath", b"size"].contains(&key) || key.starts_with(b"GNU.sparse.") {
                return error("a global pax header that names or sizes entries");
            }
        }
        Ok(())
    }
}

/// Appends one record. Its length counts itself.
pub(super) fn put_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Seconds as pax has them: a decimal fraction, nanoseconds counted upwards from the whole second below.
pub(super) fn put_time(out: &mut Vec<u8>, seconds: i64, nanos: u32) {
    let (sign, whole, fraction) = match nanos {
        1.. if seconds < 0 => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
        _ => (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs(), nanos),
    };
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:09}") };
    put_record(out, "mtime", format!("{sign}{whole}{fraction}").as_bytes());
}

fn take_record<'a>(body: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), TarError> {
    let bad = || bad("header");
    let space = body.iter().take(8).position(|&byte| byte == b' ').ok_or_else(bad)?;
    let (digits, _) = body.split_at(space);
    let length = decimal(digits).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
    let (record, rest) = body.split_at_checked(length).ok_or_else(bad)?;
    let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
    let equals = record.iter().position(|&byte| byte == b'=').filter(|&at| at > 0).ok_or_else(bad)?;
    let (key, value) = record.split_at(equals);
    *body = rest;
    Ok((key, value.get(1..).unwrap_or_default()))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), TarError> {
    if slot.replace(value).is_some() { error("a pax header that says one thing twice") } else { Ok(()) }
}

fn path(value: &[u8]) -> Result<Vec<u8>, TarError> {
    if value.is_empty() || value.len() > PATH_BYTES_MAX || value.contains(&0) {
        return Err(bad("path"));
    }
    Ok(value.to_vec())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&number| number <= i64::MAX as u64)
}

fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |value| (true, value));
    let dot = value.iter().position(|&byte| byte == b'.').unwrap_or(value.len());
    let (whole, fraction) = value.split_at(dot);
    let whole = i64::try_from(decimal(whole)?).ok()?;
    let fraction = fraction.get(1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    match (negative, nanos) {
        (false, _) => Some((whole, nanos)),
        (true, 0) => Some((-whole, 0)),
        (true, _) => Some((-whole - 1, 1_000_000_000 - nanos)),
    }
}

fn bad(what: &str) -> TarError {
    TarError(format!("a malformed pax {what}"))
}
