//! A directory for each test, records to write, and the slow twin of a log: a `Vec` of records.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tailrace_core::chain::Chain;
use tailrace_core::channel::Channel;
use tailrace_core::record::{self, Piece, Run};
use tailrace_store::Select;

/// A directory that is gone when the test is over.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("store-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One record as the model knows it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub kind: u8,
    pub name: String,
    pub lines: u64,
    pub wall_us: u64,
    pub bytes: Vec<u8>,
    pub offset: u64,
}

/// Everything that was appended, in order.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub entries: Vec<Entry>,
    pub bytes: Vec<u8>,
    pub chain: Chain,
}

impl Model {
    /// A log record with that many lines, each of `width` bytes. The bytes of the record.
    pub fn log(&mut self, channel: Channel<'_>, lines: u64, width: usize, wall_us: u64) -> Vec<u8> {
        let data = if lines == 0 {
            vec![b'.'; width.max(1)]
        } else {
            [&vec![b'x'; width][..], b"\n"].concat().repeat(lines as usize)
        };
        let runs = [Run { lines, at_us: 0 }];
        let runs = if lines == 0 { &runs[..0] } else { &runs[..] };
        let piece = Piece { channel, continues: lines == 0, wall_us, mono_us: 0, runs, data: [&data, &[]] };
        let mut bytes = Vec::new();
        record::encode_log(&piece, &mut bytes);
        self.push(channel.kind(), channel.name().unwrap_or_default(), lines, wall_us, bytes)
    }

    /// A record that is no log data.
    pub fn update(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        record::encode(record::kind::UPDATE, &vec![0; size], &mut bytes);
        self.push(record::kind::UPDATE, "", 0, 0, bytes)
    }

    /// The record that begins at or holds no less than this offset.
    pub fn records_until(&self, offset: u64) -> usize {
        self.entries.iter().take_while(|entry| entry.offset + entry.bytes.len() as u64 <= offset).count()
    }

    /// Where a line begins: (offset, lines before it in the record).
    pub fn find_line(&self, mut line: u64, select: &Select) -> Option<(u64, u64)> {
        for entry in self.entries.iter().filter(|entry| selected(entry, select)) {
            if entry.lines >= line {
                return Some((entry.offset, line - 1));
            }
            line -= entry.lines;
        }
        None
    }

    /// How many lines have begun behind each record, 0 first.
    pub fn line_ends(&self, select: &Select) -> Vec<u64> {
        let mut ends = vec![0];
        for entry in self.entries.iter().filter(|entry| selected(entry, select)) {
            ends.push(ends[ends.len() - 1] + entry.lines);
        }
        ends
    }

    pub fn find_time(&self, time_us: u64) -> u64 {
        let found = self.entries.iter().find(|entry| is_log(entry) && entry.wall_us >= time_us);
        found.map_or(self.bytes.len() as u64, |entry| entry.offset)
    }

    pub fn lines(&self, select: &Select) -> u64 {
        self.entries.iter().filter(|entry| selected(entry, select)).map(|entry| entry.lines).sum()
    }

    fn push(&mut self, kind: u8, name: &str, lines: u64, wall_us: u64, bytes: Vec<u8>) -> Vec<u8> {
        let offset = self.bytes.len() as u64;
        self.bytes.extend(&bytes);
        self.chain.push([bytes.as_slice()]);
        self.entries.push(Entry { kind, name: name.to_owned(), lines, wall_us, bytes: bytes.clone(), offset });
        bytes
    }
}

fn is_log(entry: &Entry) -> bool {
    entry.kind <= record::kind::LOG
}

fn selected(entry: &Entry, select: &Select) -> bool {
    is_log(entry) && select.takes(Channel::of_kind(entry.kind, &entry.name).unwrap())
}
