//! The spool: files behind the ring, for what a child writes while nobody takes it.
//!
//! A spool is a queue of *blocks*, whole records each, in segment files that are removed when all in them went back into
//! the ring. A block carries the journal offset of its first byte, the chain behind its last, and a CRC: after a crash
//! the blocks are good up to the first that is torn. Blocks are written to the page cache and no further: they are there to
//! outlive processes. What a crash of the machine leaves of them is still delivered.
//!
//! ```text
//! block := "TRS\1" | u32 length | u64 offset | 32 bytes chain | u32 CRC-32 of all before it and of the records | records
//! ```

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use tailrace_core::chain::Chain;
use tailrace_core::ledger::Ledger;

/// Name and version of a block.
const MAGIC: [u8; 4] = *b"TRS\x01";

/// Of a block, what stands before its records.
const HEAD: usize = 52;

/// What a segment may hold: so much at most is on the disk though it was consumed. Of a small spool a quarter.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Names of segment files, with a number behind.
const PREFIX: &str = "spool.";

/// What a block may claim to hold.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// The blocks that wait to go back into the ring.
pub(crate) struct Spool {
    disk: Disk,
    bytes_max: u64,
    segments: VecDeque<Segment>,
    /// Where in the first segment the next block begins.
    at: u64,
    /// Bytes in all segments.
    stored: u64,
    number: u64,
}

struct Segment {
    name: String,
    file: OwnedFd,
    length: u64,
}

/// What stands before a block's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) offset: u64,
    /// Behind the last record.
    pub(crate) chain: Chain,
    crc: u32,
}

impl Spool {
    /// An empty one, in a directory without segments, that takes `bytes_max` bytes of the disk.
    pub(crate) fn new(directory: OwnedFd, bytes_max: u64) -> Self {
        let disk = Disk::new(directory);
        Self { disk, bytes_max, segments: VecDeque::new(), at: 0, stored: 0, number: 0 }
    }

    /// Takes up what is in `directory`: the good blocks that go on at `offset`, each of which `see` is shown and may refuse.
    /// What stands behind them is removed.
    pub(crate) fn recover(
        directory: OwnedFd,
        bytes_max: u64,
        mut offset: u64,
        mut see: impl FnMut(&[u8], &Chain) -> bool,
    ) -> io::Result<Self> {
        let mut spool = Self::new(directory, bytes_max);
        let mut good = true;
        for (number, name) in spool.disk.segments()? {
            let file = spool.disk.open(&name)?;
            let (mut from, mut length) = (0, 0);
            while let Some((head, records)) = read_block(&file, length).ok().flatten().filter(|_| good) {
                let end = head.offset + head.length as u64;
                length += (HEAD + head.length) as u64;
                if end <= offset {
                    // It went back into the ring already.
                    from = length;
                } else if head.offset == offset && see(&records, &head.chain) {
                    offset = end;
                } else {
                    length -= (HEAD + head.length) as u64;
                    good = false;
                }
            }
            good &= rustix::fs::fstat(&file)?.st_size as u64 == length;
            spool.number = number + 1;
            if length == from {
                spool.disk.remove(&name);
                continue;
            }
            rustix::fs::ftruncate(&file, length)?;
            if spool.segments.is_empty() {
                spool.at = from;
            }
            spool.stored += length;
            spool.segments.push_back(Segment { name, file, length });
        }
        Ok(spool)
    }

    /// Whether no block waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many bytes more may be stored.
    pub(crate) fn room(&self) -> u64 {
        self.bytes_max.saturating_sub(self.stored)
    }

    /// Adds a block. After an error nothing of it is there, and all before it is.
    pub(crate) fn append(&mut self, records: &[u8], offset: u64, chain: &Chain) -> io::Result<()> {
        let length = (HEAD + records.len()) as u64;
        let segment_bytes = SEGMENT_BYTES.min(self.bytes_max / 4);
        let full = |segment: &Segment| segment.length > 0 && segment.length + length > segment_bytes;
        if self.segments.back().is_none_or(full) {
            self.begin_segment()?;
        }
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        if let Err(error) =
            self.disk.write(&segment.file, segment.length, [&encode_head(records, offset, chain), records])
        {
            // Whether it can be cut off or not: the next block is written there.
            let _ = rustix::fs::ftruncate(&segment.file, segment.length);
            self.drop_empty_segment();
            return Err(error);
        }
        segment.length += length;
        self.stored += length;
        Ok(())
    }

