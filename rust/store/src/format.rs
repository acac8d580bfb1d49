//! Heads: what stands before every payload, as bytes and as values.

use crate::index::Mark;
use crate::totals::{Channel, Count, Totals};

/// The highest version read. Heads are of version 1, those that tell of a gap of version 2.
pub const VERSION: u8 = 2;
/// What every head begins with: the magic number of a zstd skippable frame, length and CRC.
pub const HEAD_PREFIX: usize = 12;
/// Bytes of a head: 1,024 channels with the longest names, and 65,536 counts in marks, are below it.
pub const HEAD_BYTES_MAX: usize = 4 << 20;
/// Bytes of a payload: the largest record with its prefix, or else [`BLOCK_BYTES`].
pub const PAYLOAD_BYTES_MAX: usize = tailrace_core::limits::RECORD_BYTES_MAX + 4;
/// Bytes at which a payload is cut: a reader's unit of memory.
pub const BLOCK_BYTES: usize = 1 << 20;
/// The last bytes of a head with marks: its length, and this.
pub const TRAILER_BYTES: usize = 12;

/// Bytes of a gap's reason: one line.
pub const REASON_BYTES_MAX: usize = 1_024;

const MAGIC: u32 = 0x184D_2A5B;
const TRAILER: &[u8; 8] = b"TRINDEX1";

/// All that is known at one offset of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The journal offset.
    pub offset: u64,
    /// Records before it.
    pub records: u64,
    /// The largest wall-clock time of any record before it, in microseconds.
    pub time_us: u64,
    /// The chain over them.
    pub chain: [u8; 32],
    /// What they hold.
    pub totals: Totals,
}

impl State {
    /// Goes on to the state that a block's head tells. None: there are too many channels.
    pub fn advance(&mut self, after: &Self) -> Option<()> {
        self.totals.follow(&after.totals)?;
        (self.offset, self.records, self.chain) = (after.offset, after.records, after.chain);
        self.time_us = self.time_us.max(after.time_us);
        Some(())
    }
}

/// How a payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Raw,
    /// As one zstd frame.
    Zstd,
}

/// What a head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// The beginning of a segment, with the state there.
    Preface(State),
    /// The same, of a segment that does not begin where the one before it ends.
    Jump(State, Gap),
    /// A payload follows.
    Block(Payload, State),
    /// The end of a segment.
    Index(State, Vec<Mark>),
}

/// Bytes of a journal that are not in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Where the log ended.
    pub from: u64,
    /// Why it did not go on there: a sentence of at most [`REASON_BYTES_MAX`].
    pub reason: String,
}

/// The payload behind a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// How it is stored.
    pub coding: Coding,
    /// Bytes of records.
    pub raw: u32,
    /// Bytes in the file.
    pub stored: u32,
    /// CRC-32 of the bytes in the file.
    pub crc: u32,
}

/// Why bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Of a later format.
    Newer(u8),
    /// Not what was written.
    Damaged(&'static str),
}

/// Appends the preface of a segment that begins in `state`, behind a gap or not.
pub fn put_preface(out: &mut Vec<u8>, state: &State, gap: Option<&Gap>) {
    let kind = if gap.is_some() { b'J' } else { b'P' };
    put_head(out, kind, None, |out| {
        put_state(out, state, state.totals.iter());
        if let Some(gap) = gap {
            out.extend(gap.from.to_le_bytes());
            let most = REASON_BYTES_MAX.min(gap.reason.len());
            let reason = (0..=most).rev().find_map(|length| gap.reason.get(..length)).unwrap_or_default();
            out.extend((reason.len() as u16).to_le_bytes());
            out.extend_from_slice(reason.as_bytes());
        }
    });
}

/// Appends the head of a payload; `occurred` are the positions in `state.totals` of its channels.
pub fn put_block(out: &mut Vec<u8>, payload: Payload, state: &State, occurred: impl Iterator<Item = usize>) {
    let counts: Vec<_> = occurred.filter_map(|position| state.totals.at(position)).collect();
    put_head(out, b'B', Some(payload), |out| put_state(out, state, counts.into_iter()));
}

/// Appends the end of a segment.
pub fn put_index(out: &mut Vec<u8>, state: &State, marks: &[Mark]) {
    let begin = out.len();
    put_head(out, b'I', None, |out| {
        put_state(out, state, state.totals.iter());
        put_u32(out, marks.len());
        for mark in marks {
            put_mark(out, mark);
        }
        let length = out.len() + TRAILER_BYTES - begin;
        put_u32(out, length);
        out.extend_from_slice(TRAILER);
    });
}

