//! The frames (PROTOCOL.md section 2): one enum, and its two ways across the wire.
//!
//! A decoded frame borrows from the bytes it was decoded from. DATA is special in both directions: its payload is
//! never joined with its header here (`decoder` hands it out in pieces, `session` queues it as slices).

use crate::error::{ProtocolError, UsageError};
use crate::limits::STR_BYTES_MAX;
use crate::value::{self, Value};
use crate::varint;

/// What each side sends first.
pub const PREFACE: &[u8; 8] = b"TAILRACE";

/// Type and length.
pub const HEADER_BYTES: usize = 4;

/// The longest a DATA frame can be before its payload begins.
pub const DATA_HEADER_BYTES_MAX: usize = HEADER_BYTES + 2 * varint::BYTES_MAX;

/// The longest a ZDATA frame can be before its compressed bytes begin.
pub const ZDATA_HEADER_BYTES_MAX: usize = HEADER_BYTES + 3 * varint::BYTES_MAX;

/// The type byte of DATA.
pub const DATA: u8 = 0x21;

/// The type byte of ZDATA.
const ZDATA: u8 = 0x27;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamRole {
    /// A command's records, from the worker.
    Journal,
    /// A file from the worker.
    Upload,
    /// A file to the worker.
    Download,
    /// One large message, either way.
    Message,
}

impl StreamRole {
    const ALL: [Self; 4] = [Self::Journal, Self::Upload, Self::Download, Self::Message];

    fn decode(byte: u8) -> Result<Self, ProtocolError> {
        let role = Self::ALL.get(usize::from(byte)).copied();
        role.ok_or_else(|| ProtocolError::new(5, format!("{byte} is no role of a stream")))
    }

