//! Sealing: a segment as it was written becomes one of zstd frames.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::Directory;
use crate::disk::{Disk, Handle, Real, write_all_at};
use crate::error::StoreError;
use crate::format::{self, Coding, Payload, State};
use crate::index::Index;
use crate::segment::{Block, Segment};

/// Raw bytes of a frame: compresses well, and is unpacked in a millisecond or two.
const FRAME_BYTES: usize = 512 << 10;
/// A segment of one page stays as it is: nothing could be gained.
const SEGMENT_BYTES_MIN: u64 = 4_096;
/// zstd's own default: about as fast as a disk.
const LEVEL: i32 = 3;

/// Seals one segment of a closed log. False: none is left that is worth it, and everything is synced.
pub fn seal_next(directory: &Path) -> Result<bool, StoreError> {
    seal_next_on(Arc::new(Real), directory)
}

/// The same, on another disk.
pub fn seal_next_on(disk: Arc<dyn Disk>, directory: &Path) -> Result<bool, StoreError> {
    let directory = Directory::new(disk, directory);
    let mut small = Vec::new();
    for start in directory.list()?.raw {
        let path = directory.raw_path(start);
        let file = directory.disk.open(&path).map_err(StoreError::io("open", &path))?;
        if file.length().map_err(StoreError::io("read", &path))? > SEGMENT_BYTES_MIN {
            seal(&directory, start, Segment::open(file, &path)?)?;
            return directory.remove(&path).map(|()| true);
        }
        small.push((path, file));
    }
    for (path, file) in &small {
        file.sync_data().map_err(StoreError::io("sync", path))?;
    }
    directory.sync()?;
    Ok(false)
}

fn seal(directory: &Directory, start: u64, from: Segment<Handle>) -> Result<(), StoreError> {
    let sealed = directory.sealed_path(start);
    let unfinished = sealed.with_extension("tmp");
    let written = Sealing::begin(directory, from, &unfinished).and_then(Sealing::run);
    if let Err(error) = written {
        let _ = directory.disk.remove(&unfinished);
        return Err(error);
    }
    directory.disk.rename(&unfinished, &sealed).map_err(StoreError::io("rename", &unfinished))?;
    directory.sync()
}

struct Sealing {
    from: Segment<Handle>,
    to: Handle,
    path: PathBuf,
    end: u64,
    state: State,
    index: Index,
    frames: zstd::bulk::Compressor<'static>,
}

impl Sealing {
    fn begin(directory: &Directory, from: Segment<Handle>, path: &Path) -> Result<Self, StoreError> {
        directory.remove(path)?;
        let to = directory.disk.create(path).map_err(StoreError::io("create", path))?;
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
        self.to.sync_data().map_err(StoreError::io("sync", &self.path))
    }

    fn put(&mut self, parts: &[&[u8]]) -> Result<(), StoreError> {
        write_all_at(&*self.to, parts, self.end).map_err(StoreError::io("write", &self.path))?;
        self.end += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Ok(())
    }
}
