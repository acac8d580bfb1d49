"""`tailrace worker create`. Serving is in `worker_serve`, which imports next to nothing."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003  (cyclopts reads the annotations)
from pathlib import Path  # noqa: TC003  (cyclopts reads the annotations)

from tailrace.link.endpoint import Endpoint
from tailrace.worker.config import create_worker

from .buildbot_tac import read_buildbot_tac
from .failure import USAGE, Failure, usage

_SECRET_BYTES_MAX = 4096
"""A file that is longer is another file."""


def create(
    directory: Path,
    /,
    *,
    master: Sequence[str] = (),
    name: str | None = None,
    secret_file: Path | None = None,
    buildbot_tac: Path | None = None,
    delete_leftover_dirs: bool = False,
) -> int:
    """Make a directory for a worker: its configuration, its secret, and where its commands will run.

    As in: `tailrace worker create w --master tailrace://build.example:7117 --name w1 --secret-file w1.secret`

    The master may be Buildbot's: `pb://build.example:9989`, or `msgpack://…`. What a worker of Buildbot's has been told
    is taken over by `tailrace worker create DIR --buildbot-tac DIR/buildbot.tac`, also in that worker's directory.

    Parameters
    ----------
    directory
        The new worker's directory. Commands run in it.
    master
        Where its master listens. Several are tried in turn.
    name
        The name under which the master knows it.
    secret_file
        What `tailrace master add-worker` has written or printed; or a file with the password at a Buildbot master.
        It is copied.
    buildbot_tac
        Take master, name and password from this file of a Buildbot worker, which is read and not executed. Other
        options go before it.
    delete_leftover_dirs
        Remove directories in DIR that belong to no builder of the master any more.
    """
    tac = read_buildbot_tac(buildbot_tac) if buildbot_tac is not None else None
    if tac is not None:
        master = master or (tac.master,)
        name = name or tac.name
        delete_leftover_dirs = delete_leftover_dirs or tac.delete_leftover_dirs
    if not master or name is None or (secret_file is None and tac is None):
        missing = [
            *(["--master"] if not master else []),
            *(["--name"] if name is None else []),
            *(["--secret-file"] if secret_file is None and tac is None else []),
        ]
        raise Failure(f"{', '.join(missing)} must be given", "or --buildbot-tac FILE", code=USAGE)
    for url in master:
        with usage():
            endpoint = Endpoint.parse(url)
        if endpoint.transport != "unix" and endpoint.port == 0:
            raise Failure(f"{url}: port 0 is nobody's", "give the port that `master serve` prints", code=USAGE)
    if secret_file is not None:
        secret = read_secret(secret_file)
    else:
        assert tac is not None
        secret = tac.password
    try:
        make_worker(directory, masters=master, name=name, secret=secret, delete_leftover_dirs=delete_leftover_dirs)
    except FileExistsError as error:
        raise Failure(f"{directory} is in use: it has a tailrace.toml already", "name a new directory") from error
    return 0


def make_worker(
    directory: Path, *, masters: Sequence[str], name: str, secret: str, delete_leftover_dirs: bool = False
) -> None:
    """A worker's directory, which nobody else may look into: it holds the secret and whatever is built."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    create_worker(directory, masters=masters, name=name, secret=secret, delete_leftover_dirs=delete_leftover_dirs)


def read_secret(path: Path) -> str:
    """The one line in the file.

    Raises:
        Failure: the file cannot be read, or holds something else.
    """
    todo = "give the file that `tailrace master add-worker … --secret-file FILE` has written"
    try:
        with path.open("rb") as file:
            data = file.read(_SECRET_BYTES_MAX + 1)
        lines = data.decode().split()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", todo) from error
    except UnicodeDecodeError as error:
        raise Failure(f"{path} holds no secret", todo) from error
    if len(lines) != 1 or len(data) > _SECRET_BYTES_MAX:
        raise Failure(f"{path} holds {'no secret' if not lines else 'more than one word'}", todo)
    return lines[0]
