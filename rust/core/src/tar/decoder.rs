//! Bytes to entries.

use bytes::{Bytes, BytesMut};

use super::pax::Pax;
use super::{
    BLOCK, EXTENSION_BYTES_MAX, Entry, GNU, Kind, OCTAL_END, PATH_BYTES_MAX, TarError, USTAR, checksum, error, field,
    padding,
};

/// What an archive holds, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An entry begins. A file's data follow, exactly as many as its size.
    Entry(Entry),
    /// Data of the last entry, at least one byte.
    Data(Bytes),
}

/// Reads one tar stream. From outside: [`receive_data`](Self::receive_data), [`receive_eof`](Self::receive_eof).
/// Drain after either: [`next_event`](Self::next_event).
#[derive(Debug, Default)]
pub struct Decoder {
    input: BytesMut,
    eof: bool,
    state: State,
    ahead: Ahead,
    failed: Option<TarError>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    /// The body of an extension header.
    Extension { kind: u8, size: usize },
    /// A file's data, and the zeros behind them.
    Data { left: u64, padding: usize },
    /// One of two zero blocks was read.
    HalfEnd,
    /// Only zeros may follow.
    End,
}

/// What extension headers have said of the next entry.
#[derive(Debug, Default)]
struct Ahead {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl Decoder {
    /// One at the beginning of an archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes. Never fails: `next_event` does, in order.
    pub fn receive_data(&mut self, data: &[u8]) {
        if self.failed.is_none() {
            self.input.extend_from_slice(data);
        }
    }

    /// Takes the end of the bytes.
    pub fn receive_eof(&mut self) {
        self.eof = true;
    }

    /// Whether the archive's end was read.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// What comes next; `None`: more bytes are needed, or the archive is over. An error stays.
    pub fn next_event(&mut self) -> Result<Option<Event>, TarError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let event = self.advance();
        if let Err(failed) = &event {
            self.failed = Some(failed.clone());
            self.input = BytesMut::new();
        }
        event
    }

    fn advance(&mut self) -> Result<Option<Event>, TarError> {
        loop {
            let event = match self.state {
                State::Data { left, padding } if left > 0 => self.data(left, padding),
                State::Data { padding, .. } => self.skip_padding(padding)?,
                State::Extension { kind, size } => self.extension(kind, size)?,
                State::Header | State::HalfEnd => self.header()?,
                State::End => self.trailing_zeros()?,
            };
            match event {
                Step::Event(event) => return Ok(Some(event)),
                Step::On => {}
                Step::Short if self.eof && !(self.is_finished() && self.input.is_empty()) => {
                    return error("the archive is cut off");
                }
                Step::Short => return Ok(None),
            }
        }
    }

    fn data(&mut self, left: u64, padding: usize) -> Step {
        if self.input.is_empty() {
            return Step::Short;
        }
        let count = usize::try_from(left).map_or(self.input.len(), |left| left.min(self.input.len()));
        self.state = State::Data { left: left - count as u64, padding };
        Step::Event(Event::Data(self.input.split_to(count).freeze()))
    }

    fn skip_padding(&mut self, padding: usize) -> Result<Step, TarError> {
        if self.input.len() < padding {
            return Ok(Step::Short);
        }
        let _ = self.input.split_to(padding);
        self.state = State::Header;
        Ok(Step::On)
    }

    fn extension(&mut self, kind: u8, size: usize) -> Result<Step, TarError> {
        let padding = padding(size as u64);
        if self.input.len() < size + padding {
            return Ok(Step::Short);
        }
        let body = self.input.split_to(size);
        let _ = self.input.split_to(padding);
        self.state = State::Header;
        match kind {
            b'x' => once(&mut self.ahead.pax, Pax::decode(&body)?)?,
            b'g' => Pax::check_global(&body)?,
            b'L' => once(&mut self.ahead.name, long_name(&body)?)?,
            _ => once(&mut self.ahead.target, long_name(&body)?)?,
        }
        Ok(Step::On)
    }

    fn header(&mut self) -> Result<Step, TarError> {
        let Some((block, _)) = self.input.split_first_chunk::<BLOCK>() else { return Ok(Step::Short) };
        let block = *block;
        let _ = self.input.split_to(BLOCK);
        if block.iter().all(|&byte| byte == 0) {
            if self.ahead.pax.is_some() || self.ahead.name.is_some() || self.ahead.target.is_some() {
                return error("an extension header without an entry");
            }
            self.state = if matches!(self.state, State::HalfEnd) { State::End } else { State::HalfEnd };
            return Ok(Step::On);
        }
        if matches!(self.state, State::HalfEnd) {
            return error("an entry behind a block of zeros");
        }
        let header = Header::decode(&block)?;
        if let b'x' | b'g' | b'L' | b'K' = header.kind {
            let size = usize::try_from(header.size).ok().filter(|&size| size <= EXTENSION_BYTES_MAX);
            let size = size.ok_or_else(|| TarError(format!("an extension header of {} bytes", header.size)))?;
            self.state = State::Extension { kind: header.kind, size };
            return Ok(Step::On);
        }
        let entry = header.entry(std::mem::take(&mut self.ahead))?;
        let size = if let Kind::File(size) = entry.kind { size } else { 0 };
        self.state = State::Data { left: size, padding: padding(size) };
        Ok(Step::Event(Event::Entry(entry)))
    }