    /// The head of the next block.
    pub(crate) fn next(&self) -> io::Result<Option<Head>> {
        let Some(segment) = self.segments.front() else { return Ok(None) };
        read_head(&segment.file, self.at)?.map(Some).ok_or_else(torn)
    }

    /// Copies the records of the next block, whose head that is, to `place`, which they fill.
    pub(crate) fn read(&self, head: &Head, place: &mut [u8]) -> io::Result<()> {
        let Some(segment) = self.segments.front() else { return Err(torn()) };
        read_all(&segment.file, self.at + HEAD as u64, place)?;
        if head.crc == crc(&encode_start(head.length, head.offset, &head.chain), place) { Ok(()) } else { Err(torn()) }
    }

    /// The next block, whose head that is, has gone back into the ring.
    pub(crate) fn consume(&mut self, head: &Head) {
        self.at += (HEAD + head.length) as u64;
        let consumed = self.segments.front().is_some_and(|segment| segment.length <= self.at);
        if let Some(segment) = consumed.then(|| self.segments.pop_front()).flatten() {
            self.disk.remove(&segment.name);
            self.stored -= segment.length;
            self.at = 0;
        }
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let name = format!("{PREFIX}{:08}", self.number);
        let file = self.disk.create(&name)?;
        self.number += 1;
        self.segments.push_back(Segment { name, file, length: 0 });
        Ok(())
    }

    fn drop_empty_segment(&mut self) {
        let is_empty = self.segments.back().is_some_and(|segment| segment.length == 0);
        if let Some(segment) = is_empty.then(|| self.segments.pop_back()).flatten() {
            self.disk.remove(&segment.name);
        }
    }
}

/// The spool of a supervisor that has died, and what is counted up to its end; `ledger` has counted up to the ring's.
pub(crate) fn inherit(directory: OwnedFd, bytes_max: u64, mut ledger: Ledger) -> io::Result<(Spool, Ledger)> {
    let spool = Spool::recover(directory, bytes_max, ledger.offset(), |records, chain| {
        let mut longer = ledger.clone();
        let good = longer.add(records).is_ok() && longer.chain() == chain.as_bytes();
        if good {
            ledger = longer;
        }
        good
    })?;
    Ok((spool, ledger))
}

/// Removes all segments in `directory`.
pub(crate) fn remove_all(directory: impl AsFd) {
    let Ok(segments) = segments(directory.as_fd()) else { return };
    for (_, name) in segments {
        let _ = rustix::fs::unlinkat(directory.as_fd(), &name, AtFlags::empty());
    }
}

