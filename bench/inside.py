"""What runs in a process, timed by pytest-benchmark: `test_inside.py`. Medians; each runs alone, there are no turns."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from row import Options, Row

BENCHES = Path(__file__).with_name("test_inside.py")
MEGABYTE = 1_000_000


def rows(options: Options) -> Iterator[Row]:
    """Megabytes a second, or microseconds for each."""
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results.json"
        timing = ["--benchmark-enable", "--benchmark-quiet", f"--benchmark-max-time={options.scale}"]
        run = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *timing),
                f"--benchmark-json={results}",
                BENCHES,
            ],
            cwd=BENCHES.parent.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise RuntimeError(run.stdout + run.stderr)
        found = json.loads(results.read_text())["benchmarks"]
    for bench in found:
        seconds, worth = bench["stats"]["median"], bench["extra_info"]
        noise = {"iqr_ratio": bench["stats"]["iqr"] / seconds}
        if "bytes" in worth:
            yield Row(job=_job(bench), unit="MB/s", ours=worth["bytes"] / seconds / MEGABYTE, more=noise)
        else:
            yield Row(job=_job(bench), unit="µs", ours=seconds / worth["times"] * 1e6, more=noise)


def _job(bench: dict[str, object]) -> str:
    """`test_segment_is_read` is called so by the table: "segment is read"."""
    name, bracket, parameters = str(bench["name"]).removeprefix("test_").partition("[")
    return name.replace("_", " ") + (f": {parameters.split('-')[0]}" if bracket else "")
