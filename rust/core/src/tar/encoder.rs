//! Entries to bytes.

use super::pax::{put_record, put_time};
use super::{BLOCK, Entry, Kind, OCTAL_END, TarError, USTAR, checksum, error, field, padding};

/// Makes one tar stream. Commands append to what [`Encoder::take`] drains.
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
    /// Data bytes that the last file still needs.
    missing: u64,
    /// Zeros that follow them.
    padding: usize,
}

impl Encoder {
    /// One at its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins an entry. The one before must have all of its data.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), TarError> {
        self.check_whole()?;
        check_text("path", &entry.path)?;
        let (kind, size, target) = match &entry.kind {
            Kind::File(size) => (b'0', *size, [].as_slice()),
            Kind::Directory => (b'5', 0, [].as_slice()),
            Kind::Symlink(target) => (b'2', 0, target.as_slice()),
            Kind::Hardlink(target) => (b'1', 0, target.as_slice()),
            Kind::Device | Kind::Fifo => return error("devices and pipes are not packed"),
        };
        if matches!(kind, b'1' | b'2') {
            check_text("link", target)?;
        }
        let mut path = entry.path.clone();
        if kind == b'5' && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut pax = Vec::new();
        let (prefix, name) = match split(&path) {
            Some(halves) if path.is_ascii() => halves,
            halves => {
                put_text(&mut pax, "path", &path);
                halves.unwrap_or_default()
            }
        };
        if target.len() > field::TARGET.len() || !target.is_ascii() {
            put_text(&mut pax, "linkpath", target);
        }
        if size >= OCTAL_END {
            put_record(&mut pax, "size", size.to_string().as_bytes());
        }
        let seconds = u64::try_from(entry.mtime).ok().filter(|&seconds| seconds < OCTAL_END);
        if seconds.is_none() || entry.mtime_ns > 0 {
            put_time(&mut pax, entry.mtime, entry.mtime_ns);
        }
        if !pax.is_empty() {
            self.header([b"", b"././@PaxHeader", b""], b'x', 0o644, pax.len() as u64, 0);
            self.out.extend_from_slice(&pax);
            self.zeros(padding(pax.len() as u64));
        }
        let shown = target.get(..target.len().min(field::TARGET.len())).unwrap_or_default();
        self.header([prefix, name, shown], kind, entry.mode & 0o7777, size, seconds.unwrap_or_default());
        (self.missing, self.padding) = (size, padding(size));
        Ok(())
    }

    /// Data of the last entry, never more than its size.
    pub fn data(&mut self, data: &[u8]) -> Result<(), TarError> {
        let left = self.missing.checked_sub(data.len() as u64);
        self.missing = left.ok_or_else(|| TarError("more data than the entry has".to_owned()))?;
        self.out.extend_from_slice(data);
        if self.missing == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.zeros(padding);
        }
        Ok(())
    }

    /// Ends the stream.
    pub fn finish(&mut self) -> Result<(), TarError> {
        self.check_whole()?;
        self.zeros(2 * BLOCK);
        Ok(())
    }

    /// Data bytes that the last entry still needs.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The number of bytes that `take` would give.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Hands out what was made so far.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn check_whole(&self) -> Result<(), TarError> {
        if self.missing == 0 { Ok(()) } else { error(format!("{} bytes of the last entry are missing", self.missing)) }
    }

    fn zeros(&mut self, count: usize) {
        self.out.resize(self.out.len() + count, 0);
    }

    fn header(&mut self, [prefix, name, target]: [&[u8]; 3], kind: u8, mode: u32, size: u64, mtime: u64) {
        let mut block = [0; BLOCK];
        // A size that does not fit is in the pax header, and here it is nought, as Python and others have it.
        let size = if size < OCTAL_END { size } else { 0 };
        for (place, bytes) in [
            (field::NAME, name),
            (field::MODE, format!("{mode:07o}").as_bytes()),
            (field::UID, b"0000000"),
            (field::GID, b"0000000"),
            (field::SIZE, format!("{size:011o}").as_bytes()),
            (field::MTIME, format!("{mtime:011o}").as_bytes()),
            (field::KIND, &[kind]),
            (field::TARGET, target),
            (field::MAGIC, USTAR),
            (field::PREFIX, prefix),
        ] {
            put(&mut block, place.start, bytes);
        }
        let sum = checksum(&block);
        put(&mut block, field::CHECKSUM.start, format!("{sum:06o}\0 ").as_bytes());
        self.out.extend_from_slice(&block);
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    if let Some(place) = block.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// A path as prefix and name, if it fits the two fields.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= field::NAME.len() {
        return Some((&[], path));
    }
    let longest = path.get(..path.len().min(field::PREFIX.len() + 1))?;
    // Not the slash at a directory's end: the name must not be empty.
    let slash = longest.iter().enumerate().rev().find(|&(at, &byte)| byte == b'/' && at > 0 && at + 1 < path.len())?.0;
    let name = path.get(slash + 1..)?;
    (name.len() <= field::NAME.len()).then(|| path.split_at(slash).0).map(|prefix| (prefix, name))
}

fn put_text(pax: &mut Vec<u8>, key: &str, text: &[u8]) {
    if std::str::from_utf8(text).is_err() && !pax.starts_with(b"21 hdrcharset") {
        put_record(pax, "hdrcharset", b"BINARY");
    }
    put_record(pax, key, text);
}

fn check_text(what: &str, text: &[u8]) -> Result<(), TarError> {
    if text.is_empty() || text.contains(&0) {
        return error(format!("a {what} that is empty or has a NUL in it"));
    }
    Ok(())
}
