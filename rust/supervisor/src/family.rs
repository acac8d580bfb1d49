//! All processes that a command has started, wherever they went: the supervisor is their subreaper.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::ring::Identity;

/// Every descendant of this process, children before grandchildren. A snapshot: what forks meanwhile may be missed.
pub(crate) fn descendants() -> Vec<Pid> {
    let everyone = everyone();
    let mut family = vec![rustix::process::getpid()];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(everyone.iter().filter(|shown| shown.parent == Some(parent)).map(|shown| shown.pid));
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

/// A process as /proc shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    pid: Pid,
    parent: Option<Pid>,
    session: Option<Pid>,
    /// In the kernel's ticks since the machine was started.
    started: u64,
}

/// By what this process can be known again.
pub(crate) fn identity(pid: Pid) -> Identity {
    let started = shown(pid).map_or(0, |shown| shown.started);
    Identity { pid: pid.as_raw_nonzero().get(), started, boot: boot() }
}

/// The first 64 bits of the kernel's name for this run of the machine; 0 where it has none.
fn boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(read_boot)
}

fn read_boot() -> u64 {
    let name = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = name.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or_default()
}

/// Kills what is left of a supervisor that died, with its child: both as `identity` said. Whoever left their sessions
/// is not found. Waits until they are gone, for a bounded time.
pub(crate) fn kill_leftovers(identities: [Identity; 2]) {
    let boot = boot();
    let identities = identities.map(|identity| if identity.boot == boot { identity } else { Identity::default() });
    for _ in 0..LEFTOVER_LOOKS {
        let everyone = everyone();
        let left: Vec<Pid> = identities.iter().flat_map(|identity| left_of(&everyone, *identity)).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(LEFTOVER_LOOK);
    }
}

/// What has died is gone as soon as whoever adopted it has noticed.
const LEFTOVER_LOOK: Duration = Duration::from_millis(10);
const LEFTOVER_LOOKS: usize = 200;

/// The process that had this identity, and whoever is in its session. The kernel gives no id away that names a session; so
/// if another process has it now, the session is no more.
fn left_of(everyone: &[Shown], Identity { pid, started, .. }: Identity) -> Vec<Pid> {
    let Some(pid) = Pid::from_raw(pid) else { return Vec::new() };
    if everyone.iter().any(|shown| shown.pid == pid && shown.started != started) {
        return Vec::new();
    }
    let ours = |shown: &&Shown| (shown.pid == pid || shown.session == Some(pid)) && shown.started >= started;
    everyone.iter().filter(ours).map(|shown| shown.pid).collect()
}

/// All that /proc shows, but those that have ended and wait to be collected.
fn everyone() -> Vec<Shown> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    pids.filter_map(shown).collect()
}

fn shown(pid: Pid) -> Option<Shown> {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse(pid, &stat)
}

/// Of a `/proc/PID/stat`: the words behind the name, which stands in parentheses and may hold any byte.
fn parse(pid: Pid, stat: &[u8]) -> Option<Shown> {
    let behind = stat.iter().rposition(|byte| *byte == b')')?;
    let words: Vec<&str> = std::str::from_utf8(stat.get(behind + 1..)?).ok()?.split_ascii_whitespace().collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<i32>().ok()).and_then(Pid::from_raw);
    let started = words.get(19)?.parse().ok()?;
    (!matches!(words.first(), Some(&"Z" | &"X"))).then_some(Shown {
        pid,
        parent: number(1),
        session: number(3),
        started,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_a_parent() {
        let pid = Pid::from_raw(12).unwrap();
        let rest = "0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        let shown = parse(pid, format!("12 (a) S 99 (b) S 7 12 8 {rest}").as_bytes()).unwrap();
        assert_eq!((shown.parent, shown.session, shown.started), (Pid::from_raw(7), Pid::from_raw(8), 4711));
        assert_eq!(parse(pid, format!("12 (a) S 0 12 0 {rest}").as_bytes()).unwrap().parent, None);
        assert_eq!(parse(pid, format!("12 (a) Z 7 12 8 {rest}").as_bytes()), None);
        assert_eq!(parse(pid, b"12 (init) S 0 1"), None);
        assert_eq!(parse(pid, b""), None);
    }

    #[test]
    fn what_shares_a_session_with_the_dead_is_left_of_it() {
        let process = |pid, session, started| Shown {
            pid: Pid::from_raw(pid).unwrap(),
            parent: None,
            session: Pid::from_raw(session),
            started,
        };
        let left = |everyone: &[Shown]| {
            left_of(everyone, Identity { pid: 7, started: 100, boot: 0 })
                .iter()
                .map(|pid| pid.as_raw_nonzero().get())
                .sum::<i32>()
        };
        assert_eq!(left(&[process(8, 7, 150), process(9, 7, 101), process(10, 1, 150)]), 17);
        assert_eq!(left(&[process(7, 7, 100), process(8, 7, 150)]), 15);
        assert_eq!(left(&[process(7, 7, 300), process(8, 7, 350)]), 0, "the number was given to another");
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
