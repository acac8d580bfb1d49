//! The few system calls about processes and signals that need `unsafe`, each behind a safe function.

use std::io;

use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes over a descriptor that this process was given by whoever started it.
pub(crate) fn adopt(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not negative; whether it is open is what is asked.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(descriptor) })?;
    // SAFETY: open, and handed over by the caller's contract.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The signals that a supervisor reads from a descriptor instead of being interrupted by them.
const AWAITED: [libc::c_int; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The old process: the new one's id.
    Parent(i32),
    /// The new process.
    Child,
}

/// Forks. Only for a process with one thread: in the child no other thread would exist, but its locks would.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the helper has one thread (its `main` says so in its contract), so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends this process now: nothing of what it was forked from is run or flushed.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(code) }
}

/// Children that end are forgotten by the kernel: nobody will ask for them.
pub(crate) fn forget_children() {
    dispose(libc::SIGCHLD, libc::SIG_IGN);
}

/// What ended, and what asks us to end, can be read from the descriptor. Children inherit plain dispositions.
pub(crate) fn await_signals() -> io::Result<OwnedFd> {
    // Python ignores SIGXFSZ and SIGPIPE, the helper SIGCHLD; a child should not.
    for signal in [libc::SIGCHLD, libc::SIGPIPE, libc::SIGXFSZ, libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        dispose(signal, libc::SIG_DFL);
    }
    // SAFETY: `set` is initialised by sigemptyset before anything reads it; all pointers are to locals.
    let descriptor = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        for signal in AWAITED {
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was made just now and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Lets through what `await_signals` holds back: a child would inherit that. Only a system call, so fit between fork and exec.
pub(crate) fn unblock_signals() -> io::Result<()> {
    // SAFETY: `set` is initialised by sigemptyset before anything reads it; all pointers are to locals.
    let failed = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads all that waits on the descriptor of `await_signals`. True: somebody asks us to end.
pub(crate) fn asked_to_end(signals: &OwnedFd) -> bool {
    let mut asked = false;
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    while let Ok(read) = rustix::io::read(signals, &mut info)
        && read == info.len()
    {
        let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        asked |= number != libc::SIGCHLD as u32;
    }
    asked
}

fn dispose(signal: libc::c_int, disposition: libc::sighandler_t) {
    // SAFETY: SIG_IGN and SIG_DFL are no handlers: nothing of ours is called.
    unsafe { libc::signal(signal, disposition) };
}
