//! The segments of a run, by name.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::segment::Segment;

/// The file of the segment that begins at this offset, as it is written.
pub(crate) fn raw_path(directory: &Path, start: u64) -> PathBuf {
    directory.join(format!("{start:020}.seg"))
}

/// The same, sealed.
pub(crate) fn sealed_path(directory: &Path, start: u64) -> PathBuf {
    directory.join(format!("{start:020}.zst"))
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

/// Lists a run's directory. Other files in it are none of our business.
pub(crate) fn list(directory: &Path) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(directory).map_err(StoreError::io("read", directory))? {
        let name = entry.map_err(StoreError::io("read", directory))?.file_name();
        let Some((stem, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Some(start) = stem.parse().ok().filter(|_| stem.len() == 20) else { continue };
        match kind {
            "seg" => listing.raw.push(start),
            "zst" => listing.sealed.push(start),
            "tmp" => listing.unfinished.push(directory.join(&name)),
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
pub(crate) fn open(directory: &Path, start: u64) -> Result<Segment<File>, StoreError> {
    let (raw, sealed) = (raw_path(directory, start), sealed_path(directory, start));
    // It may be sealed between the first look and the second.
    for path in [&sealed, &raw, &sealed] {
        match File::open(path) {
            Ok(file) => return checked(Segment::open(file, path)?, start),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("open", path)(error)),
        }
    }
    Err(StoreError::io("open", &sealed)(io::ErrorKind::NotFound.into()))
}

fn checked(segment: Segment<File>, start: u64) -> Result<Segment<File>, StoreError> {
    if segment.start().offset == start {
        return Ok(segment);
    }
    Err(segment.damaged(0, "it does not begin where its name says"))
}

/// Gives a segment that cannot be part of the log any more a name that does not count: its bytes may be worth a look.
pub(crate) fn set_aside(directory: &Path, start: u64) -> Result<(), StoreError> {
    for path in [raw_path(directory, start), sealed_path(directory, start)] {
        let mut name = path.clone().into_os_string();
        name.push(".lost");
        match fs::rename(&path, name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("rename", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the names in a directory safe.
pub(crate) fn sync(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", directory))
}
