//! The journal's ring: a file, mapped by the supervisor that writes it and by the daemon that reads it.
//!
//! Theory of operation. The file is a header of 64 KiB (one page on every kernel) and `capacity` bytes of data. An absolute
//! journal offset lives at `offset % capacity`. The data is mapped twice, back to back, so that any range of up to
//! `capacity` bytes is one slice, whatever it wraps around. `end` is only moved behind whole records, after their bytes
//! are in place; `begin` is only moved by the reader. Bytes in `[begin, end)` are never written again, bytes outside
//! of it are never read: the two sides share no byte that changes.
//!
//! Nothing that stands in the header is believed: the other process may be torn, hostile or gone. Each side keeps its own
//! copy of what it wrote itself, and clamps what it reads. Waking the other side is not done here but over the control
//! socket, and only when it asked for it by a flag in the header: a *bell*.

use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use tailrace_core::journal::Source;

/// Name and version of the layout, the first eight bytes of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"TRring\0\x01");

/// Where the data begins. A multiple of the page size of every Linux, which mmap's file offsets must be.
const HEADER_BYTES: usize = 64 * 1024;

/// Ring sizes are multiples of this.
pub const CAPACITY_UNIT: usize = 64 * 1024;

/// What a ring file may claim to be, so that a torn header cannot make us map the address space away.
const CAPACITY_MAX: u64 = 1 << 30;

/// Three cache lines: what never changes, what the writer moves, what the reader moves.
#[repr(C)]
struct Header {
    magic: AtomicU64,
    capacity: AtomicU64,
    _still: [u64; 6],
    end: AtomicU64,
    ended: AtomicU32,
    writer_waits: AtomicU32,
    _written: [u64; 6],
    begin: AtomicU64,
    reader_waits: AtomicU32,
}

/// Makes the file of an empty ring, all of its room reserved on the disk, so that no later write can fail.
pub fn create_file(directory: BorrowedFd<'_>, name: &str, capacity: usize) -> io::Result<OwnedFd> {
    if capacity == 0 || !capacity.is_multiple_of(CAPACITY_UNIT) || capacity as u64 > CAPACITY_MAX {
        return Err(io::Error::other(format!("a ring of {capacity} bytes: not a multiple of {CAPACITY_UNIT}")));
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    reserve_on_disk(&file, HEADER_BYTES + capacity)?;
    let mut header = [0; 16];
    header[..8].copy_from_slice(&MAGIC.to_ne_bytes());
    header[8..].copy_from_slice(&(capacity as u64).to_ne_bytes());
    rustix::io::pwrite(&file, &header, 0)?;
    Ok(file)
}

fn reserve_on_disk(file: &OwnedFd, length: usize) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length as u64) {
        Err(Errno::OPNOTSUPP) => write_zeros(file, length),
        done => Ok(done?),
    }
}

/// For file systems that cannot reserve.
fn write_zeros(file: &OwnedFd, length: usize) -> io::Result<()> {
    let mut at = 0;
    while at < length {
        at += rustix::io::pwrite(file, &[0; CAPACITY_UNIT][..CAPACITY_UNIT.min(length - at)], at as u64)?;
    }
    Ok(())
}

/// The supervisor's side.
pub struct Writer {
    map: Mapping,
    begin: u64,
    end: u64,
    bell: bool,
}

