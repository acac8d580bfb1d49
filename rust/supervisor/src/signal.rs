//! The names of signals.

use rustix::process::{Signal, WaitStatus};

const NAMES: [(&str, Signal); 31] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("STKFLT", Signal::STKFLT),
    ("CHLD", Signal::CHILD),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("TTIN", Signal::TTIN),
    ("TTOU", Signal::TTOU),
    ("URG", Signal::URG),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("VTALRM", Signal::VTALARM),
    ("PROF", Signal::PROF),
    ("WINCH", Signal::WINCH),
    ("IO", Signal::IO),
    ("PWR", Signal::POWER),
    ("SYS", Signal::SYS),
];

/// The signal called `name`, with or without `SIG` before it.
pub(crate) fn named(name: &str) -> Option<Signal> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

/// The name of the signal that ended a process, if one did: `SIGTERM`.
pub(crate) fn ended_by(status: WaitStatus) -> Option<String> {
    let number = status.terminating_signal()?;
    let known = NAMES.iter().find(|(_, signal)| signal.as_raw() == number);
    Some(known.map_or_else(|| format!("SIG{number}"), |(name, _)| format!("SIG{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_with_and_without_their_prefix() {
        assert_eq!(named("TERM"), Some(Signal::TERM));
        assert_eq!(named("SIGUSR1"), Some(Signal::USR1));
        assert_eq!(named("SIGSIGTERM"), None);
        assert_eq!(named(""), None);
    }
}
