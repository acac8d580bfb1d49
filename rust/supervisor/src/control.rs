//! The control socket: length-prefixed messages to and from the daemon, which may vanish and come back.
//!
//! One connection at a time; a new one takes the place of the old. Nothing here blocks.

use std::io::{self, ErrorKind};

use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

/// Arguments, environment and standard input of a child may be large, but not without end.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How much is read at a time.
const READ_BYTES: usize = 64 << 10;

/// The listening socket and the daemon's connection, if there is one.
pub(crate) struct Control {
    listener: OwnedFd,
    link: Option<Link>,
}

struct Link {
    socket: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Control {
    /// Listens on a socket that is bound and listening already, and does not block.
    pub(crate) fn new(listener: OwnedFd) -> Self {
        Self { listener, link: None }
    }

    /// Whether a daemon is there.
    pub(crate) fn attached(&self) -> bool {
        self.link.is_some()
    }

    /// What to poll: the listener, then the connection if there is one.
    pub(crate) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN);
        let link = self.link.as_ref().map(|link| {
            let flags = if link.output.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            PollFd::from_borrowed_fd(link.socket.as_fd(), flags)
        });
        std::iter::once(listener).chain(link)
    }

    /// Takes a new connection, if one waits. True: it did.
    pub(crate) fn accept(&mut self) -> bool {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.listener, flags) else { return false };
        self.link = Some(Link { socket, input: Vec::new(), output: Vec::new() });
        true
    }

    /// Reads what came and gives the whole messages in it. A daemon that left, or speaks nonsense, is let go.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u8>> {
        let Some(link) = &mut self.link else { return Vec::new() };
        let alive = link.fill();
        let messages = link.messages();
        if !matches!((alive, &messages), (Ok(true), Ok(_))) {
            self.link = None;
        }
        messages.unwrap_or_default()
    }

    /// Queues a message, if there is someone to hear it. `flush` sends it.
    pub(crate) fn send(&mut self, message: &[u8]) {
        if let Some(link) = &mut self.link {
            link.output.extend_from_slice(&(message.len() as u32).to_be_bytes());
            link.output.extend_from_slice(message);
        }
    }

    /// Sends what can be sent now.
    pub(crate) fn flush(&mut self) {
        if self.link.as_mut().is_some_and(|link| link.drain().is_err()) {
            self.link = None;
        }
    }
}

impl Link {
    /// False: the other side closed.
    fn fill(&mut self) -> io::Result<bool> {
        loop {
            let before = self.input.len();
            self.input.resize(before + READ_BYTES, 0);
            let read = rustix::net::recv(&self.socket, &mut self.input[before..], RecvFlags::empty());
            self.input.truncate(before + read.map_or(0, |(read, _)| read));
            match read {
                Ok((0, _)) => return Ok(false),
                Ok((READ_BYTES, _)) | Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn messages(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut messages = Vec::new();
        let mut at = 0;
        while let Some(prefix) = self.input.get(at..at + 4) {
            let length = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
            if length > MESSAGE_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            let Some(message) = self.input.get(at + 4..at + 4 + length) else { break };
            messages.push(message.to_vec());
            at += 4 + length;
        }
        self.input.drain(..at);
        if self.input.is_empty() {
            self.input.shrink_to(READ_BYTES);
        }
        Ok(messages)
    }

    fn drain(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match rustix::net::send(&self.socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
