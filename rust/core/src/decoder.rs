//! Bytes to frames (PROTOCOL.md section 2), bounded and without looking at a byte twice.
//!
//! Frames that lie whole in what was received are decoded where they lie. What is cut off at the end is kept here, at most
//! one frame of it; of DATA at most its header, because the payload goes on in pieces as it arrives: a payload is copied
//! once, into its stream, or is put there without us ([`Decoder::payload`]). A piece is a DATA frame with the offset at which
//! the piece stands, so nobody sees the difference.

use crate::error::ProtocolError;
use crate::frame::{self, DATA_HEADER_BYTES_MAX, Frame, HEADER_BYTES, PREFACE};
use crate::limits::FRAME_BYTES_BEFORE_LOGIN_MAX;
use crate::varint;

/// The decoder of one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    preface: usize,
    partial: Vec<u8>,
    /// The last frame was decoded from `partial`, and is handled now.
    spent: bool,
    body: Body,
    frame_bytes_max: usize,
}

/// What the bytes after the last header belong to.
#[derive(Debug, Clone, Copy)]
enum Body {
    Header,
    Data { stream: u64, offset: u64, left: usize },
    Skipped { left: usize },
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            preface: 0,
            partial: Vec::new(),
            spent: false,
            body: Body::Header,
            frame_bytes_max: FRAME_BYTES_BEFORE_LOGIN_MAX,
        }
    }
}

