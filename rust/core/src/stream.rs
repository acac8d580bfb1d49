//! One stream, seen from its sender ([`SendStream`]) and from its receiver ([`ReceiveStream`]): PROTOCOL.md section 5.
//!
//! A sender's bytes wait in one buffer until credit and turn allow a frame; the frame's payload is then cut off without a copy.
//! Blocks of a file wait as they are, and are not copied at all.
//! A journal waits where it is: a frame's payload is copied out of it when its turn has come.
//! A receiver's bytes are appended to one buffer, so that whole records lie in one piece and are cut off without a copy too.
//! The lengths of records are looked at once as they arrive; nothing else of a record is looked at here.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::frame::StreamRole;
use crate::journal::Source;
use crate::limits::{MESSAGE_BYTES_MAX, RECORD_BYTES_MAX, STREAM_QUEUE_BYTES_MAX};
use crate::window::{ReceiveWindow, SendWindow};

/// Bytes of a record's length prefix.
const PREFIX_BYTES: usize = 4;

/// A buffer is made as large as what was taken from the one before, within these bounds: bytes of a busy stream are
/// appended without growing it, and thousands of silent streams cost little.
const BUFFER_BYTES: (usize, usize) = (1 << 10, 1 << 20);

/// More than that is left over only of a large record: a piece of a log is hardly larger.
const BLOCK_PART_BYTES: usize = 64 << 10;

/// How far a stream has come for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendState {
    /// OPEN waits for credit, or for another stream to end.
    Waiting,
    /// DATA may be sent.
    Open,
    /// END is sent when the queue is empty.
    Ending,
    /// END was sent: the peer's last WINDOW is waited for.
    Ended,
    /// As before, and the peer has said that it does not want it.
    Stopped,
}

/// A stream that we send.
#[derive(Debug)]
pub struct SendStream {
    /// What it carries.
    pub role: StreamRole,
    /// Its name.
    pub name: String,
    /// The call that it carries, if it is a large one.
    pub call: Option<u64>,
    /// What the peer lets us send.
    pub window: SendWindow,
    /// Up to which offset the peer has taken it.
    pub next: u64,
    /// Up to which offset the peer has it safe, as far as it has said so in this session.
    pub durable: u64,
    /// How far it has come.
    pub state: SendState,
    /// Whether it waits for its turn.
    pub in_ring: bool,
    /// Whether it has something to send and no credit for it.
    pub is_held: bool,
    /// Whether END was asked for while OPEN waits.
    pub end_asked: bool,
    /// For how many turns nobody tries to compress it.
    pub turns_unasked: u8,
    /// What goes before `queue`, and how much that is.
    blocks: VecDeque<Bytes>,
    blocks_bytes: usize,
    queue: BytesMut,
    carried: Option<Carried>,
    starved: bool,
}

/// The journal that a stream carries.
struct Carried {
    source: Arc<dyn Source>,
    /// Up to which offset it is to be sent.
    end: u64,
    /// It could not be read.
    is_broken: bool,
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carried(..{})", self.end)
    }
}

impl SendStream {
    /// A stream that continues at `offset`; its first limit is known when OPEN is sent, but is the same for all.
    pub fn new(role: StreamRole, name: String, offset: u64, window: u64) -> Self {
        Self {
            role,
            name,
            call: None,
            window: SendWindow::new(offset, window),
            next: offset,
            durable: 0,
            state: SendState::Waiting,
            in_ring: false,
            is_held: false,
            end_asked: false,
            turns_unasked: 0,
            blocks: VecDeque::new(),
            blocks_bytes: 0,
            queue: BytesMut::new(),
            carried: None,
            starved: false,
        }
    }

    /// Whether bytes may still be appended.
    pub fn is_writable(&self) -> bool {
        matches!(self.state, SendState::Waiting | SendState::Open) && !self.end_asked
    }

    /// How many bytes may be appended now. After 0, `unstarved` tells once when there is room again.
    pub fn room(&mut self) -> usize {
        if !self.is_writable() {
            return 0;
        }
        // Of a journal all is taken: only when that was sent there may be more.
        let max = if self.carried.is_some() && self.queued() > 0 { 0 } else { STREAM_QUEUE_BYTES_MAX };
        let room = max.saturating_sub(self.blocks_bytes + self.queue.len());
        self.starved |= room == 0;
        room
    }

    /// Appends to what is to be sent.
    pub fn push(&mut self, data: &[u8]) {
        if self.queue.capacity() - self.queue.len() < data.len() {
            let wanted = (2 * self.queue.len()).clamp(BUFFER_BYTES.0, STREAM_QUEUE_BYTES_MAX);
            self.queue.reserve(data.len().max(wanted.saturating_sub(self.queue.len())));
        }
        self.queue.extend_from_slice(data);
        self.starved |= self.queued() >= STREAM_QUEUE_BYTES_MAX;
    }

