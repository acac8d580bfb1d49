//! The journal's ring: a file, mapped by the supervisor that writes it and by the daemon that reads it.
//!
//! Theory of operation. The file is a header of 512 KiB and `capacity` bytes of data. An absolute
//! journal offset lives at `offset % capacity`. The data is mapped twice, back to back, so that any range of up to
//! `capacity` bytes is one slice, whatever it wraps around. `end` is only moved behind whole records, after their bytes
//! are in place; `begin` is only moved by the reader. Bytes in `[begin, end)` are never written again, bytes outside
//! of it are never read: the two sides share no byte that changes.
//!
//! Beside the offsets the header holds *marks*, the chain at some of the offsets, for readers that take up a journal in its
//! midst; the *accounts*, what was counted up to `end`; and which processes write. From these another writer can take over
//! from one that has died, at any instruction: every record up to `end` is whole, chained and counted.
//!
//! Nothing that stands in the header is believed: the other process may be torn, hostile or gone. Each side keeps its own
//! copy of what it wrote itself, and clamps what it reads. Waking the other side is not done here but over the control
//! socket, and only when it asked for it by a flag in the header: a *bell*.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::mm::ProtFlags;
use tailrace_core::chain::Chain;
use tailrace_core::channel::Channel;
use tailrace_core::journal::{Mark, Source};
use tailrace_core::ledger::Ledger;
use tailrace_core::record::{PREFIX, Records, kind};

pub use label::LABEL_BYTES_MAX;
use mapping::Mapping;
pub use mapping::{CAPACITY_UNIT, check, create_file};
use marks::Marked;

mod accounts;
mod label;
mod mapping;
mod marks;

/// The supervisor's side.
pub struct Writer {
    map: Mapping,
    begin: u64,
    end: u64,
    marked: u64,
    bell: bool,
}

