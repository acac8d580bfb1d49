//! All processes that a command has started, wherever they went: the supervisor is their subreaper.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

/// Every descendant of this process, children before grandchildren. A snapshot: what forks meanwhile may be missed.
pub(crate) fn descendants() -> Vec<Pid> {
    let everyone = everyone();
    let mut family = vec![rustix::process::getpid()];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(everyone.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family.remove(0);
    family
}

/// Sends `signal` to the group of the child, if it stands, and to every descendant.
pub(crate) fn signal_all(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, signal);
    }
    for pid in descendants() {
        // The group has it already, and TERM twice is not the same as once.
        let in_group = group.is_some() && rustix::process::getpgid(Some(pid)).ok() == group;
        if !in_group {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// What `reap` found.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// The end of the child that was asked for.
    pub(crate) child: Option<WaitStatus>,
    /// No descendant is left at all.
    pub(crate) alone: bool,
}

/// Collects every process that has ended, the adopted ones too.
pub(crate) fn reap(child: Option<Pid>) -> Reaped {
    let mut reaped = Reaped::default();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == child => reaped.child = Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return reaped,
            Err(_) => {
                reaped.alone = true;
                return reaped;
            }
        }
    }
}

/// (process, its parent) for all that /proc shows.
fn everyone() -> Vec<(Pid, Pid)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let pid = name.to_str()?.parse().ok()?;
            let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((Pid::from_raw(pid)?, parent(&stat)?))
        })
        .collect()
}

/// The parent in a `/proc/PID/stat`: the second word behind the name, which stands in parentheses and may hold any byte.
fn parent(stat: &[u8]) -> Option<Pid> {
    let behind = stat.iter().rposition(|byte| *byte == b')')?;
    let words = std::str::from_utf8(stat.get(behind + 1..)?).ok()?;
    Pid::from_raw(words.split_ascii_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_a_parent() {
        assert_eq!(parent(b"12 (a) S 99 (b) S 7 12 12 0"), Pid::from_raw(7));
        assert_eq!(parent(b"12 (init) S 0 1"), None);
        assert_eq!(parent(b""), None);
    }

    #[test]
    fn a_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(descendants().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descendants().contains(&pid));
    }
}
