//! Appending to a log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailrace_core::batch::Batch;
use tailrace_core::chain::Chain;
use tailrace_core::record::{Record, Records};

use crate::directory::Directory;
use crate::disk::{Disk, Handle, Real, write_all_at};
use crate::error::StoreError;
use crate::format::{self, BLOCK_BYTES, Coding, Gap, Payload, State};
use crate::index::Index;
use crate::live::{Active, Live, Now};
use crate::reader::LogReader;

/// The one writer of a run's log. Dropping it leaves what a killed process leaves: [`LogWriter::recover`] goes on from there.
#[derive(Debug)]
pub struct LogWriter {
    live: Arc<Live>,
    segment_bytes: u64,
    active: Option<Open>,
    unsynced: Vec<Open>,
    names_unsynced: bool,
    closed: bool,
}

#[derive(Debug, Clone)]
struct Open {
    path: PathBuf,
    file: Handle,
}

/// What [`LogWriter::syncing`] has collected.
#[derive(Debug)]
pub struct Syncing {
    live: Arc<Live>,
    files: Vec<Open>,
    directory: Option<Directory>,
}

impl LogWriter {
    /// Begins the log of a new run, in a directory that exists. Segments roll at `segment_bytes`.
    pub fn create(directory: &Path, segment_bytes: u64) -> Result<Self, StoreError> {
        Self::create_on(Arc::new(Real), directory, segment_bytes)
    }

    /// The same, on another disk.
    pub fn create_on(disk: Arc<dyn Disk>, directory: &Path, segment_bytes: u64) -> Result<Self, StoreError> {
        let directory = Directory::new(disk, directory);
        if !directory.list()?.starts.is_empty() {
            return Err(StoreError::Usage(format!("{} holds a log already", directory.path.display())));
        }
        Ok(Self::new(directory, segment_bytes, Now::default()))
    }

    /// Goes on with the log of a run whose writer is gone. What was torn is cut off.
    pub fn recover(directory: &Path, segment_bytes: u64) -> Result<Self, StoreError> {
        Self::recover_on(Arc::new(Real), directory, segment_bytes)
    }

    /// The same, on another disk.
    pub fn recover_on(disk: Arc<dyn Disk>, directory: &Path, segment_bytes: u64) -> Result<Self, StoreError> {
        let directory = Directory::new(disk, directory);
        let listing = directory.list()?;
        for path in &listing.unfinished {
            directory.remove(path)?;
        }
        for &start in listing.raw.iter().filter(|start| listing.sealed.binary_search(start).is_ok()) {
            directory.remove(&directory.raw_path(start))?;
        }
        let mut writer = Self::new(directory.clone(), segment_bytes, Now::default());
        for (number, &start) in listing.starts.iter().enumerate() {
            if !writer.recover_segment(start, number == 0, number + 1 == listing.starts.len())? {
                let lost = listing.starts.get(number..).unwrap_or_default();
                lost.iter().try_for_each(|&start| directory.set_aside(start))?;
                break;
            }
        }
        Ok(writer)
    }

    /// Appends whole records that begin at `start`, which must be where [`LogWriter::next`] is. `chain` is the chain behind them, if the
    /// caller knows it. After an error nothing was appended, and the same may be tried again; after a failed sync nothing can be appended.
    pub fn append(&mut self, records: &[u8], start: u64, chain: Option<[u8; 32]>) -> Result<(), StoreError> {
        self.live.now().check()?;
        let state = self.state_at(start)?;
        if records.is_empty() {
            return Ok(());
        }
        let blocks = Blocks::make(records, state.clone(), chain)?;
        let open = self.open_for(&state)?;
        self.write(&open, records, blocks)
    }

    /// The same of a batch that a ledger may have added: what it found is not hashed again, if it began with our chain.
    pub fn append_batch(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.live.now().check()?;
        let state = self.state_at(batch.start())?;
        if batch.bytes().is_empty() {
            return Ok(());
        }
        let blocks = Blocks::make_marked(batch, state.clone())?;
        let open = self.open_for(&state)?;
        self.write(&open, batch.bytes(), blocks)
    }

    /// Passes over whole records as if they were appended, but leaves them out: a gap, which the next append writes down. `reason` is a
    /// sentence for people; that of a gap's first records stands.
    pub fn skip(
        &mut self,
        records: &[u8],
        start: u64,
        chain: Option<[u8; 32]>,
        reason: &str,
    ) -> Result<(), StoreError> {
        let state = self.state_at(start)?;
        let totals = state.totals.clone();
        let behind = Blocks::make(records, state, chain)?.end;
        self.leave_out(State { totals, ..behind }, reason);
        Ok(())
    }