    /// The role's name, as the table of section 5 has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Message => "message",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // PROTOCOL.md sections 2 to 8 say what the fields are
pub enum Frame<'a> {
    /// The payload as it stands: the proofs are made over its bytes.
    Hello(&'a [u8]),
    Proof(&'a [u8; 32]),
    Refused {
        reason: &'a str,
        text: &'a str,
    },
    Call {
        call: u64,
        method: &'a str,
        args: Value,
    },
    Reply {
        call: u64,
        value: Value,
    },
    Failed {
        call: u64,
        kind: &'a str,
        text: &'a str,
    },
    Open {
        stream: u64,
        role: StreamRole,
        name: &'a str,
        offset: u64,
    },
    /// A whole payload, or a piece of one with the offset at which the piece stands.
    Data {
        stream: u64,
        offset: u64,
        payload: &'a [u8],
    },
    Window {
        stream: u64,
        next: u64,
        durable: u64,
        limit: u64,
    },
    Credit {
        limit: u64,
    },
    End {
        stream: u64,
        offset: u64,
    },
    Reset {
        stream: u64,
        offset: u64,
        reason: &'a str,
    },
    Stop {
        stream: u64,
        reason: &'a str,
    },
    /// DATA of `length` bytes, and what they became.
    ZData {
        stream: u64,
        offset: u64,
        length: u64,
        compressed: &'a [u8],
    },
    Compress {
        welcome: bool,
    },
    Ping {
        nonce: u64,
    },
    Pong {
        nonce: u64,
    },
    Close {
        reason: &'a str,
        text: &'a str,
    },
}

/// Whether version 1 knows frames of this type.
pub fn is_known(kind: u8) -> bool {
    matches!(kind, 0x01..=0x03 | 0x10..=0x12 | 0x20..=0x28 | 0x30 | 0x31 | 0x3f)
}

impl<'a> Frame<'a> {
    /// The frame of type `kind` with this payload.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut rest = payload;
        let input = &mut rest;
        let frame = match kind {
            0x01 => Self::Hello(std::mem::take(input)),
            0x02 => Self::Proof(take_proof(input)?),
            0x03 => Self::Refused { reason: varint::decode_str(input)?, text: varint::decode_str(input)? },
            0x10 => Self::Call {
                call: varint::decode(input)?,
                method: varint::decode_str(input)?,
                args: value::decode(input)?,
            },
            0x11 => Self::Reply { call: varint::decode(input)?, value: value::decode(input)? },
            0x12 => Self::Failed {
                call: varint::decode(input)?,
                kind: varint::decode_str(input)?,
                text: varint::decode_str(input)?,
            },
            0x20 => Self::Open {
                stream: varint::decode(input)?,
                role: StreamRole::decode(varint::decode_u8(input)?)?,
                name: varint::decode_str(input)?,
                offset: varint::decode(input)?,
            },
            DATA => Self::Data {
                stream: varint::decode(input)?,
                offset: varint::decode(input)?,
                payload: std::mem::take(input),
            },
            0x22 => Self::Window {
                stream: varint::decode(input)?,
                next: varint::decode(input)?,
                durable: varint::decode(input)?,
                limit: varint::decode(input)?,
            },
            0x23 => Self::Credit { limit: varint::decode(input)? },
            0x24 => Self::End { stream: varint::decode(input)?, offset: varint::decode(input)? },
            0x25 => Self::Reset {
                stream: varint::decode(input)?,
                offset: varint::decode(input)?,
                reason: varint::decode_str(input)?,
            },
            0x26 => Self::Stop { stream: varint::decode(input)?, reason: varint::decode_str(input)? },
            ZDATA => Self::ZData {
                stream: varint::decode(input)?,
                offset: varint::decode(input)?,
                length: varint::decode(input)?,
                compressed: std::mem::take(input),
            },
            0x28 => match varint::decode_u8(input)? {
                word @ (0 | 1) => Self::Compress { welcome: word == 1 },
                word => return Err(ProtocolError::new(5, format!("COMPRESS of {word}"))),
            },
            0x30 => Self::Ping { nonce: varint::decode(input)? },
            0x31 => Self::Pong { nonce: varint::decode(input)? },
            0x3f => Self::Close { reason: varint::decode_str(input)?, text: varint::decode_str(input)? },
            _ => return Err(ProtocolError::new(2, format!("a frame of the unknown type 0x{kind:02x}"))),
        };
        if let Self::Call { args, .. } = &frame
            && !matches!(args, Value::Map(_))
        {
            return Err(ProtocolError::new(4, "the arguments of a call are no map"));
        }
        varint::decode_end(rest)?;
        Ok(frame)
    }

    /// The type byte.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 0x01,
            Self::Proof(_) => 0x02,
            Self::Refused { .. } => 0x03,
            Self::Call { .. } => 0x10,
            Self::Reply { .. } => 0x11,
            Self::Failed { .. } => 0x12,
            Self::Open { .. } => 0x20,
            Self::Data { .. } => DATA,
            Self::Window { .. } => 0x22,
            Self::Credit { .. } => 0x23,
            Self::End { .. } => 0x24,
            Self::Reset { .. } => 0x25,
            Self::Stop { .. } => 0x26,
            Self::ZData { .. } => ZDATA,
            Self::Compress { .. } => 0x28,
            Self::Ping { .. } => 0x30,
            Self::Pong { .. } => 0x31,
            Self::Close { .. } => 0x3f,
        }
    }

    /// The frame's name in PROTOCOL.md.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "HELLO",
            Self::Proof(_) => "PROOF",
            Self::Refused { .. } => "REFUSED",
            Self::Call { .. } => "CALL",
            Self::Reply { .. } => "REPLY",
            Self::Failed { .. } => "FAILED",
            Self::Open { .. } => "OPEN",
            Self::Data { .. } => "DATA",
            Self::Window { .. } => "WINDOW",
            Self::Credit { .. } => "CREDIT",
            Self::End { .. } => "END",
            Self::Reset { .. } => "RESET",
            Self::Stop { .. } => "STOP",
            Self::ZData { .. } => "ZDATA",
            Self::Compress { .. } => "COMPRESS",
            Self::Ping { .. } => "PING",
            Self::Pong { .. } => "PONG",
            Self::Close { .. } => "CLOSE",
        }
    }

    /// Appends the type byte and the payload: what a message stream carries. A value or a str may be too large.
    pub fn encode_message(&self, out: &mut Vec<u8>) -> Result<(), UsageError> {
        out.push(self.kind());
        self.encode_payload(out)
    }

    /// Appends the whole frame. Its length is not checked here.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), UsageError> {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        self.encode_payload(out)?;
        let header = header(self.kind(), out.len() - start - HEADER_BYTES);
        if let Some(place) = out.get_mut(start..start + HEADER_BYTES) {
            place.copy_from_slice(&header);
        }
        Ok(())
    }

    fn encode_payload(&self, out: &mut Vec<u8>) -> Result<(), UsageError> {
        match self {
            Self::Hello(payload) => out.extend_from_slice(payload),
            Self::Proof(proof) => out.extend_from_slice(*proof),
            Self::Call { call, method, args } => {
                varint::encode(*call, out);
                put_str(method, out)?;
                value::encode(args, out)?;
            }
            Self::Reply { call, value } => {
                varint::encode(*call, out);
                value::encode(value, out)?;
            }
            Self::Failed { call, kind, text } => {
                varint::encode(*call, out);
                put_str(kind, out)?;
                put_str(text, out)?;
            }
            Self::Open { stream, role, name, offset } => {
                varint::encode(*stream, out);
                out.push(*role as u8);
                put_str(name, out)?;
                varint::encode(*offset, out);
            }
            Self::Data { stream, offset, payload } => {
                put_numbers(&[*stream, *offset], out);
                out.extend_from_slice(payload);
            }
            Self::ZData { stream, offset, length, compressed } => {
                put_numbers(&[*stream, *offset, *length], out);
                out.extend_from_slice(compressed);
            }
            Self::Compress { welcome } => out.push(u8::from(*welcome)),
            Self::Window { stream, next, durable, limit } => put_numbers(&[*stream, *next, *durable, *limit], out),
            Self::End { stream, offset } => put_numbers(&[*stream, *offset], out),
            Self::Credit { limit: number } | Self::Ping { nonce: number } | Self::Pong { nonce: number } => {
                varint::encode(*number, out);
            }
            Self::Reset { stream, offset, reason } => {
                put_numbers(&[*stream, *offset], out);
                put_str(reason, out)?;
            }
            Self::Stop { stream, reason } => {
                varint::encode(*stream, out);
                put_str(reason, out)?;
            }
            Self::Refused { reason, text } | Self::Close { reason, text } => {
                put_str(reason, out)?;
                put_str(text, out)?;
            }
        }
        Ok(())
    }
}

