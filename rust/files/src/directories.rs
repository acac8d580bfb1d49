//! Directories by their steps, opened without ever passing a link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{TreeError, refused};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directories below `root`. Those on the way to the last one stay open: an archive's entries mostly stand together.
#[derive(Debug)]
pub(crate) struct Directories {
    root: OwnedFd,
    way: Vec<(Vec<u8>, OwnedFd)>,
}

impl Directories {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root, way: Vec::new() }
    }

    /// The directory at `path`, made with its parents where it is missing.
    pub(crate) fn open(&mut self, path: &[&[u8]]) -> Result<BorrowedFd<'_>, TreeError> {
        self.walk(path, true)
    }

    /// The directory at `path`. `ENOENT` if there is none.
    pub(crate) fn find(&mut self, path: &[&[u8]]) -> Result<BorrowedFd<'_>, TreeError> {
        self.walk(path, false)
    }

    fn walk(&mut self, path: &[&[u8]], make: bool) -> Result<BorrowedFd<'_>, TreeError> {
        let known = self.way.iter().zip(path).take_while(|((step, _), wanted)| step == *wanted).count();
        self.way.truncate(known);
        for step in path.iter().skip(known) {
            let next = enter(self.last(), step, make)?;
            self.way.push((step.to_vec(), next));
        }
        Ok(self.last())
    }

    fn last(&self) -> BorrowedFd<'_> {
        self.way.last().map_or(&self.root, |(_, descriptor)| descriptor).as_fd()
    }
}

/// Opens the directory `name` in `parent`, which is no link.
pub(crate) fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    retry_on_intr(|| openat(parent, name, DIRECTORY, Mode::empty()))
}

fn enter(parent: BorrowedFd<'_>, name: &[u8], make: bool) -> Result<OwnedFd, TreeError> {
    match open_directory(parent, name) {
        Err(Errno::NOENT) if make => {
            mkdirat(parent, name, Mode::from_raw_mode(0o777))?;
            Ok(open_directory(parent, name)?)
        }
        Err(Errno::LOOP | Errno::NOTDIR) => {
            refused(format!("a path leads through {}, which is no directory", name.escape_ascii()))
        }
        opened => Ok(opened?),
    }
}
