//! The streams that the peer sends (PROTOCOL.md section 5, from the receiver's side).
//!
//! A stream is here from its OPEN until both the wire is done with it (the last WINDOW was sent, or RESET came) and our side
//! has seen its end. Memory is bounded by the connection's window, by what is lent to large records, and by one large
//! message at a time: only the oldest message is taken as it arrives, later ones wait in their floors.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::error::{ProtocolError, UsageError};
use crate::event::Event;
use crate::frame::{Frame, StreamRole};
use crate::login::Role;
use crate::stream::{ReceiveState, ReceiveStream};
use crate::window::{self, ConnectionWindow, Pool};

/// How many streams are remembered as ended after they were forgotten otherwise.
const ENDED_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Incoming {
    peer: Role,
    streams: HashMap<u64, ReceiveStream>,
    /// How many streams the wire is not done with.
    open: usize,
    /// Their names, those of messages excepted.
    names: HashSet<(StreamRole, String)>,
    highest: u64,
    /// The stream that brought something last.
    latest: u64,
    streams_max: usize,
    floor: u64,
    stream_window: u64,
    connection: ConnectionWindow,
    pool: Pool,
    /// Streams with a WINDOW to send.
    windows: VecDeque<u64>,
    /// One of them cannot wait.
    is_urgent: bool,
    /// Streams that wait for a loan.
    borrowers: VecDeque<u64>,
    messages: VecDeque<u64>,
    ended: VecDeque<u64>,
}

impl Incoming {
    pub(super) fn new(peer: Role, stream_window: u64, connection_window: u64, streams_max: u64) -> Self {
        Self {
            peer,
            streams: HashMap::new(),
            open: 0,
            names: HashSet::new(),
            highest: 0,
            latest: 0,
            streams_max: usize::try_from(streams_max).unwrap_or(usize::MAX),
            floor: window::floor(stream_window, connection_window),
            stream_window,
            connection: ConnectionWindow::new(connection_window),
            pool: Pool::new(connection_window),
            windows: VecDeque::new(),
            is_urgent: false,
            borrowers: VecDeque::new(),
            messages: VecDeque::new(),
            ended: VecDeque::new(),
        }
    }

    // From the peer.

    pub(super) fn opened(
        &mut self,
        stream: u64,
        role: StreamRole,
        name: &str,
        offset: u64,
    ) -> Result<Option<Event>, ProtocolError> {
        self.connection.arrive_open()?;
        if !may_open(self.peer, role) || stream % 2 != parity(self.peer) || stream <= self.highest {
            let what = format!("{} {name:?} cannot be stream {stream} after {} here", role.name(), self.highest);
            return Err(ProtocolError::new(5, what));
        }
        if self.open >= self.streams_max {
            return Err(ProtocolError::new(5, format!("more than {} streams", self.streams_max)));
        }
        if role != StreamRole::Message && !self.names.insert((role, name.to_owned())) {
            return Err(ProtocolError::new(5, format!("{} {name:?} is open already", role.name())));
        }
        self.open += 1;
        self.highest = stream;
        self.streams.insert(stream, ReceiveStream::new(role, name.to_owned(), offset, self.floor));
        if role == StreamRole::Message {
            self.messages.push_back(stream);
            return Ok(None);
        }
        Ok(Some(Event::StreamOpened { stream, role, name: name.to_owned(), offset }))
    }

