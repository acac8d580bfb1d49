"""The names of the contract are there, and are what they are called."""

from __future__ import annotations

import inspect

import pytest

import tailrace.link
from tailrace.link import Connection, FileReaderImpl, FileWriterImpl, Listener, RemoteCommandImpl, WorkerHandler


def test_what_is_exported_exists():
    for name in tailrace.link.__all__:
        assert getattr(tailrace.link, name).__name__ == name or name == "dial"


@pytest.mark.parametrize(
    ("owner", "methods", "coroutines"),
    [
        (RemoteCommandImpl, "", "remote_update remote_complete"),
        (FileWriterImpl, "", "remote_write remote_utime remote_unpack remote_close"),
        (FileReaderImpl, "", "remote_read remote_close"),
        (Listener, "updateRegistration statistics", "serve serve_stream"),
        (
            Connection,
            "createArgsProxies notifyOnDisconnect loseConnection durable statistics",
            "remotePrint remoteGetWorkerInfo remoteSetBuilderList remoteStartCommand remoteShutdown remoteStartBuild "
            "remoteInterruptCommand",
        ),
        (
            WorkerHandler,
            "",
            "print getWorkerInfo setBuilderList startBuild startCommand interruptCommand shutdown",
        ),
    ],
)
def test_methods_that_wait_are_async_and_others_are_not(owner, methods, coroutines):
    for name in methods.split():
        assert not inspect.iscoroutinefunction(getattr(owner, name)), name
    for name in coroutines.split():
        assert inspect.iscoroutinefunction(getattr(owner, name)), name


@pytest.mark.parametrize("impl", [RemoteCommandImpl, FileWriterImpl, FileReaderImpl])
def test_an_impl_has_to_be_implemented(impl):
    with pytest.raises(TypeError, match="abstract"):
        impl()


def test_the_parameters_are_the_documents():
    parameters = inspect.signature(Connection.remoteStartCommand).parameters
    assert list(parameters) == ["self", "remoteCommand", "builderName", "commandId", "commandName", "args"]
    assert list(inspect.signature(Listener).parameters) == ["master", "endpoint", "tls", "limits", "connection_class"]
