//! The operations on files that a log needs, and no others: so that a disk can also be one that fails, or loses its power.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Where logs lie. What `create`, `rename` and `remove` do to names is safe when their directory was synced, not before.
pub trait Disk: Debug + Send + Sync {
    /// A new file, for writing; for its owner alone.
    fn create(&self, path: &Path) -> io::Result<Handle>;
    /// One that is there, for reading.
    fn open(&self, path: &Path) -> io::Result<Handle>;
    /// One that is there, for writing.
    fn open_to_write(&self, path: &Path) -> io::Result<Handle>;
    /// The names in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;
    /// Gives a file another name; one that has it already is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory safe.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// Where bytes can be read by position: a file, or memory.
pub trait ReadAt {
    /// As `pread`.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// How many there are now.
    fn length(&self) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: ReadAt + Debug + Send + Sync {
    /// As `pwritev`: how many bytes were written. At most 1,024 parts.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// Cuts it, or makes it longer by zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Makes its bytes safe. After an error what was written since the last success may be lost, also if it can still be read.
    fn sync_data(&self) -> io::Result<()>;
}

/// A file, held open by whoever has one of these.
pub type Handle = Arc<dyn DiskFile>;

/// The machine's own.
#[derive(Debug)]
pub struct Real;

impl Disk for Real {
    fn create(&self, path: &Path) -> io::Result<Handle> {
        // The log of a build is its owner's business.
        handle(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))
    }

    fn open(&self, path: &Path) -> io::Result<Handle> {
        handle(File::open(path))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<Handle> {
        handle(OpenOptions::new().write(true).open(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

fn handle(opened: io::Result<File>) -> io::Result<Handle> {
    Ok(Arc::new(opened?))
}

impl DiskFile for File {
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, parts, position)?)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        Self::set_len(self, length)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, position)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for Handle {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        (**self).read_at(buffer, position)
    }

    fn length(&self) -> io::Result<u64> {
        (**self).length()
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let rest = usize::try_from(position).ok().and_then(|position| self.get(position..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// All parts, one behind the other, from `at` on.
pub(crate) fn write_all_at(file: &dyn DiskFile, parts: &[&[u8]], mut at: u64) -> io::Result<()> {
    let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        // The kernel takes at most 1,024 parts.
        let some = rest.get(..rest.len().min(1_024)).unwrap_or_default();
        match file.write_at(some, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
