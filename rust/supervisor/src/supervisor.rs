//! The supervisor: one process, one thread, one loop around `poll`.
//!
//! Each turn does what is due, waits for something to happen, and reads what there is. Nothing in it blocks but that wait.
//! What the daemon asks is done in order, one thing at a time; an interrupt, or news of room, jumps the queue. While the
//! ring is full no output is read, so that the child blocks; all else goes on. A daemon that leaves changes nothing but
//! that what it would have taken goes to the spool: the next one connects and finds the journal, what runs, and how the
//! last child ended. A supervisor that takes over from a dead one only ends its journal, and waits until that was taken.
//!
//! When a short command is over, has left no process, and all of its journal was taken, the daemon may have another one
//! begin in its place: for it the ring is as new, and nothing else of the one before is there.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::Signal;
use tailrace_core::channel::Channel;
use tailrace_core::ledger::Ledger;
use tailrace_core::value::{Value, map};

use crate::book::{Book, READ_BYTES, WhenFull};
use crate::clock::{self, Micros, SECOND};
use crate::control::Control;
use crate::helper::{COMMAND, Nest, RING, remove};
use crate::launch::{Refusal, launch};
use crate::pace::Full;
use crate::request::{self, Child, Exit, Request, Work};
use crate::running::{Reason, Running};
use crate::shelf::Shelf;
use crate::spool::Spool;
use crate::stop::Action;
use crate::watch::Watch;
use crate::{family, process, ring, spool};

/// The longest journal behind which another may begin in the same ring: more would leave much of the ring in memory.
const AGAIN_BYTES_MAX: u64 = 256 << 10;

/// How often one looks whether the directory still exists: a supervisor whose worker was deleted has nobody to wait for.
const CHECK: Micros = 10 * SECOND;

/// How long one waits for a daemon to come back: as long as a worker waits for its master.
const ORPHANED: Micros = 86_400 * SECOND;

/// How much is said of why a command was interrupted: there is room kept in the journal for a line, not for megabytes.
const WHY_CHARS_MAX: usize = 4_000;

/// Where errors of the supervisor itself are written, for want of anyone to tell.
pub(crate) const LOG: &str = "supervisor.log";

/// The life of a supervisor, in a process of its own.
pub(crate) fn live(nest: Nest) -> ! {
    let directory = nest.path.clone();
    let lived = std::panic::catch_unwind(|| {
        std::panic::set_hook(Box::new(move |panic| note(&nest_log(&directory), &panic.to_string())));
        let path = nest.path.clone();
        Supervisor::new(nest)
            .and_then(|mut supervisor| supervisor.run())
            .map_err(|error| note(&nest_log(&path), &error.to_string()))
    });
    process::leave(if matches!(lived, Ok(Ok(()))) { 0 } else { 70 })
}

fn nest_log(directory: &std::path::Path) -> PathBuf {
    directory.join(LOG)
}

fn note(log: &std::path::Path, text: &str) {
    use std::io::Write;
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(log) {
        let _ = writeln!(file, "{text}");
    }
}

struct Supervisor {
    path: PathBuf,
    directory: OwnedFd,
    book: Book,
    control: Control,
    signals: process::Signals,
    queue: VecDeque<(i64, Work)>,
    running: Option<Running>,
    last: Option<(i64, Exit)>,
    spool_bytes_max: u64,
    when_full: WhenFull,
    /// The daemon will say what is to become of it when the command is over.
    stays: bool,
    /// It was there for a command, and waits for another one.
    idle: bool,
    /// Nothing starts any more.
    interrupted: bool,
    leaving: bool,
    /// Going, but what was not delivered stays for a supervisor that takes over.
    resting: bool,
    /// The daemon said that the reader of the journal is away.
    reader_away: bool,
    full: Full,
    check_at: Micros,
    /// When a daemon was there last, as of the last check.
    attached_at: Micros,
    buffer: Vec<u8>,
}

