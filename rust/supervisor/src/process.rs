//! The few system calls about processes and signals that need `unsafe`, each behind a safe function.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::event::EventfdFlags;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// Signals as something to poll. They are caught rather than blocked: a child would inherit a mask, but no handlers.
pub(crate) struct Signals {
    bell: OwnedFd,
}

/// Where the handler rings; one per process, as handlers are.
static BELL: AtomicI32 = AtomicI32::new(-1);
static ASKED_TO_END: AtomicBool = AtomicBool::new(false);

impl Signals {
    /// Catches the end of children, and what asks this process to end. Children inherit plain dispositions.
    pub(crate) fn catch() -> io::Result<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        BELL.store(bell.as_raw_fd(), Ordering::SeqCst);
        // Python ignores SIGXFSZ; a child should not, and we must not die of a spool that may not grow. (SIGPIPE, which it
        // ignores as well, is the standard library's to reset in children; here it must stay ignored.)
        dispose(libc::SIGXFSZ, nothing as *const () as libc::sighandler_t);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            dispose(signal, ring as *const () as libc::sighandler_t);
        }
        Ok(Self { bell })
    }

    /// Readable when a signal came.
    pub(crate) fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Forgets the signals that came. True: one of them asks us to end.
    pub(crate) fn take(&self) -> bool {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        ASKED_TO_END.swap(false, Ordering::SeqCst)
    }
}

/// The handler: atomics, one system call, and errno as it was.
extern "C" fn ring(signal: libc::c_int) {
    if signal != libc::SIGCHLD {
        ASKED_TO_END.store(true, Ordering::SeqCst);
    }
    let one = 1_u64;
    // SAFETY: errno's place is this thread's own; write may be called in handlers, and reads eight bytes of a local.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(BELL.load(Ordering::SeqCst), (&raw const one).cast(), size_of_val(&one));
        *libc::__errno_location() = errno;
    }
}

/// Caught and not ignored: a child has the default again.
extern "C" fn nothing(_signal: libc::c_int) {}

fn dispose(signal: libc::c_int, disposition: libc::sighandler_t) {
    // SAFETY: `action` is valid when zeroed and outlives the call. The only handlers ever given are `ring` and `nothing`, which
    // do nothing that a handler may not do.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = disposition;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}