impl Writer {
    /// Maps a ring that nobody has written to yet.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        let map = Mapping::new(file.as_fd(), ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(Self { map, begin: 0, end: 0, marked: 0, bell: false })
    }

    /// Maps a ring whose writer has died, as far as it holds what was written. With what was counted up to there.
    pub fn recover(file: impl AsFd) -> io::Result<(Self, Recovered)> {
        let map = Mapping::new(file.as_fd(), ProtFlags::READ | ProtFlags::WRITE)?;
        let header = map.header();
        let (begin, end) = (header.begin.load(Ordering::SeqCst), header.end.load(Ordering::SeqCst));
        let base = header.begins.iter().map(Marked::get).find(|(at, _)| *at == begin);
        let Some(base) = base.filter(|_| begin <= end && end - begin <= map.capacity as u64) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the header of the ring is torn"));
        };
        let (mark, ended) = last_good(&map, base, end);
        header.end.store(mark.0, Ordering::SeqCst);
        header.ended.store(0, Ordering::SeqCst);
        let marked = header.marks.cut(mark);
        let ledger = if ended { Ledger::closed(mark) } else { header.accounts.read(mark) };
        let processes = [header.writer.get(), header.child.get()];
        let recovered = Recovered { mark, ledger, ended, processes };
        Ok((Self { map, begin, end: mark.0, marked, bell: false }, recovered))
    }

    /// Maps a ring whose journal is ended and was released to its end, for another one that begins.
    ///
    /// At any instruction the header is that of the old journal or of the new one.
    pub fn renew(file: impl AsFd) -> io::Result<Self> {
        let map = Mapping::new(file.as_fd(), ProtFlags::READ | ProtFlags::WRITE)?;
        let header = map.header();
        header.label.clear();
        header.child.set(Identity::default());
        header.writer_waits.store(0, Ordering::SeqCst);
        header.reader_waits.store(0, Ordering::SeqCst);
        // The base that stands stays until `begin` is moved.
        let [first, second] = &header.begins;
        let (stands, other) =
            if first.offset() == header.begin.load(Ordering::SeqCst) { (first, second) } else { (second, first) };
        other.set((0, Chain::default()));
        header.begin.store(0, Ordering::SeqCst);
        header.end.store(0, Ordering::SeqCst);
        header.ended.store(0, Ordering::SeqCst);
        stands.set((0, Chain::default()));
        header.marks.clear();
        header.accounts.clear();
        Ok(Self { map, begin: 0, end: 0, marked: 0, bell: false })
    }

    /// How many bytes the ring holds.
    pub fn capacity(&self) -> usize {
        self.map.capacity
    }

    /// The offset behind the last record.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether everything was released.
    pub fn is_empty(&mut self) -> bool {
        self.free() == self.map.capacity
    }

    /// How many bytes can be reserved now.
    pub fn free(&mut self) -> usize {
        // Ordered behind the store of `writer_waits`, as the reader's swap is behind its store of `begin`: one sees the other.
        let said = self.map.header().begin.load(Ordering::SeqCst);
        self.begin = said.clamp(self.begin, self.end);
        self.map.capacity - (self.end - self.begin) as usize
    }

    /// Room for `length` bytes behind the end, or `None` when the reader has to release some first.
    pub fn reserve(&mut self, length: usize) -> Option<&mut [u8]> {
        if length > self.free() {
            return None;
        }
        let start = (self.end % self.map.capacity as u64) as usize;
        // SAFETY: start < capacity and length <= capacity, so the range lies in the doubled data area; it is outside of
        // [begin, end), so no reader looks at it, and `&mut self` keeps other writers out.
        Some(unsafe { std::slice::from_raw_parts_mut(self.map.data().add(start), length) })
    }

    /// Leaves word who writes here.
    pub fn set_writer(&mut self, process: Identity) {
        self.map.header().writer.set(process);
    }

    /// Whether the daemon has said whose command this is.
    pub fn is_labelled(&self) -> bool {
        self.map.header().label.get().is_some()
    }

    /// And which child runs.
    pub fn set_child(&mut self, process: Identity) {
        self.map.header().child.set(process);
    }

    /// Writes down what was counted up to a record of `channel`, which is about to be committed.
    pub fn count(&mut self, ledger: &Ledger, channel: Option<Channel<'_>>) {
        self.map.header().accounts.write(ledger, channel);
    }

    /// As `count`, when records of several channels are.
    pub fn count_all(&mut self, ledger: &Ledger) {
        self.map.header().accounts.write_all(ledger);
    }

    /// What was written down so far.
    pub fn counted(&self) -> Ledger {
        let header = self.map.header();
        header.accounts.read(header.marks.tip(self.end))
    }

    /// Shows the reader the first `length` bytes of what was reserved: whole records, with the chain behind them.
    pub fn commit(&mut self, length: usize, chain: &Chain) {
        debug_assert!(length <= self.map.capacity - (self.end - self.begin) as usize);
        self.end += length as u64;
        let header = self.map.header();
        let lasting = self.end - self.marked >= marks::spacing(self.map.capacity);
        header.marks.push((self.end, *chain), lasting);
        if lasting {
            self.marked = self.end;
        }
        header.end.store(self.end, Ordering::SeqCst);
        self.bell |= header.reader_waits.swap(0, Ordering::SeqCst) != 0;
    }

    /// Says that nothing follows.
    pub fn finish(&mut self) {
        let header = self.map.header();
        header.ended.store(1, Ordering::SeqCst);
        self.bell |= header.reader_waits.swap(0, Ordering::SeqCst) != 0;
    }

    /// Whether the reader waited for what was written. It is to be told, once.
    pub fn take_bell(&mut self) -> bool {
        std::mem::take(&mut self.bell)
    }

    /// Asks the reader to ring when it releases something. False: it just did, look again.
    pub fn wants_room(&mut self) -> bool {
        self.map.header().writer_waits.store(1, Ordering::SeqCst);
        let before = self.begin;
        self.free();
        self.begin == before
    }
}

/// A process, so that it is not taken for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// Its id; 0: none.
    pub pid: i32,
    /// When it was started, in the kernel's ticks since the machine was.
    pub started: u64,
    /// Of the name that the kernel gives to that run of the machine, the beginning.
    pub boot: u64,
}

/// What a dead writer has left.
pub struct Recovered {
    /// Where the ring ends.
    pub mark: Mark,
    /// What was counted up to there.
    pub ledger: Ledger,
    /// The receipt is there, and nothing is to follow.
    pub ended: bool,
    /// The writer's process and the child's.
    pub processes: [Identity; 2],
}

