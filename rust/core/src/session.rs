//! One session of the wire, for either role: PROTOCOL.md sections 2 to 5 and 8 as one machine without I/O.
//!
//! There are four kinds of methods. *`receive_data`*, *`receive_payload`*, *`receive_eof`*: from the peer; they never fail.
//! *Commands*: from our side; they fail with [`UsageError`] before anything is changed. *Drains*: `next_event` and
//! `data_to_send`; after any of the former, and again after `data_to_send` (which makes room, and says so), drain both.
//! *Queries* change nothing.
//!
//! What a peer may not send is an error that `next_event` reports after everything that came before it, and for ever after;
//! what we may not send is refused as a command. Both look at the same state: `Phase` for the login and the end, `Calls`,
//! `Incoming` and `Outgoing` for the rest. Where an answer is due without a decision (proofs, pongs, windows, the RESET after
//! a STOP), the session gives it.
//!
//! All of our memory that a peer can make grow is bounded: frames by the decoder, streams by our window, calls and pings by
//! number. Answers that the session makes by itself are not queued as frames but as the streams that owe them.

mod calls;
mod handshake;
mod incoming;
mod outbox;
mod outgoing;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::compression::decompress;
use crate::decoder::Decoder;
use crate::error::{ProtocolError, UsageError};
use crate::event::Event;
use crate::frame::{Frame, HEADER_BYTES, PREFACE, StreamRole, one_line};
use crate::journal::Source;
use crate::limits::{FRAME_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::login::{self, Bytes32, Hello, Role};
use crate::value::Value;
use crate::varint;

use calls::Calls;
use handshake::{check, our_hello, ours_fault};
use incoming::Incoming;
use outbox::Outbox;
use outgoing::{Outgoing, Stopped};

/// The capability of who can take ZDATA.
const ZSTD: &str = "zstd";

/// Less of a payload is not worth a call of its own: it is copied.
const PLACED_BYTES_MIN: usize = 4 << 10;

/// Who we are, and what we let the peer do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which of the two parties we are.
    pub role: Role,
    /// The master's id, or the worker's instance.
    pub id: String,
    /// 32 random bytes, new for each session.
    pub nonce: Bytes32,
    /// The worker's name.
    pub name: String,
    /// The worker's secret.
    pub secret: Vec<u8>,
    /// Bytes that the peer may send ahead in one stream.
    pub stream_window: u64,
    /// Bytes that the peer may send ahead in all streams together.
    pub connection_window: u64,
    /// Streams that the peer may have open at once.
    pub streams_max: u64,
    /// What we run, for people.
    pub software: String,
    /// What we can do beyond what everybody can. `zstd`: we take compressed bytes, when we say that they are welcome.
    pub capabilities: Vec<String>,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Bytes handed out by `data_to_send`.
    pub bytes_sent: u64,
    /// Bytes that came from the peer.
    pub bytes_received: u64,
    /// Bytes that would have been sent beyond these without compression.
    pub bytes_saved: u64,
    /// Bytes of streams that came and that our side has not settled.
    pub unsettled: u64,
    /// Bytes that wait to be sent, frames' headers not counted.
    pub queued: usize,
    /// Streams of both sides that are not over.
    pub streams: usize,
    /// Calls of both sides that wait for an answer.
    pub calls: usize,
}

/// How far the session has come.
#[derive(Debug)]
enum Phase {
    /// The peer's hello is waited for.
    Hello,
    /// The peer's proof is waited for.
    Proof { hello: Hello, transcript: Vec<u8>, proof: Bytes32 },
    /// At the master: our side is asked whether to let the worker in.
    Asked { hello: Hello, transcript: Vec<u8>, proof: Bytes32 },
    /// Both sides are proven.
    Open,
    /// CLOSE or REFUSED was sent or came, or the transport ended.
    Over,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    config: Config,
    our_hello: Vec<u8>,
    phase: Phase,
    greeting_sent: bool,
    version: u64,
    decoder: Decoder,
    events: VecDeque<Event>,
    error: Option<ProtocolError>,
    outbox: Outbox,
    calls: Calls,
    incoming: Incoming,
    outgoing: Outgoing,
    bytes_sent: u64,
    bytes_received: u64,
    compression: Compression,
}

