//! From what was read off a child's pipes to pieces worth a record: by size and by deadline.
//!
//! When nothing but headers was passed on for 20 ms, the first bytes go at once, whole line or not. After that bytes of
//! one channel wait until 20 ms have passed since, or until there are 64 KiB of them; then they go up to their last line
//! end. Only what has no line end in it grows further, to 256 KiB. Bytes of another channel first push out what waits,
//! so that the order in which they were read is kept. A large read that needs not wait is passed on from where it lies.
//!
//! The machine has no clock: `mono_us` comes with each push, and [`Coalescer::deadline`] says when to call
//! [`Coalescer::poll`]. The times of lines are runs, one for each push, and cost a count of newlines.

use crate::channel::{Channel, PerChannel};
use crate::limits::LOG_DATA_BYTES_MAX;
use crate::line::{is_partial, lines_begun};
use crate::record::{Piece, Run};

/// Bytes from which on a piece goes as soon as it has a line end: fewer cost more records, more gain no speed.
pub const PIECE_BYTES: usize = 64 << 10;
/// What waits, waits so long after the last piece, in microseconds: an eye sees nothing of it.
pub const DELAY_US: u64 = 20_000;

/// Takes the pieces in order. What it is given is gone from the coalescer.
pub trait Sink {
    /// One piece, not empty and at most 256 KiB.
    fn piece(&mut self, piece: &Piece<'_>);
}

/// Pieces become encoded records.
impl Sink for Vec<u8> {
    fn piece(&mut self, piece: &Piece<'_>) {
        crate::record::encode_log(piece, self);
    }
}

/// The coalescer of one command.
///
/// Commands: [`push`](Self::push), [`flush`](Self::flush). Drain: [`deadline`](Self::deadline), [`poll`](Self::poll).
#[derive(Debug, Default)]
pub struct Coalescer {
    /// Which channels are inside a line.
    open: PerChannel<bool>,
    waiting: Waiting,
    /// When bytes were passed on last.
    passed_us: Option<u64>,
}

/// The bytes that wait: of one channel, at most 256 KiB.
#[derive(Debug, Default)]
struct Waiting {
    kind: u8,
    name: String,
    continues: bool,
    wall_us: u64,
    mono_us: u64,
    runs: Vec<Run>,
    bytes: Vec<u8>,
    /// How many of the bytes stand before and at the last line end.
    lines_end: usize,
}

impl Coalescer {
    /// One with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was read of `channel` at this time, and passes on what is due. `mono_us` does not go down.
    pub fn push(&mut self, channel: Channel<'_>, data: &[u8], wall_us: u64, mono_us: u64, sink: &mut impl Sink) {
        if !self.waiting.bytes.is_empty() && self.waiting.channel() != channel {
            self.flush(mono_us, sink);
        }
        let idle = self.waiting.bytes.is_empty() && self.passed_us.is_none_or(|passed| mono_us >= passed + DELAY_US);
        let mut data = data;
        while self.waiting.bytes.len() + data.len() >= PIECE_BYTES {
            let room = data.len().min(LOG_DATA_BYTES_MAX - self.waiting.bytes.len());
            let (window, _) = data.split_at(room);
            let cut = match memchr::memrchr(b'\n', window) {
                Some(newline) => newline + 1,
                None if self.waiting.lines_end > 0 => {
                    self.pass_waiting_lines(mono_us, sink);
                    continue;
                }
                None if self.waiting.bytes.len() + room == LOG_DATA_BYTES_MAX => room,
                None => break,
            };
            let (now, later) = data.split_at(cut);
            self.pass(channel, now, wall_us, mono_us, sink);
            data = later;
        }
        if idle && !data.is_empty() {
            self.pass(channel, data, wall_us, mono_us, sink);
        } else if !data.is_empty() {
            self.wait(channel, data, wall_us, mono_us);
        }
        self.poll(mono_us, sink);
    }

    /// What was read of `channel` is dropped: says how many lines began in it. For who has flushed before.
    pub fn skip(&mut self, channel: Channel<'_>, data: &[u8]) -> u64 {
        let lines = lines_begun(data, self.is_open(channel));
        *self.open.entry(channel) = is_partial(data);
        lines
    }

    /// The number of bytes that wait. The next push makes records of at most so many and its own, each of at most 256 KiB.
    pub fn waiting(&self) -> usize {
        self.waiting.bytes.len()
    }