impl Supervisor {
    fn new(nest: Nest) -> io::Result<Self> {
        rustix::process::setsid()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let _ = rustix::thread::set_name(c"tailrace-super");
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        let signals = process::Signals::catch()?;
        let book = if let Some((kind, text)) = &nest.heritage { inherit(&nest, kind, text)? } else { begin(&nest)? };
        Ok(Self {
            path: nest.path,
            directory: nest.directory,
            book,
            control: Control::new(nest.listener),
            signals,
            queue: VecDeque::new(),
            running: None,
            last: None,
            spool_bytes_max: nest.spool_bytes_max,
            when_full: nest.when_full,
            stays: false,
            idle: false,
            interrupted: false,
            leaving: false,
            resting: false,
            reader_away: false,
            full: Full::default(),
            check_at: clock::mono() + CHECK,
            attached_at: clock::mono(),
            buffer: vec![0; READ_BYTES],
        })
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let now = clock::mono();
            self.book.spool(self.reader_away || !self.control.attached());
            self.book.tend(now)?;
            self.work(now);
            self.tend(now);
            self.book.poll(now);
            self.book.tend(now)?;
            if self.book.take_bell() {
                self.control.send(&request::grown());
            }
            // All of a turn at once: the daemon is woken once.
            self.control.flush();
            if self.is_done(now) {
                if !self.resting {
                    remove(&self.path, self.directory.as_fd());
                }
                return Ok(());
            }
            self.wait()?;
        }
    }

    // What is due

    /// Does what can be done of what was asked, in order.
    fn work(&mut self, now: Micros) {
        while let Some((_, work)) = self.queue.front() {
            let ready = match work {
                Work::Spawn(_) | Work::Finish(_) => self.running.is_none() && self.book.has_room_or_asks(),
                Work::Append(..) | Work::Update(_) => self.book.has_room_or_asks(),
            };
            let Some((id, work)) = ready.then(|| self.queue.pop_front()).flatten() else { return };
            match work {
                Work::Spawn(child) => self.spawn(id, *child, now),
                Work::Append(channel, data) => self.append(id, &channel, &data),
                Work::Update(values) => {
                    let done = self.book.update(&values).map_err(|error| error.to_string());
                    self.answer(id, done);
                }
                Work::Finish(failure) => {
                    let failure = failure.as_ref().map(|(kind, text)| (kind.as_str(), text.as_str()));
                    let done = self.book.finish(failure).map_err(|error| error.to_string());
                    self.answer(id, done);
                }
            }
        }
    }

    fn append(&mut self, id: i64, channel: &str, data: &[u8]) {
        let done = match Channel::named(channel, None) {
            Some(_) if self.book.is_over() => Err("the journal is complete".to_owned()),
            Some(_) if data.len() > READ_BYTES => Err(format!("more than {READ_BYTES} bytes at once")),
            Some(channel) => {
                if !data.is_empty() {
                    self.book.push(channel, data);
                }
                Ok(())
            }
            None => Err(format!("no channel {channel:?}")),
        };
        self.answer(id, done);
    }

    fn answer(&mut self, id: i64, done: Result<(), String>) {
        let message = done.map_or_else(|text| request::failed(id, &text), |()| request::done(id));
        self.control.send(&message);
    }

    fn spawn(&mut self, id: i64, child: Child, now: Micros) {
        if self.book.is_over() {
            return self.answer(id, Err("the journal is complete".to_owned()));
        }
        if let Some(header) = &child.header {
            self.book.push(Channel::Header, header);
        }
        self.stays |= child.stays;
        let mut exit = Exit { rc: -1, signal: None, reason: Some("interrupted"), elapsed: 0.0, captured: Vec::new() };
        if !self.interrupted {
            let watches = child.logfiles.iter().map(|log| Watch::new(log, &child.cwd)).collect();
            match launch(&child) {
                Ok(launched) => {
                    self.book.note_child(family::identity(launched.pid));
                    self.running = Some(Running::new(id, child, launched, watches, now));
                    return;
                }
                Err(Refusal { rc, text }) => {
                    self.book.push(Channel::Stderr, text.as_bytes());
                    (exit.rc, exit.reason) = (rc, None);
                }
            }
        }
        self.end(id, exit, child.last);
    }

    /// Looks after the child that runs.
    fn tend(&mut self, now: Micros) {
        let Some(running) = &mut self.running else { return };
        match running.poll(&mut self.book, now) {
            Some(Action::Send(signal)) => family::signal_all(running.pid(), signal),
            Some(Action::GiveUp) | None => {}
        }
        running.look(&mut self.buffer, &mut self.book, now);
        running.abandon(&mut self.book, now);
        if running.is_over() && running.last_look(&mut self.buffer, &mut self.book) {
            let exit = running.conclude(&mut self.book, now);
            let (id, last) = (running.id, running.child.last);
            self.running = None;
            self.end(id, exit, last);
        }
    }

    /// A child has ended, or was not started.
    fn end(&mut self, id: i64, exit: Exit, last: bool) {
        if last {
            self.write_end(&exit);
        }
        // Who hears of the end may look for it in the journal.
        self.book.poll(Micros::MAX);
        self.control.send(&exit.answer(id));
        self.last = Some((id, exit));
    }

    fn write_end(&mut self, exit: &Exit) {
        self.book.push(Channel::Header, format!("elapsedTime={:.6}\n", exit.elapsed).as_bytes());
        let reason = exit.reason.map(|reason| ("failure_reason".to_owned(), reason.into()));
        let signal = exit.signal.as_deref().map(|signal| ("signal".to_owned(), signal.into()));
        let rc = ("rc".to_owned(), i64::from(exit.rc).into());
        let results = reason.into_iter().chain(signal).chain([rc]).collect();
        // These cannot fail: the journal is not complete, and there is room kept for its end.
        let _ = self.book.update(&Value::Map(results));
        let _ = self.book.update(&map([("elapsed", Value::Float(exit.elapsed))]));
        let _ = self.book.finish(None);
    }

    /// Whether there is nothing left to be here for.
    fn is_done(&mut self, now: Micros) -> bool {
        if now >= self.check_at {
            self.check(now);
        }
        if self.running.is_some() {
            return false;
        }
        // A daemon that is gone cannot say what it wanted to.
        let waits = self.stays && self.control.attached();
        let abandoned = self.idle && !self.control.attached() && !self.book.is_labelled();
        self.leaving || self.resting || abandoned || (self.book.is_over() && self.book.is_settled_or_asks() && !waits)
    }

    /// Leaves when nobody can want this supervisor any more, and rests when nobody has for long.
    fn check(&mut self, now: Micros) {
        self.check_at = now + CHECK;
        if self.control.attached() {
            self.attached_at = now;
        }
        let deleted = rustix::fs::fstat(&self.directory).is_ok_and(|stat| stat.st_nlink == 0);
        let accepted =
            self.book.is_labelled() || rustix::fs::statat(&self.directory, COMMAND, AtFlags::empty()).is_ok();
        let unused = !accepted && self.running.is_none() && self.last.is_none() && !self.control.attached();
        if deleted || unused {
            self.leave(now);
        } else if now - self.attached_at > ORPHANED {
            self.interrupt(Reason::Orphaned, "no worker has asked for it for a day", now);
            self.resting = self.running.is_none();
        }
    }

    // What happens

    fn wait(&mut self) -> io::Result<()> {
        let now = clock::mono();
        self.full.note(!self.book.has_room(), now);
        let room = if self.full.asks(now) { self.book.takes_output_or_asks() } else { self.book.takes_output() };
        let timeout = self.timeout(now).map(clock::timespec);
        let ready = {
            let mut polled = Polled::new();
            polled.add(Source::Signals, PollFd::new(self.signals.bell(), PollFlags::IN));
            for (source, fd) in [Source::Listener, Source::Daemon].into_iter().zip(self.control.poll_fds()) {
                polled.add(source, fd);
            }
            if let Some(running) = &mut self.running {
                running.note_room(room, now);
                if let Some(stdin) = &running.stdin {
                    polled.add(Source::Stdin, PollFd::new(&stdin.pipe, PollFlags::OUT));
                }
                for (channel, output) in running.outputs.iter().enumerate() {
                    if let Some(output) = output.as_ref().filter(|_| room && now >= running.pace.nap_until()) {
                        polled.add(Source::Output(channel), PollFd::new(output, PollFlags::IN));
                    }
                }
            }
            polled.wait(timeout)?
        };
        let now = clock::mono();
        for source in ready.into_iter().flatten() {
            self.happen(source, now);
        }
        Ok(())
    }

    /// How long nothing is due.
    fn timeout(&mut self, now: Micros) -> Option<Micros> {
        let running = self.running.as_ref().and_then(|running| running.deadline(now));
        let due =
            [self.book.deadline(), running, self.full.look_at(now), Some(self.check_at)].into_iter().flatten().min();
        due.map(|due| due.saturating_sub(now))
    }

    fn happen(&mut self, source: Source, now: Micros) {
        match source {
            Source::Signals => self.notice_signals(now),
            Source::Listener => {
                if self.control.accept() {
                    let pid = rustix::process::getpid().as_raw_nonzero().get();
                    let running = self.running.as_ref().map(|running| (running.id, running.child.last));
                    let over = self.book.is_over();
                    self.control.send(&request::hello(pid, running, self.last.as_ref(), over));
                }
            }
            Source::Daemon => {
                for message in self.control.receive() {
                    self.hear(&message, now);
                }
            }
            Source::Stdin => self.running.iter_mut().for_each(Running::feed),
            Source::Output(channel) => {
                if let Some(running) = self.running.as_mut().filter(|_| self.book.takes_output()) {
                    running.read(channel, &mut self.buffer, &mut self.book, now);
                }
            }
        }
    }

    fn notice_signals(&mut self, now: Micros) {
        if self.signals.take() {
            self.interrupt(Reason::Interrupted, "the supervisor was told to end", now);
        }
        let reaped = family::reap(self.running.as_ref().and_then(Running::pid));
        if let Some(running) = &mut self.running {
            if let Some(status) = reaped.child {
                running.note_end(status, now);
            }
            running.note_alone(reaped.alone, now);
        }
    }

    fn hear(&mut self, message: &[u8], now: Micros) {
        match Request::decode(message) {
            Ok(Request::Work(id, work)) => {
                self.idle = false;
                self.queue.push_back((id, work));
            }
            Ok(Request::Interrupt { why, orphaned: false }) => self.interrupt(Reason::Interrupted, &why, now),
            Ok(Request::Interrupt { why, orphaned: true }) => self.interrupt(Reason::Orphaned, &why, now),
            Ok(Request::Room) => {}
            Ok(Request::Spooling(on)) => self.reader_away = on,
            Ok(Request::Leave) => self.leave(now),
            Ok(Request::Again) => {
                if self.begin_again().unwrap_or(false) {
                    self.control.send(&request::fresh());
                } else {
                    self.leave(now);
                }
            }
            Err((id, text)) => self.control.send(&request::failed(id, &text)),
        }
    }

    fn interrupt(&mut self, reason: Reason, why: &str, now: Micros) {
        self.interrupted = true;
        if let Some(running) = &mut self.running {
            let why: String = why.chars().take(WHY_CHARS_MAX).collect();
            let text = if why.is_empty() { "interrupted".to_owned() } else { format!("interrupted: {why}") };
            running.stop(reason, &text, &mut self.book, now);
        }
    }

    /// Makes room for another command, in the same directory. False: nothing must follow here.
    fn begin_again(&mut self) -> io::Result<bool> {
        let over = self.running.is_none() && self.queue.is_empty() && self.book.is_over();
        if !over || !self.book.is_settled_or_asks() || self.book.length() > AGAIN_BYTES_MAX {
            return Ok(false);
        }
        // What a command has left running is not another one's.
        if !family::reap(None).alone {
            return Ok(false);
        }
        let file = rustix::fs::openat(&self.directory, RING, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let ring = ring::Writer::renew(&file)?;
        let spool = Spool::new(self.directory.try_clone()?, self.spool_bytes_max);
        self.book = Book::new(Shelf::new(ring, spool, 0), Ledger::new(), self.when_full);
        (self.last, self.stays, self.idle) = (None, false, true);
        (self.interrupted, self.reader_away) = (false, false);
        Ok(true)
    }

    /// Kills what is left of the command, if it is not over, then goes.
    fn leave(&mut self, now: Micros) {
        self.leaving = true;
        self.queue.clear();
        self.interrupted = true;
        match &mut self.running {
            Some(running) => running.hurry(&mut self.book, now),
            None if self.book.is_over() => {}
            None => family::signal_all(None, Signal::KILL),
        }
    }
}