fn segments(directory: impl AsFd) -> io::Result<Vec<(u64, String)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_string_lossy();
        if let Some(number) = name.strip_prefix(PREFIX).and_then(|number| number.parse().ok()) {
            found.push((number, name.into_owned()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn torn() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a block of the spool is not as it was written")
}

fn encode_start(length: usize, offset: u64, chain: &Chain) -> [u8; HEAD - 4] {
    let mut start = [0; HEAD - 4];
    start[..4].copy_from_slice(&MAGIC);
    start[4..8].copy_from_slice(&(length as u32).to_be_bytes());
    start[8..16].copy_from_slice(&offset.to_be_bytes());
    start[16..].copy_from_slice(chain.as_bytes());
    start
}

fn encode_head(records: &[u8], offset: u64, chain: &Chain) -> [u8; HEAD] {
    let start = encode_start(records.len(), offset, chain);
    let mut head = [0; HEAD];
    head[..HEAD - 4].copy_from_slice(&start);
    head[HEAD - 4..].copy_from_slice(&crc(&start, records).to_be_bytes());
    head
}

fn crc(start: &[u8], records: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(start);
    hasher.update(records);
    hasher.finalize()
}

/// The head at `at`; none if none stands there.
fn read_head(file: &OwnedFd, at: u64) -> io::Result<Option<Head>> {
    let mut head = [0; HEAD];
    match read_all(file, at, &mut head) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        done => done?,
    }
    let (magic, rest) = head.split_at(4);
    let length = u32::from_be_bytes(rest[..4].try_into().expect("four bytes")) as usize;
    let offset = u64::from_be_bytes(rest[4..12].try_into().expect("eight bytes"));
    let chain: [u8; 32] = rest[12..44].try_into().expect("32 bytes");
    let crc = u32::from_be_bytes(rest[44..].try_into().expect("four bytes"));
    let sound =
        magic == MAGIC && (1..=BLOCK_BYTES_MAX).contains(&length) && offset.checked_add(length as u64).is_some();
    Ok(sound.then_some(Head { length, offset, chain: Chain::from(chain), crc }))
}

/// The block at `at`; none if none that is whole stands there.
fn read_block(file: &OwnedFd, at: u64) -> io::Result<Option<(Head, Vec<u8>)>> {
    let Some(head) = read_head(file, at)? else { return Ok(None) };
    // Not to take an announced length for memory that is there.
    if rustix::fs::fstat(file)?.st_size as u64 - at < (HEAD + head.length) as u64 {
        return Ok(None);
    }
    let mut records = vec![0; head.length];
    read_all(file, at + HEAD as u64, &mut records)?;
    let good = head.crc == crc(&encode_start(head.length, head.offset, &head.chain), &records);
    Ok(good.then_some((head, records)))
}

fn read_all(file: &OwnedFd, mut at: u64, mut place: &mut [u8]) -> io::Result<()> {
    while !place.is_empty() {
        match rustix::io::pread(file, &mut *place, at) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                at += read as u64;
                place = &mut place[read..];
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is done to the file system. In tests any of it may fail.
struct Disk {
    directory: OwnedFd,
    #[cfg(test)]
    faults: tests::Faults,
}

impl Disk {
    #[cfg(not(test))]
    fn new(directory: OwnedFd) -> Self {
        Self { directory }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "in tests it may fail")]
    fn may(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn segments(&self) -> io::Result<Vec<(u64, String)>> {
        segments(&self.directory)
    }

    fn open(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.directory, name, flags, Mode::empty())?)
    }

    fn create(&mut self, name: &str) -> io::Result<OwnedFd> {
        self.may()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?)
    }

    fn write(&mut self, file: &OwnedFd, mut at: u64, parts: [&[u8]; 2]) -> io::Result<()> {
        for mut part in parts {
            while !part.is_empty() {
                self.may()?;
                match rustix::io::pwrite(file, part, at) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        at += written as u64;
                        part = &part[written..];
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// A file that stays is found by the next supervisor here, which knows that it was consumed.
    fn remove(&mut self, name: &str) {
        if self.may().is_ok() {
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;
    use std::ops::Range;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    thread_local! {
        static DONE: Cell<u64> = const { Cell::new(0) };
        static FAILING: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    }

    /// Of the operations of this thread's spools from now on, those with these numbers fail. Says how many there were.
    pub(crate) fn fail(numbers: Range<u64>) -> u64 {
        FAILING.set((numbers.start, numbers.end));
        DONE.replace(0)
    }

    pub(crate) struct Faults;

    impl Disk {
        pub(super) fn new(directory: OwnedFd) -> Self {
            Self { directory, faults: Faults }
        }

        pub(super) fn may(&mut self) -> io::Result<()> {
            let Faults = self.faults;
            let number = DONE.replace(DONE.get() + 1);
            let (first, behind) = FAILING.get();
            if (first..behind).contains(&number) { Err(Errno::NOSPC.into()) } else { Ok(()) }
        }
    }

    /// A directory, gone with it.
    pub(crate) struct Place(pub(crate) PathBuf);

    impl Place {
        pub(crate) fn new(name: &str) -> Self {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("tailrace-{name}-{}-{count}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        pub(crate) fn open(&self) -> OwnedFd {
            rustix::fs::open(&self.0, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
        }

        pub(crate) fn bytes(&self) -> u64 {
            let entries = std::fs::read_dir(&self.0).unwrap().map(Result::unwrap);
            let segments = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
            segments.map(|entry| entry.metadata().unwrap().len()).sum()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn chain(seed: u8) -> Chain {
        Chain::from([seed; 32])
    }

    fn take(spool: &mut Spool) -> Option<(u64, Vec<u8>, Chain)> {
        let head = spool.next().unwrap()?;
        let mut records = vec![0; head.length];
        spool.read(&head, &mut records).unwrap();
        spool.consume(&head);
        Some((head.offset, records, head.chain))
    }

    fn recovered(place: &Place, offset: u64) -> Vec<(u64, Vec<u8>, Chain)> {
        let mut spool = Spool::recover(place.open(), 1 << 20, offset, |_, _| true).unwrap();
        std::iter::from_fn(|| take(&mut spool)).collect()
    }

    #[test]
    fn blocks_come_back_in_order_and_the_disk_is_given_back() {
        let place = Place::new("spool");
        let mut spool = Spool::new(place.open(), 4000);
        for round in 0..3_u8 {
            for seed in 0..10_u8 {
                spool.append(&[seed; 300], u64::from(round) * 3000 + u64::from(seed) * 300, &chain(seed)).unwrap();
            }
            assert_eq!(spool.room(), 4000 - place.bytes());
            for seed in 0..10_u8 {
                let want = (u64::from(round) * 3000 + u64::from(seed) * 300, vec![seed; 300], chain(seed));
                assert_eq!(take(&mut spool), Some(want));
            }
            assert!(spool.is_empty() && take(&mut spool).is_none());
            assert_eq!((place.bytes(), spool.room()), (0, 4000));
        }
    }

    #[test]
    fn it_is_recovered_up_to_whatever_was_torn() {
        let place = Place::new("spool");
        let mut spool = Spool::new(place.open(), 8000);
        let blocks: Vec<_> = (0..6_u8).map(|seed| (u64::from(seed) * 300, vec![seed; 300], chain(seed))).collect();
        for (offset, records, chain) in &blocks {
            spool.append(records, *offset, chain).unwrap();
        }
        drop(spool);
        let files: Vec<_> = (0..2).map(|number| place.0.join(format!("{PREFIX}{number:08}"))).collect();
        let sound: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        for (from, first) in [(0, 0), (300, 1), (900, 3)] {
            files.iter().zip(&sound).for_each(|(file, bytes)| std::fs::write(file, bytes).unwrap());
            assert_eq!(recovered(&place, from), blocks[first..]);
        }
        let total: usize = sound.iter().map(Vec::len).sum();
        for at in 0..total {
            for cut in [false, true] {
                let mut damaged = sound.clone();
                let (file, at_in) = if at < sound[0].len() { (0, at) } else { (1, at - sound[0].len()) };
                if cut {
                    damaged[file].truncate(at_in);
                } else {
                    damaged[file][at_in] ^= 0x40;
                }
                files.iter().zip(&damaged).for_each(|(file, bytes)| std::fs::write(file, bytes).unwrap());
                assert!(recovered(&place, 0) == blocks[..at / (HEAD + 300)], "{at} {cut}");
            }
        }
    }

    #[test]
    fn what_does_not_go_on_where_the_ring_ends_is_nobodys() {
        let place = Place::new("spool");
        let mut spool = Spool::new(place.open(), 4000);
        spool.append(&[1; 300], 300, &chain(1)).unwrap();
        drop(spool);
        assert_eq!(recovered(&place, 0), []);
        assert_eq!(place.bytes(), 0);
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let place = Place::new("spool");
        let mut spool = Spool::new(place.open(), 4000);
        for seed in 0..8_u8 {
            let offset = u64::from(seed) * 300;
            for number in 0..5 {
                fail(number..number + 1);
                let tried = spool.append(&[seed; 300], offset, &chain(seed));
                fail(0..0);
                if tried.is_ok() {
                    break;
                }
                assert_eq!(recovered(&place, 0).len(), usize::from(seed), "all before it, and nothing of it");
                // Taking it up consumed it: write it anew.
                spool = Spool::new(place.open(), 4000);
                for before in 0..seed {
                    spool.append(&[before; 300], u64::from(before) * 300, &chain(before)).unwrap();
                }
            }
        }
        assert_eq!(recovered(&place, 0).len(), 8);
    }
}
