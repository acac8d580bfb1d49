//! Every limit of the wire, with its unit and the reason for its number.

/// Bytes of a frame, header included: small enough that a ping waits for at most one of them, large enough
/// that a header costs nothing.
pub const FRAME_BYTES_MAX: usize = 65_536;
/// Bytes of a frame before the login is over: a hello is a few hundred.
pub const FRAME_BYTES_BEFORE_LOGIN_MAX: usize = 4_096;
/// Bytes of a `str` where nothing else is said: a path on Linux.
pub const STR_BYTES_MAX: usize = 4_096;
/// Bytes of one large message (a command's arguments with a whole environment and a patch in them).
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Nesting of a value: Buildbot's deepest argument has four levels.
pub const VALUE_DEPTH_MAX: usize = 16;
/// Values in one value: a glob over a million files.
pub const VALUE_ITEMS_MAX: usize = 1 << 20;
/// Bytes of a record: what a large `files` update needs.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// Bytes of log data in one record: more gains no speed.
pub const LOG_DATA_BYTES_MAX: usize = 256 << 10;
/// Bytes of a log's name: a file name.
pub const LOG_NAME_BYTES_MAX: usize = 255;
/// Bytes of a file's piece in one record.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Calls of one side that wait for an answer.
pub const CALLS_MAX: usize = 1_024;
/// Pings of one side that wait for a pong.
pub const PINGS_MAX: usize = 16;
/// What an OPEN costs of the connection's credit, in bytes: about what a stream's state takes.
pub const OPEN_COST: u64 = 64;
/// Bytes of one stream that wait in the session to be framed: four turns of the round robin. A block of a file is taken
/// whole when fewer wait.
pub const STREAM_QUEUE_BYTES_MAX: usize = 256 << 10;
/// Bytes that a receiver lends, all streams together, to records that are larger than their stream's window: enough for
/// four of the largest, so that three whose consumers stall do not stop the next one.
pub const LENT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a stream of which the peer need not know yet that they were taken, or are safe: a WINDOW for each few pieces of a
/// log, and a small part of what a worker keeps of it anyway.
pub const UNTOLD_BYTES_MAX: u64 = 256 << 10;
/// What one stream may send before the next has its turn.
pub const QUANTUM_BYTES: usize = 64 << 10;
