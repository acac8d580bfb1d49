//! The streams that we send (PROTOCOL.md section 5, from the sender's side).
//!
//! Streams with something to send and credit for it stand in a ring. A turn is one frame of at most 64 KiB, header included;
//! that is deficit round robin with a quantum of 64 KiB, of which nothing is ever left over, because a payload can be cut
//! anywhere.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::incoming::{may_open, parity};
use super::outbox::Outbox;
use crate::compression::{BYTES_MIN, compress};
use crate::error::{ProtocolError, UsageError};
use crate::event::Event;
use crate::frame::{self, Frame, HEADER_BYTES, StreamRole, ZDATA_HEADER_BYTES_MAX};
use crate::journal::Source;
use crate::limits::{OPEN_COST, QUANTUM_BYTES, STR_BYTES_MAX};
use crate::login::Role;
use crate::stream::{SendState, SendStream};
use crate::varint;
use crate::window::SendWindow;

/// What a STOP has stopped.
pub(super) enum Stopped {
    /// Nothing that anybody waits for.
    Nothing,
    Stream(Event),
    /// A call that was too large for the peer.
    Call(u64),
}

/// A stream of which something could not be made smaller is not asked again for so many turns.
const TURNS_UNASKED: u8 = 15;

/// What is left of a stream that was reset before its OPEN was sent.
#[derive(Debug)]
struct GivenUp {
    role: StreamRole,
    name: String,
    offset: u64,
    reason: String,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    our: Role,
    streams: HashMap<u64, SendStream>,
    names: HashSet<(StreamRole, String)>,
    next: u64,
    /// The highest number whose OPEN was sent.
    highest: u64,
    /// Streams whose OPEN was sent and that are not over.
    open: usize,
    streams_max: usize,
    stream_window: u64,
    connection: SendWindow,
    waiting: VecDeque<u64>,
    /// Streams that were reset while they waited: the peer may wait for them, so that it hears of both at once.
    given_up: HashMap<u64, GivenUp>,
    ring: VecDeque<u64>,
    /// How many streams have something to send and no credit of their own for it.
    held: usize,
    /// Bytes that would have been staged so far beyond those that were, without compression.
    saved: u64,
    /// The peer can take compressed bytes now.
    is_welcome: bool,
    /// The level at which so many bytes more go compressed.
    level: i32,
    level_bytes: u64,
}

impl GivenUp {
    fn frames(&self, stream: u64) -> Vec<u8> {
        let open = Frame::Open { stream, role: self.role, name: &self.name, offset: self.offset };
        let reset = Frame::Reset { stream, offset: self.offset, reason: &self.reason };
        let mut bytes = Vec::new();
        let encoded = open.encode(&mut bytes).and_then(|()| reset.encode(&mut bytes));
        debug_assert!(encoded.is_ok());
        bytes
    }
}

impl Outgoing {
    pub(super) fn new(our: Role) -> Self {
        Self {
            our,
            streams: HashMap::new(),
            names: HashSet::new(),
            next: 2 - parity(our),
            highest: 0,
            open: 0,
            streams_max: 0,
            stream_window: 0,
            connection: SendWindow::new(0, 0),
            waiting: VecDeque::new(),
            given_up: HashMap::new(),
            ring: VecDeque::new(),
            held: 0,
            saved: 0,
            is_welcome: false,
            level: 0,
            level_bytes: 0,
        }
    }

    /// What the peer's hello promises.
    pub(super) fn begin(&mut self, stream_window: u64, connection_window: u64, streams_max: u64) {
        self.stream_window = stream_window;
        self.connection = SendWindow::new(0, connection_window);
        self.streams_max = usize::try_from(streams_max).unwrap_or(usize::MAX);
    }

    // Commands.

    pub(super) fn open(&mut self, role: StreamRole, name: &str, offset: u64) -> Result<u64, UsageError> {
        if !may_open(self.our, role) {
            return Err(UsageError(format!("a {:?} sends no {}", self.our, role.name()).to_lowercase()));
        }
        if name.len() > STR_BYTES_MAX || offset > varint::MAX {
            return Err(UsageError(format!("a stream with a name of {} bytes at {offset}", name.len())));
        }
        if !self.names.insert((role, name.to_owned())) {
            return Err(UsageError(format!("{} {name:?} is open already", role.name())));
        }
        let stream = self.next;
        self.next += 2;
        self.streams.insert(stream, SendStream::new(role, name.to_owned(), offset, self.stream_window));
        self.waiting.push_back(stream);
        Ok(stream)
    }

