"""The master's log store: what was run, with what result, and every byte that it wrote. Knows nothing of wires.

- `info`: what is known of a run
- `directory`: the files beside the segments: version, lock, what each run is
- `catalog`: runs, workers and builders in SQLite
- `commit`: what makes logs safe, many at once
- `room`: what becomes of a log whose disk is full
- `writer`: one run's log, while it grows
- `follow`: readers, which wait for a log to grow
- `replay`: a log gone through once more, to count it anew or to go on with it
- `recovery`: what the last process has left
- `store`: all of it
"""

from tailrace.logs.catalog import BuilderSeen, WorkerSeen
from tailrace.logs.commit import Durability
from tailrace.logs.info import RunEnd, RunInfo, new_id, receipt_table, run_end
from tailrace.logs.replay import Replay, Verified
from tailrace.logs.room import WhenFull
from tailrace.logs.store import LogStore, StoreStatistics, open_store
from tailrace.logs.writer import RunWriter

__all__ = [
    "BuilderSeen",
    "Durability",
    "LogStore",
    "Replay",
    "RunEnd",
    "RunInfo",
    "RunWriter",
    "StoreStatistics",
    "Verified",
    "WhenFull",
    "WorkerSeen",
    "new_id",
    "open_store",
    "receipt_table",
    "run_end",
]