/// The last place in the ring up to which all records are what the marks say, and whether the receipt stands before it.
fn last_good(map: &Mapping, (begin, mut chain): Mark, end: u64) -> (Mark, bool) {
    let start = (begin % map.capacity as u64) as usize;
    // SAFETY: start < capacity and end - begin <= capacity, so the range lies in the doubled data area; nobody writes.
    let bytes = unsafe { std::slice::from_raw_parts(map.data().add(start), (end - begin) as usize) };
    let mut good = ((begin, chain), false);
    let mut marks = map.header().marks.all(begin).peekable();
    let mut at = begin;
    for record in Records::new(bytes).map_while(Result::ok) {
        let (_, record) = record;
        chain.push([record]);
        at += record.len() as u64;
        while marks.next_if(|(offset, _)| *offset < at).is_some() {}
        if let Some((_, marked)) = marks.next_if(|(offset, _)| *offset == at) {
            if marked != chain {
                break;
            }
            good = ((at, chain), record.get(PREFIX) == Some(&kind::RECEIPT));
        }
    }
    good
}

/// The daemon's side. Threads may share it.
pub struct Reader {
    map: Mapping,
    begin: AtomicU64,
    /// `begin` with its chain, unless the header is torn; held while `begin` is moved.
    base: Mutex<Option<Mark>>,
    seen: AtomicU64,
}

impl Reader {
    /// Maps the ring at `path`, where its last reader left off.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = rustix::fs::open(path.as_ref(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let map = Mapping::new(file.as_fd(), ProtFlags::READ)?;
        let begin = map.header().begin.load(Ordering::Acquire);
        let base = map.header().begins.iter().map(Marked::get).find(|(at, _)| *at == begin);
        Ok(Self { map, begin: AtomicU64::new(begin), base: Mutex::new(base), seen: AtomicU64::new(0) })
    }

    /// Writes down whose command this is, for another reader. False: that is too long, or nothing.
    pub fn set_label(&self, label: &[u8]) -> bool {
        self.map.header().label.set(label)
    }

    /// What was written down.
    pub fn label(&self) -> Option<Vec<u8>> {
        self.map.header().label.get()
    }

    /// Asks the writer to ring when the ring grows. False: it has grown since `end` was read last, look again.
    pub fn wants_bell(&self) -> bool {
        let header = self.map.header();
        header.reader_waits.store(1, Ordering::SeqCst);
        header.end.load(Ordering::SeqCst) == self.seen.load(Ordering::Relaxed) && !self.ended()
    }

    /// Never down, whichever of two threads comes last. Without a boundary, as when the header is torn: to `offset`.
    fn move_begin(&self, boundary: Option<Mark>, offset: u64) {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = boundary.map_or(offset, |(at, _)| at);
        if begin <= self.begin.load(Ordering::Acquire) {
            return;
        }
        let header = self.map.header();
        if let Some(boundary) = boundary {
            let [first, second] = &header.begins;
            // The one that stands stays until `begin` is moved: who dies in between leaves a journal that can be taken up.
            let stands = base.is_some_and(|(at, _)| first.offset() == at);
            if stands { second } else { first }.set(boundary);
        }
        *base = boundary;
        self.begin.store(begin, Ordering::Release);
        header.begin.fetch_max(begin, Ordering::SeqCst);
    }

    /// What may be read: the writer's end, as far as it can be true.
    fn range(&self) -> (u64, u64) {
        let begin = self.begin.load(Ordering::Acquire);
        let end = self.map.header().end.load(Ordering::SeqCst);
        (begin, end.clamp(begin, begin.saturating_add(self.map.capacity as u64)))
    }
}

impl Source for Reader {
    fn begin(&self) -> u64 {
        self.begin.load(Ordering::Acquire)
    }

    fn end(&self) -> u64 {
        let (_, end) = self.range();
        self.seen.store(end, Ordering::Relaxed);
        end
    }

    fn ended(&self) -> bool {
        self.map.header().ended.load(Ordering::SeqCst) != 0
    }

    fn read(&self, offset: u64, max: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let (begin, end) = self.range();
        if offset < begin || offset >= end {
            return 0;
        }
        let length = max.min((end - offset) as usize);
        let start = (offset % self.map.capacity as u64) as usize;
        // SAFETY: start < capacity, and length <= end - begin <= capacity by `range`, so the range lies in the doubled data
        // area. The writer does not touch [begin, end); one that breaks that rule can only make us read other bytes.
        sink(unsafe { std::slice::from_raw_parts(self.map.data().add(start), length) });
        length
    }

    fn release(&self, offset: u64) -> bool {
        let (begin, end) = self.range();
        let offset = offset.clamp(begin, end);
        let boundary = (self as &dyn Source).boundary(offset);
        self.move_begin(boundary, offset);
        self.map.header().writer_waits.swap(0, Ordering::SeqCst) != 0
    }