    /// Appends a block, however large it is, without copying it.
    pub fn push_block(&mut self, block: Bytes) {
        let before = std::mem::take(&mut self.queue).freeze();
        for bytes in [before, block].into_iter().filter(|bytes| !bytes.is_empty()) {
            self.blocks_bytes += bytes.len();
            self.blocks.push_back(bytes);
        }
        self.starved |= self.queued() >= STREAM_QUEUE_BYTES_MAX;
    }

    /// Appends what a journal has beyond what was appended before, and says how much that is. While that is sent, what it
    /// grows by follows.
    pub fn carry(&mut self, source: Arc<dyn Source>) -> u64 {
        let is_queued = self.blocks_bytes + self.queue.len() > 0;
        if is_queued || self.carried.as_ref().is_some_and(|carried| carried.is_broken) {
            return 0;
        }
        let before = self.end();
        let end = source.end().max(before);
        self.carried = Some(Carried { source, end, is_broken: false });
        end - before
    }

    /// Whether its bytes come from a journal.
    pub fn carries_journal(&self) -> bool {
        self.carried.is_some()
    }

    /// How many bytes wait.
    pub fn queued(&self) -> usize {
        let queued = self.blocks_bytes + self.queue.len();
        self.carried.as_ref().map_or(queued, |carried| (carried.end - self.window.sent()) as usize)
    }

    /// Up to which offset bytes were appended.
    pub fn end(&self) -> u64 {
        self.window.sent() + self.queued() as u64
    }

    /// Cuts off what goes into the next frame, at most `n` bytes. Credit for it is to be taken; nothing: it is broken.
    pub fn pop(&mut self, n: usize) -> Bytes {
        if let Some(carried) = &mut self.carried {
            let sent = self.window.sent();
            let mut piece = Vec::with_capacity(n);
            carried.source.read(sent, n, &mut |part| piece.extend_from_slice(part));
            if piece.len() < n {
                (carried.is_broken, carried.end) = (true, sent + piece.len() as u64);
            }
            return Bytes::from(piece);
        }
        if let Some(block) = self.blocks.front_mut() {
            let piece = block.split_to(n.min(block.len()));
            if block.is_empty() {
                self.blocks.pop_front();
            }
            self.blocks_bytes -= piece.len();
            return piece;
        }
        if n >= self.queue.len() {
            return std::mem::take(&mut self.queue).freeze();
        }
        self.queue.split_to(n).freeze()
    }

    /// Whether to say that there is room again: after there was none, when half of the queue is free, or when all of a journal
    /// was sent.
    pub fn unstarved(&mut self) -> bool {
        if !self.starved {
            return false;
        }
        let max = if self.carried.is_some() { 0 } else { STREAM_QUEUE_BYTES_MAX / 2 };
        let tell = self.queued() <= max && !self.grow();
        self.starved &= !tell;
        tell
    }

    /// Whether the journal has more than was appended: then it is.
    fn grow(&mut self) -> bool {
        let sent = self.window.sent();
        let Some(carried) = self.carried.as_mut().filter(|carried| !carried.is_broken) else { return false };
        carried.end = carried.end.max(carried.source.end());
        carried.end > sent
    }
}

/// How far a stream has come for its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveState {
    /// More may arrive.
    Open,
    /// END came.
    Ended,
    /// STOP was sent: what arrives is dropped.
    Stopped,
    /// The last WINDOW was sent; our side has yet to see that the stream ended.
    Closed,
}

/// A stream that the peer sends.
#[derive(Debug)]
pub struct ReceiveStream {
    /// What it carries.
    pub role: StreamRole,
    /// Its name.
    pub name: String,
    /// What we let the peer send.
    pub window: ReceiveWindow,
    /// How far it has come.
    pub state: ReceiveState,
    /// What of the window's pool is counted for it.
    pub pooled: u64,
    /// Whether a WINDOW waits to be sent.
    pub window_queued: bool,
    /// Whether our side has seen that it ended.
    pub end_seen: bool,
    /// Whether our side waits for nothing more: it is a message, or was stopped.
    pub abandoned: bool,
    /// Up to which offset our side has taken it.
    taken: u64,
    buffer: BytesMut,
    whole: usize,
    told: bool,
    expected: usize,
}

impl ReceiveStream {
    /// A stream that the peer continues at `offset`.
    pub fn new(role: StreamRole, name: String, offset: u64, floor: u64) -> Self {
        Self {
            role,
            name,
            window: ReceiveWindow::new(offset, floor),
            state: ReceiveState::Open,
            pooled: 0,
            window_queued: false,
            end_seen: false,
            abandoned: role == StreamRole::Message,
            taken: offset,
            buffer: BytesMut::new(),
            whole: 0,
            told: false,
            expected: BUFFER_BYTES.0,
        }
    }

    /// Bytes arrive; credit was checked.
    pub fn push(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        self.place(payload.len()).extend_from_slice(payload);
        self.pushed()
    }

