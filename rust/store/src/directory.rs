//! The segments of a run, by name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, Handle};
use crate::error::StoreError;
use crate::segment::Segment;

/// A run's directory.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub disk: Arc<dyn Disk>,
    pub path: PathBuf,
}

/// What lies in a run's directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Where segments begin, rising.
    pub starts: Vec<u64>,
    /// Which of them are there as they were written.
    pub raw: Vec<u64>,
    /// Which of them are sealed.
    pub sealed: Vec<u64>,
    /// What was not finished.
    pub unfinished: Vec<PathBuf>,
}

impl Directory {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: &Path) -> Self {
        Self { disk, path: path.to_owned() }
    }

    /// The file of the segment that begins at this offset, as it is written.
    pub(crate) fn raw_path(&self, start: u64) -> PathBuf {
        self.path.join(format!("{start:020}.seg"))
    }

    /// The same, sealed.
    pub(crate) fn sealed_path(&self, start: u64) -> PathBuf {
        self.path.join(format!("{start:020}.zst"))
    }

    /// What is in it. Other files are none of our business.
    pub(crate) fn list(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for name in self.disk.list(&self.path).map_err(StoreError::io("read", &self.path))? {
            let Some((stem, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            let Some(start) = stem.parse().ok().filter(|_| stem.len() == 20) else { continue };
            match kind {
                "seg" => listing.raw.push(start),
                "zst" => listing.sealed.push(start),
                "tmp" => listing.unfinished.push(self.path.join(&name)),
                _ => continue,
            }
        }
        listing.raw.sort_unstable();
        listing.sealed.sort_unstable();
        listing.starts = [listing.raw.as_slice(), listing.sealed.as_slice()].concat();
        listing.starts.sort_unstable();
        listing.starts.dedup();
        Ok(listing)
    }

    /// Opens a segment in whatever form it has.
    pub(crate) fn open(&self, start: u64) -> Result<Segment<Handle>, StoreError> {
        let (raw, sealed) = (self.raw_path(start), self.sealed_path(start));
        // It may be sealed between the first look and the second.
        for path in [&sealed, &raw, &sealed] {
            match self.disk.open(path) {
                Ok(file) => return checked(Segment::open(file, path)?, start),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("open", path)(error)),
            }
        }
        Err(StoreError::io("open", &sealed)(io::ErrorKind::NotFound.into()))
    }

    /// Gives a segment that cannot be part of the log any more a name that does not count: its bytes may be worth a look.
    pub(crate) fn set_aside(&self, start: u64) -> Result<(), StoreError> {
        for path in [self.raw_path(start), self.sealed_path(start)] {
            let mut name = path.clone().into_os_string();
            name.push(".lost");
            match self.disk.rename(&path, Path::new(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("rename", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a file away, if it is there.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Makes the names in it safe.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync_directory(&self.path).map_err(StoreError::io("sync", &self.path))
    }
}

fn checked(segment: Segment<Handle>, start: u64) -> Result<Segment<Handle>, StoreError> {
    if segment.start().offset == start {
        return Ok(segment);
    }
    Err(segment.damaged(0, "it does not begin where its name says"))
}