    fn mark(&self, offset: u64) -> Option<Mark> {
        let (begin, end) = self.range();
        let last = self.map.header().marks.last(begin, offset.min(end));
        let base = || *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        last.or_else(|| base().filter(|(at, _)| (begin..=offset).contains(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fd::OwnedFd;
    use std::path::PathBuf;

    /// A ring in a directory of its own, gone with it.
    struct Fixture {
        directory: PathBuf,
        file: OwnedFd,
    }

    impl Fixture {
        fn new(capacity: usize) -> Self {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let directory = std::env::temp_dir().join(format!("tailrace-ring-{}-{count}", std::process::id()));
            std::fs::create_dir(&directory).unwrap();
            let handle = rustix::fs::open(&directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let file = create_file(handle.as_fd(), "journal.ring", capacity).unwrap();
            Self { directory, file }
        }

        fn writer(&self) -> Writer {
            Writer::map(&self.file).unwrap()
        }

        fn reader(&self) -> Reader {
            Reader::open(self.directory.join("journal.ring")).unwrap()
        }

        fn header(&self) -> Vec<u8> {
            let mut header = std::fs::read(self.directory.join("journal.ring")).unwrap();
            header.truncate(mapping::HEADER_BYTES);
            header
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    /// A record of `length` bytes, with something in it.
    fn record(length: usize, seed: usize) -> Vec<u8> {
        let mut record = ((length - 4) as u32).to_be_bytes().to_vec();
        record.extend((4..length).map(|at| (at * 7 + seed) as u8));
        record
    }

    fn put(writer: &mut Writer, bytes: &[u8], chain: &mut Chain) -> bool {
        let Some(room) = writer.reserve(bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        chain.push([bytes]);
        writer.commit(bytes.len(), chain);
        true
    }

    fn put_one(writer: &mut Writer) {
        put(writer, &record(5, 0), &mut Chain::default());
    }

    fn get(reader: &Reader, offset: u64, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let read = reader.read(offset, max, &mut |piece| out.extend_from_slice(piece));
        assert_eq!(read, out.len());
        out
    }

    #[test]
    fn a_record_that_wraps_around_is_one_slice() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let (mut writer, reader) = (ring.writer(), ring.reader());
        let mut chain = Chain::default();
        assert!(put(&mut writer, &record(CAPACITY_UNIT - 3, 1), &mut chain));
        reader.release(CAPACITY_UNIT as u64 - 3);
        assert!(put(&mut writer, &record(9, 2), &mut chain));
        let mut pieces = 0;
        reader.read(CAPACITY_UNIT as u64 - 3, 100, &mut |piece| {
            pieces += 1;
            assert_eq!(piece, record(9, 2));
        });
        assert_eq!(pieces, 1);
    }

    #[test]
    fn bells_ring_only_when_they_were_asked_for() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let (mut writer, reader) = (ring.writer(), ring.reader());
        put_one(&mut writer);
        assert!(!writer.take_bell());
        assert!(!reader.wants_bell(), "it has grown since");
        assert_eq!(reader.end(), 5);
        assert!(reader.wants_bell());
        put_one(&mut writer);
        assert!(writer.take_bell());
        writer.commit(0, &Chain::default());
        assert!(!writer.take_bell(), "a bell rings once");
        assert!(!reader.release(5));
        assert!(!writer.wants_room(), "room was made since");
        assert!(writer.wants_room());
        assert!(reader.release(10));
    }

    #[test]
    fn a_reader_goes_on_where_the_last_one_left_off() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let mut writer = ring.writer();
        let mut chain = Chain::default();
        put(&mut writer, &record(7, 0), &mut chain);
        put(&mut writer, &record(9, 1), &mut chain);
        for (released, begin) in [(3, 0), (7, 7), (15, 7), (16, 16)] {
            ring.reader().release(released);
            let reader = ring.reader();
            assert_eq!((reader.begin(), get(&reader, 7, 100).len()), (begin, if begin <= 7 { 9 } else { 0 }));
            assert!((&reader as &dyn Source).chain_at(begin).is_some());
        }
    }

    #[test]
    fn a_file_system_that_cannot_reserve_gets_zeros() {
        let ring = Fixture::new(CAPACITY_UNIT);
        rustix::fs::ftruncate(&ring.file, 0).unwrap();
        mapping::write_zeros(&ring.file, 100_000).unwrap();
        assert_eq!(std::fs::read(ring.directory.join("journal.ring")).unwrap(), vec![0; 100_000]);
    }

    #[test]
    fn a_file_that_is_no_ring_is_refused() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let path = ring.directory.join("journal.ring");
        for (at, bytes) in [(0, [0; 8]), (8, [0; 8]), (8, [0xff; 8]), (8, (2 * CAPACITY_UNIT as u64).to_ne_bytes())] {
            let sound = std::fs::read(&path).unwrap();
            rustix::io::pwrite(&ring.file, &bytes, at).unwrap();
            assert!(Reader::open(&path).is_err());
            std::fs::write(&path, sound).unwrap();
        }
        assert!(Reader::open(&path).is_ok());
        rustix::fs::ftruncate(&ring.file, 70_000).unwrap();
        assert!(Reader::open(&path).is_err());
    }

    #[test]
    fn a_hostile_writer_cannot_lead_the_reader_out_of_the_ring() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let (writer, reader) = (ring.writer(), ring.reader());
        for end in [u64::MAX, 1 << 63, CAPACITY_UNIT as u64 + 1] {
            writer.map.header().end.store(end, Ordering::SeqCst);
            assert_eq!(reader.end(), CAPACITY_UNIT as u64);
            for offset in [0, 5, CAPACITY_UNIT as u64, u64::MAX] {
                assert!(get(&reader, offset, usize::MAX).len() <= CAPACITY_UNIT);
            }
        }
        writer.map.header().begin.store(u64::MAX, Ordering::SeqCst);
        let other = ring.reader();
        assert_eq!(get(&other, u64::MAX, usize::MAX), b"");
        other.release(u64::MAX);
    }

    #[test]
    fn a_hostile_reader_cannot_make_the_writer_overwrite() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let mut writer = ring.writer();
        put(&mut writer, &record(100, 0), &mut Chain::default());
        let header = |writer: &Writer, begin| writer.map.header().begin.store(begin, Ordering::SeqCst);
        header(&writer, 50);
        assert_eq!(writer.free(), CAPACITY_UNIT - 50);
        header(&writer, 10);
        assert_eq!(writer.free(), CAPACITY_UNIT - 50, "begin does not go down");
        header(&writer, u64::MAX);
        assert_eq!(writer.free(), CAPACITY_UNIT, "nor beyond the end");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(usize),
        Read(usize, usize),
        Release(usize),
        Remap,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => prop_oneof![5..200_usize, 5..CAPACITY_UNIT / 2].prop_map(Step::Write),
            1 => (0..CAPACITY_UNIT, 0..CAPACITY_UNIT).prop_map(|(back, max)| Step::Read(back, max)),
            1 => prop_oneof![0..400_usize, 0..CAPACITY_UNIT].prop_map(Step::Release),
            1 => Just(Step::Remap),
        ];
        prop::collection::vec(step, 1..100)
    }

    /// All bytes there ever were, and which of them are before the begin.
    #[derive(Default)]
    struct Model {
        bytes: Vec<u8>,
        boundaries: std::collections::BTreeSet<usize>,
        begin: usize,
    }

    impl Model {
        /// Hashes everything from 0.
        fn chain_at(&self, offset: usize) -> Option<Chain> {
            let (mut at, mut chain) = (0, Chain::default());
            while at < offset {
                let length = 4 + u32::from_be_bytes(self.bytes.get(at..at + 4)?.try_into().unwrap()) as usize;
                chain.push([self.bytes.get(at..at + length)?]);
                at += length;
            }
            (self.begin <= offset && at == offset).then_some(chain)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_vec_of_which_the_front_was_forgotten(steps in steps(), probe in 0..CAPACITY_UNIT) {
            let ring = Fixture::new(CAPACITY_UNIT);
            let (mut writer, mut reader) = (ring.writer(), ring.reader());
            let (mut model, mut chain) = (Model::default(), Chain::default());
            for (count, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write(length) => {
                        let bytes = record(length, count);
                        let fits = model.bytes.len() - model.begin + length <= CAPACITY_UNIT;
                        prop_assert_eq!(put(&mut writer, &bytes, &mut chain), fits);
                        if fits {
                            model.boundaries.insert(model.bytes.len());
                            model.bytes.extend(bytes);
                        }
                    }
                    Step::Read(back, max) => {
                        let at = model.bytes.len().saturating_sub(back);
                        let want = if at < model.begin { &[][..] } else { &model.bytes[at..model.bytes.len().min(at + max)] };
                        prop_assert_eq!(&get(&reader, at as u64, max)[..], want);
                    }
                    Step::Release(forward) => {
                        reader.release((model.begin + forward) as u64);
                        let to = model.bytes.len().min(model.begin + forward);
                        let last = model.boundaries.range(..=to).next_back().copied().unwrap_or_default();
                        model.begin = if to == model.bytes.len() { to } else { last };
                    }
                    Step::Remap => reader = ring.reader(),
                }
                let end = model.bytes.len();
                prop_assert_eq!((reader.begin(), reader.end()), (model.begin as u64, end as u64));
                prop_assert_eq!(writer.free(), CAPACITY_UNIT - (end - model.begin));
                let probed = model.begin + probe % (end - model.begin + 1);
                let boundary = model.boundaries.range(..=probed).next_back().copied().unwrap_or_default();
                for offset in [0, probed, boundary, model.begin, end, end + 1] {
                    prop_assert_eq!((&reader as &dyn Source).chain_at(offset as u64), model.chain_at(offset), "{}", offset);
                }
            }
        }
    }

    #[test]
    fn marks_are_found_however_many_records_there_were() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let (mut writer, reader) = (ring.writer(), ring.reader());
        let mut chain = Chain::default();
        for count in 0..20_000 {
            if !put(&mut writer, &record(5 + count % 90, count), &mut chain) {
                reader.release(reader.begin() + 20_000);
                assert!(put(&mut writer, &record(5 + count % 90, count), &mut chain));
            }
            assert_eq!((&reader as &dyn Source).chain_at(writer.end()), Some(chain));
            let (at, _) = reader.mark(reader.end()).unwrap();
            assert!(reader.end() - at < 64, "{at} of {}", reader.end());
        }
    }