/// Whether the peer may send ZDATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    /// One of the two sides does not know of it.
    Unknown,
    /// We have never said that it is welcome.
    Never,
    /// We have: what is under way may come also after we have taken that back.
    Said { welcome: bool },
}

impl Session {
    /// A session whose transport is connected. A worker has something to send at once.
    pub fn new(config: Config) -> Result<Self, UsageError> {
        check(&config)?;
        let peer = if config.role == Role::Worker { Role::Master } else { Role::Worker };
        let (stream_window, connection_window) = (config.stream_window, config.connection_window);
        let mut session = Self {
            our_hello: our_hello(&config, login::VERSIONS.1).encode()?,
            phase: Phase::Hello,
            greeting_sent: false,
            version: login::VERSIONS.1,
            decoder: Decoder::default(),
            events: VecDeque::new(),
            error: None,
            outbox: Outbox::default(),
            calls: Calls::default(),
            incoming: Incoming::new(peer, stream_window, connection_window, config.streams_max),
            outgoing: Outgoing::new(config.role),
            bytes_sent: 0,
            bytes_received: 0,
            compression: Compression::Unknown,
            config,
        };
        if session.config.role == Role::Worker {
            session.greet()?;
        }
        Ok(session)
    }

    // From the peer.

    /// Bytes came. What the peer did wrong is reported by `next_event`.
    pub fn receive_data(&mut self, data: &[u8]) {
        self.bytes_received += data.len() as u64;
        let mut input = data;
        let mut decoder = std::mem::take(&mut self.decoder);
        while !matches!(self.phase, Phase::Over) {
            if matches!(self.phase, Phase::Open) {
                decoder.allow(FRAME_BYTES_MAX);
            }
            let handled = match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(frame)) => self.handle(frame),
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                self.fail_session(error, decoder.greeted());
            }
        }
        self.decoder = decoder;
    }

    /// Bytes may come of which the first belong into a stream's buffer: has `fill` append them there, at most as many as it
    /// is told. What comes behind them goes to `receive_data`. `None`: nothing was done, all goes to `receive_data`.
    pub fn receive_payload<T>(&mut self, fill: impl FnOnce(&mut BytesMut, usize) -> T) -> Option<T> {
        let (stream, offset, left) = self.decoder.payload().filter(|(.., left)| *left >= PLACED_BYTES_MIN)?;
        if !matches!(self.phase, Phase::Open) {
            return None;
        }
        let buffer = self.incoming.place(stream, offset, left)?;
        let before = buffer.len();
        let filled = fill(buffer, left);
        debug_assert!(buffer.len() - before <= left);
        let n = buffer.len() - before;
        if n > 0 {
            self.bytes_received += n as u64;
            self.decoder.pass(n);
            if let Err(error) = self.incoming.placed(stream, n as u64, &mut self.events) {
                self.fail_session(error, true);
            }
            self.incoming.assert_invariants();
        }
        Some(filled)
    }

    /// The transport ended in this direction.
    pub fn receive_eof(&mut self) {
        if !matches!(self.phase, Phase::Over) {
            self.peer_closed("eof", "");
        }
    }

    // Drains.

    /// What happened next.
    pub fn next_event(&mut self) -> Result<Option<Event>, ProtocolError> {
        match (self.events.pop_front(), &self.error) {
            (None, Some(error)) => Err(error.clone()),
            (event, _) => Ok(event),
        }
    }

    /// At most `max` bytes to send, in slices; none when there is nothing. Control goes before data. What compression saves
    /// counts as well: it takes its time.
    pub fn data_to_send(&mut self, max: usize) -> Vec<Bytes> {
        let before = self.saved();
        while self.outbox.staged() + ((self.saved() - before) as usize) < max && self.stage() {}
        let slices = self.outbox.hand_out(max);
        self.bytes_sent += slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
        slices
    }

    /// How many bytes more the stream that brought something last may bring, as far as the peer knows: to wait for more of them
    /// is in vain.
    pub fn may_come(&self) -> u64 {
        self.incoming.may_come()
    }

    /// Bytes that compression has saved so far.
    pub fn saved(&self) -> u64 {
        self.outgoing.saved()
    }

    /// Whether bytes of streams wait for credit.
    pub fn is_held(&self) -> bool {
        self.outgoing.is_held()
    }

    /// Whether there is anything to send but WINDOWs that can wait for something else to go along with. Who sends only then is a
    /// good peer, with fewer packets.
    pub fn is_urgent(&self) -> bool {
        let is_open = matches!(self.phase, Phase::Open);
        self.outbox.queued() > 0 || (is_open && (self.incoming.is_urgent() || self.outgoing.is_urgent()))
    }

    /// The transport took only the first `sent` bytes of what `data_to_send` gave last: the rest comes again.
    pub fn put_back(&mut self, mut slices: Vec<Bytes>, mut sent: usize) {
        slices.retain_mut(|slice| {
            let gone = sent.min(slice.len());
            slice.advance(gone);
            sent -= gone;
            !slice.is_empty()
        });
        self.bytes_sent -= slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
        self.outbox.put_back(slices.into_iter());
    }

    /// Whether the transport is to be closed once `data_to_send` has nothing more.
    pub fn eof_to_send(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    // Commands: calls.

    /// Calls the peer, and says by which number the answer will come.
    pub fn call(&mut self, method: &str, args: Value) -> Result<u64, UsageError> {
        self.check_open()?;
        let call = self.calls.next()?;
        if !matches!(args, Value::Map(_)) {
            return Err(UsageError("the arguments of a call must be a map".to_owned()));
        }
        self.send_message(&Frame::Call { call, method, args }, Some(call))?;
        self.calls.begin(call);
        Ok(call)
    }

    /// Answers a call of the peer.
    pub fn reply(&mut self, call: u64, value: Value) -> Result<(), UsageError> {
        self.check_open()?;
        self.calls.waits(call)?;
        self.send_message(&Frame::Reply { call, value }, None)?;
        self.calls.answer(call);
        Ok(())
    }

    /// Answers a call of the peer with an error: its type and one line of text.
    pub fn fail(&mut self, call: u64, kind: &str, text: &str) -> Result<(), UsageError> {
        self.check_open()?;
        self.calls.waits(call)?;
        self.send_message(&Frame::Failed { call, kind: &one_line(kind), text: &one_line(text) }, None)?;
        self.calls.answer(call);
        Ok(())
    }

    /// The next `bytes` of our streams go compressed, at this level of zstd, if the peer welcomes that. Say it again to go on.
    pub fn compress(&mut self, level: i32, bytes: u64) {
        self.outgoing.compress(level, bytes);
    }

    /// Says whether the peer may send compressed what it sends of streams from now on; it may not before it was told so.
    /// Nothing is said before the login is over, to a peer that cannot, or that knows already.
    pub fn welcome_compressed(&mut self, welcome: bool) {
        let is_news = match self.compression {
            Compression::Unknown => false,
            Compression::Never => welcome,
            Compression::Said { welcome: before } => welcome != before,
        };
        // The frame is small, so it is queued.
        if is_news && matches!(self.phase, Phase::Open) && self.outbox.push_frame(&Frame::Compress { welcome }).is_ok()
        {
            self.compression = Compression::Said { welcome };
        }
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self, nonce: u64) -> Result<(), UsageError> {
        self.check_open()?;
        if nonce > varint::MAX {
            return Err(UsageError(format!("the nonce {nonce} of a ping does not fit 63 bits")));
        }
        self.calls.ping(nonce)?;
        self.outbox.push_frame(&Frame::Ping { nonce })
    }

    /// Says why we close, after the calls and answers that wait and before any stream's bytes. Nothing follows.
    pub fn close(&mut self, reason: &str, text: &str) -> Result<(), UsageError> {
        if matches!(self.phase, Phase::Over) {
            return Ok(());
        }
        self.phase = Phase::Over;
        if !self.greeting_sent {
            return Ok(());
        }
        self.outbox.push_frame(&Frame::Close { reason: &one_line(reason), text: &one_line(text) })
    }

    // Commands: streams that we send.

    /// Opens a stream that continues at `offset`, and says its number.
    pub fn open(&mut self, role: StreamRole, name: &str, offset: u64) -> Result<u64, UsageError> {
        self.check_open()?;
        if role == StreamRole::Message {
            return Err(UsageError("streams of the role message are the session's own".to_owned()));
        }
        self.outgoing.open(role, name, offset)
    }

    /// How many bytes `write` takes now. After 0, wait for `StreamWritable`. A stream that is over has no room.
    pub fn room(&mut self, stream: u64) -> Result<usize, UsageError> {
        self.outgoing.room(stream)
    }

    /// Queues bytes of a stream, at most `room`.
    pub fn write(&mut self, stream: u64, data: &[u8]) -> Result<(), UsageError> {
        self.check_open()?;
        self.outgoing.write(stream, data)
    }

    /// Queues a block of a stream without copying it: where there is any room, all of it.
    pub fn write_block(&mut self, stream: u64, block: Bytes) -> Result<(), UsageError> {
        self.check_open()?;
        self.outgoing.write_block(stream, block)
    }

    /// Has all that a journal has now sent, from where the stream stands, and what it has more by the time that this was sent.
    /// Says how much was not asked for before. It is read when its turn comes, and must not be released before the peer has
    /// it. After 0, wait for it to grow; `StreamWritable` says when all was sent.
    pub fn write_journal(&mut self, stream: u64, source: Arc<dyn Source>) -> Result<u64, UsageError> {
        self.check_open()?;
        self.outgoing.write_journal(stream, source)
    }

    /// Up to which offset bytes of a stream were queued.
    pub fn sent(&mut self, stream: u64) -> Result<u64, UsageError> {
        self.outgoing.sent(stream)
    }

    /// Ends a stream: all of it was queued.
    pub fn end(&mut self, stream: u64) -> Result<(), UsageError> {
        self.check_open()?;
        self.outgoing.end(stream, &mut self.outbox)
    }

    /// Gives a stream up. What was not sent is dropped. Nothing happens if it is over already.
    pub fn reset(&mut self, stream: u64, reason: &str) -> Result<(), UsageError> {
        if matches!(self.phase, Phase::Over) {
            return Ok(());
        }
        self.outgoing.reset(stream, &one_line(reason), &mut self.outbox)
    }

    // Commands: streams that we receive. They work on what has arrived also when the session is over.

    /// Whole records of at most `max` bytes together (or one that is larger), and the offset at which they begin.
    pub fn take(&mut self, stream: u64, max: usize) -> Result<Option<(u64, Bytes)>, UsageError> {
        self.incoming.take(stream, max)
    }

    /// Whether END came and everything was taken.
    pub fn is_ended(&mut self, stream: u64) -> Result<bool, UsageError> {
        self.incoming.is_ended(stream)
    }

    /// Says that what was taken was handled up to `next`, and is safe up to `durable`: credit returns.
    pub fn settle(&mut self, stream: u64, next: u64, durable: u64) -> Result<(), UsageError> {
        let result = self.incoming.settle(stream, next, durable);
        self.incoming.assert_invariants();
        result
    }

    /// Asks the sender of a stream to give it up. What arrives of it from now on is dropped, without an event.
    pub fn stop(&mut self, stream: u64, reason: &str) -> Result<(), UsageError> {
        let is_new = self.incoming.stop(stream)?;
        self.incoming.assert_invariants();
        if !is_new || matches!(self.phase, Phase::Over) {
            return Ok(());
        }
        self.outbox.push_frame(&Frame::Stop { stream, reason: &one_line(reason) })
    }

    // Queries.

    /// How much there is of everything.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            bytes_saved: self.saved(),
            unsettled: self.incoming.unsettled(),
            queued: self.outbox.queued() + self.outgoing.queued(),
            streams: self.incoming.count() + self.outgoing.count(),
            calls: self.calls.open(),
        }
    }

    // Private: what comes.

    fn handle(&mut self, frame: Frame<'_>) -> Result<(), ProtocolError> {
        if let Frame::Close { reason, text } = frame {
            self.peer_closed(reason, text);
            return Ok(());
        }
        match (&self.phase, frame) {
            (Phase::Open, frame) => self.handle_open(frame),
            (Phase::Hello, Frame::Hello(payload)) if self.config.role == Role::Master => self.worker_greets(payload),
            (Phase::Hello, Frame::Hello(payload)) => self.master_greets(payload),
            (Phase::Proof { .. }, Frame::Proof(proof)) => self.proven(proof),
            (Phase::Hello | Phase::Proof { .. }, Frame::Refused { reason, text })
                if self.config.role == Role::Worker =>
            {
                self.phase = Phase::Over;
                self.events.push_back(Event::Refused { reason: reason.to_owned(), text: text.to_owned() });
                Ok(())
            }
            (_, frame) => Err(ProtocolError::new(3, format!("{} before the login is over", frame.name()))),
        }
    }

    fn handle_open(&mut self, frame: Frame<'_>) -> Result<(), ProtocolError> {
        let event = match frame {
            Frame::Data { stream, offset, payload } => {
                self.incoming.data(stream, offset, payload, &mut self.events)?;
                None
            }
            Frame::Window { stream, next, durable, limit } => self.outgoing.windowed(stream, next, durable, limit)?,
            Frame::Open { stream, role, name, offset } => self.incoming.opened(stream, role, name, offset)?,
            Frame::End { stream, offset } => {
                let (event, message) = self.incoming.end(stream, offset)?;
                self.events.extend(event);
                return message.map_or(Ok(()), |message| self.handle_message(&message));
            }
            Frame::Reset { stream, offset, reason } => self.incoming.reset(stream, offset, reason)?,
            Frame::Stop { stream, reason } => self.stopped(stream, reason)?,
            Frame::Credit { limit } => {
                self.outgoing.credited(limit);
                None
            }
            Frame::ZData { stream, offset, length, compressed } => {
                self.check_compression()?;
                if self.compression == Compression::Never {
                    return Err(ProtocolError::new(5, "ZDATA, which was not welcome"));
                }
                decompress(compressed, length, |payload| {
                    self.incoming.data(stream, offset, payload, &mut self.events)
                })?;
                None
            }
            Frame::Compress { welcome } => {
                self.check_compression()?;
                self.outgoing.welcomed(welcome);
                None
            }
            Frame::Ping { nonce } => {
                self.calls.pinged()?;
                self.answer(&Frame::Pong { nonce })?;
                None
            }
            Frame::Pong { nonce } => {
                self.calls.ponged(nonce)?;
                Some(Event::Ponged { nonce })
            }
            frame => return self.handle_call(frame),
        };
        self.events.extend(event);
        self.incoming.assert_invariants();
        Ok(())
    }

    fn handle_call(&mut self, frame: Frame<'_>) -> Result<(), ProtocolError> {
        let event = match frame {
            Frame::Call { call, method, args } => {
                self.calls.called(call)?;
                Event::Called { call, method: method.to_owned(), args }
            }
            Frame::Reply { call, value } => {
                self.calls.answered(call)?;
                Event::Replied { call, value }
            }
            Frame::Failed { call, kind, text } => {
                self.calls.answered(call)?;
                Event::CallFailed { call, kind: kind.to_owned(), text: text.to_owned() }
            }
            frame => return Err(ProtocolError::new(2, format!("{} where it has no meaning", frame.name()))),
        };
        self.events.push_back(event);
        Ok(())
    }

    fn handle_message(&mut self, message: &[u8]) -> Result<(), ProtocolError> {
        match message.split_first() {
            Some((kind @ 0x10..=0x12, payload)) => self.handle_call(Frame::decode(*kind, payload)?),
            _ => Err(ProtocolError::new(4, "a large message that is no CALL, REPLY or FAILED")),
        }
    }

    fn check_compression(&self) -> Result<(), ProtocolError> {
        if self.compression == Compression::Unknown {
            return Err(ProtocolError::new(5, "compression, of which one of the two hellos does not know"));
        }
        Ok(())
    }

    fn stopped(&mut self, stream: u64, reason: &str) -> Result<Option<Event>, ProtocolError> {
        Ok(match self.outgoing.stopped(stream, reason, &mut self.outbox)? {
            Stopped::Nothing => None,
            Stopped::Stream(event) => Some(event),
            Stopped::Call(call) => {
                self.calls.answered(call)?;
                Some(Event::CallFailed { call, kind: "LimitExceeded".to_owned(), text: reason.to_owned() })
            }
        })
    }

    // Private: the end.

    fn peer_closed(&mut self, reason: &str, text: &str) {
        self.phase = Phase::Over;
        self.outbox.clear();
        self.events.push_back(Event::PeerClosed { reason: reason.to_owned(), text: text.to_owned() });
    }

    fn fail_session(&mut self, error: ProtocolError, greeted: bool) {
        let was_over = matches!(self.phase, Phase::Over);
        self.phase = Phase::Over;
        // A master says nothing to who has not sent the preface.
        if !was_over && (self.greeting_sent || greeted) {
            if !self.greeting_sent {
                self.greeting_sent = true;
                self.outbox.push_control(PREFACE);
            }
            let text = one_line(&error.to_string());
            // The frame is small and its text fits, so it is queued.
            let _ = self.outbox.push_frame(&Frame::Close { reason: "protocol", text: &text });
        }
        self.error = Some(error);
    }

    // Private: what goes.

    fn stage(&mut self) -> bool {
        let some = self.outbox.stage_control();
        self.calls.sent();
        if some {
            return true;
        }
        if !matches!(self.phase, Phase::Open) {
            return false;
        }
        let owed = self.incoming.next_window().or_else(|| self.incoming.next_credit());
        if let Some(frame) = owed {
            return self.outbox.push_frame(&frame).is_ok();
        }
        if let Some(open) = self.outgoing.next_open() {
            self.outbox.stage(Bytes::from(open));
            return true;
        }
        self.outgoing.stage_data(&mut self.outbox, &mut self.events)
    }

    /// As a frame if it fits, else as a stream of its own.
    fn send_message(&mut self, frame: &Frame<'_>, call: Option<u64>) -> Result<(), UsageError> {
        let mut message = Vec::new();
        frame.encode_message(&mut message)?;
        if HEADER_BYTES - 1 + message.len() <= FRAME_BYTES_MAX {
            return self.outbox.push_frame(frame);
        }
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(UsageError(format!("a message of {} bytes, more than {MESSAGE_BYTES_MAX}", message.len())));
        }
        self.outgoing.send_message(call, &message)
    }

    /// An answer that the session gives by itself.
    fn answer(&mut self, frame: &Frame<'_>) -> Result<(), ProtocolError> {
        self.outbox.push_frame(frame).map_err(ours_fault)
    }

    fn check_open(&self) -> Result<(), UsageError> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Over => Err(UsageError("the session is over".to_owned())),
            _ => Err(UsageError("the login is not over".to_owned())),
        }
    }
}
