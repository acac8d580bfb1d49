//! Sealing: a segment as it was written becomes one of zstd frames.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::directory;
use crate::error::StoreError;
use crate::format::{self, Coding, Payload, State};
use crate::index::Index;
use crate::segment::{Block, Segment};
use crate::writer::{remove, write_at};

/// Raw bytes of a frame: compresses well, and is unpacked in a millisecond or two.
const FRAME_BYTES: usize = 512 << 10;
/// A segment of one page stays as it is: nothing could be gained.
const SEGMENT_BYTES_MIN: u64 = 4_096;
/// zstd's own default: about as fast as a disk.
const LEVEL: i32 = 3;

/// Seals one segment of a closed log. False: none is left that is worth it, and everything is synced.
pub fn seal_next(directory: &Path) -> Result<bool, StoreError> {
    let raw: Vec<_> = directory::list(directory)?
        .raw
        .into_iter()
        .map(|start| (start, directory::raw_path(directory, start)))
        .collect();
    for (start, path) in &raw {
        let length = fs::metadata(path).map_err(StoreError::io("read", path))?.len();
        if length > SEGMENT_BYTES_MIN {
            seal(directory, *start, path)?;
            return Ok(true);
        }
    }
    for (_, path) in &raw {
        File::open(path).and_then(|file| file.sync_data()).map_err(StoreError::io("sync", path))?;
    }
    directory::sync(directory)?;
    Ok(false)
}

fn seal(directory: &Path, start: u64, raw: &Path) -> Result<(), StoreError> {
    let sealed = directory::sealed_path(directory, start);
    let unfinished = sealed.with_extension("tmp");
    let file = File::open(raw).map_err(StoreError::io("open", raw))?;
    let written = Sealing::begin(Segment::open(file, raw)?, &unfinished).and_then(Sealing::run);
    if let Err(error) = written {
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    fs::rename(&unfinished, &sealed).map_err(StoreError::io("rename", &unfinished))?;
    directory::sync(directory)?;
    remove(raw)
}

struct Sealing {
    from: Segment<File>,
    to: File,
    path: PathBuf,
    end: u64,
    state: State,
    index: Index,
    frames: zstd::bulk::Compressor<'static>,
}

impl Sealing {
    fn begin(from: Segment<File>, path: &Path) -> Result<Self, StoreError> {
        remove(path)?;
        let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let to = to.map_err(StoreError::io("create", path))?;
        let frames = zstd::bulk::Compressor::new(LEVEL).map_err(StoreError::io("compress", path))?;
        let state = from.start().clone();
        let mut sealing = Self { from, to, path: path.to_owned(), end: 0, state, index: Index::default(), frames };
        let mut preface = Vec::new();
        format::put_preface(&mut preface, &sealing.state, sealing.from.gap());
        sealing.put(&[&preface])?;
        Ok(sealing)
    }

    fn run(mut self) -> Result<(), StoreError> {
        let mut position = self.from.blocks_at();
        let mut behind = self.state.clone();
        let mut pending = Vec::new();
        while let Some(block) = self.from.block(position, u64::MAX)? {
            position = block.end();
            if !pending.is_empty() && pending.len() + block.payload.raw as usize > FRAME_BYTES {
                self.frame(&pending, &behind)?;
                pending.clear();
            }
            pending.append(&mut self.from.records(&block)?);
            self.follow(&mut behind, &block)?;
        }
        if !pending.is_empty() {
            self.frame(&pending, &behind)?;
        }
        self.finish()
    }

    fn follow(&self, behind: &mut State, block: &Block) -> Result<(), StoreError> {
        let continues = block.offset() == behind.offset;
        let went = continues.then(|| behind.advance(&block.after)).flatten();
        went.ok_or_else(|| self.from.damaged(block.position, "a block that does not continue the one before"))
    }

    fn frame(&mut self, records: &[u8], behind: &State) -> Result<(), StoreError> {
        let stored = self.frames.compress(records).map_err(StoreError::io("compress", &self.path))?;
        let payload = Payload {
            coding: Coding::Zstd,
            raw: records.len() as u32,
            stored: stored.len() as u32,
            crc: crc32fast::hash(&stored),
        };
        let before = self.state.totals.counts();
        let changed = behind.totals.counts().iter().enumerate();
        let occurred =
            changed.filter(|&(position, count)| before.get(position) != Some(count)).map(|(position, _)| position);
        let mut head = Vec::new();
        format::put_block(&mut head, payload, behind, occurred);
        self.index.note(&self.state, self.end);
        self.put(&[&head, &stored])?;
        self.state = behind.clone();
        Ok(())
    }

    fn finish(mut self) -> Result<(), StoreError> {
        // Sealing part of a segment as if it were all of it would lose the rest.
        match self.from.index()? {
            Some((end, _)) if end == self.state => {}
            _ => return Err(self.from.damaged(self.end, "the segment does not end as its index says")),
        }
        let mut index = Vec::new();
        format::put_index(&mut index, &self.state, self.index.marks());
        self.put(&[&index])?;
        self.to.sync_all().map_err(StoreError::io("sync", &self.path))
    }

    fn put(&mut self, parts: &[&[u8]]) -> Result<(), StoreError> {
        write_at(&self.to, parts, self.end).map_err(StoreError::io("write", &self.path))?;
        self.end += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Ok(())
    }
}
