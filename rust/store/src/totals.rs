//! What was counted so far, channel by channel.

use std::collections::BTreeMap;
use std::str::FromStr;

use tailrace_core::channel;
use tailrace_core::limits::LOG_NAME_BYTES_MAX;
use tailrace_core::record::kind;

use crate::error::StoreError;

/// Channels of one log. A build has a handful of named logs; every block's head and every mark may name them all.
pub const CHANNELS_MAX: usize = 1_024;

/// Where bytes come from. The name is empty but for named logs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    /// Its record kind.
    pub kind: u8,
    /// The log's name: UTF-8, at most 255 bytes.
    pub name: Box<str>,
}

impl Channel {
    /// None: there is no such kind, or the name does not go with it.
    pub fn new(kind: u8, name: &str) -> Option<Self> {
        let fits = match kind {
            kind::STDOUT | kind::STDERR | kind::HEADER => name.is_empty(),
            _ => kind == kind::LOG && name.len() <= LOG_NAME_BYTES_MAX,
        };
        fits.then(|| Self { kind, name: name.into() })
    }
}

impl std::fmt::Display for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            kind::STDOUT => f.write_str("stdout"),
            kind::STDERR => f.write_str("stderr"),
            kind::HEADER => f.write_str("header"),
            _ => write!(f, "log:{}", self.name),
        }
    }
}

/// The lines that are counted: of one channel, or of the command's output, stdout and stderr together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// stdout and stderr, in the order of the records.
    Output,
    /// One channel.
    One(Channel),
}

impl FromStr for Select {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let (kind, name) = match text {
            "stdout" => (kind::STDOUT, ""),
            "stderr" => (kind::STDERR, ""),
            "header" => (kind::HEADER, ""),
            _ => match text.strip_prefix("log:") {
                Some(name) => (kind::LOG, name),
                None => {
                    let what = format!("no channel is called {text:?}: it is stdout, stderr, header or log:NAME");
                    return Err(StoreError::Usage(what));
                }
            },
        };
        Ok(Self::One(Channel { kind, name: name.into() }))
    }
}

impl Select {
    /// Whether this channel's lines count.
    pub fn takes(&self, channel: channel::Channel<'_>) -> bool {
        self.takes_named(channel.kind(), channel.name().unwrap_or_default())
    }

    fn takes_named(&self, kind: u8, name: &str) -> bool {
        match self {
            Self::Output => kind == kind::STDOUT || kind == kind::STDERR,
            Self::One(channel) => channel.kind == kind && &*channel.name == name,
        }
    }
}

/// Bytes, and lines that began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Data bytes.
    pub bytes: u64,
    /// Lines begun.
    pub lines: u64,
}

/// One count for each channel that occurred, in the order of first occurrence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    channels: Vec<Channel>,
    counts: Vec<Count>,
    named: BTreeMap<Box<str>, usize>,
}

impl Totals {
    /// Channels and counts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Channel, Count)> {
        self.channels.iter().zip(self.counts.iter().copied())
    }

    /// One of them.
    pub fn at(&self, position: usize) -> Option<(&Channel, Count)> {
        self.channels.get(position).zip(self.counts.get(position).copied())
    }

    /// How many channels there are.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether nothing was counted yet.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// The counts alone, in order.
    pub fn counts(&self) -> &[Count] {
        &self.counts
    }

    /// Lines begun in what is selected.
    pub fn lines(&self, select: &Select) -> u64 {
        self.lines_of(&self.counts, select)
    }

    /// The same, of counts in this order that were taken earlier, when perhaps fewer channels had occurred.
    pub fn lines_of(&self, counts: &[Count], select: &Select) -> u64 {
        let taken =
            self.channels.iter().zip(counts).filter(|(channel, _)| select.takes_named(channel.kind, &channel.name));
        taken.fold(0, |sum, (_, count)| sum.saturating_add(count.lines))
    }

    /// What these were when they had the given counts, which are in the same order.
    pub fn with(&self, counts: &[Count]) -> Self {
        let mut earlier = Self::default();
        for (channel, &count) in self.channels.iter().zip(counts) {
            earlier.set(channel, count);
        }
        earlier
    }

    /// Goes on to later counts, given for the channels that changed. None: there are too many channels.
    pub fn follow(&mut self, later: &Self) -> Option<()> {
        later.iter().try_for_each(|(channel, count)| self.set(channel, count))
    }

    /// Counts on. None: there are too many channels. Otherwise the channel's position.
    pub fn add(&mut self, channel: channel::Channel<'_>, bytes: u64, lines: u64) -> Option<usize> {
        let position = self.position_or_new(channel.kind(), channel.name().unwrap_or_default())?;
        let count = self.counts.get_mut(position)?;
        count.bytes = count.bytes.saturating_add(bytes);
        count.lines = count.lines.saturating_add(lines);
        Some(position)
    }

    /// Replaces a channel's count. None: there are too many channels.
    pub fn set(&mut self, channel: &Channel, count: Count) -> Option<()> {
        let position = self.position_or_new(channel.kind, &channel.name)?;
        *self.counts.get_mut(position)? = count;
        Some(())
    }

    fn position_or_new(&mut self, kind: u8, name: &str) -> Option<usize> {
        if let Some(position) = self.position(kind, name) {
            return Some(position);
        }
        if self.channels.len() >= CHANNELS_MAX {
            return None;
        }
        let position = self.channels.len();
        let channel = Channel { kind, name: name.into() };
        if kind == kind::LOG {
            self.named.insert(channel.name.clone(), position);
        }
        self.channels.push(channel);
        self.counts.push(Count::default());
        Some(position)
    }

    fn position(&self, kind: u8, name: &str) -> Option<usize> {
        if kind == kind::LOG {
            return self.named.get(name).copied();
        }
        self.channels.iter().position(|channel| channel.kind == kind)
    }
}