    /// When `poll` has something to do; `None` when nothing waits.
    pub fn deadline(&self) -> Option<u64> {
        if self.waiting.bytes.is_empty() {
            return None;
        }
        // What the last piece left behind, the begin of a line, has waited longer than that piece is away.
        Some(self.passed_us.map_or(0, |passed| passed.min(self.waiting.mono_us) + DELAY_US))
    }

    /// Passes on what waits, if it is time.
    pub fn poll(&mut self, now_us: u64, sink: &mut impl Sink) {
        if self.deadline().is_some_and(|deadline| now_us >= deadline) {
            self.flush(now_us, sink);
        }
    }

    /// Passes on what waits.
    pub fn flush(&mut self, now_us: u64, sink: &mut impl Sink) {
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.bytes.is_empty() {
            self.emit(&waiting, &[], now_us, sink);
        }
        self.waiting = waiting.emptied();
    }

    /// What waits and these bytes become one piece.
    fn pass(&mut self, channel: Channel<'_>, data: &[u8], wall_us: u64, mono_us: u64, sink: &mut impl Sink) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.note(channel, self.is_open(channel), data, wall_us, mono_us);
        self.emit(&waiting, data, mono_us, sink);
        self.waiting = waiting.emptied();
    }

    fn wait(&mut self, channel: Channel<'_>, data: &[u8], wall_us: u64, mono_us: u64) {
        self.waiting.note(channel, self.is_open(channel), data, wall_us, mono_us);
        if let Some(newline) = memchr::memrchr(b'\n', data) {
            self.waiting.lines_end = self.waiting.bytes.len() + newline + 1;
        }
        self.waiting.bytes.extend_from_slice(data);
        *self.open.entry(channel) = is_partial(data);
    }

    /// Passes on the whole lines among what waits. What is left is one line that has begun, or nothing.
    fn pass_waiting_lines(&mut self, now_us: u64, sink: &mut impl Sink) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let rest = waiting.bytes.split_off(waiting.lines_end);
        let mut begun_us = 0;
        if let Some(last) = waiting.runs.last_mut().filter(|_| !rest.is_empty()) {
            begun_us = last.at_us;
            last.lines -= 1;
        }
        waiting.runs.retain(|run| run.lines > 0);
        self.emit(&waiting, &[], now_us, sink);
        if rest.is_empty() {
            self.waiting = waiting.emptied();
        } else {
            self.wait(waiting.channel(), &rest, waiting.wall_us + begun_us, waiting.mono_us + begun_us);
        }
    }

    fn is_open(&self, channel: Channel<'_>) -> bool {
        self.open.get(channel).copied().unwrap_or_default()
    }

    fn emit(&mut self, waiting: &Waiting, data: &[u8], now_us: u64, sink: &mut impl Sink) {
        let piece = Piece {
            channel: waiting.channel(),
            continues: waiting.continues,
            wall_us: waiting.wall_us,
            mono_us: waiting.mono_us,
            runs: &waiting.runs,
            data: [&waiting.bytes, data],
        };
        sink.piece(&piece);
        *self.open.entry(piece.channel) = piece.is_partial();
        // Nobody floods with headers, and what announces a child must not hold its first line back.
        if piece.channel != Channel::Header {
            self.passed_us = Some(now_us);
        }
    }
}

impl Waiting {
    fn channel(&self) -> Channel<'_> {
        Channel::of_kind(self.kind, &self.name).unwrap_or(Channel::Header)
    }

    /// Notes all of `data` but the bytes themselves.
    fn note(&mut self, channel: Channel<'_>, inside_line: bool, data: &[u8], wall_us: u64, mono_us: u64) {
        if self.bytes.is_empty() {
            self.kind = channel.kind();
            self.name.clear();
            self.name.push_str(channel.name().unwrap_or_default());
            (self.continues, self.wall_us, self.mono_us) = (inside_line, wall_us, mono_us);
        }
        let lines = lines_begun(data, inside_line);
        let at_us = mono_us.saturating_sub(self.mono_us);
        match self.runs.last_mut() {
            Some(last) if last.at_us >= at_us => last.lines += lines,
            _ if lines > 0 => self.runs.push(Run { lines, at_us }),
            _ => {}
        }
    }

    /// Empty, with the room kept.
    fn emptied(mut self) -> Self {
        self.bytes.clear();
        self.runs.clear();
        self.lines_end = 0;
        self
    }
}
