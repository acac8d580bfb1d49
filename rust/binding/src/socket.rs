//! Bytes between a socket and Rust's memory, without a Python object in between. The sockets are Python's, and do not block.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use bytes::{Bytes, BytesMut};
use tailrace_core::frame::DATA_HEADER_BYTES_MAX;
use tailrace_core::session::Session;

/// What is read at once: as much as stays in the core's own cache until it was looked at.
const RECEIVE_BYTES: usize = 256 << 10;
/// What is read behind a payload: the begin of the next frame, up to where its own payload begins.
const NEXT_BYTES: usize = DATA_HEADER_BYTES_MAX;
/// More parts are refused by the kernel.
const PARTS_MAX: usize = 1024;

thread_local! {
    /// One for all sockets: nothing is left in it.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; RECEIVE_BYTES]);
}

/// Hands what there is to the session, at most about `max` bytes, and says how much it was: 0 at the end, `None` if there is
/// nothing yet. Payloads go straight to where they belong.
pub(crate) fn receive(fd: i32, max: usize, session: &mut Session) -> io::Result<Option<usize>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut received = 0;
        while received < max {
            let placed =
                session.receive_payload(|place, left| receive_behind(fd, place, left, &mut buffer[..NEXT_BYTES]));
            let (asked, got) = placed.unwrap_or_else(|| (buffer.len(), receive_into(fd, buffer)));
            match got {
                // Said again by the next call, if there was something before it.
                Ok((0, _)) | Err(_) if received > 0 => break,
                Ok((count, behind)) => {
                    session.receive_data(&buffer[..behind]);
                    received += count;
                    if count < asked {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(received))
    })
}

/// How many bytes came, and how many of them are in `buffer`.
fn receive_into(fd: i32, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
    // SAFETY: the kernel writes at most `len` bytes to memory that is ours alone.
    let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    outcome(count).map(|count| (count, count))
}

/// Appends at most `left` bytes to `place`, which has room for them; what comes behind them goes to `buffer`. How many bytes
/// were asked for; how many came, and how many of them are in `buffer`.
fn receive_behind(
    fd: i32,
    place: &mut BytesMut,
    left: usize,
    buffer: &mut [u8],
) -> (usize, io::Result<(usize, usize)>) {
    let room = place.spare_capacity_mut();
    let left = left.min(room.len());
    let mut parts = [
        libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: left },
        libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() },
    ];
    // SAFETY: all zeros is a message without a name and without anything beside its parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    // SAFETY: the kernel writes to the parts, which are ours alone.
    let count = outcome(unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) });
    let placed = *count.as_ref().unwrap_or(&0).min(&left);
    // SAFETY: so many bytes behind the end were written.
    unsafe { place.set_len(place.len() + placed) };
    (left + buffer.len(), count.map(|count| (count, count - placed)))
}

/// What there is, at most `max` bytes, in memory of its own: empty at the end, `None` if there is nothing yet.
pub(crate) fn receive_owned(fd: i32, max: usize) -> io::Result<Option<Bytes>> {
    let mut there: libc::c_int = 0;
    // SAFETY: the kernel writes one number. Where it does not know, a little is read.
    unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut there) };
    let mut buffer = Vec::<u8>::with_capacity(usize::try_from(there).unwrap_or_default().clamp(4096, max.max(4096)));
    // SAFETY: the kernel writes at most `capacity` bytes to memory that is ours alone.
    let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.capacity(), libc::MSG_DONTWAIT) };
    match outcome(count) {
        Ok(count) => {
            // SAFETY: so many were written.
            unsafe { buffer.set_len(count) };
            Ok(Some(buffer.into()))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends what goes, and says how much it was.
pub(crate) fn send(fd: i32, slices: &[Bytes]) -> io::Result<usize> {
    let part = |slice: &Bytes| libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
    let mut parts: Vec<libc::iovec> = slices.iter().take(PARTS_MAX).map(part).collect();
    // SAFETY: all zeros is a message without a name and without anything beside its parts.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    // SAFETY: the parts point to `slices`, which outlive the call; the kernel only reads them.
    match outcome(unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}

/// The same, of bytes that lie in one piece.
pub(crate) fn send_part(fd: i32, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel only reads them.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    match outcome(sent) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        sent => sent,
    }
}

fn outcome(count: isize) -> io::Result<usize> {
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
