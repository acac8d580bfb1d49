from __future__ import annotations

import stat

import pytest

from tailrace._core import Journal
from tailrace.errors import LocalProtocolError, RemoteError
from tailrace.link.builders import make_builders
from tailrace.messages import Updates


class Host:
    """A worker with these entries in its base directory: name → whether it is a directory."""

    workerName = "w1"

    def __init__(self, entries, *, delete=False, basedir="/home/w", system="posix", fails=()):
        self.info = {"basedir": basedir, "system": system, "delete_leftover_dirs": delete}
        self.entries = dict(entries)
        self.fails = fails
        self.calls = []

    async def start_unbuilt(self, remoteCommand, commandId, commandName, args):
        self.calls.append((commandName, args))
        journal = Journal()
        if commandName in self.fails:
            journal.append("header", b"no such luck\n", 0, 0)
            journal.update({"rc": 13})
        else:
            journal.update(self.answer(commandName, args))
            journal.update({"rc": 0})
        journal.finish(None)
        await remoteCommand.remote_update(Updates(journal.batch(0, 1 << 20)))
        await remoteCommand.remote_complete(None)

    def answer(self, name, args):
        match name:
            case "listdir":
                return {"files": list(self.entries)}
            case "stat":
                directory = self.entries[args["file"].rsplit("/", 1)[-1]]
                return {"stat": ((stat.S_IFDIR if directory else stat.S_IFREG) | 0o755,) + (0,) * 9}
            case _:
                return {"elapsed": 0.0}


async def test_what_is_missing_is_made():
    host = Host({"there": True})
    await make_builders(host, [("a", "there"), ("b", "new"), ("c", "new"), ("d", "deep/down")])
    assert host.calls == [
        ("listdir", {"dir": "/home/w"}),
        ("mkdir", {"dir": ["/home/w/info", "/home/w/new", "/home/w/deep/down"]}),
    ]


async def test_nothing_is_made_where_all_is_there():
    host = Host({"there": True, "info": True})
    await make_builders(host, [("a", "there"), ("~", ".")])
    assert [name for name, _args in host.calls] == ["listdir"]


async def test_leftovers_go_only_if_the_worker_wants_so():
    entries = {"old": True, "keep": True, "info": True, "twistd.log": False, ".hidden": True}
    careful, tidy = Host(entries), Host(entries, delete=True)
    for host in (careful, tidy):
        await make_builders(host, [("a", "keep")])
    assert [name for name, _args in careful.calls] == ["listdir"]
    assert ("rmdir", {"dir": ["/home/w/old"]}) in tidy.calls
    assert len([args for name, args in tidy.calls if name == "rmdir"]) == 1


async def test_a_builder_in_the_base_directory_claims_all_of_it():
    host = Host({"old": True, "info": True}, delete=True)
    await make_builders(host, [("~", ".")])
    assert [name for name, _args in host.calls] == ["listdir"]


async def test_the_head_of_a_nested_builder_is_no_leftover():
    host = Host({"deep": True, "info": True}, delete=True)
    await make_builders(host, [("a", "deep/down")])
    assert [name for name, _args in host.calls] == ["listdir", "mkdir"]


async def test_a_worker_on_windows_has_its_own_paths():
    host = Host({}, basedir="C:\\w", system="nt")
    await make_builders(host, [("a", "x/y")])
    assert host.calls[0] == ("listdir", {"dir": "C:\\w"})
    assert host.calls[1] == ("mkdir", {"dir": ["C:\\w\\info", "C:\\w\\x\\y"]})


async def test_what_cannot_be_made_is_said_in_the_workers_words():
    with pytest.raises(RemoteError, match="no such luck"):
        await make_builders(Host({}, fails={"mkdir"}), [("a", "a")])


async def test_leftovers_that_stay_are_no_failure():
    host = Host({"old": True, "info": True, "a": True}, delete=True, fails={"rmdir"})
    await make_builders(host, [("a", "a")])


async def test_a_worker_without_a_place():
    with pytest.raises(LocalProtocolError, match="base directory"):
        await make_builders(Host({}, basedir=""), [("a", "a")])
