//! A tar stream becomes files.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::fs::{fchmod, fstat, futimens, linkat, openat, statat, symlinkat};
use rustix::io::{Errno, retry_on_intr};
use tailrace_core::tar::{Decoder, Entry, Event, Kind};

use crate::directories::Directories;
use crate::error::{TreeError, refused};
use crate::path::{Links, leaves, steps};

const CREATE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Set-id bits are nobody's to give.
const PERMISSIONS: u32 = 0o777;
const OWNER: u32 = 0o700;

/// Unpacks one archive below a directory that is new and nobody else's.
///
/// Permissions are taken over without set-id bits, modification times of files too, owners are not. After an error
/// nothing more may be written.
#[derive(Debug)]
pub struct Unpacker {
    decoder: Decoder,
    directories: Directories,
    links: Links,
    file: Option<Open>,
    bytes_left: u64,
    kept: u32,
}

/// The file whose data come.
#[derive(Debug)]
struct Open {
    file: File,
    entry: Entry,
    missing: u64,
}

impl Unpacker {
    /// One that fills `root`, which was made with all permissions and has kept those that the umask, or a default ACL,
    /// leaves: what is made below it keeps the same.
    pub fn new(root: OwnedFd, bytes_max: Option<u64>) -> Result<Self, TreeError> {
        let kept = fstat(&root)?.st_mode & PERMISSIONS;
        Ok(Self {
            decoder: Decoder::new(),
            directories: Directories::new(root),
            links: Links::new(),
            file: None,
            bytes_left: bytes_max.unwrap_or(u64::MAX),
            kept,
        })
    }

    /// Unpacks the next bytes of the stream.
    pub fn write(&mut self, data: &[u8]) -> Result<(), TreeError> {
        self.decoder.receive_data(data);
        self.drain()
    }

    /// Checks that the archive is complete, and that no link in it leads out.
    pub fn finish(&mut self) -> Result<(), TreeError> {
        self.decoder.receive_eof();
        self.drain()?;
        for (path, target) in &self.links {
            let place = path.split_last().map_or([].as_slice(), |(_, place)| place);
            if leaves(place, target, &self.links) {
                let (path, target) = (path.join(&b'/'), target.escape_ascii());
                return refused(format!("the link {} leads out of the archive, to {target}", path.escape_ascii()));
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), TreeError> {
        while let Some(event) = self.decoder.next_event()? {
            match event {
                Event::Entry(entry) => self.entry(entry)?,
                Event::Data(data) => self.data(&data)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), TreeError> {
        let path = entry.path.clone();
        match self.make(entry) {
            Err(error) if error.is(Errno::EXIST) => {
                refused(format!("{} comes twice in the archive", path.escape_ascii()))
            }
            made => made.map_err(|error| error.of(&path)),
        }
    }

    fn make(&mut self, entry: Entry) -> Result<(), TreeError> {
        let path = steps(&entry.path, "path")?;
        let Some((name, above)) = path.split_last() else {
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => refused("something else than a directory in the root's place"),
            };
        };
        match &entry.kind {
            Kind::File(size) => {
                let size = *size;
                self.bytes_left = self.bytes_left.checked_sub(size).ok_or(TreeError::TooLarge)?;
                let (parent, mode) = (self.directories.open(above)?, permissions(&entry));
                let file = retry_on_intr(|| openat(parent, *name, CREATE, mode))?.into();
                self.file = Some(Open { file, entry, missing: size });
                if size == 0 { self.end_file() } else { Ok(()) }
            }
            Kind::Directory => {
                // Whoever unpacks must be able to fill it.
                let mode = permissions(&entry) | Mode::from_raw_mode(OWNER);
                Ok(fchmod(self.directories.open(&path)?, mode)?)
            }
            Kind::Symlink(target) => {
                if target.is_empty() || target.starts_with(b"/") {
                    let (path, target) = (entry.path.escape_ascii(), target.escape_ascii());
                    return refused(format!("the link {path} is empty or absolute, to \"{target}\""));
                }
                symlinkat(target.as_slice(), self.directories.open(above)?, *name)?;
                self.links.insert(path.iter().map(|step| step.to_vec()).collect(), target.clone());
                Ok(())
            }
            Kind::Hardlink(target) => match self.hardlink(target, above, name) {
                Err(error) if error.is(Errno::NOENT) => refused_link(&entry.path, target),
                made => made,
            },
            Kind::Device | Kind::Fifo => refused(format!("{} is a device or a pipe", entry.path.escape_ascii())),
        }
    }

    fn hardlink(&mut self, target: &[u8], above: &[&[u8]], name: &[u8]) -> Result<(), TreeError> {
        let source = steps(target, "link")?;
        let Some((first, place)) = source.split_last() else { return Err(Errno::NOENT.into()) };
        // It need not stay open on the way to the other one.
        let place = self.directories.find(place)?.try_clone_to_owned()?;
        let found = statat(&place, *first, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(Errno::NOENT.into());
        }
        Ok(linkat(&place, *first, self.directories.open(above)?, name, AtFlags::empty())?)
    }

    fn data(&mut self, data: &[u8]) -> Result<(), TreeError> {
        // The decoder gives data of files only, and no more than there are.
        let Some(open) = &mut self.file else { return Ok(()) };
        open.file.write_all(data).map_err(|error| TreeError::from(error).of(&open.entry.path))?;
        open.missing = open.missing.saturating_sub(data.len() as u64);
        if open.missing == 0 { self.end_file() } else { Ok(()) }
    }

    fn end_file(&mut self) -> Result<(), TreeError> {
        let Some(Open { file, entry, .. }) = self.file.take() else { return Ok(()) };
        // What is lost in the making is rare, and a call for each file is not cheap.
        let mode = permissions(&entry);
        let chmod = if mode.as_raw_mode() & !self.kept == 0 { Ok(()) } else { fchmod(&file, mode) };
        let time = Timespec { tv_sec: entry.mtime, tv_nsec: entry.mtime_ns.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        chmod.and_then(|()| futimens(file.as_fd(), &times)).map_err(|errno| TreeError::from(errno).of(&entry.path))
    }
}

fn permissions(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode & PERMISSIONS)
}

fn refused_link<T>(path: &[u8], target: &[u8]) -> Result<T, TreeError> {
    refused(format!("the hard link {} is to {}, no file before it", path.escape_ascii(), target.escape_ascii()))
}
