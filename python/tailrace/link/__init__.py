"""Where bytes meet methods: one trio pump for every wire, and the document's objects around it."""

from __future__ import annotations

from tailrace.link.connection import Builder, Connection, ConnectionStatistics, Subscription
from tailrace.link.dial import WorkerConnection, WorkerHandler, dial
from tailrace.link.endpoint import Endpoint
from tailrace.link.holdings import Holdings
from tailrace.link.impl import (
    BatchSink,
    BatchWriterImpl,
    BlockReaderImpl,
    BlockSource,
    FileReaderImpl,
    FileWriterImpl,
    RemoteCommandImpl,
)
from tailrace.link.listener import Listener, ListenerStatistics, Master
from tailrace.link.proxy import (
    FileReaderProxy,
    FileWriterProxy,
    JournalSource,
    RemoteCommandProxy,
    RemoteProxy,
)
from tailrace.link.resume import CommandKey, Resume

__all__ = [
    "BatchSink",
    "BatchWriterImpl",
    "BlockReaderImpl",
    "BlockSource",
    "Builder",
    "CommandKey",
    "Connection",
    "ConnectionStatistics",
    "Endpoint",
    "FileReaderImpl",
    "FileReaderProxy",
    "FileWriterImpl",
    "FileWriterProxy",
    "Holdings",
    "JournalSource",
    "Listener",
    "ListenerStatistics",
    "Master",
    "RemoteCommandImpl",
    "RemoteCommandProxy",
    "RemoteProxy",
    "Resume",
    "Subscription",
    "WorkerConnection",
    "WorkerHandler",
    "dial",
]
