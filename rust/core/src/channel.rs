//! The channels of a command: where bytes of its output come from.

use std::collections::BTreeMap;

use crate::limits::LOG_NAME_BYTES_MAX;
use crate::record::kind;

/// Where bytes of a command's output come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel<'a> {
    /// The child's standard output.
    Stdout,
    /// The child's standard error.
    Stderr,
    /// What Tailrace says about the command.
    Header,
    /// A watched log file, by its name.
    Log(&'a str),
}

impl<'a> Channel<'a> {
    /// The channel called `channel`; a `name` goes with `log`, and only with it.
    pub fn named(channel: &str, name: Option<&'a str>) -> Option<Self> {
        match (channel, name) {
            ("stdout", None) => Some(Self::Stdout),
            ("stderr", None) => Some(Self::Stderr),
            ("header", None) => Some(Self::Header),
            ("log", Some(name)) if name.len() <= LOG_NAME_BYTES_MAX => Some(Self::Log(name)),
            _ => None,
        }
    }

    /// `stdout`, `stderr`, `header` or `log`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Header => "header",
            Self::Log(_) => "log",
        }
    }

    /// The name of a named log.
    pub const fn name(self) -> Option<&'a str> {
        match self {
            Self::Log(name) => Some(name),
            _ => None,
        }
    }

    /// The kind byte of this channel's records.
    pub const fn kind(self) -> u8 {
        match self {
            Self::Stdout => kind::STDOUT,
            Self::Stderr => kind::STDERR,
            Self::Header => kind::HEADER,
            Self::Log(_) => kind::LOG,
        }
    }

    /// How a receipt calls it: `log:NAME` for a named log.
    pub fn key(self) -> String {
        match self {
            Self::Log(name) => format!("log:{name}"),
            _ => self.as_str().to_owned(),
        }
    }

    /// The channel of a record of `kind`; only named logs have a name that is not empty.
    pub fn of_kind(kind: u8, name: &'a str) -> Option<Self> {
        match kind {
            kind::STDOUT if name.is_empty() => Some(Self::Stdout),
            kind::STDERR if name.is_empty() => Some(Self::Stderr),
            kind::HEADER if name.is_empty() => Some(Self::Header),
            kind::LOG => Some(Self::Log(name)),
            _ => None,
        }
    }
}

/// Something for each channel that occurred.
#[derive(Debug, Clone, Default)]
pub struct PerChannel<T> {
    stdout: Option<T>,
    stderr: Option<T>,
    header: Option<T>,
    logs: BTreeMap<String, T>,
}

impl<T: Default> PerChannel<T> {
    /// What is kept for `channel`, if it occurred.
    pub fn get(&self, channel: Channel<'_>) -> Option<&T> {
        match channel {
            Channel::Stdout => self.stdout.as_ref(),
            Channel::Stderr => self.stderr.as_ref(),
            Channel::Header => self.header.as_ref(),
            Channel::Log(name) => self.logs.get(name),
        }
    }

    /// What is kept for `channel`, which has now occurred.
    pub fn entry(&mut self, channel: Channel<'_>) -> &mut T {
        match channel {
            Channel::Stdout => self.stdout.get_or_insert_default(),
            Channel::Stderr => self.stderr.get_or_insert_default(),
            Channel::Header => self.header.get_or_insert_default(),
            Channel::Log(name) => self.logs.entry(name.to_owned()).or_default(),
        }
    }

    /// The number of named logs that occurred.
    pub fn logs(&self) -> usize {
        self.logs.len()
    }

    /// The number of channels that occurred.
    pub fn len(&self) -> usize {
        let fixed = [&self.stdout, &self.stderr, &self.header];
        fixed.iter().filter(|kept| kept.is_some()).count() + self.logs.len()
    }

    /// Whether none occurred.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (Channel<'_>, &T)> {
        let [stdout, stderr, header] = [&self.stdout, &self.stderr, &self.header].map(Option::as_ref);
        let fixed = [(Channel::Stdout, stdout), (Channel::Stderr, stderr), (Channel::Header, header)];
        let fixed = fixed.into_iter().filter_map(|(channel, kept)| Some((channel, kept?)));
        fixed.chain(self.logs.iter().map(|(name, kept)| (Channel::Log(name), kept)))
    }
}
