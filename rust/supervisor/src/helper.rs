//! The helper: a small process, started early, of which every supervisor is a fork.
//!
//! The daemon cannot fork well: it is large and has threads. The helper has nothing but this code, so that a fork costs
//! little, and shares its memory with all of its children. A request is one packet on a SOCK_SEQPACKET socket, and is
//! answered by one:
//!
//! ```text
//! request: u64 bytes of the ring, native order | the path of the directory to be made
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

use crate::book::RING_BYTES_MIN;
use crate::process::{self, Fork};
use crate::{ring, supervisor};

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
            Err((error, doing)) => {
                let number = error.raw_os_error().unwrap_or(libc::EINVAL);
                [&(-number).to_ne_bytes()[..], doing.as_bytes()].concat()
            }
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
}

fn start(request: &[u8], socket: &mut Option<OwnedFd>) -> Result<i32, (io::Error, &'static str)> {
    let invalid = || (io::Error::from_raw_os_error(libc::EINVAL), "reading the request");
    let (capacity, path) = request.split_first_chunk::<8>().ok_or_else(invalid)?;
    let capacity = u64::from_ne_bytes(*capacity) as usize;
    if capacity < RING_BYTES_MIN {
        return Err(invalid());
    }
    let path = Path::new(OsStr::from_bytes(path));
    let nest = build(path, capacity)?;
    match process::fork() {
        Ok(Fork::Parent(pid)) => Ok(pid),
        Ok(Fork::Child) => {
            // Were the helper's end of the socket to stay open here, the daemon would not see the helper die.
            drop(socket.take());
            supervisor::live(nest)
        }
        Err(error) => {
            remove(path, nest.directory.as_fd());
            Err((error, "starting a process"))
        }
    }
}

/// Makes a supervisor's directory and what belongs in it, or nothing.
fn build(path: &Path, capacity: usize) -> Result<Nest, (io::Error, &'static str)> {
    rustix::fs::mkdir(path, Mode::RWXU).map_err(|error| (error.into(), "making the directory"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| (error.into(), "opening the directory"))?;
    let made = ring::create_file(directory.as_fd(), RING, capacity)
        .map_err(|error| (error, "making the journal's ring"))
        .and_then(|ring| Ok((ring, listen(directory.as_fd()).map_err(|error| (error, "listening"))?)));
    match made {
        Ok((ring, listener)) => Ok(Nest { path: path.to_owned(), directory, ring, listener }),
        Err(error) => {
            remove(path, directory.as_fd());
            Err(error)
        }
    }
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

/// Removes a supervisor's directory, and of what is in it only what was made here.
pub(crate) fn remove(path: &Path, directory: BorrowedFd<'_>) {
    for name in [RING, SOCKET] {
        let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    }
    let _ = rustix::fs::rmdir(path);
}