    /// Goes on at a later offset, where the chain is `chain`: what is between is missing. Or at the same one with another chain: what is
    /// before it is not what was sent.
    pub fn jump(&mut self, offset: u64, chain: [u8; 32], reason: &str) -> Result<(), StoreError> {
        let state = self.state_at(self.next().offset)?;
        if offset < state.offset {
            return Err(StoreError::Usage(format!("the log is beyond {offset} already: it ends at {}", state.offset)));
        }
        if offset > state.offset || chain != state.chain {
            self.leave_out(State { offset, chain, ..state }, reason);
        }
        Ok(())
    }

    /// The state behind the last record.
    pub fn end(&self) -> State {
        self.live.now().end.clone()
    }

    /// The state before the next record: behind the last one, if nothing is left out between them.
    pub fn next(&self) -> State {
        self.live.now().next().clone()
    }

    /// A reader that sees every append at once.
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.live))
    }

    /// What must be synced for all that was appended before to be safe. Appends may go on while [`Syncing::run`] runs.
    pub fn syncing(&mut self) -> Syncing {
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.active.clone());
        let directory = std::mem::take(&mut self.names_unsynced).then(|| self.live.directory.clone());
        Syncing { live: Arc::clone(&self.live), files, directory }
    }

    /// Ends the log. Not synced: that can be done afterwards, or else [`seal_next`](crate::seal_next) does it. Harmless if it is closed.
    pub fn close(&mut self) -> Result<(), StoreError> {
        self.end_segment()?;
        self.closed = true;
        Ok(())
    }

    fn new(directory: Directory, segment_bytes: u64, now: Now) -> Self {
        Self {
            live: Arc::new(Live::new(directory, now)),
            segment_bytes,
            active: None,
            unsynced: Vec::new(),
            names_unsynced: true,
            closed: false,
        }
    }

    /// The state before what begins at `start`, if something may.
    fn state_at(&self, start: u64) -> Result<State, StoreError> {
        let now = self.live.now();
        let state = now.next();
        if self.closed {
            return Err(StoreError::Usage("the log is closed".to_owned()));
        }
        if start != state.offset {
            let end = state.offset;
            return Err(StoreError::Usage(format!("records of offset {start} do not follow a log that ends at {end}")));
        }
        Ok(state.clone())
    }

    fn leave_out(&self, state: State, reason: &str) {
        let mut now = self.live.now();
        let gap = match now.ahead.take() {
            Some((_, gap)) => gap,
            None => Gap { from: now.end.offset, reason: reason.to_owned() },
        };
        now.ahead = Some((state, gap));
    }

    /// Goes on to the end of the next segment. False: it is not good, or not the next one.
    fn recover_segment(&mut self, start: u64, first: bool, last: bool) -> Result<bool, StoreError> {
        let directory = &self.live.directory;
        let mut segment = match directory.open(start) {
            Ok(segment) => segment,
            Err(StoreError::Damaged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if !first && !segment.follows(self.live.now().end.offset) {
            return Ok(false);
        }
        let open = Open::recover(directory, start)?;
        // The index of one that was not synced may have survived without all that it speaks of.
        let scan = if open.is_some() { Some(segment.scan()?) } else { None };
        let (end, active) = match (segment.index()?, scan) {
            (Some((end, _)), None) => (end, None),
            (Some((end, _)), Some(scan)) if scan.closed && scan.state == end => (end, None),
            (_, Some(scan)) => (scan.state, Some(Active { start, file_end: scan.end, index: scan.index })),
            (None, None) => return Ok(false),
        };
        if end.offset == start && segment.gap().is_some() {
            // Nothing stands behind the gap yet, so the log ends before it.
            directory.remove(&directory.raw_path(start))?;
            return Ok(true);
        }
        if let (Some(open), Some(active)) = (&open, &active) {
            open.file.set_len(active.file_end).map_err(StoreError::io("recover", &open.path))?;
        }
        // Whoever wrote it may not have synced it.
        self.unsynced.extend(open.clone().filter(|_| active.is_none()));
        self.active = open.filter(|_| active.is_some());
        {
            let mut now = self.live.now();
            now.starts.push(start);
            (now.end, now.active) = (end, active);
        }
        if !last {
            // Its index was torn.
            self.end_segment()?;
        }
        Ok(true)
    }

    /// The segment for what begins in this state.
    fn open_for(&mut self, state: &State) -> Result<Open, StoreError> {
        let goes_on = {
            let now = self.live.now();
            let is_begun = |active: &Active| active.start == state.offset;
            let has_room = |active: &Active| now.ahead.is_none() && active.file_end < self.segment_bytes;
            now.active.as_ref().is_some_and(|active| is_begun(active) || has_room(active))
        };
        match self.active.clone().filter(|_| goes_on) {
            Some(open) => Ok(open),
            None => {
                self.end_segment()?;
                self.begin_segment()
            }
        }
    }

    fn begin_segment(&mut self) -> Result<Open, StoreError> {
        let (state, gap) = {
            let now = self.live.now();
            (now.next().clone(), now.ahead.as_ref().map(|(_, gap)| gap.clone()))
        };
        let path = self.live.directory.raw_path(state.offset);
        let mut preface = Vec::new();
        format::put_preface(&mut preface, &state, gap.as_ref());
        let disk = &self.live.directory.disk;
        let created = disk.create(&path).or_else(|error| match error.kind() {
            // One that could not be begun, nor removed.
            io::ErrorKind::AlreadyExists => disk.remove(&path).and_then(|()| disk.create(&path)),
            _ => Err(error),
        });
        let file = created.map_err(StoreError::io("create", &path))?;
        if let Err(error) = write_all_at(&*file, &[&preface], 0) {
            // What cannot be removed is removed when it is begun again.
            let _ = disk.remove(&path);
            return Err(StoreError::io("write", &path)(error));
        }
        let open = Open { path, file };
        self.active = Some(open.clone());
        self.names_unsynced = true;
        let mut now = self.live.now();
        now.starts.push(state.offset);
        now.active = Some(Active { start: state.offset, file_end: preface.len() as u64, index: Index::default() });
        Ok(open)
    }

    fn write(&self, open: &Open, records: &[u8], blocks: Blocks) -> Result<(), StoreError> {
        let at = self.live.now().active.as_ref().map_or(0, |active| active.file_end);
        let mut parts = Vec::with_capacity(blocks.made.len() * 2);
        let mut rest = records;
        for block in &blocks.made {
            let (payload, behind) = rest.split_at_checked(block.raw).unwrap_or((rest, &[]));
            parts.extend([block.head.as_slice(), payload]);
            rest = behind;
        }
        if let Err(error) = write_all_at(&*open.file, &parts, at) {
            // Should this fail too: what is behind `file_end` is not looked at, and is written over by the next append.
            let _ = open.file.set_len(at);
            return Err(StoreError::io("write", &open.path)(error));
        }
        let mut now = self.live.now();
        if let Some(active) = &mut now.active {
            for block in &blocks.made {
                active.index.note(&block.before, active.file_end);
                active.file_end += (block.head.len() + block.raw) as u64;
            }
        }
        now.end = blocks.end;
        now.ahead = None;
        Ok(())
    }

    fn end_segment(&mut self) -> Result<(), StoreError> {
        let Some(open) = self.active.clone() else { return Ok(()) };
        let (at, empty, index) = {
            let now = self.live.now();
            let Some(active) = &now.active else { return Ok(()) };
            let mut index = Vec::new();
            format::put_index(&mut index, &now.end, active.index.marks());
            (active.file_end, active.start >= now.end.offset, index)
        };
        if empty {
            self.live.directory.remove(&open.path)?;
        } else if let Err(error) = write_all_at(&*open.file, &[&index], at) {
            let _ = open.file.set_len(at);
            return Err(StoreError::io("write", &open.path)(error));
        }
        let mut now = self.live.now();
        now.active = None;
        if empty {
            now.starts.pop();
        }
        drop(now);
        self.unsynced.extend(self.active.take().filter(|_| !empty));
        Ok(())
    }
}

impl Open {
    /// A segment that another writer has left. None: it is sealed.
    fn recover(directory: &Directory, start: u64) -> Result<Option<Self>, StoreError> {
        let path = directory.raw_path(start);
        match directory.disk.open_to_write(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(|file| Some(Self { path: path.clone(), file })).map_err(StoreError::io("open", &path)),
        }
    }
}

impl Syncing {
    /// Waits until the disk has it. A failure is for ever: the kernel says once that it could not write, and then forgets what.
    pub fn run(self) -> Result<(), StoreError> {
        self.live.now().check()?;
        let done = self.all();
        if let Err(error) = &done {
            self.live.now().failed.get_or_insert_with(|| error.to_string());
        }
        done
    }

    fn all(&self) -> Result<(), StoreError> {
        for open in &self.files {
            open.file.sync_data().map_err(StoreError::io("sync", &open.path))?;
        }
        self.directory.as_ref().map_or(Ok(()), Directory::sync)
    }
}

/// A batch, cut into blocks.
struct Blocks {
    made: Vec<Made>,
    end: State,
}

struct Made {
    before: State,
    head: Vec<u8>,
    raw: usize,
}

impl Blocks {
    fn make(records: &[u8], state: State, chain: Option<[u8; 32]>) -> Result<Self, StoreError> {
        let mut blocks = Self { made: Vec::new(), end: state };
        let mut rest = records;
        while !rest.is_empty() {
            let whole = tailrace_core::record::whole(rest, BLOCK_BYTES);
            let cut = whole.map_err(|error| blocks.refuse(error.to_string()))?;
            let Some((payload, behind)) = rest.split_at_checked(cut).filter(|_| cut > 0) else {
                return Err(blocks.refuse("the last record is not whole".to_owned()));
            };
            // Hashing is most of the work: it is done once if the caller has done it, and the batch is one block.
            let known = chain.filter(|_| payload.len() == records.len());
            blocks.push(payload, known)?;
            rest = behind;
        }
        Ok(blocks)
    }

    /// Blocks that end at marks, as long as these are of the same chain as the state.
    fn make_marked(batch: &Batch, state: State) -> Result<Self, StoreError> {
        let ours = (state.offset, Chain::from(state.chain));
        let Ok(first) = batch.marks().binary_search_by_key(&ours.0, |(offset, _)| *offset) else {
            return Self::make(batch.bytes(), state, None);
        };
        let marks = batch.marks().get(first..).unwrap_or_default();
        if marks.first() != Some(&ours) {
            return Self::make(batch.bytes(), state, None);
        }
        let mut blocks = Self { made: Vec::new(), end: state };
        let mut rest: &[u8] = batch.bytes();
        let mut marks = marks.iter().skip(1).take_while(|(offset, _)| *offset <= batch.end()).peekable();
        while let Some(&(mut end, mut chain)) = marks.next() {
            let begin = blocks.end.offset;
            while let Some(&(later, its)) = marks.next_if(|(offset, _)| offset - begin <= BLOCK_BYTES as u64) {
                (end, chain) = (later, its);
            }
            let Some((payload, behind)) = rest.split_at_checked((end - begin) as usize) else { break };
            blocks.push(payload, Some(*chain.as_bytes()))?;
            rest = behind;
        }
        if rest.is_empty() {
            return Ok(blocks);
        }
        // A part of what was added, that ends between two marks.
        let behind = Self::make(rest, blocks.end, None)?;
        blocks.made.extend(behind.made);
        Ok(Self { made: blocks.made, end: behind.end })
    }

    fn push(&mut self, payload: &[u8], known: Option<[u8; 32]>) -> Result<(), StoreError> {
        let before = self.end.clone();
        let mut occurred = Vec::new();
        let mut chain = Chain::from(self.end.chain);
        for record in Records::new(payload) {
            let (_, record) = record.map_err(|error| self.refuse(error.to_string()))?;
            let decoded = Record::decode(record).map_err(|error| self.refuse(error.to_string()))?;
            if known.is_none() {
                chain.push([record]);
            }
            if let Record::Log(log) = decoded {
                let position = self.end.totals.add(log.channel, log.data.len() as u64, log.lines);
                let position = position.ok_or_else(|| self.refuse("more than 1024 channels in one log".to_owned()))?;
                if occurred.last() != Some(&position) {
                    occurred.push(position);
                }
                self.end.time_us = self.end.time_us.max(log.wall_us);
            }
            let offset = self.end.offset.checked_add(record.len() as u64);
            self.end.offset = offset.ok_or_else(|| self.refuse("the journal is too long".to_owned()))?;
            self.end.records = self.end.records.saturating_add(1);
        }
        self.end.chain = known.unwrap_or(*chain.as_bytes());
        occurred.sort_unstable();
        occurred.dedup();
        let (raw, crc) = (payload.len() as u32, crc32fast::hash(payload));
        let mut head = Vec::new();
        let said = Payload { coding: Coding::Raw, raw, stored: raw, crc };
        format::put_block(&mut head, said, &self.end, occurred.into_iter());
        self.made.push(Made { before, head, raw: payload.len() });
        Ok(())
    }

    fn refuse(&self, what: String) -> StoreError {
        StoreError::Record { offset: self.end.offset, what }
    }
}