    /// A payload or a piece of one. What is right in it has arrived, and is told, before the first wrong byte is an error:
    /// the same bytes mean the same, however they are cut.
    pub(super) fn data(
        &mut self,
        stream: u64,
        offset: u64,
        payload: &[u8],
        events: &mut VecDeque<Event>,
    ) -> Result<(), ProtocolError> {
        let room = self.connection.available();
        let Some(state) = self.given_out(stream)? else {
            self.connection.arrive(payload.len() as u64)?;
            self.connection.give_back(payload.len() as u64);
            return Ok(());
        };
        let arrived = state.window.arrived();
        if state.state == ReceiveState::Ended || offset != arrived {
            return Err(ProtocolError::new(5, format!("DATA at {offset} of stream {stream}, which is at {arrived}")));
        }
        let allowed = payload.get(..room.min(state.window.available()) as usize).unwrap_or(payload);
        let is_dropped = state.state == ReceiveState::Stopped;
        self.arrive(
            stream,
            allowed.len() as u64,
            events,
            |state| {
                if is_dropped { Ok(()) } else { state.push(allowed) }
            },
        )?;
        if allowed.len() < payload.len() {
            return Err(ProtocolError::new(
                5,
                format!("DATA beyond the limit of stream {stream} or of the connection"),
            ));
        }
        if is_dropped || self.messages.front() == Some(&stream) {
            self.settle_all(stream);
        }
        self.refresh(stream);
        Ok(())
    }

    /// Where the next `n` bytes of a stream may be put at once, as they arrive: its buffer, with room for them. `None`:
    /// there is something about them that `data` has to see to. `placed` when some of them have arrived.
    pub(super) fn place(&mut self, stream: u64, offset: u64, n: usize) -> Option<&mut BytesMut> {
        let room = self.connection.available();
        let state = self.streams.get_mut(&stream)?;
        let is_plain = state.state == ReceiveState::Open && state.role != StreamRole::Message;
        let is_allowed = offset == state.window.arrived() && n as u64 <= room.min(state.window.available());
        (is_plain && is_allowed).then(|| state.place(n))
    }

    /// So many bytes were put into the buffer of a stream.
    pub(super) fn placed(&mut self, stream: u64, n: u64, events: &mut VecDeque<Event>) -> Result<(), ProtocolError> {
        self.arrive(stream, n, events, ReceiveStream::pushed)?;
        self.refresh(stream);
        Ok(())
    }

    /// END came. A message is complete then.
    pub(super) fn end(&mut self, stream: u64, offset: u64) -> Result<(Option<Event>, Option<Bytes>), ProtocolError> {
        let Some(state) = self.given_out(stream)? else { return Ok((None, None)) };
        if state.state == ReceiveState::Ended || offset != state.window.arrived() {
            return Err(ProtocolError::new(
                5,
                format!("END at {offset} of stream {stream}, which is at {}", state.window.arrived()),
            ));
        }
        let is_message = state.role == StreamRole::Message;
        state.check_end()?;
        state.state = ReceiveState::Ended;
        let lent = state.window.finish();
        let message = is_message.then(|| state.take_message());
        let readable = !state.abandoned && state.newly_readable();
        self.connection.take_back(lent);
        if is_message {
            self.settle_all(stream);
            self.message_is_over(stream);
        }
        self.refresh(stream);
        self.lend_again();
        Ok((readable.then_some(Event::StreamReadable { stream }), message))
    }

    pub(super) fn reset(&mut self, stream: u64, offset: u64, reason: &str) -> Result<Option<Event>, ProtocolError> {
        let Some(state) = self.given_out(stream)? else { return Ok(None) };
        if offset != state.window.arrived() {
            return Err(ProtocolError::new(
                5,
                format!("RESET at {offset} of stream {stream}, which is at {}", state.window.arrived()),
            ));
        }
        let silent = state.abandoned;
        self.remove(stream);
        self.lend_again();
        Ok((!silent).then(|| Event::StreamReset { stream, reason: reason.to_owned() }))
    }

    // Commands. Streams that are over are no error: the peer may have ended them a moment ago.

    pub(super) fn take(&mut self, stream: u64, max: usize) -> Result<Option<(u64, Bytes)>, UsageError> {
        Ok(self.known(stream)?.and_then(|state| state.take(max)))
    }

    pub(super) fn settle(&mut self, stream: u64, next: u64, durable: u64) -> Result<(), UsageError> {
        let Some(state) = self.known(stream)? else { return Ok(()) };
        if matches!(state.state, ReceiveState::Stopped | ReceiveState::Closed) {
            return Ok(());
        }
        let taken = state.taken();
        let settled = state.window.settle(next, durable, taken)?;
        self.connection.give_back(settled);
        self.refresh(stream);
        self.lend_again();
        Ok(())
    }