    /// A large message as a stream of its own; `call` if it is a call of ours.
    pub(super) fn send_message(&mut self, call: Option<u64>, message: &[u8]) -> Result<(), UsageError> {
        let stream = self.open(StreamRole::Message, &self.next.to_string(), 0)?;
        if let Some(state) = self.streams.get_mut(&stream) {
            state.call = call;
            state.push(message);
            state.end_asked = true;
        }
        Ok(())
    }

    pub(super) fn room(&mut self, stream: u64) -> Result<usize, UsageError> {
        Ok(self.known(stream)?.map_or(0, SendStream::room))
    }

    pub(super) fn write(&mut self, stream: u64, data: &[u8]) -> Result<(), UsageError> {
        let (state, room) = self.with_room(stream)?;
        if data.len() > room {
            return Err(UsageError(format!("{} bytes for stream {stream}, which has room for {room}", data.len())));
        }
        state.push(data);
        self.queue_up(stream);
        Ok(())
    }

    pub(super) fn write_block(&mut self, stream: u64, block: Bytes) -> Result<(), UsageError> {
        let (state, room) = self.with_room(stream)?;
        if room == 0 {
            return Err(UsageError(format!("a block for stream {stream}, which has no room")));
        }
        state.push_block(block);
        self.queue_up(stream);
        Ok(())
    }

    pub(super) fn write_journal(&mut self, stream: u64, source: Arc<dyn Source>) -> Result<u64, UsageError> {
        let state = self.writable(stream)?;
        let (end, begin) = (state.end(), source.begin());
        if end < begin {
            return Err(UsageError(format!("stream {stream} is at {end}, and its journal begins at {begin}")));
        }
        let moved = state.carry(source);
        self.queue_up(stream);
        Ok(moved)
    }

    pub(super) fn sent(&mut self, stream: u64) -> Result<u64, UsageError> {
        let state = self.known(stream)?.ok_or_else(|| UsageError(format!("stream {stream} is over")))?;
        Ok(state.end())
    }

    pub(super) fn end(&mut self, stream: u64, outbox: &mut Outbox) -> Result<(), UsageError> {
        let state = self.writable(stream)?;
        if state.state == SendState::Waiting {
            state.end_asked = true;
            return Ok(());
        }
        state.state = SendState::Ending;
        self.end_if_empty(stream).map_or(Ok(()), |frame| outbox.push_frame(&frame))
    }

    /// What was not sent yet is dropped. A stream that is over stays so.
    pub(super) fn reset(&mut self, stream: u64, reason: &str, outbox: &mut Outbox) -> Result<(), UsageError> {
        let Some(state) = self.known(stream)? else { return Ok(()) };
        let offset = state.window.sent();
        if state.state == SendState::Waiting {
            let given_up = GivenUp { role: state.role, name: state.name.clone(), offset, reason: reason.to_owned() };
            self.given_up.insert(stream, given_up);
            self.remove(stream);
            return Ok(());
        }
        self.remove(stream);
        outbox.push_frame(&Frame::Reset { stream, offset, reason })
    }

    /// The next `bytes` of streams go compressed, if the peer can take that.
    pub(super) fn compress(&mut self, level: i32, bytes: u64) {
        (self.level, self.level_bytes) = (level, bytes);
    }

    // From the peer.

    /// COMPRESS came.
    pub(super) fn welcomed(&mut self, welcome: bool) {
        self.is_welcome = welcome;
    }

    pub(super) fn windowed(
        &mut self,
        stream: u64,
        next: u64,
        durable: u64,
        limit: u64,
    ) -> Result<Option<Event>, ProtocolError> {
        let Some(state) = self.given_out(stream)? else { return Ok(None) };
        let ordered = durable <= next && next <= limit && next <= state.window.sent();
        if !ordered || next < state.next || durable < state.durable || !state.window.raise(limit) {
            return Err(ProtocolError::new(
                5,
                format!(
                    "a WINDOW of {next}, {durable}, {limit} for stream {stream}, which is at {}",
                    state.window.sent()
                ),
            ));
        }
        let moved = (next, durable) != (state.next, state.durable);
        (state.next, state.durable) = (next, durable);
        let is_ended = matches!(state.state, SendState::Ended | SendState::Stopped);
        let done = is_ended && durable == state.window.sent();
        let silent = state.state == SendState::Stopped || state.role == StreamRole::Message || !(moved || done);
        if done {
            self.remove(stream);
        }
        self.queue_up(stream);
        Ok((!silent).then_some(Event::StreamProgress { stream, next, durable, done }))
    }