    fn trailing_zeros(&mut self) -> Result<Step, TarError> {
        if self.input.iter().any(|&byte| byte != 0) {
            return error("bytes behind the archive's end");
        }
        self.input.clear();
        Ok(Step::Short)
    }
}

enum Step {
    Event(Event),
    On,
    Short,
}

/// One header block.
struct Header {
    path: Vec<u8>,
    mode: u64,
    size: u64,
    mtime: i64,
    kind: u8,
    target: Vec<u8>,
}

impl Header {
    fn decode(block: &[u8; BLOCK]) -> Result<Self, TarError> {
        let at = |place: std::ops::Range<usize>| block.get(place).unwrap_or_default();
        if number(at(field::CHECKSUM)) != Some(checksum(block)) {
            return error("a header with a wrong checksum");
        }
        let magic = at(field::MAGIC);
        if magic != USTAR && magic != GNU {
            return error("a header that is neither ustar nor GNU");
        }
        let mut path = text(at(field::NAME)).to_vec();
        let prefix = text(at(field::PREFIX));
        if magic == USTAR && !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let bad = |what: &str| TarError(format!("a header with a malformed {what}"));
        Ok(Self {
            path,
            mode: number(at(field::MODE)).ok_or_else(|| bad("mode"))?,
            size: number(at(field::SIZE)).ok_or_else(|| bad("size"))?,
            mtime: time(at(field::MTIME)).ok_or_else(|| bad("time"))?,
            kind: at(field::KIND).first().copied().unwrap_or_default(),
            target: text(at(field::TARGET)).to_vec(),
        })
    }

    fn entry(self, ahead: Ahead) -> Result<Entry, TarError> {
        let pax = ahead.pax.unwrap_or_default();
        let path = one_of(pax.path, ahead.name)?.unwrap_or(self.path);
        let target = one_of(pax.target, ahead.target)?.unwrap_or(self.target);
        // Whoever reads only one of two sizes would find other entries.
        let size = match pax.size {
            Some(size) if size != self.size && (size < OCTAL_END || self.size != 0) => {
                return error(format!("an entry that is {} bytes and {size} bytes large", self.size));
            }
            size => size.unwrap_or(self.size),
        };
        let kind = match self.kind {
            b'0' | b'7' | 0 => Kind::File(size),
            b'1' => Kind::Hardlink(target),
            b'2' => Kind::Symlink(target),
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return error(format!("an entry of unknown type {:?}", char::from(other))),
        };
        if size > 0 && !matches!(kind, Kind::File(_)) {
            return error(format!("{size} bytes of data for what is not a file"));
        }
        let path = match kind {
            Kind::Directory => trim_slashes(path),
            _ => path,
        };
        if path.is_empty() {
            return error("an entry without a name");
        }
        let (mtime, mtime_ns) = pax.mtime.unwrap_or((self.mtime, 0));
        Ok(Entry { path, kind, mode: (self.mode & 0o7777) as u32, mtime, mtime_ns })
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), TarError> {
    if slot.replace(value).is_some() { error("two extension headers of one kind for one entry") } else { Ok(()) }
}

fn one_of<T>(pax: Option<T>, gnu: Option<T>) -> Result<Option<T>, TarError> {
    if pax.is_some() && gnu.is_some() {
        return error("an entry that is named in two ways");
    }
    Ok(pax.or(gnu))
}

fn long_name(body: &[u8]) -> Result<Vec<u8>, TarError> {
    let name = body.strip_suffix(b"\0").unwrap_or(body);
    if name.is_empty() || name.len() > PATH_BYTES_MAX || name.contains(&0) {
        return error("a malformed long name");
    }
    Ok(name.to_vec())
}

/// A root's own name stays a slash, so that it is seen to be absolute.
fn trim_slashes(mut path: Vec<u8>) -> Vec<u8> {
    while path.len() > 1 && path.ends_with(b"/") {
        path.pop();
    }
    path
}

/// A field's bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// An octal field, or GNU's binary form of it, as far as it fits 63 bits.
fn number(field: &[u8]) -> Option<u64> {
    u64::try_from(time(field)?).ok()
}

fn time(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    match first {
        0x80 => rest.iter().try_fold(0i64, |sum, &byte| sum.checked_mul(256)?.checked_add(i64::from(byte))),
        0xff => rest.iter().try_fold(-1i64, |sum, &byte| sum.checked_mul(256)?.checked_add(i64::from(byte))),
        _ => {
            let field = field.trim_ascii_start();
            let digits = field.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(field.len());
            let (digits, rest) = field.split_at(digits);
            let blank = rest.iter().all(|&byte| byte == 0 || byte == b' ');
            let digits = std::str::from_utf8(digits).ok().filter(|_| blank)?;
            if digits.is_empty() { Some(0) } else { i64::from_str_radix(digits, 8).ok() }
        }
    }
}