impl Decoder {
    /// From the next frame on, frames may be this long.
    pub fn allow(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Whether the preface was read.
    pub fn greeted(&self) -> bool {
        self.preface == PREFACE.len()
    }

    /// The payload that is arriving: its stream, the offset at which it goes on, and how much of it is to come.
    pub fn payload(&self) -> Option<(u64, u64, usize)> {
        match self.body {
            Body::Data { stream, offset, left } => Some((stream, offset, left)),
            _ => None,
        }
    }

    /// So much of that payload went by without us.
    pub fn pass(&mut self, n: usize) {
        if let Body::Data { stream, offset, left } = self.body {
            let n = n.min(left);
            self.body = data_body(stream, offset + n as u64, left - n);
        }
    }

    /// The next frame at the front of `input`; `None` when all of `input` was taken. After an error the decoder is of no use.
    pub fn next<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8]) -> Result<Option<Frame<'a>>, ProtocolError> {
        if std::mem::take(&mut self.spent) {
            self.partial.clear();
        }
        self.read_preface(input)?;
        loop {
            match self.body {
                Body::Data { stream, offset, left } => {
                    let payload = take_up_to(input, left);
                    if payload.is_empty() {
                        return Ok(None);
                    }
                    self.body = data_body(stream, offset + payload.len() as u64, left - payload.len());
                    return Ok(Some(Frame::Data { stream, offset, payload }));
                }
                Body::Skipped { left } => {
                    let skipped = take_up_to(input, left).len();
                    if skipped < left {
                        self.body = Body::Skipped { left: left - skipped };
                        return Ok(None);
                    }
                    self.body = Body::Header;
                }
                Body::Header => {
                    let Some((kind, length)) = self.read_header(input)? else { return Ok(None) };
                    if !frame::is_known(kind) {
                        self.skip(kind, length, input)?;
                    } else if kind == frame::DATA {
                        if !self.begin_data(length, input)? {
                            return Ok(None);
                        }
                        if self.spent {
                            return self.data_from_partial();
                        }
                    } else {
                        return self.whole_frame(kind, length, input);
                    }
                }
            }
        }
    }

    fn read_preface(&mut self, input: &mut &[u8]) -> Result<(), ProtocolError> {
        let expected = PREFACE.get(self.preface..).unwrap_or_default();
        let got = take_up_to(input, expected.len());
        if !expected.starts_with(got) {
            return Err(ProtocolError::new(
                2,
                "the peer does not speak this protocol: its first bytes are not TAILRACE",
            ));
        }
        self.preface += got.len();
        Ok(())
    }

    /// The header of the next frame, which stays where it is.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<(u8, usize)>, ProtocolError> {
        let Some(bytes) = self.front(HEADER_BYTES, input) else { return Ok(None) };
        let &[kind, high, middle, low] = bytes.first_chunk::<HEADER_BYTES>().unwrap_or(&[0; HEADER_BYTES]);
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        let max = self.frame_bytes_max;
        if HEADER_BYTES + length > max {
            return Err(ProtocolError::new(2, format!("a frame of {} bytes, more than {max}", HEADER_BYTES + length)));
        }
        Ok(Some((kind, length)))
    }

    fn skip(&mut self, kind: u8, length: usize, input: &mut &[u8]) -> Result<(), ProtocolError> {
        if kind < 0x80 {
            return Err(ProtocolError::new(2, format!("a frame of the unknown type 0x{kind:02x}")));
        }
        self.drop_front(HEADER_BYTES, input);
        self.body = Body::Skipped { left: length };
        Ok(())
    }

    /// Reads the numbers of a DATA frame; false: they are not all there. Part of the payload may be left in `partial`.
    fn begin_data(&mut self, length: usize, input: &mut &[u8]) -> Result<bool, ProtocolError> {
        let need = (HEADER_BYTES + length).min(DATA_HEADER_BYTES_MAX);
        let Some(bytes) = self.front(need, input) else { return Ok(false) };
        let mut fields = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let (stream, offset) = (varint::decode(&mut fields)?, varint::decode(&mut fields)?);
        let header = bytes.len() - fields.len();
        let left = HEADER_BYTES + length - header;
        if left == 0 {
            return Err(ProtocolError::new(2, format!("DATA without a byte for stream {stream}")));
        }
        if offset > varint::MAX - left as u64 {
            return Err(ProtocolError::new(5, format!("DATA beyond the last offset for stream {stream}")));
        }
        self.body = Body::Data { stream, offset, left };
        self.drop_front(header, input);
        self.spent = !self.partial.is_empty();
        Ok(true)
    }

    /// The first piece of a payload, when it came together with the rest of its header.
    fn data_from_partial(&mut self) -> Result<Option<Frame<'_>>, ProtocolError> {
        let Body::Data { stream, offset, left } = self.body else { return Ok(None) };
        let payload = self.partial.as_slice();
        self.body = data_body(stream, offset + payload.len() as u64, left - payload.len());
        Ok(Some(Frame::Data { stream, offset, payload }))
    }

    fn whole_frame<'a, 'b: 'a>(
        &'a mut self,
        kind: u8,
        length: usize,
        input: &mut &'b [u8],
    ) -> Result<Option<Frame<'a>>, ProtocolError> {
        let whole = HEADER_BYTES + length;
        if self.partial.is_empty()
            && let Some(bytes) = input.split_off(..whole)
        {
            return Frame::decode(kind, bytes.get(HEADER_BYTES..).unwrap_or_default()).map(Some);
        }
        if self.front(whole, input).is_none() {
            return Ok(None);
        }
        self.spent = true;
        Frame::decode(kind, self.partial.get(HEADER_BYTES..).unwrap_or_default()).map(Some)
    }

    /// The next `n` bytes, which stay where they are: in `input` if they are all there, else in `partial`.
    fn front<'a>(&'a mut self, n: usize, input: &'a mut &[u8]) -> Option<&'a [u8]> {
        if self.partial.is_empty() && input.len() >= n {
            return input.get(..n);
        }
        self.partial.extend_from_slice(take_up_to(input, n.saturating_sub(self.partial.len())));
        self.partial.get(..n)
    }

    fn drop_front(&mut self, n: usize, input: &mut &[u8]) {
        if self.partial.is_empty() {
            take_up_to(input, n);
        } else {
            self.partial.drain(..n.min(self.partial.len()));
        }
    }
}

fn data_body(stream: u64, offset: u64, left: usize) -> Body {
    if left == 0 { Body::Header } else { Body::Data { stream, offset, left } }
}

fn take_up_to<'a>(input: &mut &'a [u8], n: usize) -> &'a [u8] {
    input.split_off(..n.min(input.len())).unwrap_or_default()
}
