//! One child from its start to its end: what it writes, what it is fed, its limits, and how it is stopped.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, WaitStatus};
use tailrace_core::channel::Channel;

use crate::book::Book;
use crate::clock::{MILLISECOND, Micros, SECOND};
use crate::launch::Launched;
use crate::limit::LineLimit;
use crate::pace::Pace;
use crate::request::{Child, Exit};
use crate::signal;
use crate::stop::{Action, Stop};
use crate::watch::Watch;

/// How long a descendant that holds the pipes is waited for, from its last output.
const LINGER: Micros = 5 * SECOND;

/// How often log files are looked at.
const LOOK: Micros = 100 * MILLISECOND;

/// What comes back of a captured stdout.
const CAPTURED_BYTES_MAX: usize = 64 << 10;

/// Why a child was stopped, in the words of `failure_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Silence,
    Time,
    Lines,
    Interrupted,
    /// By its worker, whose master has not come back.
    Orphaned,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Silence => "timeout_without_output",
            Self::Time => "timeout",
            Self::Lines => "max_lines_failure",
            Self::Interrupted => "interrupted",
            Self::Orphaned => "orphaned",
        }
    }
}

/// What a child reads.
pub(crate) struct Feed {
    pub(crate) pipe: OwnedFd,
    bytes: Vec<u8>,
    written: usize,
}

/// A child, from its start to its end.
pub(crate) struct Running {
    pub(crate) id: i64,
    pub(crate) child: Child,
    /// Stdout and stderr, until their end.
    pub(crate) outputs: [Option<OwnedFd>; 2],
    /// What is to be written to it, until all of that was.
    pub(crate) stdin: Option<Feed>,
    pid: Pid,
    started: Micros,
    /// When the child gave a sign of life last.
    heard: Micros,
    ended: Option<(Micros, WaitStatus)>,
    /// When no descendant was left.
    alone: Option<Micros>,
    watches: Vec<Watch>,
    look_at: Micros,
    /// All that log files held at the last look was read.
    looked: bool,
    looked_last: bool,
    limit: Option<LineLimit>,
    cut: [(u64, u64); 2],
    captured: Vec<u8>,
    pub(crate) pace: Pace,
    stopped: Option<(Reason, Stop)>,
    blocked: bool,
}

impl Running {
    /// A child that was just started. `watches` were made before that.
    pub(crate) fn new(id: i64, mut child: Child, launched: Launched, watches: Vec<Watch>, now: Micros) -> Self {
        let mut feed = child.stdin.take().unwrap_or_default();
        if child.pty {
            feed.push(4); // what a terminal has instead of an end of file
        }
        let outputs = [launched.stdout, launched.stderr];
        Self {
            id,
            pace: Pace::new(&outputs),
            outputs,
            stdin: launched.stdin.map(|pipe| Feed { pipe, bytes: feed, written: 0 }),
            pid: launched.pid,
            started: now,
            heard: now,
            ended: None,
            alone: None,
            watches,
            look_at: now + LOOK,
            looked: true,
            looked_last: false,
            limit: child.max_lines.map(LineLimit::new),
            cut: [(0, 0); 2],
            captured: Vec::new(),
            stopped: None,
            blocked: false,
            child,
        }
    }

