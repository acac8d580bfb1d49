//! Watched log files: what others append to a file becomes the command's output.
//!
//! A file is looked at a few times a second. It is known by its inode, which cannot be given to another file while we hold
//! it open. A file that was renamed away or deleted is read for one look more, as its writer may not know yet; what
//! stands at the path then is read from its beginning. So is a file that became shorter than what was read.

use std::path::PathBuf;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::request::LogFile;

/// One watched path.
pub(crate) struct Watch {
    /// The log's name.
    pub(crate) name: String,
    path: PathBuf,
    /// What stood at the path before the command started, if that is not to be read.
    before: Option<Print>,
    /// What is read: the file at the path, last; before it those that stood there.
    files: Vec<Open>,
}

struct Open {
    file: OwnedFd,
    inode: (u64, u64),
    offset: u64,
    /// Its size at the last look. Who appends faster than we read cannot hold us up.
    size: u64,
    /// How many looks more it gets, once it has left the path.
    looks_left: Option<u32>,
}

/// What changes when a file does.
type Print = (u64, u64, i64, i64, u64, i64, u64);

impl Watch {
    /// Call it before the child is started: what is appended from now on will be read.
    pub(crate) fn new(log: &LogFile, cwd: &std::path::Path) -> Self {
        let path = cwd.join(&log.path);
        let mut watch = Self { name: log.name.clone(), path, before: None, files: Vec::new() };
        if log.follow {
            watch.open();
            for file in &mut watch.files {
                file.size = rustix::fs::fstat(&file.file).map_or(0, |stat| stat.st_size as u64);
                file.offset = file.size;
            }
        } else {
            watch.before = rustix::fs::stat(&watch.path).ok().map(|stat| print(&stat));
        }
        watch
    }

    /// Looks at the path. Then `read` until it gives nothing.
    pub(crate) fn look(&mut self) {
        self.look_at_path();
        for file in &mut self.files {
            file.size = rustix::fs::fstat(&file.file).map_or(0, |stat| stat.st_size as u64);
            if file.size < file.offset {
                file.offset = 0;
            }
        }
    }

    fn look_at_path(&mut self) {
        self.files.retain(|file| file.looks_left != Some(0));
        for file in &mut self.files {
            file.looks_left = file.looks_left.map(|left| left - 1);
        }
        let found = rustix::fs::stat(&self.path).ok();
        if self.before.is_some() && self.before == found.as_ref().map(print) {
            return;
        }
        self.before = None;
        let current = self.files.last_mut();
        match (current, found) {
            (Some(file), Some(stat)) if file.inode == inode(&stat) => file.looks_left = None,
            (current, found) => {
                if let Some(file) = current {
                    file.looks_left.get_or_insert(1);
                }
                if found.is_some() {
                    self.open();
                }
            }
        }
    }

    /// Bytes that were not read yet, in their order; 0: none now.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        for file in &mut self.files {
            let length = buffer.len().min((file.size - file.offset) as usize);
            let read = rustix::io::pread(&file.file, &mut buffer[..length], file.offset).unwrap_or(0);
            if read > 0 {
                file.offset += read as u64;
                return read;
            }
        }
        0
    }

    /// Only regular files: a pipe would swallow what others should read.
    fn open(&mut self) {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::open(&self.path, flags, Mode::empty()) else { return };
        let Ok(stat) = rustix::fs::fstat(&file) else { return };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            self.files.push(Open { file, inode: inode(&stat), offset: 0, size: 0, looks_left: None });
        }
    }
}

fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn print(stat: &Stat) -> Print {
    let Stat { st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec, .. } = *stat;
    (stat.st_dev, stat.st_ino, stat.st_size, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    struct Scene {
        directory: PathBuf,
    }

    impl Scene {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("tailrace-watch-{name}-{}", std::process::id()));
            fs::create_dir(&directory).unwrap();
            Self { directory }
        }

        fn watch(&self, follow: bool) -> Watch {
            Watch::new(&LogFile { name: "log".into(), path: "log".into(), follow }, &self.directory)
        }

        fn path(&self) -> PathBuf {
            self.directory.join("log")
        }

        fn append(&self, text: &str) {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path())
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    fn take(watch: &mut Watch) -> String {
        watch.look();
        let (mut taken, mut buffer) = (Vec::new(), [0; 3]);
        loop {
            match watch.read(&mut buffer) {
                0 => return String::from_utf8(taken).unwrap(),
                read => taken.extend_from_slice(&buffer[..read]),
            }
        }
    }

    #[test]
    fn follow_begins_at_the_size_of_the_start() {
        let scene = Scene::new("follow");
        scene.append("old\n");
        let mut watch = scene.watch(true);
        assert_eq!(take(&mut watch), "");
        scene.append("new\n");
        assert_eq!(take(&mut watch), "new\n");
        scene.append("more\n");
        assert_eq!(take(&mut watch), "more\n");
    }

    #[test]
    fn without_follow_a_changed_file_is_read_whole_and_an_unchanged_one_not_at_all() {
        let scene = Scene::new("whole");
        scene.append("old\n");
        let mut watch = scene.watch(false);
        assert_eq!(take(&mut watch), "");
        scene.append("new\n");
        assert_eq!(take(&mut watch), "old\nnew\n");
        assert_eq!(take(&mut watch), "");
    }

    #[test]
    fn a_file_that_appears_later_is_read_whole() {
        for follow in [true, false] {
            let scene = Scene::new(&format!("later-{follow}"));
            let mut watch = scene.watch(follow);
            assert_eq!(take(&mut watch), "");
            scene.append("here\n");
            assert_eq!(take(&mut watch), "here\n");
        }
    }

    #[test]
    fn rotation_loses_nothing() {
        let scene = Scene::new("rotate");
        let mut watch = scene.watch(true);
        scene.append("one\n");
        assert_eq!(take(&mut watch), "one\n");
        let mut writer = fs::OpenOptions::new().append(true).open(scene.path()).unwrap();
        writer.write_all(b"two\n").unwrap();
        fs::rename(scene.path(), scene.directory.join("log.1")).unwrap();
        scene.append("three\n");
        assert_eq!(take(&mut watch), "two\nthree\n");
        writer.write_all(b"late\n").unwrap();
        assert_eq!(take(&mut watch), "late\n");
    }

    #[test]
    fn deletion_and_truncation_begin_anew() {
        let scene = Scene::new("anew");
        let mut watch = scene.watch(true);
        scene.append("one\n");
        assert_eq!(take(&mut watch), "one\n");
        fs::remove_file(scene.path()).unwrap();
        assert_eq!(take(&mut watch), "");
        scene.append("two two\n");
        assert_eq!(take(&mut watch), "two two\n");
        fs::write(scene.path(), "3\n").unwrap();
        assert_eq!(take(&mut watch), "3\n");
    }
}
