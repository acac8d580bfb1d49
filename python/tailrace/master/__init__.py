"""The shipped master: workers that attach, runs that are kept.

- `config`: a master's directory
- `roster`: workers known and attached
- `result`, `command`: how a command ends, and the Impl through which its updates reach the store
- `runs`: a run, as who started it sees it
- `files`: file Impls on the master's disk
- `passing`: files that pass through
- `master`: all of it in one nursery
"""

from tailrace.master.files import DiskReader, DiskWriter, TreeReader, TreeWriter
from tailrace.master.master import Master, open_master
from tailrace.master.result import RunResult
from tailrace.master.runs import Run

__all__ = [
    "DiskReader",
    "DiskWriter",
    "Master",
    "Run",
    "RunResult",
    "TreeReader",
    "TreeWriter",
    "open_master",
]