    /// The process whose end is waited for.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.ended.is_none().then_some(self.pid)
    }

    /// The child has ended.
    pub(crate) fn note_end(&mut self, status: WaitStatus, now: Micros) {
        self.ended = Some((now, status));
        self.heard = now;
        self.pace.wake();
        self.stdin = None;
    }

    /// Whether any descendant is left. A child that died in a stop may have left some.
    pub(crate) fn note_alone(&mut self, alone: bool, now: Micros) {
        self.alone = if alone { self.alone.or(Some(now)) } else { None };
    }

    /// Output cannot be read, for want of room: not the child is silent, we are deaf.
    pub(crate) fn note_room(&mut self, room: bool, now: Micros) {
        if self.blocked || !room {
            self.heard = now;
        }
        self.blocked = !room;
    }

    /// Begins to stop the child. False: that was begun already.
    pub(crate) fn stop(&mut self, reason: Reason, why: &str, book: &mut Book, now: Micros) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        book.push(Channel::Header, format!("\ncommand {why}, attempting to kill\n").as_bytes());
        self.stopped = Some((reason, Stop::new(self.child.manner, now)));
        true
    }

    /// Stops it by KILL, now. Nobody is interested in what it writes any more.
    pub(crate) fn hurry(&mut self, book: &mut Book, now: Micros) {
        self.outputs = [None, None];
        self.watches.clear();
        self.stop(Reason::Interrupted, "abandoned", book, now);
        if let Some((_, stop)) = &mut self.stopped {
            stop.hurry(now);
        }
    }

    /// What is due of the child's limits and of its stop: a signal to send to all of its processes.
    pub(crate) fn poll(&mut self, book: &mut Book, now: Micros) -> Option<Action> {
        if let Some(silence) = self.silent_at().filter(|at| *at <= now).and(self.child.silence) {
            self.stop(Reason::Silence, &format!("timed out: {} without output", seconds(silence)), book, now);
        }
        if let Some(max_time) = self.late_at().filter(|at| *at <= now).and(self.child.max_time) {
            self.stop(Reason::Time, &format!("timed out: {} elapsed", seconds(max_time)), book, now);
        }
        let (_, stop) = self.stopped.as_mut()?;
        let action = stop.poll(now).filter(|_| self.alone.is_none())?;
        if action == Action::GiveUp {
            book.push(Channel::Header, b"\nsome processes do not end, left alone\n");
        }
        Some(action)
    }

    /// When there is something to do though nothing happens.
    pub(crate) fn deadline(&self, now: Micros) -> Option<Micros> {
        let stop = self.stopped.as_ref().filter(|_| self.alone.is_none()).and_then(|(_, stop)| stop.due());
        let look = (!self.watches.is_empty()).then_some(self.look_at);
        let nap = Some(self.pace.nap_until()).filter(|until| *until > now && self.has_output());
        [self.silent_at(), self.late_at(), self.abandon_at(), stop, look, nap].into_iter().flatten().min()
    }

    fn silent_at(&self) -> Option<Micros> {
        let counts = self.stopped.is_none() && self.ended.is_none() && !self.blocked;
        self.child.silence.filter(|_| counts).map(|silence| self.heard.saturating_add(silence))
    }

    fn late_at(&self) -> Option<Micros> {
        self.child.max_time.filter(|_| self.stopped.is_none()).map(|time| self.started.saturating_add(time))
    }

    /// When pipes that someone else holds open are given up.
    fn abandon_at(&self) -> Option<Micros> {
        let (ended, _) = self.ended.filter(|_| self.has_output() && !self.blocked)?;
        match (&self.stopped, self.alone) {
            (Some((_, stop)), _) if stop.gave_up() => Some(ended),
            (Some(_), None) => None,
            (Some(_), Some(alone)) => Some(alone + LINGER),
            (None, _) => Some(self.heard + LINGER),
        }
    }

    fn has_output(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// Reads once of the output `channel` (0: stdout, 1: stderr) and adds it to the journal.
    pub(crate) fn read(&mut self, channel: usize, buffer: &mut [u8], book: &mut Book, now: Micros) {
        let Some(output) = &self.outputs[channel] else { return };
        match rustix::io::read(output, &mut *buffer) {
            Ok(read) if read > 0 => {
                self.pace.note(channel, read, now, self.heard);
                self.heard = now;
                self.take(channel, &buffer[..read], book, now);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A terminal says EIO when its last user has gone.
            Ok(_) | Err(_) => self.outputs[channel] = None,
        }
    }

    fn take(&mut self, channel: usize, data: &[u8], book: &mut Book, now: Micros) {
        if channel == 0 && self.child.capture {
            let room = CAPTURED_BYTES_MAX - self.captured.len();
            self.captured.extend_from_slice(&data[..data.len().min(room)]);
            return;
        }
        if !self.child.want[channel] {
            return;
        }
        let allowed = self.limit.as_mut().map_or(data.len(), |limit| limit.allowed(channel, data));
        let (kept, cut) = data.split_at(allowed);
        if !kept.is_empty() {
            book.push_output(CHANNELS[channel], kept);
        }
        if !cut.is_empty() {
            self.cut[channel].0 += cut.len() as u64;
            self.cut[channel].1 += tailrace_core::line::count_newlines(cut) as u64;
            let lines = self.child.max_lines.unwrap_or_default();
            self.stop(Reason::Lines, &format!("exceeded max lines: {lines}"), book, now);
        }
    }

    /// Feeds the child's standard input; closes it behind the last byte.
    pub(crate) fn feed(&mut self) {
        let Some(Feed { pipe, bytes, written }) = &mut self.stdin else { return };
        while *written < bytes.len() {
            match rustix::io::write(&*pipe, &bytes[*written..]) {
                Ok(more) => *written += more,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // It does not want it.
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    /// Reads the watched log files, if it is time to.
    pub(crate) fn look(&mut self, buffer: &mut [u8], book: &mut Book, now: Micros) {
        if now < self.look_at && self.looked {
            return;
        }
        self.look_at = now + LOOK;
        if self.looked {
            self.watches.iter_mut().for_each(Watch::look);
        }
        self.looked = false;
        for watch in &mut self.watches {
            loop {
                if !book.takes_output_or_asks() {
                    return;
                }
                let read = watch.read(buffer);
                if read == 0 {
                    break;
                }
                self.heard = now;
                book.push_output(Channel::Log(&watch.name), &buffer[..read]);
            }
        }
        self.looked = true;
    }

    /// Gives up pipes that are held open by what will not end.
    pub(crate) fn abandon(&mut self, book: &mut Book, now: Micros) {
        if self.abandon_at().is_some_and(|at| at <= now) {
            if self.stopped.is_none() {
                let text = b"\nanother process holds the command's output open and is silent, left alone\n";
                book.push(Channel::Header, text);
            }
            self.outputs = [None, None];
        }
    }

    /// Whether all is said and done but for a last look at the log files.
    pub(crate) fn is_over(&self) -> bool {
        let gone = match &self.stopped {
            None => self.ended.is_some(),
            Some((_, stop)) => stop.gave_up() || (self.ended.is_some() && self.alone.is_some()),
        };
        gone && (!self.has_output() || self.ended.is_none())
    }

    /// Reads the log files to their end. False: there is no room for it now.
    pub(crate) fn last_look(&mut self, buffer: &mut [u8], book: &mut Book) -> bool {
        if !self.looked_last {
            self.look(buffer, book, 0);
            if !self.looked {
                return false;
            }
            (self.looked_last, self.look_at) = (true, 0);
        }
        self.look(buffer, book, Micros::MAX - LOOK);
        self.looked
    }

    /// How it ended, and what was cut off says so in the journal.
    pub(crate) fn conclude(&mut self, book: &mut Book, now: Micros) -> Exit {
        for (channel, (bytes, lines)) in CHANNELS.into_iter().zip(self.cut) {
            if bytes > 0 {
                let _ = book.gap(channel, bytes, lines, "max_lines");
            }
        }
        let status = self.ended.map(|(_, status)| status);
        let signal = status.and_then(signal::ended_by);
        let rc = match status.and_then(|status| status.exit_status()) {
            Some(0) if self.stopped.is_some() => -1,
            Some(code) => code,
            None => -1,
        };
        if let Some(signal) = &signal {
            book.push(Channel::Header, format!("process killed by signal {signal}\n").as_bytes());
        }
        Exit {
            rc,
            signal,
            reason: self.stopped.as_ref().map(|(reason, _)| reason.as_str()),
            elapsed: (now - self.started) as f64 / SECOND as f64,
            captured: std::mem::take(&mut self.captured),
        }
    }
}

const CHANNELS: [Channel<'static>; 2] = [Channel::Stdout, Channel::Stderr];

fn seconds(time: Micros) -> String {
    format!("{} seconds", time as f64 / SECOND as f64)
}