    /// The buffer, with room behind what is in it for `n` bytes that are about to arrive. `pushed` when they have.
    pub fn place(&mut self, n: usize) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < n {
            self.buffer.reserve(n.max(self.expected).max(self.buffer.len()));
        }
        &mut self.buffer
    }

    /// Bytes were appended to the buffer.
    pub fn pushed(&mut self) -> Result<(), ProtocolError> {
        if self.role == StreamRole::Message {
            return self.check_message();
        }
        while let Some(length) = self.record_at(self.whole)? {
            if self.buffer.len() - self.whole < length {
                break;
            }
            self.whole += length;
        }
        Ok(())
    }

    /// END came: nothing may be left over.
    pub fn check_end(&self) -> Result<(), ProtocolError> {
        let over = self.buffer.len() - self.whole;
        if over == 0 || self.role == StreamRole::Message {
            return Ok(());
        }
        Err(ProtocolError::new(6, format!("{} {} ends within a record", self.role.name(), self.name)))
    }

    /// Whether to say that there is something to take, or the end. Once, until `take`.
    pub fn newly_readable(&mut self) -> bool {
        let readable = self.whole > 0 || self.state == ReceiveState::Ended;
        readable && !std::mem::replace(&mut self.told, true)
    }

    /// Cuts off whole records of at most `max` bytes together, or one that is larger, and says where they begin.
    pub fn take(&mut self, max: usize) -> Option<(u64, Bytes)> {
        self.told = false;
        let n = if self.whole <= max { self.whole } else { self.whole_up_to(max) };
        if n == 0 {
            return None;
        }
        let start = self.taken;
        self.taken += n as u64;
        self.whole -= n;
        self.expected = n.clamp(BUFFER_BYTES.0, BUFFER_BYTES.1);
        let rest = self.buffer.len() - n;
        if rest >= n {
            return Some((start, self.buffer.split_to(n).freeze()));
        }
        // The little that is left moves, so that it does not keep a large buffer: a hundred streams would keep one each.
        // Part of a file's block is not little: it moves once, to where as much as before finds room behind it.
        let room = if rest < BLOCK_PART_BYTES { 0 } else { n };
        let mut left = BytesMut::with_capacity(rest + room);
        left.extend_from_slice(self.buffer.get(n..).unwrap_or_default());
        let mut taken = std::mem::replace(&mut self.buffer, left);
        taken.truncate(n);
        Some((start, taken.freeze()))
    }

    /// Everything that a message consists of.
    pub fn take_message(&mut self) -> Bytes {
        std::mem::take(&mut self.buffer).freeze()
    }

    /// Up to which offset our side has taken it.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether no whole record is left to take.
    pub fn is_drained(&self) -> bool {
        self.whole == 0
    }

    /// Whether END came and everything was taken.
    pub fn is_at_end(&self) -> bool {
        matches!(self.state, ReceiveState::Ended | ReceiveState::Closed) && self.whole == 0
    }

    /// Whether END came and everything is durable: the last WINDOW is due.
    pub fn is_finished(&self) -> bool {
        self.state == ReceiveState::Ended && self.window.now().durable == self.window.arrived()
    }

    /// Where the record ends that is not whole yet, if nothing else can move this stream: what came before it is settled.
    pub fn wanted(&self) -> Option<u64> {
        let is_alone = self.whole == 0 && !self.buffer.is_empty() && self.window.now().next == self.taken;
        if !is_alone || self.state != ReceiveState::Open || self.role == StreamRole::Message {
            return None;
        }
        let length = self.record_at(0).ok().flatten().unwrap_or(PREFIX_BYTES);
        Some(self.taken + length as u64)
    }

    /// Forgets what was not taken.
    pub fn clear(&mut self) {
        self.buffer = BytesMut::new();
        self.whole = 0;
    }

    fn check_message(&self) -> Result<(), ProtocolError> {
        let length = self.buffer.len();
        if length <= 1 + MESSAGE_BYTES_MAX {
            return Ok(());
        }
        Err(ProtocolError::new(4, format!("a message of more than {MESSAGE_BYTES_MAX} bytes")))
    }

    fn whole_up_to(&self, max: usize) -> usize {
        let mut n = 0;
        while let Ok(Some(length)) = self.record_at(n) {
            if n + length > max.max(if n == 0 { length } else { 0 }) {
                break;
            }
            n += length;
        }
        n.min(self.whole)
    }

    /// The length of the record at `place`, its prefix included, if the prefix is there.
    fn record_at(&self, place: usize) -> Result<Option<usize>, ProtocolError> {
        let Some(&prefix) = self.buffer.get(place..).and_then(|rest| rest.first_chunk::<PREFIX_BYTES>()) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(prefix) as usize;
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(ProtocolError::new(
                6,
                format!("a record of {length} bytes in {} {}", self.role.name(), self.name),
            ));
        }
        Ok(Some(PREFIX_BYTES + length))
    }
}
