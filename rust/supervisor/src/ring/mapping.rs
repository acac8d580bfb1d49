//! The ring's file, and how it is mapped.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::Identity;
use super::accounts::Accounts;
use super::label::Label;
use super::marks::{Marked, Marks};

/// Name and version of the layout, the first eight bytes of the file.
const MAGIC: [u8; 8] = *b"TRring\0\x02";

/// Where the data begins. A multiple of the page size of every Linux, which mmap's file offsets must be.
pub(super) const HEADER_BYTES: usize = 512 * 1024;

/// Ring sizes are multiples of this.
pub const CAPACITY_UNIT: usize = 64 * 1024;

/// What a ring file may claim to be, so that a torn header cannot make us map the address space away.
const CAPACITY_MAX: u64 = 1 << 30;

/// What never changes, what the writer moves, what the reader moves: on cache lines of their own, and all on one page.
#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    capacity: AtomicU64,
    _still: [u64; 6],
    pub(super) end: AtomicU64,
    pub(super) ended: AtomicU32,
    pub(super) writer_waits: AtomicU32,
    _written: [u64; 6],
    pub(super) begin: AtomicU64,
    pub(super) reader_waits: AtomicU32,
    _read: [u64; 6],
    /// `begin` with its chain stands in one of these; the other is written before `begin` is moved.
    pub(super) begins: [Marked; 2],
    /// The writer's process, and its child's.
    pub(super) writer: Process,
    pub(super) child: Process,
    pub(super) label: Label,
    pub(super) marks: Marks,
    pub(super) accounts: Accounts,
}

/// Where an `Identity` stands.
#[repr(C)]
pub(super) struct Process {
    pid: AtomicU64,
    started: AtomicU64,
    boot: AtomicU64,
}

impl Process {
    pub(super) fn get(&self) -> Identity {
        let [pid, started, boot] = [&self.pid, &self.started, &self.boot].map(|word| word.load(Ordering::SeqCst));
        Identity { pid: pid as i32, started, boot }
    }

    pub(super) fn set(&self, process: Identity) {
        self.pid.store(0, Ordering::SeqCst);
        self.started.store(process.started, Ordering::SeqCst);
        self.boot.store(process.boot, Ordering::SeqCst);
        self.pid.store(process.pid as u64, Ordering::SeqCst);
    }
}

const _: () = assert!(std::mem::offset_of!(Header, marks) == 4096 && size_of::<Header>() <= HEADER_BYTES);

/// Makes the file of an empty ring, all of its room reserved on the disk, so that no later write can fail.
pub fn create_file(directory: BorrowedFd<'_>, name: &str, capacity: usize) -> io::Result<OwnedFd> {
    if capacity == 0 || !capacity.is_multiple_of(CAPACITY_UNIT) || capacity as u64 > CAPACITY_MAX {
        return Err(io::Error::other(format!("a ring of {capacity} bytes: not a multiple of {CAPACITY_UNIT}")));
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    reserve_on_disk(&file, HEADER_BYTES + capacity)?;
    let mut header = [0; 16];
    header[..8].copy_from_slice(&MAGIC);
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
pub(super) fn write_zeros(file: &OwnedFd, length: usize) -> io::Result<()> {
    let mut at = 0;
    while at < length {
        at += rustix::io::pwrite(file, &[0; CAPACITY_UNIT][..CAPACITY_UNIT.min(length - at)], at as u64)?;
    }
    Ok(())
}

/// The header, and twice the data behind it.
pub(super) struct Mapping {
    base: NonNull<u8>,
    pub(super) capacity: usize,
}

// SAFETY: the mapping belongs to this value alone and lives as long as it; all that both sides change are atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; the data is written by `&mut Writer` only.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(file: BorrowedFd<'_>, data: ProtFlags) -> io::Result<Self> {
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

    pub(super) fn header(&self) -> &Header {
        // SAFETY: the first bytes of the mapping, aligned to a page; `Header` is atomics and padding only.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    pub(super) fn data(&self) -> *mut u8 {
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

/// Whether the file is a ring of this layout; an error says what it is instead.
pub fn check(file: impl AsFd) -> io::Result<()> {
    capacity_of(file.as_fd()).map(drop)
}

/// The capacity that a file's header claims, if the file is as long as it must be then: what is mapped can be touched.
fn capacity_of(file: BorrowedFd<'_>) -> io::Result<usize> {
    let mut header = [0; 16];
    let read = rustix::io::pread(file, &mut header, 0)?;
    let (name, capacity) = header.split_at(8);
    let capacity = u64::from_ne_bytes(capacity.try_into().expect("eight bytes"));
    let [.., version] = MAGIC;
    if read == 16 && name[..7] == MAGIC[..7] && name[7] != version {
        let text =
            format!("a journal ring of layout {}, which is not the layout {version} that is known here", name[7]);
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let sound = read == 16
        && name == MAGIC
        && (1..=CAPACITY_MAX).contains(&capacity)
        && capacity.is_multiple_of(CAPACITY_UNIT as u64)
        && rustix::fs::fstat(file)?.st_size as u64 == HEADER_BYTES as u64 + capacity;
    if sound { Ok(capacity as usize) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "not a journal ring")) }
}