/// The header of a frame with a payload of `length` bytes.
pub fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    [kind, high, middle, low]
}

/// Everything of a DATA frame that stands before its payload of `length` bytes.
pub fn data_header(stream: u64, offset: u64, length: usize) -> Vec<u8> {
    let numbers = varint::len(stream) + varint::len(offset);
    let mut out = Vec::with_capacity(HEADER_BYTES + numbers);
    out.extend_from_slice(&header(DATA, numbers + length));
    put_numbers(&[stream, offset], &mut out);
    out
}

/// `text` as one line that fits a `str`: what people write must not break a frame.
pub fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c == '\n' || c == '\r' { ' ' } else { c }).collect();
    while line.len() > STR_BYTES_MAX {
        line.truncate((STR_BYTES_MAX - 3..=STR_BYTES_MAX).rfind(|&end| line.is_char_boundary(end)).unwrap_or(0));
    }
    line
}

fn take_proof<'a>(input: &mut &'a [u8]) -> Result<&'a [u8; 32], ProtocolError> {
    let bytes = varint::decode_bytes(input, 32)?;
    bytes.try_into().map_err(|_| ProtocolError::new(3, "a proof of the wrong length"))
}

fn put_numbers(numbers: &[u64], out: &mut Vec<u8>) {
    for &number in numbers {
        varint::encode(number, out);
    }
}

fn put_str(text: &str, out: &mut Vec<u8>) -> Result<(), UsageError> {
    if text.len() > STR_BYTES_MAX {
        return Err(UsageError(format!("a name or text of {} bytes, more than {STR_BYTES_MAX}", text.len())));
    }
    varint::encode_str(text, out);
    Ok(())
}
