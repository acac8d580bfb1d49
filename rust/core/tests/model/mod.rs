//! The slow twins: so simple that they are the specification.

use tailrace_core::channel::Channel;

/// What was read at once: a channel (0 stdout, 1 stderr, 2 and 3 named logs), bytes, and when.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) channel: usize,
    pub(crate) data: Vec<u8>,
    pub(crate) at_us: u64,
}

pub(crate) const CHANNELS: [Channel<'static>; 4] =
    [Channel::Stdout, Channel::Stderr, Channel::Log("a"), Channel::Log("b")];

/// The time of each line's first byte, looked at byte by byte.
pub(crate) fn line_times<'a>(pieces: impl IntoIterator<Item = (&'a [u8], u64)>) -> Vec<u64> {
    let mut times = Vec::new();
    let mut begins = true;
    for (bytes, at) in pieces {
        for &byte in bytes {
            if begins {
                times.push(at);
            }
            begins = byte == b'\n';
        }
    }
    times
}