impl Writer {
    /// Maps a ring that nobody has written to yet.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        let map = Mapping::new(file.as_fd(), ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(Self { map, begin: 0, end: 0, bell: false })
    }

    /// How many bytes the ring holds.
    pub fn capacity(&self) -> usize {
        self.map.capacity
    }

    /// The offset behind the last record.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether everything was released.
    pub fn is_empty(&mut self) -> bool {
        self.free() == self.map.capacity
    }

    /// How many bytes can be reserved now.
    pub fn free(&mut self) -> usize {
        // Ordered behind the store of `writer_waits`, as the reader's swap is behind its store of `begin`: one sees the other.
        let said = self.map.header().begin.load(Ordering::SeqCst);
        self.begin = said.clamp(self.begin, self.end);
        self.map.capacity - (self.end - self.begin) as usize
    }

    /// Room for `length` bytes behind the end, or `None` when the reader has to release some first.
    pub fn reserve(&mut self, length: usize) -> Option<&mut [u8]> {
        if length > self.free() {
            return None;
        }
        let start = (self.end % self.map.capacity as u64) as usize;
        // SAFETY: start < capacity and length <= capacity, so the range lies in the doubled data area; it is outside of
        // [begin, end), so no reader looks at it, and `&mut self` keeps other writers out.
        Some(unsafe { std::slice::from_raw_parts_mut(self.map.data().add(start), length) })
    }

    /// Shows the reader the first `length` bytes of what was reserved: whole records.
    pub fn commit(&mut self, length: usize) {
        debug_assert!(length <= self.map.capacity - (self.end - self.begin) as usize);
        self.end += length as u64;
        let header = self.map.header();
        header.end.store(self.end, Ordering::SeqCst);
        self.bell |= header.reader_waits.swap(0, Ordering::SeqCst) != 0;
    }

    /// Says that nothing follows.
    pub fn finish(&mut self) {
        let header = self.map.header();
        header.ended.store(1, Ordering::SeqCst);
        self.bell |= header.reader_waits.swap(0, Ordering::SeqCst) != 0;
    }

    /// Whether the reader waited for what was written. It is to be told, once.
    pub fn take_bell(&mut self) -> bool {
        std::mem::take(&mut self.bell)
    }

    /// Asks the reader to ring when it releases something. False: it just did, look again.
    pub fn wants_room(&mut self) -> bool {
        self.map.header().writer_waits.store(1, Ordering::SeqCst);
        let before = self.begin;
        self.free();
        self.begin == before
    }
}

/// The daemon's side. Threads may share it.
pub struct Reader {
    map: Mapping,
    begin: AtomicU64,
    seen: AtomicU64,
}

impl Reader {
    /// Maps the ring at `path`, where its last reader left off.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = rustix::fs::open(path.as_ref(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let map = Mapping::new(file.as_fd(), ProtFlags::READ)?;
        let begin = map.header().begin.load(Ordering::Acquire);
        Ok(Self { map, begin: AtomicU64::new(begin), seen: AtomicU64::new(0) })
    }

    /// Asks the writer to ring when the ring grows. False: it has grown since `end` was read last, look again.
    pub fn wants_bell(&self) -> bool {
        let header = self.map.header();
        header.reader_waits.store(1, Ordering::SeqCst);
        header.end.load(Ordering::SeqCst) == self.seen.load(Ordering::Relaxed) && !self.ended()
    }

    /// What may be read: the writer's end, as far as it can be true.
    fn range(&self) -> (u64, u64) {
        let begin = self.begin.load(Ordering::Acquire);
        let end = self.map.header().end.load(Ordering::SeqCst);
        (begin, end.clamp(begin, begin.saturating_add(self.map.capacity as u64)))
    }
}

impl Source for Reader {
    fn begin(&self) -> u64 {
        self.begin.load(Ordering::Acquire)
    }

    fn end(&self) -> u64 {
        let (_, end) = self.range();
        self.seen.store(end, Ordering::Relaxed);
        end
    }

    fn ended(&self) -> bool {
        self.map.header().ended.load(Ordering::SeqCst) != 0
    }

    fn read(&self, offset: u64, max: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let (begin, end) = self.range();
        if offset < begin || offset >= end {
            return 0;
        }
        let length = max.min((end - offset) as usize);
        let start = (offset % self.map.capacity as u64) as usize;
        // SAFETY: start < capacity, and length <= end - begin <= capacity by `range`, so the range lies in the doubled data
        // area. The writer does not touch [begin, end); one that breaks that rule can only make us read other bytes.
        sink(unsafe { std::slice::from_raw_parts(self.map.data().add(start), length) });
        length
    }

    fn release(&self, offset: u64) -> bool {
        let (begin, end) = self.range();
        let offset = offset.clamp(begin, end);
        self.begin.fetch_max(offset, Ordering::AcqRel);
        let header = self.map.header();
        // Never down, whichever of two threads comes last.
        header.begin.fetch_max(offset, Ordering::SeqCst);
        header.writer_waits.swap(0, Ordering::SeqCst) != 0
    }
}

