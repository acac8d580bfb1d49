"""A log's way from the child into the durable store of the shipped master, over TCP and over TLS 1.3.

Beside it a plain writer: as many bytes from memory into one file on the same disk, one `fdatasync` for each 8 MiB. Ours
is timed until the worker has been told that everything is safe.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import trio
import trustme

import tailrace
from farm import ATTACH_S, child
from row import Options, Row, in_turn, medians
from stream import Figure
from usage import cpu_s, quiet

ENOUGH_MB_S = 300
"""What is asked for at most: a disk may be faster than anybody's logs."""
SYNCED_BYTES = 8 << 20
WORKER = """
import ssl, sys, trio, tailrace
master, home, authority = sys.argv[1:]
tls = ssl.create_default_context(cafile=authority) if authority else None
trio.run(lambda: tailrace.run_worker(master=master, name="w", secret="s", basedir=home, tls=tls))
"""


async def ours(home: Path, lines: int, *, secure: bool) -> Figure:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory(dir=home) as directory:
        certificate = Path(directory) / "authority.pem"
        if secure:
            authority.issue_cert("localhost").configure_cert(context)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            authority.cert_pem.write_to_path(str(certificate))
        async with tailrace.open_master(
            Path(directory) / "master",
            listen=["tailrace+tls://localhost:0" if secure else "tailrace://127.0.0.1:0"],
            accounts={"w": "s"},
            tls=context if secure else None,
        ) as master:
            worker = subprocess.Popen(
                [
                    *(sys.executable, "-c", WORKER, master.endpoints[0], str(Path(directory) / "worker")),
                    str(certificate) if secure else "",
                ]
            )
            try:
                with trio.fail_after(ATTACH_S):
                    connection = await master.wait_for_worker("w")
                began, cpu, before = time.perf_counter(), time.process_time(), cpu_s(worker.pid)
                run = await master.start("w", "shell", {"command": [child(), "block", str(lines)], "workdir": "."})
                result = await run.wait()
                await connection.wait_settled()
                took, cpu = time.perf_counter() - began, time.process_time() - cpu
                daemon = cpu_s(worker.pid) - before
                await quiet(worker.pid)
                assert result.rc == 0, result
                assert result.receipt is not None
                assert result.receipt.channels["stdout"][:3] == (lines * 80, lines, 0), result
            finally:
                worker.terminate()
                await trio.to_thread.run_sync(worker.wait)
    return Figure.of(lines * 80, took, cpu, daemon)


def plain(home: Path, size: int) -> Figure:
    """What the disk takes."""
    block = memoryview(os.urandom(SYNCED_BYTES))
    with tempfile.TemporaryFile(dir=home, buffering=0) as file:
        began, cpu = time.perf_counter(), time.process_time()
        left = size
        while left > 0:
            left -= file.write(block[:left])
            os.fdatasync(file.fileno())
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Figure.of(size, took, cpu)


def rows(options: Options) -> Iterator[Row]:
    """The figures of one log that is kept."""
    lines = int(12_500_000 * options.scale)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.disk) as name:
        home = Path(name)
        found = in_turn(
            options.rounds,
            plain=partial(plain, home, lines * 80),
            ours=lambda: trio.run(partial(ours, home, lines, secure=False)),
            tls=lambda: trio.run(partial(ours, home, lines, secure=True)),
        )
    speed = medians(found, lambda figure: figure.megabytes_s)
    cpu = medians(found, lambda figure: figure.cpu_s_per_gb)
    yield Row(
        job="blocks into the durable store",
        unit="MB/s",
        ours=speed["ours"],
        peer="fdatasync each 8 MiB",
        theirs=speed["plain"],
        at_least=min(0.8, ENOUGH_MB_S / speed["plain"]),
        more={"master_cpu_s_per_gb": cpu["ours"]},
    )
    yield Row(
        job="the same over TLS 1.3",
        unit="MB/s",
        ours=speed["tls"],
        peer="over TCP",
        theirs=speed["ours"],
        at_least=0.5,
        more={"master_cpu_s_per_gb": cpu["tls"]},
    )
