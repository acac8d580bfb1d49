//! One segment, for reading: heads, payloads, and how far it is good.
//!
//! Nothing that a file says is believed before its CRC was checked, and no memory is taken for more than the file has.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::ReadAt;
use crate::error::StoreError;
use crate::format::{self, Bad, Coding, Gap, HEAD_PREFIX, Head, PAYLOAD_BYTES_MAX, Payload, State, TRAILER_BYTES};
use crate::index::Index;

/// Bytes read at once when heads are looked for: some small blocks, or the head of a large one.
const WINDOW_BYTES: usize = 16 << 10;

/// A block's place in its segment.
#[derive(Debug, Clone)]
pub struct Block {
    /// How its payload is stored.
    pub payload: Payload,
    /// Where the payload begins in the file.
    pub position: u64,
    /// The state behind it; counts only of the channels that occur.
    pub after: State,
}

impl Block {
    /// The journal offset of its first record.
    pub const fn offset(&self) -> u64 {
        self.after.offset.saturating_sub(self.payload.raw as u64)
    }

    /// Where the next head begins.
    pub const fn end(&self) -> u64 {
        self.position + self.payload.stored as u64
    }
}

/// What a scan from the first block on has found.
#[derive(Debug)]
pub struct Scan {
    /// The state behind the last good block.
    pub state: State,
    /// Marks over the good blocks.
    pub index: Index,
    /// The file's good bytes, without the index.
    pub end: u64,
    /// The bytes behind the last good block are the segment's index.
    pub closed: bool,
    /// Why it went no further, unless it met the end.
    pub torn: Option<StoreError>,
}

/// A segment's file, opened.
#[derive(Debug)]
pub struct Segment<R> {
    path: PathBuf,
    file: R,
    window: Vec<u8>,
    window_at: u64,
    start: State,
    gap: Option<Gap>,
    blocks_at: u64,
}

impl<R: ReadAt> Segment<R> {
    /// Reads the preface.
    pub fn open(file: R, path: &Path) -> Result<Self, StoreError> {
        let mut segment = Self {
            path: path.to_owned(),
            file,
            window: Vec::new(),
            window_at: 0,
            start: State::default(),
            gap: None,
            blocks_at: 0,
        };
        (segment.start, segment.gap, segment.blocks_at) = match segment.head(0, u64::MAX)? {
            Some((Head::Preface(start), end)) => (start, None, end),
            Some((Head::Jump(start, gap), end)) => (start, Some(gap), end),
            _ => return Err(segment.damaged(0, "no preface")),
        };
        Ok(segment)
    }

    /// The state before the first block.
    pub const fn start(&self) -> &State {
        &self.start
    }