/// The journal of a command that begins.
fn begin(nest: &Nest) -> io::Result<Book> {
    let mut ring = ring::Writer::map(&nest.ring)?;
    ring.set_writer(family::identity(rustix::process::getpid()));
    let spool = Spool::new(nest.directory.try_clone()?, nest.spool_bytes_max);
    Ok(Book::new(Shelf::new(ring, spool, 0), Ledger::new(), nest.when_full))
}

/// The journal of a command whose supervisor has died, with what it holds, and its end. Nothing of the command lives on.
fn inherit(nest: &Nest, kind: &str, text: &str) -> io::Result<Book> {
    let (mut ring, left) = ring::Writer::recover(&nest.ring)?;
    family::kill_leftovers(left.processes);
    ring.set_writer(family::identity(rustix::process::getpid()));
    ring.set_child(ring::Identity::default());
    let (spool, ledger) = spool::inherit(nest.directory.try_clone()?, nest.spool_bytes_max, left.ledger)?;
    let shelf = Shelf::new(ring, spool, ledger.offset());
    Ok(Book::inherit(shelf, ledger, nest.when_full, (kind, text)))
}

/// What `poll` watches.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Daemon,
    Stdin,
    Output(usize),
}

/// No more than the variants of `Source`, stdout and stderr counted apart.
const SOURCES: usize = 6;

struct Polled<'a> {
    sources: Vec<Source>,
    fds: Vec<PollFd<'a>>,
}

impl<'a> Polled<'a> {
    fn new() -> Self {
        Self { sources: Vec::with_capacity(SOURCES), fds: Vec::with_capacity(SOURCES) }
    }

    fn add(&mut self, source: Source, fd: PollFd<'a>) {
        self.sources.push(source);
        self.fds.push(fd);
    }

    /// What is ready, in the order in which it was added.
    fn wait(mut self, timeout: Option<rustix::event::Timespec>) -> io::Result<Vec<Option<Source>>> {
        match rustix::event::poll(&mut self.fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = self.fds.iter().zip(&self.sources);
        Ok(ready.map(|(fd, source)| (!fd.revents().is_empty()).then_some(*source)).collect())
    }
}