    pub(super) fn credited(&mut self, limit: u64) {
        // The largest counts (section 5): an old one is no error.
        let _ = self.connection.raise(limit);
    }

    /// STOP came. Answered with RESET, unless END was sent.
    pub(super) fn stopped(&mut self, stream: u64, reason: &str, outbox: &mut Outbox) -> Result<Stopped, ProtocolError> {
        let Some(state) = self.given_out(stream)? else { return Ok(Stopped::Nothing) };
        let told = match (state.state, state.role, state.call) {
            (SendState::Stopped, ..) | (_, StreamRole::Message, None) => Stopped::Nothing,
            (_, StreamRole::Message, Some(call)) => Stopped::Call(call),
            _ => Stopped::Stream(Event::StreamStopped { stream, reason: reason.to_owned() }),
        };
        if matches!(state.state, SendState::Ended | SendState::Stopped) {
            state.state = SendState::Stopped;
        } else {
            let offset = state.window.sent();
            self.remove(stream);
            let reset = Frame::Reset { stream, offset, reason: "stopped" };
            outbox.push_frame(&reset).map_err(|error| ProtocolError::new(5, error.0))?;
        }
        Ok(told)
    }

    // Drains.

    /// The next OPEN that can be sent.
    pub(super) fn next_open(&mut self) -> Option<Vec<u8>> {
        loop {
            let &stream = self.waiting.front()?;
            let is_there = self.streams.contains_key(&stream) || self.given_up.contains_key(&stream);
            if is_there && (self.open >= self.streams_max || !self.connection.take(OPEN_COST)) {
                return None;
            }
            self.waiting.pop_front();
            if let Some(given_up) = self.given_up.remove(&stream) {
                self.highest = stream;
                return Some(given_up.frames(stream));
            }
            let Some(state) = self.streams.get_mut(&stream) else { continue };
            self.open += 1;
            self.highest = stream;
            state.state = if state.end_asked { SendState::Ending } else { SendState::Open };
            let open = Frame::Open { stream, role: state.role, name: &state.name, offset: state.window.sent() };
            let mut bytes = Vec::new();
            let encoded = open.encode(&mut bytes);
            debug_assert!(encoded.is_ok());
            if let Some(end) = self.end_if_empty(stream) {
                let encoded = end.encode(&mut bytes);
                debug_assert!(encoded.is_ok());
            }
            self.queue_up(stream);
            return Some(bytes);
        }
    }

    /// Stages the next turn: a header and a payload, and END if that was the last of it. False: nothing can be sent.
    pub(super) fn stage_data(&mut self, outbox: &mut Outbox, events: &mut VecDeque<Event>) -> bool {
        while let Some(&stream) = self.ring.front() {
            let Some(state) = self.streams.get_mut(&stream) else {
                self.ring.pop_front();
                continue;
            };
            let credit = state.window.available().min(self.connection.available());
            let header = HEADER_BYTES + varint::len(stream) + varint::len(state.window.sent());
            let length = (state.queued() as u64).min(credit).min((QUANTUM_BYTES - header) as u64);
            if length == 0 {
                if state.queued() > 0 && state.window.available() > 0 {
                    return false; // the connection's credit is used up, for all
                }
                state.in_ring = false;
                self.ring.pop_front();
                self.queue_up(stream);
                continue;
            }
            let offset = state.window.sent();
            let payload = state.pop(length as usize);
            let length = payload.len();
            if !(state.window.take(length as u64) && self.connection.take(length as u64)) {
                return false;
            }
            let level = (self.is_welcome && self.level_bytes > 0).then_some(self.level);
            self.level_bytes = self.level_bytes.saturating_sub(length as u64);
            if let Some(level) = level
                && let Some(frame) = zdata(level, stream, offset, &payload, &mut state.turns_unasked)
            {
                self.saved += (length - frame.len().min(length)) as u64;
                outbox.stage(frame);
            } else if length > 0 {
                outbox.stage(Bytes::from(frame::data_header(stream, offset, length)));
                outbox.stage(payload);
            }
            if state.is_writable() && state.unstarved() {
                events.push_back(Event::StreamWritable { stream });
            }
            self.ring.rotate_left(1);
            if let Some(end) = self.end_if_empty(stream) {
                let mut bytes = Vec::new();
                let encoded = end.encode(&mut bytes);
                debug_assert!(encoded.is_ok());
                outbox.stage(Bytes::from(bytes));
            }
            return true;
        }
        false
    }