/// The length of the head that has these last bytes, if they are those of an index.
pub fn trailer(bytes: [u8; TRAILER_BYTES]) -> Option<usize> {
    let mut fields = Fields(&bytes);
    let length = fields.u32()? as usize;
    (fields.0 == TRAILER && length <= HEAD_BYTES_MAX).then_some(length)
}

/// The length of the whole head that begins with these bytes.
pub fn head_length(prefix: [u8; HEAD_PREFIX]) -> Result<usize, Bad> {
    let mut fields = Fields(&prefix);
    let (magic, length) = (fields.u32(), fields.u32());
    match (magic, length) {
        (Some(MAGIC), Some(length)) if (4..=HEAD_BYTES_MAX as u32 - 8).contains(&length) => Ok(length as usize + 8),
        (Some(MAGIC), _) => Err(Bad::Damaged("the length of a head is out of range")),
        _ => Err(Bad::Damaged("no head where one should begin")),
    }
}

/// Decodes a whole head.
pub fn decode(head: &[u8]) -> Result<Head, Bad> {
    let mut fields = Fields(head);
    let crc = fields.take(8).and_then(|_| fields.u32()).ok_or(Bad::Damaged("a head that ends too early"))?;
    if crc32fast::hash(fields.0) != crc {
        return Err(Bad::Damaged("the CRC of a head does not fit"));
    }
    match fields.0.get(1) {
        Some(&version) if version > VERSION => Err(Bad::Newer(version)),
        _ => fields.head().filter(|_| fields.0.is_empty()).ok_or(Bad::Damaged("a head with a wrong field")),
    }
}

fn put_head(out: &mut Vec<u8>, kind: u8, payload: Option<Payload>, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend([0; HEAD_PREFIX]);
    let coding = u8::from(payload.is_some_and(|payload| payload.coding == Coding::Zstd));
    let version = if kind == b'J' { 2 } else { 1 };
    out.extend([kind, version, coding, 0]);
    let payload = payload.unwrap_or(Payload { coding: Coding::Raw, raw: 0, stored: 0, crc: 0 });
    for number in [payload.raw, payload.stored, payload.crc] {
        out.extend(number.to_le_bytes());
    }
    body(out);
    let length = (out.len() - begin - 8) as u32;
    let crc = out.get(begin + HEAD_PREFIX..).map_or(0, crc32fast::hash);
    let prefix = [MAGIC, length, crc].map(u32::to_le_bytes);
    if let Some(place) = out.get_mut(begin..begin + HEAD_PREFIX) {
        place.copy_from_slice(prefix.as_flattened());
    }
}

fn put_state<'a>(out: &mut Vec<u8>, state: &State, counts: impl Iterator<Item = (&'a Channel, Count)>) {
    for number in [state.offset, state.records, state.time_us] {
        out.extend(number.to_le_bytes());
    }
    out.extend(state.chain);
    let place = out.len();
    out.extend([0; 2]);
    let mut number = 0u16;
    for (channel, count) in counts {
        number += 1;
        out.extend([channel.kind, channel.name.len() as u8]);
        out.extend_from_slice(channel.name.as_bytes());
        put_count(out, count);
    }
    if let Some(place) = out.get_mut(place..place + 2) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

fn put_mark(out: &mut Vec<u8>, mark: &Mark) {
    for number in [mark.offset, mark.position, mark.time_us] {
        out.extend(number.to_le_bytes());
    }
    out.extend((mark.counts.len() as u16).to_le_bytes());
    for &count in &mark.counts {
        put_count(out, count);
    }
}

fn put_count(out: &mut Vec<u8>, count: Count) {
    out.extend(count.bytes.to_le_bytes());
    out.extend(count.lines.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend((number as u32).to_le_bytes());
}

/// Bytes that are being decoded. None: there are too few, or they cannot be.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn head(&mut self) -> Option<Head> {
        let &[kind, _version, coding, _] = self.array::<4>()?;
        let (raw, stored, crc) = (self.u32()?, self.u32()?, self.u32()?);
        let state = self.state()?;
        match (kind, coding) {
            (b'P', 0) => Some(Head::Preface(state)),
            (b'J', 0) => Some(Head::Jump(state, self.gap()?)),
            (b'B', 0) if raw == stored => Some(Head::Block(payload(Coding::Raw, raw, stored, crc)?, state)),
            (b'B', 1) => Some(Head::Block(payload(Coding::Zstd, raw, stored, crc)?, state)),
            (b'I', 0) => Some(Head::Index(state, self.marks()?)),
            _ => None,
        }
    }

    fn state(&mut self) -> Option<State> {
        let (offset, records, time_us) = (self.u64()?, self.u64()?, self.u64()?);
        let chain = *self.array()?;
        let mut totals = Totals::default();
        for _ in 0..self.u16()? {
            let &[kind, length] = self.array::<2>()?;
            let name = std::str::from_utf8(self.take(length.into())?).ok()?;
            let count = self.count()?;
            totals.set(&Channel::new(kind, name)?, count)?;
        }
        Some(State { offset, records, time_us, chain, totals })
    }

    fn gap(&mut self) -> Option<Gap> {
        let (from, length) = (self.u64()?, self.u16()?);
        let reason = std::str::from_utf8(self.take(length.into())?).ok()?.to_owned();
        Some(Gap { from, reason })
    }

    fn marks(&mut self) -> Option<Vec<Mark>> {
        let mut marks = Vec::new();
        for _ in 0..self.u32()? {
            let (offset, position, time_us) = (self.u64()?, self.u64()?, self.u64()?);
            let counts = (0..self.u16()?).map(|_| self.count()).collect::<Option<_>>()?;
            marks.push(Mark { offset, position, time_us, counts });
        }
        self.take(TRAILER_BYTES)?;
        Some(marks)
    }

    fn count(&mut self) -> Option<Count> {
        Some(Count { bytes: self.u64()?, lines: self.u64()? })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        self.take(N)?.first_chunk()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().copied().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().copied().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().copied().map(u64::from_le_bytes)
    }
}