    /// Whether STOP has to be sent.
    pub(super) fn stop(&mut self, stream: u64) -> Result<bool, UsageError> {
        let Some(state) = self.known(stream)? else { return Ok(false) };
        let was = state.state;
        if matches!(was, ReceiveState::Stopped | ReceiveState::Closed) || state.is_finished() {
            return Ok(false);
        }
        state.clear();
        state.abandoned = true;
        if was == ReceiveState::Open {
            state.state = ReceiveState::Stopped;
            let (pooled, lent) = (std::mem::take(&mut state.pooled), state.window.finish());
            self.pool.replace(pooled, 0);
            self.connection.take_back(lent);
        }
        self.settle_all(stream);
        self.refresh(stream);
        self.lend_again();
        Ok(true)
    }

    pub(super) fn is_ended(&mut self, stream: u64) -> Result<bool, UsageError> {
        let Some(state) = self.known(stream)? else { return Ok(self.ended.contains(&stream)) };
        if !state.is_at_end() {
            return Ok(false);
        }
        state.end_seen = true;
        if state.state == ReceiveState::Closed {
            self.forget(stream);
        }
        Ok(true)
    }

    // Drains.

    /// The next WINDOW that is due.
    pub(super) fn next_window(&mut self) -> Option<Frame<'static>> {
        while let Some(stream) = self.windows.pop_front() {
            let Some(state) = self.streams.get_mut(&stream) else { continue };
            state.window_queued = false;
            let told = state.window.tell();
            if state.state == ReceiveState::Ended && told.durable == state.window.arrived() {
                state.state = ReceiveState::Closed;
                let is_forgotten = state.end_seen || state.abandoned;
                self.names.remove(&(state.role, std::mem::take(&mut state.name)));
                self.open -= 1;
                if is_forgotten {
                    self.forget(stream);
                }
            }
            return Some(Frame::Window { stream, next: told.next, durable: told.durable, limit: told.limit });
        }
        self.is_urgent = false;
        None
    }

    /// The CREDIT that is due.
    pub(super) fn next_credit(&mut self) -> Option<Frame<'static>> {
        let limit = self.connection.due()?;
        self.connection.tell(limit);
        Some(Frame::Credit { limit })
    }

    /// Whether a WINDOW or a CREDIT is due that cannot wait until something else is sent.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_urgent || self.connection.due().is_some()
    }

    /// The sums are what they are sums of. Called where anything may have changed; costs nothing in release builds.
    pub(super) fn assert_invariants(&self) {
        if cfg!(debug_assertions) {
            let sum = |part: fn(&ReceiveStream) -> u64| self.streams.values().map(part).sum::<u64>();
            assert_eq!(self.pool.held(), sum(|state| state.pooled), "what streams hold of the pool");
            assert_eq!(self.connection.lent(), sum(|state| state.window.lent()), "what was lent to streams");
            assert_eq!(
                self.connection.unsettled(),
                sum(|state| state.window.unsettled()),
                "what streams have not settled"
            );
            let closed = self.streams.values().filter(|state| state.state == ReceiveState::Closed).count();
            assert_eq!(self.open + closed, self.streams.len(), "open streams");
        }
    }

    /// How many bytes the stream that brought something last may still bring.
    pub(super) fn may_come(&self) -> u64 {
        let available = self.streams.get(&self.latest).map_or(0, |state| state.window.available());
        available.min(self.connection.available())
    }

    /// Bytes that came and were not settled.
    pub(super) fn unsettled(&self) -> u64 {
        self.connection.unsettled()
    }

    /// Streams that the wire is not done with.
    pub(super) fn count(&self) -> usize {
        self.open
    }

    // Private.

    /// The stream of this number; `None` if it is over.
    fn given_out(&mut self, stream: u64) -> Result<Option<&mut ReceiveStream>, ProtocolError> {
        if stream % 2 != parity(self.peer) || stream > self.highest {
            return Err(ProtocolError::new(5, format!("stream {stream} was never opened")));
        }
        Ok(self.streams.get_mut(&stream).filter(|state| state.state != ReceiveState::Closed))
    }

    /// `n` bytes have arrived, for which there is credit, and are pushed.
    fn arrive(
        &mut self,
        stream: u64,
        n: u64,
        events: &mut VecDeque<Event>,
        push: impl FnOnce(&mut ReceiveStream) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let Some(state) = self.streams.get_mut(&stream) else { return Ok(()) };
        self.latest = stream;
        state.window.arrive(n)?;
        let pushed = push(state);
        if !state.abandoned && state.newly_readable() {
            events.push_back(Event::StreamReadable { stream });
        }
        self.connection.arrive(n)?;
        pushed
    }

    fn known(&mut self, stream: u64) -> Result<Option<&mut ReceiveStream>, UsageError> {
        if stream % 2 != parity(self.peer) || stream > self.highest {
            return Err(UsageError(format!("stream {stream} was never opened by the peer")));
        }
        Ok(self.streams.get_mut(&stream).filter(|state| state.role != StreamRole::Message))
    }

    /// Everything that has arrived counts as taken: it was dropped, or joins a message.
    fn settle_all(&mut self, stream: u64) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let arrived = state.window.arrived();
        self.connection.give_back(state.window.settle(arrived, arrived, arrived).unwrap_or(0));
    }

    /// Grants and lends what can be, and sees to it that the peer is told what is due.
    fn refresh(&mut self, stream: u64) {
        let Some(state) = self.streams.get_mut(&stream).filter(|state| state.state != ReceiveState::Stopped) else {
            return;
        };
        let size = state.window.size(self.floor, self.stream_window, &self.pool);
        self.connection.take_back(state.window.repay(size));
        state.window.grant(size);
        if let Some(end) = state.wanted()
            && state.window.missing(end) > 0
        {
            if self.connection.lend(state.window.missing(end)) {
                state.window.lend(end);
            } else if !self.borrowers.contains(&stream) {
                self.borrowers.push_back(stream);
            }
        }
        let pooled = state.window.pooled(self.floor);
        self.pool.replace(std::mem::replace(&mut state.pooled, pooled), pooled);
        if (state.is_finished() || state.window.is_due(state.is_drained()))
            && !std::mem::replace(&mut state.window_queued, true)
        {
            self.windows.push_back(stream);
        }
        self.is_urgent |= state.window_queued && (state.is_finished() || !state.window.can_wait());
    }

    /// Something was given back: those who wait ask again, in their order.
    fn lend_again(&mut self) {
        for stream in std::mem::take(&mut self.borrowers) {
            self.refresh(stream);
        }
    }

    fn message_is_over(&mut self, stream: u64) {
        self.messages.retain(|&message| message != stream);
        if let Some(&oldest) = self.messages.front() {
            self.settle_all(oldest);
            self.refresh(oldest);
        }
    }

    /// The wire is done with it without a last WINDOW.
    fn remove(&mut self, stream: u64) {
        let Some(mut state) = self.streams.remove(&stream) else { return };
        self.connection.give_back(state.window.unsettled());
        self.connection.take_back(state.window.finish());
        self.pool.replace(state.pooled, 0);
        self.open -= 1;
        self.names.remove(&(state.role, state.name));
        if state.role == StreamRole::Message {
            self.message_is_over(stream);
        }
    }

    fn forget(&mut self, stream: u64) {
        let Some(state) = self.streams.remove(&stream) else { return };
        self.pool.replace(state.pooled, 0);
        if !state.end_seen {
            return;
        }
        self.ended.push_back(stream);
        if self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }
}

/// Whether `role` of the two parties may send streams of this role.
pub(super) fn may_open(sender: Role, role: StreamRole) -> bool {
    match role {
        StreamRole::Journal | StreamRole::Upload => sender == Role::Worker,
        StreamRole::Download => sender == Role::Master,
        StreamRole::Message => true,
    }
}

/// What the numbers of a party's streams leave, divided by two.
pub(super) fn parity(sender: Role) -> u64 {
    match sender {
        Role::Worker => 1,
        Role::Master => 0,
    }
}
