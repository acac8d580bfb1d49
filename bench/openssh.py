"""OpenSSH as a peer: a server of its own on loopback, as an ordinary process, with keys made for it.

Everything is in one temporary directory and gone afterwards; nothing of the user's or the machine's set-up is read.
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

START_S = 10.0
# Debian's server insists on it when root starts it; it is what its unit makes.
PRIVILEGES = Path("/run/sshd")
SERVER = """\
ListenAddress 127.0.0.1:{port}
HostKey {home}/host
AuthorizedKeysFile {home}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
PrintMotd no
Subsystem sftp internal-sftp
"""
CLIENT = """\
Host bench
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {home}/user
  IdentitiesOnly yes
  BatchMode yes
  StrictHostKeyChecking no
  UserKnownHostsFile {home}/known
  LogLevel ERROR
  ControlPath {home}/control
"""


@attrs.frozen
class Openssh:
    """A server that runs, and one connection to it that is logged in: no login is in any figure."""

    config: Path

    def ssh(self, *command: str) -> list[str]:
        """What runs a command at the far side, its pipes ours."""
        return ["ssh", "-F", str(self.config), "bench", shlex.join(command)]

    def scp(self, source: str | Path, target: str | Path) -> list[str]:
        """What copies a file; one of the two is `there(path)`."""
        return ["scp", "-q", "-F", str(self.config), str(source), str(target)]

    @property
    def transport(self) -> str:
        """For `rsync -e`."""
        return shlex.join(["ssh", "-F", str(self.config)])

    @staticmethod
    def there(path: Path) -> str:
        """A path at the far side, for `scp` and `rsync`."""
        return f"bench:{path}"


@contextmanager
def openssh() -> Iterator[Openssh | None]:
    """A server for the block. `None`, with a line on stderr: there is no server here, or it lets nobody in."""
    server = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if server is None or shutil.which("ssh") is None or shutil.which("scp") is None:
        print("without OpenSSH, which is missing: sudo apt-get install openssh-server openssh-client", file=sys.stderr)
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="bench-ssh-") as name, _privileges():
        home = Path(name)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / key], check=True)
        process = _serve(server, home)
        peer = Openssh(home / "client")
        control = ["ssh", "-F", str(peer.config)]
        try:
            if process is None or subprocess.run([*control, "-M", "-N", "-f", "bench"], check=False).returncode:
                print("without OpenSSH, whose server does not serve this user", file=sys.stderr)
                yield None
            else:
                yield peer
        finally:
            subprocess.run([*control, "-O", "exit", "bench"], check=False, stderr=subprocess.DEVNULL)
            if process is not None:
                process.terminate()
                process.wait()


def _serve(server: str, home: Path) -> subprocess.Popen[bytes] | None:
    """Start it on a port that is free. A port that somebody else takes meanwhile is tried again with another one."""
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (home / "server").write_text(SERVER.format(home=home, port=port))
        (home / "client").write_text(CLIENT.format(home=home, port=port, user=getpass.getuser()))
        with (home / "log").open("wb") as log:
            process = subprocess.Popen([server, "-D", "-e", "-f", home / "server"], stdin=subprocess.DEVNULL, stderr=log)
        if _listens(process, home / "log"):
            return process
    print((home / "log").read_text(), file=sys.stderr, end="")
    return None


def _listens(process: subprocess.Popen[bytes], log: Path) -> bool:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        if b"Server listening" in log.read_bytes():
            return True
        time.sleep(0.01)
    process.kill()
    process.wait()
    return False


@contextmanager
def _privileges() -> Iterator[None]:
    """The directory that a server of root's wants; removed if it was not there."""
    if os.geteuid() or PRIVILEGES.exists():
        yield
        return
    PRIVILEGES.mkdir(mode=0o755)
    try:
        yield
    finally:
        with suppress(OSError):
            PRIVILEGES.rmdir()
