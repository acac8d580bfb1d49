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
from contextlib import contextmanager, nullcontext, suppress
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
"""


@attrs.frozen
class Openssh:
    """A server that runs, and one connection to it that is logged in: no login is in any figure."""

    config: Path
    port: int

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

    @property
    def address(self) -> str:
        """Where its server listens, as `host:port`."""
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def through(self, address: str) -> Iterator[Openssh | None]:
        """The same server by way of another `host:port`, and compressed (`ssh -C`). `None`: it cannot be reached."""
        there = attrs.evolve(self, config=self.config.with_name("client-through"), port=int(address.rpartition(":")[2]))
        there.config.write_text(
            f"{_client(there.config.parent, there.port)}  ControlPath {there.config}.control\n  Compression yes\n"
        )
        with there.logged_in() as is_in:
            yield there if is_in else None

    @contextmanager
    def logged_in(self) -> Iterator[bool]:
        """One connection for all commands of the block; whether there is one."""
        control = ["ssh", "-F", str(self.config)]
        try:
            yield subprocess.run([*control, "-M", "-N", "-f", "bench"], check=False).returncode == 0
        finally:
            subprocess.run([*control, "-O", "exit", "bench"], check=False, stderr=subprocess.DEVNULL)

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
        process, peer = _serve(server, home)
        try:
            with peer.logged_in() if process is not None else nullcontext(False) as is_in:
                if not is_in:
                    print("without OpenSSH, whose server does not serve this user", file=sys.stderr)
                yield peer if is_in else None
        finally:
            if process is not None:
                process.terminate()
                process.wait()


def _serve(server: str, home: Path) -> tuple[subprocess.Popen[bytes] | None, Openssh]:
    """Start it on a port that is free. A port that somebody else takes meanwhile is tried again with another one."""
    peer = Openssh(home / "client", 0)
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (home / "server").write_text(SERVER.format(home=home, port=port))
        peer = attrs.evolve(peer, port=port)
        peer.config.write_text(f"{_client(home, port)}  ControlPath {home}/control\n")
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [server, "-D", "-e", "-f", home / "server"], stdin=subprocess.DEVNULL, stderr=log
            )
        if _listens(process, home / "log"):
            return process, peer
    print((home / "log").read_text(), file=sys.stderr, end="")
    return None, peer


def _client(home: Path, port: int) -> str:
    return CLIENT.format(home=home, port=port, user=getpass.getuser())


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
