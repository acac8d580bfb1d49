//! What a session tells its owner, in the order in which it came.

use crate::frame::StreamRole;
use crate::value::Value;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // PROTOCOL.md and the variants say what the fields are
pub enum Event {
    /// At the master: a worker asks to be let in. Answer with `admit` or `refuse`.
    LoginAsked { name: String, instance: String, software: String, capabilities: Vec<String> },
    /// Both sides are proven. `peer` is the other side's id.
    LoggedIn { peer: String, software: String, capabilities: Vec<String>, version: u64 },
    /// At the worker: the master does not want us.
    Refused { reason: String, text: String },
    /// The peer calls. Answer once, with `reply` or `fail`.
    Called { call: u64, method: String, args: Value },
    /// Our call was answered.
    Replied { call: u64, value: Value },
    /// Our call failed at the peer.
    CallFailed { call: u64, kind: String, text: String },
    /// The peer sends a stream.
    StreamOpened { stream: u64, role: StreamRole, name: String, offset: u64 },
    /// Whole records can be taken, or the stream's end was reached. Said once, until `take` was called.
    StreamReadable { stream: u64 },
    /// A stream that we send has room again, after `room` was 0.
    StreamWritable { stream: u64 },
    /// The receiver of a stream that we send moved. `done`: END was sent, and all of it is durable.
    StreamProgress { stream: u64, next: u64, durable: u64, done: bool },
    /// The sender gave up. What was not taken is gone.
    StreamReset { stream: u64, reason: String },
    /// The receiver of a stream that we send gave up. RESET was sent already.
    StreamStopped { stream: u64, reason: String },
    /// A ping was answered.
    Ponged { nonce: u64 },
    /// CLOSE came, or the transport ended (reason "eof").
    PeerClosed { reason: String, text: String },
}