    /// What compression has saved so far.
    pub(super) fn saved(&self) -> u64 {
        self.saved
    }

    /// Bytes that wait.
    pub(super) fn queued(&self) -> usize {
        self.streams.values().map(SendStream::queued).sum()
    }

    /// Whether there is something to send that waits for credit, its stream's or the connection's.
    pub(super) fn is_held(&self) -> bool {
        self.held > 0 || (!self.ring.is_empty() && self.connection.available() == 0)
    }

    /// Whether a stream has something to send, credit or not.
    pub(super) fn is_urgent(&self) -> bool {
        !self.waiting.is_empty() || !self.ring.is_empty()
    }

    /// Streams that are not over.
    pub(super) fn count(&self) -> usize {
        self.streams.len()
    }

    // Private.

    /// END, if it was asked for and everything before it was sent.
    fn end_if_empty(&mut self, stream: u64) -> Option<Frame<'static>> {
        let state = self.streams.get_mut(&stream)?;
        if state.state != SendState::Ending || state.queued() > 0 {
            return None;
        }
        state.state = SendState::Ended;
        Some(Frame::End { stream, offset: state.window.sent() })
    }

    /// Whether it waits for its turn, or for credit, or for nothing.
    fn queue_up(&mut self, stream: u64) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let waits = state.queued() > 0 && state.state != SendState::Waiting;
        let is_held = waits && state.window.available() == 0;
        if is_held != std::mem::replace(&mut state.is_held, is_held) {
            self.held = if is_held { self.held + 1 } else { self.held - 1 };
        }
        if waits && !is_held && !std::mem::replace(&mut state.in_ring, true) {
            self.ring.push_back(stream);
        }
    }

    fn remove(&mut self, stream: u64) {
        let Some(state) = self.streams.remove(&stream) else { return };
        if state.state != SendState::Waiting {
            self.open -= 1;
        }
        self.held -= usize::from(state.is_held);
        self.names.remove(&(state.role, state.name));
    }

    /// The stream of this number; `None` if it is over.
    fn known(&mut self, stream: u64) -> Result<Option<&mut SendStream>, UsageError> {
        if stream % 2 != parity(self.our) || stream >= self.next {
            return Err(UsageError(format!("stream {stream} was never opened by this side")));
        }
        Ok(self.streams.get_mut(&stream))
    }

    fn writable(&mut self, stream: u64) -> Result<&mut SendStream, UsageError> {
        let state = self.known(stream)?.filter(|state| state.is_writable());
        state.ok_or_else(|| UsageError(format!("stream {stream} was ended, reset or stopped")))
    }

    /// A stream to append to, and how much it has room for.
    fn with_room(&mut self, stream: u64) -> Result<(&mut SendStream, usize), UsageError> {
        let state = self.writable(stream)?;
        if state.carries_journal() {
            return Err(UsageError(format!("stream {stream} carries a journal")));
        }
        let room = state.room();
        Ok((state, room))
    }

    fn given_out(&mut self, stream: u64) -> Result<Option<&mut SendStream>, ProtocolError> {
        if stream % 2 != parity(self.our) || stream > self.highest {
            return Err(ProtocolError::new(5, format!("stream {stream} was never opened by this side")));
        }
        Ok(self.streams.get_mut(&stream))
    }
}

/// The payload's frame, if compression makes it smaller: `unasked` is for how many turns more nobody tries.
fn zdata(level: i32, stream: u64, offset: u64, payload: &[u8], unasked: &mut u8) -> Option<Bytes> {
    if *unasked > 0 || payload.len() < BYTES_MIN {
        *unasked = unasked.saturating_sub(1);
        return None;
    }
    let frame = compress(level, payload, |compressed| {
        let frame = Frame::ZData { stream, offset, length: payload.len() as u64, compressed };
        let mut bytes = Vec::with_capacity(ZDATA_HEADER_BYTES_MAX + compressed.len());
        frame.encode(&mut bytes).ok().map(|()| Bytes::from(bytes))
    });
    if frame.is_none() {
        *unasked = TURNS_UNASKED;
    }
    frame.flatten()
}
