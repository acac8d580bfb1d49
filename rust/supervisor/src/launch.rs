//! Starting a child: its directory, its program, its pipes or its terminal.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use rustix::pty::OpenptFlags;

use crate::request::Child;

/// As much as a user without privileges may have: the child writes on while we are busy.
const PIPE_BYTES: usize = 1 << 20;

/// Where programs are looked for when the child's environment has no PATH.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

const SHELL: &str = "/bin/sh";

/// How much of a name is shown. What a master calls a program may have megabytes, for which the journal has no room kept.
const NAME_CHARS_MAX: usize = 1_000;

/// A child that runs.
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    /// The writing end of its standard input, if there is something to write.
    pub(crate) stdin: Option<OwnedFd>,
    /// Where its output comes from. With a terminal, all of it is stdout.
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// A child that could not be started.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What a shell would return: 127, there is no such program; 126, it cannot be run.
    pub(crate) rc: i32,
    /// One line for the child's stderr.
    pub(crate) text: String,
}

/// Starts `child`, in a process group of its own; with a terminal, in a session of its own. Makes its directory if need be.
pub(crate) fn launch(child: &Child) -> Result<Launched, Refusal> {
    enter(&child.cwd)?;
    let argv0 = child.argv.first().map(OsString::as_os_str).unwrap_or_default();
    let program = find(argv0, child)?;
    let mut command = Command::new(&program);
    command.arg0(argv0).args(child.argv.iter().skip(1));
    let mut started = with_output(&mut command, child);
    if started.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOEXEC)) {
        // A script that does not say whose: the shell's, as every shell has it.
        let mut command = Command::new(SHELL);
        command.arg(&program).args(child.argv.iter().skip(1));
        started = with_output(&mut command, child);
    }
    started.map_err(|error| cannot_run(argv0, &error))
}

fn with_output(command: &mut Command, child: &Child) -> io::Result<Launched> {
    command.current_dir(&child.cwd).env_clear().envs(child.env.iter().map(|(name, value)| (name, value)));
    if child.pty { on_terminal(command) } else { on_pipes(command, child) }
}

fn on_pipes(command: &mut Command, child: &Child) -> io::Result<Launched> {
    let (stdout, child_stdout) = output_pipe()?;
    let (stderr, child_stderr) = output_pipe()?;
    command.stdout(child_stdout).stderr(child_stderr).process_group(0);
    let stdin = match &child.stdin {
        None => {
            command.stdin(Stdio::null());
            None
        }
        Some(_) => {
            let (child_stdin, stdin) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            command.stdin(child_stdin);
            rustix::io::ioctl_fionbio(&stdin, true)?;
            Some(stdin)
        }
    };
    let pid = start(command)?;
    Ok(Launched { pid, stdin, stdout: Some(stdout), stderr: Some(stderr) })
}

fn on_terminal(command: &mut Command) -> io::Result<Launched> {
    let terminal = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&terminal)?;
    rustix::pty::unlockpt(&terminal)?;
    let name = rustix::pty::ptsname(&terminal, Vec::new())?;
    let inner = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    command.stdin(inner.try_clone()?).stdout(inner.try_clone()?).stderr(inner);
    // SAFETY: the closure makes two system calls and touches no memory, as is demanded between fork and exec.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
        });
    }
    let pid = start(command)?;
    rustix::io::ioctl_fionbio(&terminal, true)?;
    let stdin = Some(terminal.try_clone()?);
    Ok(Launched { pid, stdin, stdout: Some(terminal), stderr: None })
}

fn start(command: &mut Command) -> io::Result<Pid> {
    let child = command.spawn()?;
    // The command holds the child's ends of the pipes: without them there would be no end of file.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Pid::from_child(&child))
}

fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, childs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // A user who has many pipes gets smaller ones.
    let _ = rustix::pipe::fcntl_setpipe_size(&childs, PIPE_BYTES);
    rustix::io::ioctl_fionbio(ours.as_fd(), true)?;
    Ok((ours, childs))
}

fn enter(directory: &Path) -> Result<(), Refusal> {
    let made = if directory.is_dir() { Ok(()) } else { std::fs::create_dir_all(directory) };
    made.and_then(|()| Ok(rustix::fs::access(directory, Access::EXEC_OK)?)).map_err(|error| Refusal {
        rc: 126,
        text: format!("tailrace: cannot enter {}: {}\n", quoted(directory.as_os_str()), reason(&error)),
    })
}

/// The program that the child's own PATH leads to. Without the search, a missing program and a missing interpreter are one error.
fn find(name: &OsStr, child: &Child) -> Result<PathBuf, Refusal> {
    let mut error = io::Error::from(ErrorKind::NotFound);
    let candidates: Vec<PathBuf> = if name.is_empty() {
        Vec::new()
    } else if name.as_bytes().contains(&b'/') {
        vec![child.cwd.join(name)]
    } else {
        let path = child.env.iter().rev().find(|(key, _)| key == "PATH").map_or(OsStr::new(PATH), |(_, value)| value);
        std::env::split_paths(path).map(|directory| child.cwd.join(directory).join(name)).collect()
    };
    for candidate in candidates {
        match runnable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(found) if found.kind() == ErrorKind::PermissionDenied => error = found,
            _ => {}
        }
    }
    Err(cannot_run(name, &error))
}

fn runnable(program: &Path) -> io::Result<()> {
    if !std::fs::metadata(program)?.is_file() {
        return Err(ErrorKind::PermissionDenied.into());
    }
    Ok(rustix::fs::access(program, Access::EXEC_OK)?)
}

fn cannot_run(name: &OsStr, error: &io::Error) -> Refusal {
    let rc = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    Refusal { rc, text: format!("tailrace: cannot run {}: {}\n", quoted(name), reason(error)) }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::ArgumentListTooLong => "the argument list is too long".to_owned(),
        _ => error.to_string(),
    }
}

/// On one line, whatever is in it, and no longer than a line.
fn quoted(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    let more = if name.chars().nth(NAME_CHARS_MAX).is_some() { "…" } else { "" };
    let begin: String = name.chars().take(NAME_CHARS_MAX).collect();
    format!("'{}{more}'", begin.escape_debug())
}
