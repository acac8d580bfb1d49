//! Appending to a log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tailrace_core::chain::Chain;
use tailrace_core::record::{Record, Records};

use crate::directory;
use crate::error::StoreError;
use crate::format::{self, BLOCK_BYTES, Coding, Payload, State};
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
    file: Arc<File>,
}

/// What [`LogWriter::syncing`] has collected.
#[derive(Debug)]
pub struct Syncing {
    live: Arc<Live>,
    files: Vec<Open>,
    directory: Option<PathBuf>,
}

impl LogWriter {
    /// Begins the log of a new run, in a directory that exists. Segments roll at `segment_bytes`.
    pub fn create(directory: &Path, segment_bytes: u64) -> Result<Self, StoreError> {
        if !directory::list(directory)?.starts.is_empty() {
            return Err(StoreError::Usage(format!("{} holds a log already", directory.display())));
        }
        Ok(Self::new(directory, segment_bytes, Now::default()))
    }

    /// Goes on with the log of a run whose writer is gone. What was torn is cut off.
    pub fn recover(directory: &Path, segment_bytes: u64) -> Result<Self, StoreError> {
        let listing = directory::list(directory)?;
        for path in &listing.unfinished {
            remove(path)?;
        }
        for &start in listing.raw.iter().filter(|start| listing.sealed.binary_search(start).is_ok()) {
            remove(&directory::raw_path(directory, start))?;
        }
        let mut writer = Self::new(directory, segment_bytes, Now::default());
        for (number, &start) in listing.starts.iter().enumerate() {
            let expected = number == 0 || writer.live.now().end.offset == start;
            if !expected || !writer.recover_segment(start, number + 1 == listing.starts.len())? {
                let lost = listing.starts.get(number..).unwrap_or_default();
                lost.iter().try_for_each(|&start| directory::set_aside(directory, start))?;
                break;
            }
        }
        Ok(writer)
    }

    /// Appends whole records that begin at `start`, which must be [`LogWriter::end`]. `chain` is the chain behind them, if the caller
    /// knows it. After an error nothing was appended, and the same may be tried again; after a failed sync nothing can be appended.
    pub fn append(&mut self, records: &[u8], start: u64, chain: Option<[u8; 32]>) -> Result<(), StoreError> {
        let state = {
            let now = self.live.now();
            now.check()?;
            now.end.clone()
        };
        if self.closed {
            return Err(StoreError::Usage("the log is closed".to_owned()));
        }
        if start != state.offset {
            return Err(StoreError::Usage(format!(
                "records of offset {start} do not follow a log that ends at {}",
                state.offset
            )));
        }
        if records.is_empty() {
            return Ok(());
        }
        let blocks = Blocks::make(records, state, chain)?;
        self.roll_if_full()?;
        let open = match &self.active {
            Some(open) => open.clone(),
            None => self.begin_segment()?,
        };
        self.write(&open, records, blocks)
    }

    /// The state behind the last record.
    pub fn end(&self) -> State {
        self.live.now().end.clone()
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

    fn new(directory: &Path, segment_bytes: u64, now: Now) -> Self {
        Self {
            live: Arc::new(Live::new(directory.to_owned(), now)),
            segment_bytes,
            active: None,
            unsynced: Vec::new(),
            names_unsynced: true,
            closed: false,
        }
    }

    /// Goes on to the end of the next segment. False: nothing in it is good.
    fn recover_segment(&mut self, start: u64, last: bool) -> Result<bool, StoreError> {
        let directory = &self.live.directory;
        let mut segment = match directory::open(directory, start) {
            Ok(segment) => segment,
            Err(StoreError::Damaged { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let (end, active) = match segment.index()? {
            Some((end, _)) => (end, None),
            None => {
                let scan = segment.scan()?;
                (scan.state, Some(Active { start, file_end: scan.end, index: scan.index }))
            }
        };
        let path = directory::raw_path(directory, start);
        let is_raw = path.exists();
        let active = active.filter(|_| last && is_raw);
        if is_raw {
            let file = OpenOptions::new().write(true).open(&path);
            let cut =
                file.and_then(|file| active.as_ref().map_or(Ok(()), |it| file.set_len(it.file_end)).map(|()| file));
            let file = Arc::new(cut.map_err(StoreError::io("recover", &path))?);
            // Whoever wrote it may not have synced it.
            let open = Open { path, file };
            if active.is_some() { self.active = Some(open) } else { self.unsynced.push(open) }
        }
        let mut now = self.live.now();
        now.starts.push(start);
        (now.end, now.active) = (end, active);
        Ok(true)
    }

    fn roll_if_full(&mut self) -> Result<(), StoreError> {
        let full = self.live.now().active.as_ref().is_some_and(|active| active.file_end >= self.segment_bytes);
        if full { self.end_segment() } else { Ok(()) }
    }

    fn begin_segment(&mut self) -> Result<Open, StoreError> {
        let state = self.live.now().end.clone();
        let path = directory::raw_path(&self.live.directory, state.offset);
        let mut preface = Vec::new();
        format::put_preface(&mut preface, &state);
        // The log of a build is its owner's business.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(StoreError::io("create", &path))?;
        if let Err(error) = write_at(&file, &[&preface], 0) {
            // What cannot be removed is removed by the next recovery.
            let _ = fs::remove_file(&path);
            return Err(StoreError::io("write", &path)(error));
        }
        let open = Open { path, file: Arc::new(file) };
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
        if let Err(error) = write_at(&open.file, &parts, at) {
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
        Ok(())
    }

    fn end_segment(&mut self) -> Result<(), StoreError> {
        let Some(open) = self.active.clone() else { return Ok(()) };
        let (at, empty, index) = {
            let now = self.live.now();
            let Some(active) = &now.active else { return Ok(()) };
            let mut index = Vec::new();
            format::put_index(&mut index, &now.end, active.index.marks());
            (active.file_end, active.start == now.end.offset, index)
        };
        if empty {
            remove(&open.path)?;
        } else if let Err(error) = write_at(&open.file, &[&index], at) {
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
        self.directory.as_deref().map_or(Ok(()), directory::sync)
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

/// All parts, one behind the other, from `at` on.
pub(crate) fn write_at(file: &File, parts: &[&[u8]], mut at: u64) -> io::Result<()> {
    let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        // The kernel takes at most 1,024 parts.
        let some = rest.get(..rest.len().min(1_024)).unwrap_or_default();
        match rustix::io::pwritev(file, some, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
