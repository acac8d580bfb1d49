//! The helper: a small process, started early, of which every supervisor is a fork.
//!
//! The daemon cannot fork well: it is large and has threads. The helper has nothing but this code, so that a fork costs
//! little, and shares its memory with all of its children. A request is one packet on a SOCK_SEQPACKET socket, and is
//! answered by one:
//!
//! ```text
//! request: u64 bytes of the ring | u64 bytes of the spool | u8 when the spool is full: 0 wait, 1 gap
//!          | u8 0: new, the path of the directory to be made
//!            or 1: take over, the path of a directory whose supervisor has died, NUL, error type, NUL, text
//!          (numbers in native order)
//! answer:  i32 process id, native order; or i32 negative error number | what was being done
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::book::{RING_BYTES_MIN, WhenFull};
use crate::process::{self, Fork};
use crate::{ring, spool, supervisor};

/// The journal's file in a supervisor's directory.
pub(crate) const RING: &str = "journal.ring";

/// The control socket beside it.
pub(crate) const SOCKET: &str = "control.sock";

const REQUEST_BYTES_MAX: usize = 16 << 10;

/// The life of the helper: until the other side of the socket `descriptor` is closed. For a process with one thread,
/// which hands the descriptor over.
pub fn main(descriptor: RawFd) -> io::Result<()> {
    let mut socket = Some(process::adopt(descriptor)?);
    process::forget_children();
    let _ = rustix::thread::set_name(c"tailrace-helper");
    let mut request = vec![0; REQUEST_BYTES_MAX];
    while let Some(daemon) = &socket {
        let length = match rustix::net::recv(daemon, request.as_mut_slice(), RecvFlags::empty()) {
            Ok((0, _)) => return Ok(()),
            Ok((length, _)) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let answer = match start(request.get(..length).unwrap_or_default(), &mut socket) {
            Ok(pid) => pid.to_ne_bytes().to_vec(),
            Err(failed) => encode_failed(&failed),
        };
        if let Some(daemon) = &socket {
            rustix::net::send(daemon, &answer, SendFlags::NOSIGNAL)?;
        }
    }
    Ok(())
}

/// What a supervisor is born with.
pub(crate) struct Nest {
    pub(crate) path: PathBuf,
    pub(crate) directory: OwnedFd,
    pub(crate) ring: OwnedFd,
    pub(crate) listener: OwnedFd,
    pub(crate) spool_bytes_max: u64,
    pub(crate) when_full: WhenFull,
    /// It takes over from a dead one, and ends the command with this (type, text).
    pub(crate) heritage: Option<(String, String)>,
}

/// A request, taken apart.
struct Order<'a> {
    capacity: usize,
    spool_bytes_max: u64,
    when_full: WhenFull,
    path: &'a Path,
    heritage: Option<(String, String)>,
}

impl<'a> Order<'a> {
    fn decode(request: &'a [u8]) -> Option<Self> {
        let (capacity, rest) = request.split_first_chunk::<8>()?;
        let (spool_bytes_max, rest) = rest.split_first_chunk::<8>()?;
        let ([when_full, takes_over], rest) = rest.split_first_chunk::<2>()?;
        let mut words = rest.split(|byte| *byte == 0);
        let path = Path::new(OsStr::from_bytes(words.next()?));
        let mut text = || words.next().map(|word| String::from_utf8_lossy(word).into_owned());
        let heritage = if *takes_over == 0 { None } else { Some((text()?, text()?)) };
        let capacity = u64::from_ne_bytes(*capacity) as usize;
        let when_full = if *when_full == 0 { WhenFull::Wait } else { WhenFull::Gap };
        let spool_bytes_max = u64::from_ne_bytes(*spool_bytes_max);
        (capacity >= RING_BYTES_MIN).then_some(Self { capacity, spool_bytes_max, when_full, path, heritage })
    }
}

