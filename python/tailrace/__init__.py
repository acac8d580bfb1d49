"""Run commands on a farm of workers and stream their logs and files back: the public surface, and nothing else."""

from tailrace._core import Gap, Receipt, Record, __version__
from tailrace.errors import (
    CommandIdInUse,
    ConnectionClosed,
    ConnectionLost,
    LimitExceeded,
    LocalProtocolError,
    LoginRefused,
    RemoteError,
    RemoteProtocolError,
    StoreError,
    TailraceError,
    UnknownCommand,
    UnsafeArchive,
    Unsupported,
)
from tailrace.limits import Limits
from tailrace.link.connection import Connection, Subscription
from tailrace.link.impl import FileReaderImpl, FileWriterImpl, RemoteCommandImpl
from tailrace.link.listener import Listener
from tailrace.link.proxy import FileReaderProxy, FileWriterProxy, RemoteCommandProxy, RemoteProxy
from tailrace.link.resume import Resume
from tailrace.master import Master, Run, RunResult, open_master
from tailrace.messages import Updates
from tailrace.worker.daemon import run_worker

__all__ = [
    "CommandIdInUse",
    "Connection",
    "ConnectionClosed",
    "ConnectionLost",
    "FileReaderImpl",
    "FileReaderProxy",
    "FileWriterImpl",
    "FileWriterProxy",
    "Gap",
    "LimitExceeded",
    "Limits",
    "Listener",
    "LocalProtocolError",
    "LoginRefused",
    "Master",
    "Receipt",
    "Record",
    "RemoteCommandImpl",
    "RemoteCommandProxy",
    "RemoteError",
    "RemoteProtocolError",
    "RemoteProxy",
    "Resume",
    "Run",
    "RunResult",
    "StoreError",
    "Subscription",
    "TailraceError",
    "UnknownCommand",
    "UnsafeArchive",
    "Unsupported",
    "Updates",
    "__version__",
    "open_master",
    "run_worker",
]