    /// What is missing before it.
    pub const fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }

    /// Whether it goes on where the log before it has ended, or says that it does not.
    pub fn follows(&self, end: u64) -> bool {
        self.gap.as_ref().map_or(self.start.offset, |gap| gap.from) == end && self.start.offset >= end
    }

    /// Where the first block's head begins.
    pub const fn blocks_at(&self) -> u64 {
        self.blocks_at
    }

    /// The block whose head is at `position`. None: there is none before `limit`, the end of what may be read, or the
    /// segment ends here.
    pub fn block(&mut self, position: u64, limit: u64) -> Result<Option<Block>, StoreError> {
        match self.head(position, limit)? {
            Some((Head::Block(payload, after), at)) => Ok(Some(Block { payload, position: at, after })),
            Some((Head::Preface(_) | Head::Jump(..), _)) => Err(self.damaged(position, "a second preface")),
            Some((Head::Index(..), _)) | None => Ok(None),
        }
    }

    /// The records of a block.
    pub fn records(&mut self, block: &Block) -> Result<Vec<u8>, StoreError> {
        let stored = self.stored(block)?;
        if block.payload.coding == Coding::Raw {
            return Ok(stored);
        }
        let length = block.payload.raw as usize;
        let raw =
            zstd::bulk::decompress(&stored, length).map_err(|_| self.damaged(block.position, "a bad zstd frame"))?;
        if raw.len() != length {
            return Err(self.damaged(block.position, "a zstd frame of another length"));
        }
        Ok(raw)
    }

    /// The index at the segment's end, if it is there and good.
    pub fn index(&mut self) -> Result<Option<(State, Index)>, StoreError> {
        let length = self.length()?;
        let Some(at) = length.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        let trailer = self.bytes(at, TRAILER_BYTES, u64::MAX)?.and_then(|bytes| bytes.first_chunk().copied());
        let Some(begin) = trailer.and_then(format::trailer).and_then(|head| length.checked_sub(head as u64)) else {
            return Ok(None);
        };
        match self.head(begin, u64::MAX) {
            Ok(Some((Head::Index(state, marks), _))) => Ok(Some((state, marks.into()))),
            Ok(_) | Err(StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads everything, and says how far it is good. An error only if the system or a newer version stands in the way.
    pub fn scan(&mut self) -> Result<Scan, StoreError> {
        let (state, end) = (self.start.clone(), self.blocks_at);
        let mut scan = Scan { state, index: Index::default(), end, closed: false, torn: None };
        loop {
            match self.scan_block(&mut scan) {
                Ok(true) => {}
                Ok(false) => return Ok(scan),
                Err(torn @ StoreError::Damaged { .. }) => return Ok(Scan { torn: Some(torn), ..scan }),
                Err(error) => return Err(error),
            }
        }
    }

    fn scan_block(&mut self, scan: &mut Scan) -> Result<bool, StoreError> {
        let (block, position) = match self.head(scan.end, u64::MAX)? {
            None => return Ok(false),
            Some((Head::Block(payload, after), position)) => (Block { payload, position, after }, scan.end),
            Some((Head::Index(state, _), _)) => {
                scan.closed = state.offset == scan.state.offset;
                return Ok(false);
            }
            Some((Head::Preface(_) | Head::Jump(..), _)) => return Err(self.damaged(scan.end, "a second preface")),
        };
        if block.offset() != scan.state.offset {
            return Err(self.damaged(position, "a block that does not continue the one before"));
        }
        self.stored(&block)?;
        scan.index.note(&scan.state, position);
        let went = scan.state.advance(&block.after);
        scan.end = block.end();
        went.map(|()| true).ok_or_else(|| self.damaged(position, "too many channels"))
    }

    fn stored(&mut self, block: &Block) -> Result<Vec<u8>, StoreError> {
        let length = block.payload.stored as usize;
        if self.length()?.saturating_sub(block.position) < length as u64 {
            return Err(self.damaged(block.position, "a payload that ends too early"));
        }
        let mut stored = Vec::with_capacity(length.min(PAYLOAD_BYTES_MAX * 2));
        stored.extend_from_slice(self.windowed(block.position, length));
        let had = stored.len();
        stored.resize(length, 0);
        let rest = stored.get_mut(had..).unwrap_or_default();
        let read =
            read_full(&self.file, rest, block.position + had as u64).map_err(StoreError::io("read", &self.path))?;
        if had + read < length || crc32fast::hash(&stored) != block.payload.crc {
            return Err(self.damaged(block.position, "the CRC of a payload does not fit"));
        }
        Ok(stored)
    }

    /// The head at `position`, and where it ends. None: nothing is there.
    fn head(&mut self, position: u64, limit: u64) -> Result<Option<(Head, u64)>, StoreError> {
        let Some(prefix) = self.bytes(position, HEAD_PREFIX, limit)? else { return Ok(None) };
        let decoded = match prefix.first_chunk().copied() {
            None => Err(Bad::Damaged("a head that ends too early")),
            Some(prefix) => match format::head_length(prefix) {
                Err(bad) => Err(bad),
                Ok(length) => {
                    let bytes = self.bytes(position, length, limit)?.unwrap_or_default();
                    if bytes.len() < length {
                        Err(Bad::Damaged("a head that ends too early"))
                    } else {
                        format::decode(bytes).map(|head| (head, position + length as u64))
                    }
                }
            },
        };
        decoded.map(Some).map_err(|bad| match bad {
            Bad::Newer(version) => StoreError::Newer { path: self.path.clone(), version },
            Bad::Damaged(what) => self.damaged(position, what),
        })
    }

    /// Up to `length` bytes from `position`, fewer at the end of the file or at `limit`. None: there are none.
    fn bytes(&mut self, position: u64, length: usize, limit: u64) -> Result<Option<&[u8]>, StoreError> {
        if self.windowed(position, length).len() < length {
            let available = self.length()?.min(limit).saturating_sub(position);
            let wanted = (length.max(WINDOW_BYTES) as u64).min(available) as usize;
            self.window.clear();
            self.window.resize(wanted, 0);
            self.window_at = position;
            let read = read_full(&self.file, &mut self.window, position).map_err(StoreError::io("read", &self.path))?;
            self.window.truncate(read);
        }
        let bytes = self.windowed(position, length);
        Ok(if bytes.is_empty() { None } else { Some(bytes) })
    }

    fn windowed(&self, position: u64, length: usize) -> &[u8] {
        let skip = position.checked_sub(self.window_at).and_then(|skip| usize::try_from(skip).ok());
        let rest = skip.and_then(|skip| self.window.get(skip..)).unwrap_or_default();
        rest.get(..length).unwrap_or(rest)
    }

    fn length(&self) -> Result<u64, StoreError> {
        self.file.length().map_err(StoreError::io("read", &self.path))
    }

    /// For whoever finds that the contents do not fit.
    pub fn damaged(&self, position: u64, what: &'static str) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), position, what }
    }
}

fn read_full(file: &impl ReadAt, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, position + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads bytes as a segment in every way there is. For fuzzing: nothing may panic, and memory is bounded.
pub fn inspect(bytes: &[u8]) {
    let Ok(mut segment) = Segment::open(bytes, Path::new("memory")) else { return };
    let _ = segment.index();
    let Ok(scan) = segment.scan() else { return };
    let mut position = segment.blocks_at();
    while position < scan.end {
        let Ok(Some(block)) = segment.block(position, scan.end) else { return };
        let _ = segment.records(&block);
        position = block.end();
    }
}