    #[test]
    fn a_ring_that_is_renewed_is_as_one_that_was_just_made() {
        let (used, new) = (Fixture::new(CAPACITY_UNIT), Fixture::new(CAPACITY_UNIT));
        let mut writer = used.writer();
        writer.set_child(Identity { pid: 7, started: 8, boot: 9 });
        let mut journal = tailrace_core::journal::Writer::new(Vec::new());
        let mut chain = Chain::default();
        for count in 0..300 {
            let begin = journal.tail().len();
            journal.log(Channel::Stdout, b"line\n", 1, count).unwrap();
            writer.count(journal.ledger(), Some(Channel::Stdout));
            assert!(put(&mut writer, &journal.tail()[begin..], &mut chain));
        }
        writer.finish();
        used.reader().release(writer.end());
        assert_ne!(used.header(), new.header());
        let mut writer = Writer::renew(&used.file).unwrap();
        assert!(used.header() == new.header());
        let reader = used.reader();
        assert_eq!((reader.begin(), reader.end(), reader.ended()), (0, 0, false));
        put_one(&mut writer);
        assert_eq!(get(&reader, 0, 100).len(), 5);
    }

    #[test]
    fn a_label_is_read_as_it_was_written() {
        let ring = Fixture::new(CAPACITY_UNIT);
        assert_eq!(ring.reader().label(), None);
        for length in [1, 7, 8, 9, 1000, LABEL_BYTES_MAX] {
            let label: Vec<u8> = (0..length).map(|at| at as u8).collect();
            assert!(ring.reader().set_label(&label));
            assert_eq!(ring.reader().label(), Some(label));
        }
        assert!(!ring.reader().set_label(&[1; LABEL_BYTES_MAX + 1]));
        assert!(!ring.reader().set_label(b""));
        assert!(ring.writer().is_labelled());
        assert!(!Writer::renew(&ring.file).unwrap().is_labelled());
    }

    #[test]
    fn a_torn_header_does_not_keep_a_journal_from_being_released() {
        let ring = Fixture::new(CAPACITY_UNIT);
        let mut writer = ring.writer();
        put(&mut writer, &record(20, 0), &mut Chain::default());
        writer.map.header().begin.store(7, Ordering::SeqCst);
        let reader = ring.reader();
        assert_eq!((&reader as &dyn Source).chain_at(7), None);
        reader.release(20);
        assert_eq!(reader.begin(), 20);
    }
}