/// The header, and twice the data behind it.
struct Mapping {
    base: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the mapping belongs to this value alone and lives as long as it; all that both sides change are atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; the data is written by `&mut Writer` only.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: BorrowedFd<'_>, data: ProtFlags) -> io::Result<Self> {
        let capacity = capacity_of(file)?;
        let length = HEADER_BYTES + 2 * capacity;
        // SAFETY: a fresh reservation of address space, placed by the kernel.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("a mapping at address 0"))?;
        let map = Self { base, capacity };
        map.place(0, HEADER_BYTES, ProtFlags::READ | ProtFlags::WRITE, file, 0)?;
        map.place(HEADER_BYTES, capacity, data, file, HEADER_BYTES)?;
        map.place(HEADER_BYTES + capacity, capacity, data, file, HEADER_BYTES)?;
        // SAFETY: the whole reservation, which is mapped. No readahead: it would clear pages that a small journal never needs.
        unsafe { rustix::mm::madvise(base.as_ptr().cast(), length, Advice::Random)? };
        Ok(map)
    }

    fn place(&self, at: usize, length: usize, prot: ProtFlags, file: BorrowedFd<'_>, offset: usize) -> io::Result<()> {
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: [at, at + length) lies in the reservation that `new` made, which nothing else uses yet.
        unsafe { rustix::mm::mmap(self.base.as_ptr().add(at).cast(), length, prot, flags, file, offset as u64)? };
        Ok(())
    }

    fn header(&self) -> &Header {
        // SAFETY: the first bytes of the mapping, aligned to a page; `Header` is atomics and padding only.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: within the reservation.
        unsafe { self.base.as_ptr().add(HEADER_BYTES) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` reserved; no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), HEADER_BYTES + 2 * self.capacity) };
    }
}

/// The capacity that a file's header claims, if the file is as long as it must be then: what is mapped can be touched.
fn capacity_of(file: BorrowedFd<'_>) -> io::Result<usize> {
    let mut header = [0; 16];
    let read = rustix::io::pread(file, &mut header, 0)?;
    let word = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let capacity = word(8);
    let sound = read == 16
        && word(0) == MAGIC
        && (1..=CAPACITY_MAX).contains(&capacity)
        && capacity.is_multiple_of(CAPACITY_UNIT as u64)
        && rustix::fs::fstat(file)?.st_size as u64 == HEADER_BYTES as u64 + capacity;
    if sound { Ok(capacity as usize) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "not a journal ring")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    /// A ring in a directory of its own, gone with it.
    struct Fixture {
        directory: PathBuf,
        file: OwnedFd,
    }

    impl Fixture {
        fn new(capacity: usize) -> Self {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let directory = std::env::temp_dir().join(format!("tailrace-ring-{}-{count}", std::process::id()));
            std::fs::create_dir(&directory).unwrap();
            let handle = rustix::fs::open(&directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let file = create_file(handle.as_fd(), "journal.ring", capacity).unwrap();
            Self { directory, file }
        }

        fn writer(&self) -> Writer {
            Writer::map(&self.file).unwrap()
        }

        fn reader(&self) -> Reader {
            Reader::open(self.directory.join("journal.ring")).unwrap()
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    fn put(writer: &mut Writer, bytes: &[u8]) -> bool {
        let Some(room) = writer.reserve(bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        writer.commit(bytes.len());
        true
    }

    fn get(reader: &Reader, offset: u64, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let read = reader.read(offset, max, &mut |piece| out.extend_from_slice(piece));
        assert_eq!(read, out.len());
        out
    }

    #[test]
    fn a_record_that_wraps_around_is_one_slice() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let (mut writer, reader) = (ring.writer(), ring.reader());
        assert!(put(&mut writer, &vec![1; CAPACITY_UNIT - 3]));
        reader.release(CAPACITY_UNIT as u64 - 3);
        assert!(put(&mut writer, b"wraps"));
        let mut pieces = 0;
        reader.read(CAPACITY_UNIT as u64 - 3, 100, &mut |piece| {
            pieces += 1;
            assert_eq!(piece, b"wraps");
        });
        assert_eq!(pieces, 1);
    }

    #[test]
    fn bells_ring_only_when_they_were_asked_for() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let (mut writer, reader) = (ring.writer(), ring.reader());
        writer.reserve(1).unwrap();
        writer.commit(1);
        assert!(!writer.take_bell());
        assert!(!reader.wants_bell(), "it has grown since");
        assert_eq!(reader.end(), 1);
        assert!(reader.wants_bell());
        writer.reserve(1).unwrap();
        writer.commit(1);
        assert!(writer.take_bell());
        writer.commit(0);
        assert!(!writer.take_bell(), "a bell rings once");
        assert!(!reader.release(1));
        assert!(!writer.wants_room(), "room was made since");
        assert!(writer.wants_room());
        assert!(reader.release(2));
    }

    #[test]
    fn a_reader_goes_on_where_the_last_one_left_off() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let mut writer = ring.writer();
        put(&mut writer, b"abcdef");
        ring.reader().release(2);
        assert_eq!(ring.reader().begin(), 2);
        assert_eq!(get(&ring.reader(), 2, 100), b"cdef");
    }

    #[test]
    fn a_file_system_that_cannot_reserve_gets_zeros() {
        let ring = Fixture::new(CAPACITY_UNIT);
        rustix::fs::ftruncate(&ring.file, 0).unwrap();
        write_zeros(&ring.file, 100_000).unwrap();
        assert_eq!(std::fs::read(ring.directory.join("journal.ring")).unwrap(), vec![0; 100_000]);
    }

    #[test]
    fn a_file_that_is_no_ring_is_refused() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let path = ring.directory.join("journal.ring");
        for (at, bytes) in [(0, [0; 8]), (8, [0; 8]), (8, [0xff; 8]), (8, (2 * CAPACITY_UNIT as u64).to_ne_bytes())] {
            let sound = std::fs::read(&path).unwrap();
            rustix::io::pwrite(&ring.file, &bytes, at).unwrap();
            assert!(Reader::open(&path).is_err());
            std::fs::write(&path, sound).unwrap();
        }
        assert!(Reader::open(&path).is_ok());
        rustix::fs::ftruncate(&ring.file, 70_000).unwrap();
        assert!(Reader::open(&path).is_err());
    }

    #[test]
    fn a_hostile_writer_cannot_lead_the_reader_out_of_the_ring() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let (writer, reader) = (ring.writer(), ring.reader());
        for end in [u64::MAX, 1 << 63, CAPACITY_UNIT as u64 + 1] {
            writer.map.header().end.store(end, Ordering::SeqCst);
            assert_eq!(reader.end(), CAPACITY_UNIT as u64);
            for offset in [0, 5, CAPACITY_UNIT as u64, u64::MAX] {
                assert!(get(&reader, offset, usize::MAX).len() <= CAPACITY_UNIT);
            }
        }
        writer.map.header().begin.store(u64::MAX, Ordering::SeqCst);
        let other = ring.reader();
        assert_eq!(get(&other, u64::MAX, usize::MAX), b"");
        other.release(u64::MAX);
    }

    #[test]
    fn a_hostile_reader_cannot_make_the_writer_overwrite() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let mut writer = ring.writer();
        put(&mut writer, &[0; 100]);
        let header = |writer: &Writer, begin| writer.map.header().begin.store(begin, Ordering::SeqCst);
        header(&writer, 50);
        assert_eq!(writer.free(), CAPACITY_UNIT - 50);
        header(&writer, 10);
        assert_eq!(writer.free(), CAPACITY_UNIT - 50, "begin does not go down");
        header(&writer, u64::MAX);
        assert_eq!(writer.free(), CAPACITY_UNIT, "nor beyond the end");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize),
        Read(usize, usize),
        Release(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..CAPACITY_UNIT / 2).prop_map(Step::Write),
            (0..CAPACITY_UNIT, 0..CAPACITY_UNIT).prop_map(|(back, max)| Step::Read(back, max)),
            (0..CAPACITY_UNIT).prop_map(Step::Release),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_vec_of_which_the_front_was_forgotten(steps in steps()) {
            let ring = Fixture::new(CAPACITY_UNIT);
            let (mut writer, reader) = (ring.writer(), ring.reader());
            let (mut model, mut begin) = (Vec::<u8>::new(), 0);
            for (count, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write(length) => {
                        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + count) as u8).collect();
                        let fits = model.len() - begin + length <= CAPACITY_UNIT;
                        prop_assert_eq!(put(&mut writer, &bytes), fits);
                        if fits { model.extend(bytes) }
                    }
                    Step::Read(back, max) => {
                        let at = model.len().saturating_sub(back);
                        let want = if at < begin { &[][..] } else { &model[at..model.len().min(at + max)] };
                        prop_assert_eq!(&get(&reader, at as u64, max)[..], want);
                    }
                    Step::Release(forward) => {
                        reader.release((begin + forward) as u64);
                        begin = model.len().min(begin + forward);
                    }
                }
                prop_assert_eq!((reader.begin(), reader.end()), (begin as u64, model.len() as u64));
                prop_assert_eq!(writer.free(), CAPACITY_UNIT - (model.len() - begin));
            }
        }
    }
}
