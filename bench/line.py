"""A long thin line, and a log that goes through it: 100 Mbit/s, and 60 ms in each direction."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from farm import HERE, start_worker

sys.path.insert(0, str(HERE.parent))
from tests.chaos.process import ProxyProcess

# 1.5 MB are under way when it is full.
LINE_BYTES_S = 12_500_000
LINE_DELAY_S = 0.06
LINE = "60 ms and 100 Mbit/s"
# It is the line's own speed that is measured, which does not change as a machine's does.
ROUNDS_MAX = 2

FLAGS = "-O2 -g -fPIC -Wall -Wextra -Wconversion -std=c17 -D_FORTIFY_SOURCE=2 -I../include -I../third_party/include"
WARNINGS = ("unused-variable", "sign-conversion", "unused-parameter", "shadow", "missing-field-initializers")


def thin_line(address: str) -> ProxyProcess:
    """The line to `host:port`; `address` of it is where to connect instead."""
    return ProxyProcess(address, f"delay both {LINE_DELAY_S}", f"throttle both {LINE_BYTES_S}")


@contextmanager
def behind_a_line() -> Iterator[Callable[[str, str], subprocess.Popen[bytes]]]:
    """As `start_worker`, of workers at the far end of one."""
    with ExitStack() as stack:

        def start(endpoint: str, base: str) -> subprocess.Popen[bytes]:
            wire, _, address = endpoint.partition("://")
            return start_worker(f"{wire}://{stack.enter_context(thin_line(address)).address}", base)

        yield start


def write_log(log: Path, size: int) -> None:
    """What a compiler could have said of this project's sources: commands, and warnings that quote them."""
    chance = random.Random(1)
    sources = [source for source in sorted(HERE.parent.glob("rust/*/src/**/*.rs")) if source.stat().st_size]
    texts = {source: source.read_text().splitlines() for source in sources}
    written = 0
    with log.open("w") as file:
        while written < size:
            source = chance.choice(sources)
            name = f"{source.parent.parent.name}/{source.name}"
            path = f"/builds/worker/project/{name}"
            said = [f"[{written * 100 // size:3}%] Building C object {name}.dir/{chance.randrange(1 << 30):x}.o"]
            said.append(f"/usr/bin/cc {FLAGS} -MD -MF {name}.o.d -o {name}.o -c {path}")
            for _ in range(chance.randrange(6)):
                number = chance.randrange(len(texts[source]))
                warning = chance.choice(WARNINGS)
                said.append(
                    f"/builds/worker/project/{name}:{number + 1}:{chance.randrange(80)}: warning: [-W{warning}]"
                )
                said.append(f"{number + 1:5} | {texts[source][number]}")
                said.append(f"      | {' ' * chance.randrange(40)}^{'~' * chance.randrange(12)}")
            written += file.write("\n".join(said) + "\n")
