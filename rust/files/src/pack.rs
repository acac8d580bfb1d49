//! Files become a tar stream.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, readlinkat, statat};
use rustix::io::{read, retry_on_intr};
use tailrace_core::tar::{Encoder, Entry, Kind};

use crate::directories::open_directory;
use crate::error::TreeError;

/// Smaller files are read at once, before their size is said: they may change at any time.
const SMALL_BYTES: usize = 1 << 20;
/// How much more of a small file is taken than it had when it was opened: some say that they have none.
const GROWN_BYTES: usize = 64 << 10;
/// Names of a directory that are read at once.
const NAMES_BYTES: usize = 32 << 10;
// Without NONBLOCK a pipe that took a file's place would block the open.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Packs the contents of one directory, not its own entry.
///
/// Links are packed as links, several names of one file as hard links; owners are left out; times are whole seconds.
/// After an error what was made is no archive.
#[derive(Debug)]
pub struct Packer {
    encoder: Encoder,
    levels: Vec<Level>,
    /// The first names of files that have more than one, by device and number.
    first: HashMap<(u64, u64), Vec<u8>>,
    large: Option<(OwnedFd, Vec<u8>)>,
    memory: Vec<u8>,
    skipped: Vec<Vec<u8>>,
    finished: bool,
}

/// An open directory, and the names in it that are still to be visited, the next one last.
#[derive(Debug)]
struct Level {
    descriptor: OwnedFd,
    path: Vec<u8>,
    names: Vec<(Vec<u8>, FileType)>,
}

impl Packer {
    /// One of this directory.
    pub fn new(root: OwnedFd) -> Result<Self, TreeError> {
        Ok(Self {
            encoder: Encoder::new(),
            levels: vec![Level::new(root, Vec::new())?],
            first: HashMap::new(),
            large: None,
            memory: Vec::new(),
            skipped: Vec::new(),
            finished: false,
        })
    }

    /// The next piece of the stream, of so many bytes or a small file more; `None` behind its end.
    pub fn next_piece(&mut self, size: usize) -> Result<Option<Vec<u8>>, TreeError> {
        while self.encoder.len() < size && !self.finished {
            self.step(size)?;
        }
        Ok(if self.encoder.is_empty() { None } else { Some(self.encoder.take()) })
    }

    /// Takes the paths of sockets, devices and pipes, which were left out.
    pub fn take_skipped(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.skipped)
    }

    /// Closes what is open. Nothing more comes.
    pub fn close(&mut self) {
        self.levels.clear();
        self.large = None;
        self.finished = true;
    }

    fn step(&mut self, piece: usize) -> Result<(), TreeError> {
        if let Some((file, path)) = self.large.take() {
            return self.more(file, path, piece.saturating_sub(self.encoder.len()));
        }
        let Some(mut level) = self.levels.pop() else {
            self.finished = true;
            return Ok(self.encoder.finish()?);
        };
        if let Some((name, kind)) = level.names.pop() {
            let path = [level.path.as_slice(), &name].concat();
            let below = self.visit(level.descriptor.as_fd(), &name, kind, &path).map_err(|error| error.of(&path))?;
            self.levels.push(level);
            self.levels.extend(below);
        }
        Ok(())
    }

    /// Packs one entry; a directory's contents are the next level.
    fn visit(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        path: &[u8],
    ) -> Result<Option<Level>, TreeError> {
        // What a file is, is asked once more when it is open.
        if kind == FileType::RegularFile {
            self.file(parent, name, path)?;
            return Ok(None);
        }
        let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => self.file(parent, name, path)?,
            FileType::Directory => {
                let level = Level::new(open_directory(parent, name)?, [path, b"/"].concat())?;
                self.encoder.entry(&entry(path, Kind::Directory, &found))?;
                return Ok(Some(level));
            }
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new())?.into_bytes();
                self.encoder.entry(&entry(path, Kind::Symlink(target), &found))?;
            }
            _ => self.skipped.push(path.to_vec()),
        }
        Ok(None)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), TreeError> {
        let file = retry_on_intr(|| openat(parent, name, FILE, Mode::empty()))?;
        let found = fstat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            self.skipped.push(path.to_vec());
            return Ok(());
        }
        if found.st_nlink > 1 {
            let first = self.first.entry((found.st_dev, found.st_ino)).or_insert_with(|| path.to_vec());
            if first != path {
                return Ok(self.encoder.entry(&entry(path, Kind::Hardlink(first.clone()), &found))?);
            }
        }
        let size = found.st_size as u64;
        if size >= SMALL_BYTES as u64 {
            self.encoder.entry(&entry(path, Kind::File(size), &found))?;
            self.large = Some((file, path.to_vec()));
            return Ok(());
        }
        let data = read_into(&mut self.memory, &file, size as usize + GROWN_BYTES)?;
        self.encoder.entry(&entry(path, Kind::File(data.len() as u64), &found))?;
        Ok(self.encoder.data(data)?)
    }

    /// Reads on in a large file.
    fn more(&mut self, file: OwnedFd, path: Vec<u8>, room: usize) -> Result<(), TreeError> {
        let size = usize::try_from(self.encoder.missing()).map_or(room, |missing| missing.min(room));
        let data = read_into(&mut self.memory, &file, size).map_err(|error| error.of(&path))?;
        if data.is_empty() {
            let what = format!("{} shrank while it was packed", String::from_utf8_lossy(&path));
            return Err(io::Error::other(what).into());
        }
        self.encoder.data(data)?;
        if self.encoder.missing() > 0 {
            self.large = Some((file, path));
        }
        Ok(())
    }
}

impl Level {
    fn new(descriptor: OwnedFd, path: Vec<u8>) -> Result<Self, TreeError> {
        let mut names = Vec::new();
        let mut memory = [MaybeUninit::uninit(); NAMES_BYTES];
        let mut found = RawDir::new(&descriptor, &mut memory);
        while let Some(entry) = found.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push((name.to_vec(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        Ok(Self { descriptor, path, names })
    }
}

fn entry(path: &[u8], kind: Kind, found: &Stat) -> Entry {
    Entry { path: path.to_vec(), kind, mode: found.st_mode & 0o7777, mtime: found.st_mtime, mtime_ns: 0 }
}

/// One read of at most so many bytes, into memory that is used again.
fn read_into<'a>(memory: &'a mut Vec<u8>, file: &OwnedFd, size: usize) -> Result<&'a [u8], TreeError> {
    if memory.len() < size {
        memory.resize(size, 0);
    }
    let place = memory.get_mut(..size).unwrap_or_default();
    let count = retry_on_intr(|| read(file, &mut *place))?;
    Ok(place.get(..count).unwrap_or_default())
}