fn start(request: &[u8], socket: &mut Option<OwnedFd>) -> Result<i32, Failed> {
    let invalid = || (io::Error::from_raw_os_error(libc::EINVAL), "reading the request");
    let order = Order::decode(request).ok_or_else(invalid)?;
    let nest = if order.heritage.is_some() { take_over(&order)? } else { build(&order)? };
    match process::fork() {
        Ok(Fork::Parent(pid)) => Ok(pid),
        Ok(Fork::Child) => {
            // Were the helper's end of the socket to stay open here, the daemon would not see the helper die.
            drop(socket.take());
            supervisor::live(nest)
        }
        Err(error) => {
            if order.heritage.is_none() {
                remove(order.path, nest.directory.as_fd());
            }
            Err((error, "starting a process"))
        }
    }
}

/// What went wrong, and what was being done.
type Failed = (io::Error, &'static str);

fn encode_failed((error, doing): &Failed) -> Vec<u8> {
    let (number, text) = match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => (number, (*doing).to_owned()),
        (None, io::ErrorKind::Unsupported) => (libc::EOPNOTSUPP, format!("{doing}: {error}")),
        (None, _) => (libc::EINVAL, format!("{doing}: {error}")),
    };
    [&(-number).to_ne_bytes()[..], text.as_bytes()].concat()
}

/// Makes a supervisor's directory and what belongs in it, or nothing.
fn build(order: &Order<'_>) -> Result<Nest, Failed> {
    rustix::fs::mkdir(order.path, Mode::RWXU).map_err(|error| (error.into(), "making the directory"))?;
    let directory = open_directory(order.path)?;
    let made = ring::create_file(directory.as_fd(), RING, order.capacity)
        .map_err(|error| (error, "making the journal's ring"))
        .and_then(|ring| Ok((ring, listen(directory.as_fd()).map_err(|error| (error, "listening"))?)));
    match made {
        Ok((ring, listener)) => Ok(nest(order, directory, ring, listener)),
        Err(error) => {
            remove(order.path, directory.as_fd());
            Err(error)
        }
    }
}

/// Opens the directory of a supervisor that has died. Of what is in it nothing is changed but the socket.
fn take_over(order: &Order<'_>) -> Result<Nest, Failed> {
    let directory = open_directory(order.path)?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let ring = rustix::fs::openat(&directory, RING, flags, Mode::empty())
        .map_err(|error| (error.into(), "opening the journal's ring"))?;
    ring::check(&ring).map_err(|error| (error, "reading the journal's ring"))?;
    let _ = rustix::fs::unlinkat(&directory, SOCKET, AtFlags::empty());
    let listener = listen(directory.as_fd()).map_err(|error| (error, "listening"))?;
    Ok(nest(order, directory, ring, listener))
}

fn nest(order: &Order<'_>, directory: OwnedFd, ring: OwnedFd, listener: OwnedFd) -> Nest {
    Nest {
        path: order.path.to_owned(),
        directory,
        ring,
        listener,
        spool_bytes_max: order.spool_bytes_max,
        when_full: order.when_full,
        heritage: order.heritage.clone(),
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Failed> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| (error.into(), "opening the directory"))
}

fn listen(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // By way of /proc, as the address of a socket may have 107 bytes and a directory's path more.
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 4)?;
    Ok(socket)
}

/// In it the daemon says whose command it is.
pub(crate) const COMMAND: &str = "command";

/// What else may stand in a supervisor's directory.
const BESIDE: [&str; 2] = [COMMAND, supervisor::LOG];

/// Removes a supervisor's directory, and of what is in it only what belongs there. The ring first: without it there is
/// nothing to take over.
pub(crate) fn remove(path: &Path, directory: BorrowedFd<'_>) {
    let _ = rustix::fs::unlinkat(directory, RING, AtFlags::empty());
    spool::remove_all(directory);
    for name in BESIDE.into_iter().chain([SOCKET]) {
        let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    }
    let _ = rustix::fs::rmdir(path);
}