fn payload(coding: Coding, raw: u32, stored: u32, crc: u32) -> Option<Payload> {
    // zstd adds a little to what it cannot compress.
    let fits =
        raw > 0 && raw as usize <= PAYLOAD_BYTES_MAX && stored as usize <= PAYLOAD_BYTES_MAX + (PAYLOAD_BYTES_MAX >> 4);
    fits.then_some(Payload { coding, raw, stored, crc })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut totals = Totals::default();
        totals.set(&Channel::new(1, "").unwrap(), Count { bytes: 10, lines: 2 });
        totals.set(&Channel::new(4, "config.log").unwrap(), Count { bytes: 1 << 40, lines: 0 });
        State { offset: 77, records: 3, time_us: 5, chain: [9; 32], totals }
    }

    fn encoded(head: &Head) -> Vec<u8> {
        let mut out = Vec::new();
        match head {
            Head::Preface(state) => put_preface(&mut out, state, None),
            Head::Jump(state, gap) => put_preface(&mut out, state, Some(gap)),
            Head::Block(payload, state) => put_block(&mut out, *payload, state, 0..2),
            Head::Index(state, marks) => put_index(&mut out, state, marks),
        }
        out
    }

    fn heads() -> [Head; 4] {
        let payload = Payload { coding: Coding::Zstd, raw: 9, stored: 8, crc: 7 };
        let mark = Mark { offset: 1, position: 2, time_us: 3, counts: vec![Count { bytes: 4, lines: 5 }] };
        let gap = Gap { from: 5, reason: "the disk was full".to_owned() };
        [
            Head::Preface(state()),
            Head::Jump(state(), gap),
            Head::Block(payload, state()),
            Head::Index(state(), vec![mark]),
        ]
    }

    #[test]
    fn every_head_comes_back_as_it_was() {
        for head in heads() {
            let bytes = encoded(&head);
            assert_eq!(head_length(*bytes.first_chunk().unwrap()), Ok(bytes.len()));
            assert_eq!(decode(&bytes), Ok(head));
        }
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_noticed() {
        for head in heads() {
            let bytes = encoded(&head);
            for at in HEAD_PREFIX - 4..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x10;
                assert!(decode(&bad).is_err());
                assert!(decode(&bytes[..at]).is_err());
            }
        }
    }

    #[test]
    fn a_later_version_is_said_to_be_one() {
        let mut bytes = encoded(&heads()[0]);
        bytes[HEAD_PREFIX + 1] = 3;
        let crc = crc32fast::hash(&bytes[HEAD_PREFIX..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&bytes), Err(Bad::Newer(3)));
    }

    #[test]
    fn the_largest_heads_fit() {
        let mut totals = Totals::default();
        for number in 0..crate::totals::CHANNELS_MAX {
            let channel = Channel::new(4, &format!("{number:0255}")).unwrap();
            totals.set(&channel, Count::default()).unwrap();
        }
        let mark = Mark { offset: 0, position: 0, time_us: 0, counts: totals.counts().to_vec() };
        let marks = vec![mark; crate::index::COUNTS_MAX / crate::totals::CHANNELS_MAX];
        let head = Head::Index(State { totals, ..State::default() }, marks);
        let bytes = encoded(&head);
        assert!(bytes.len() <= HEAD_BYTES_MAX, "{}", bytes.len());
        assert_eq!(decode(&bytes), Ok(head));
    }
}
