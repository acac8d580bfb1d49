"""One real master for workers of all kinds, with a builder of each script for each of them.

Builders are `SCRIPT-WORKER`: `every` has each step that there is, `sleep` waits to be stopped, `quick` is over soon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.buildbot.real import Build, RealMaster, Wire, free_port, make_repository

_TEMPLATE = Path(__file__).with_name("master.cfg.template")


class FarmMaster(RealMaster):
    """A real master, which knows these workers (name → wire) by the password `sesame`.

    With a certificate (one PEM file with its key) it speaks TLS on PB. On msgpack it cannot.
    """

    def __init__(
        self, directory: Path, python: str, workers: Mapping[str, Wire], *, certificate: Path | None = None
    ) -> None:
        self.ports: dict[Wire, int] = {"pb": free_port(), "msgpack": free_port()}
        self.out = directory / "out"
        self.source = directory / "source"
        directory.mkdir(parents=True, exist_ok=True)
        self.source.write_bytes(bytes(range(256)) * 1000)
        for name in workers:
            (self.out / name).mkdir(parents=True)
        kind = "tcp" if certificate is None else f"ssl:privateKey={certificate}:certKey={certificate}"
        settings = {
            "ports": self.ports,
            "pb": f"{kind}:port={self.ports['pb']}:interface=127.0.0.1",
            "python": python,
            "out": str(self.out),
            "source": str(self.source),
            "repository": str(make_repository(directory / "repository")),
            "workers": [{"name": name, "password": "sesame", "wire": wire} for name, wire in workers.items()],
        }
        super().__init__(directory / "master", f"SETTINGS = {settings!r}\n" + _TEMPLATE.read_text())

    def build(self, builders: Sequence[str]) -> None:
        """Begin a build of each."""
        for builder in builders:
            self.order(f"build {builder}")

    def done_again(self, builder: str) -> Build:
        """Begin one more build, and wait until it is over."""
        query = "select max(b.number) from builds b join builders r on r.id = b.builderid where r.name = ?"
        [(last,)] = self.rows(query, builder)
        self.build([builder])
        return self.wait_build(builder, (last or 0) + 1)
