"""Supervisors with real processes: every byte, every end, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

import tailrace.worker
from tailrace._core import Journal, Ledger
from tailrace.errors import LocalProtocolError
from tailrace.link.resume import CommandKey
from tailrace.worker.label import Label
from tailrace.worker.supervisor import LogFile, SupervisorLost
from tailrace.worker.supervisors import open_supervisors

from .supervised import alive, child, descendants, python, reading, shell, ticks

KEY = CommandKey(master="m", command="1", builder="b", name="shell", digest=bytes(32))


@pytest.fixture
async def supervisors(tmp_path):
    async with open_supervisors(tmp_path / "supervisors") as opened:
        yield opened


async def run(supervisors, spec, *, digest=None):
    """Runs one final child to its end, reading all the while."""
    supervised = await supervisors.start("1")
    async with reading(supervised, digest=digest) as reader:
        exit_ = await supervised.spawn(spec)
    await supervised.aclose()
    assert reader.agrees()
    return exit_, reader


async def wait_until(condition):
    """For what the kernel does not tell us of."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.005)


class TestEveryByte:
    async def test_both_channels_and_the_end_of_the_journal(self, supervisors, tmp_path):
        exit_, reader = await run(supervisors, shell("echo out; echo err >&2; exit 7", tmp_path))
        assert (exit_.rc, exit_.signal, exit_.reason) == (7, None, None)
        assert (reader.text("stdout"), reader.text("stderr")) == ("out\n", "err\n")
        assert reader.updates["rc"] == 7
        assert reader.updates["elapsed"] == exit_.elapsed
        assert reader.failure is None

    async def test_a_hundred_megabytes_of_random_bytes(self, supervisors, tmp_path):
        data = tmp_path / "data"
        with data.open("wb") as file:
            for _ in range(100):
                file.write(os.urandom(1_000_000))
        want = hashlib.blake2b(data.read_bytes()).digest()
        digest = hashlib.blake2b()
        exit_, reader = await run(supervisors, child(["cat", "data"], tmp_path), digest=digest)
        assert exit_.rc == 0
        assert digest.digest() == want
        assert reader.records < 3000

    async def test_many_one_byte_writes_are_few_records(self, supervisors, tmp_path):
        script = "import os\nfor i in range(100_000): os.write(1, b'%d' % (i % 10))"
        _, reader = await run(supervisors, python(script, tmp_path))
        assert reader.text("stdout") == "0123456789" * 10_000
        assert reader.records < 1000

    async def test_channels_that_take_turns_keep_their_order(self, supervisors, tmp_path):
        script = "for i in 1 2 3 4; do echo o$i; sleep 0.05; echo e$i >&2; sleep 0.05; done"
        _, reader = await run(supervisors, shell(script, tmp_path))
        assert [channel for channel in reader.order if channel != "header"] == ["stdout", "stderr"] * 4

    @pytest.mark.parametrize("text", ["", "no newline", "a\rb\rc", "x" * 1_000_000, "\n\n\n", "caf\u00e9"])
    async def test_output_is_not_touched(self, supervisors, tmp_path, text):
        (tmp_path / "data").write_bytes(text.encode())
        _, reader = await run(supervisors, child(["cat", "data"], tmp_path))
        assert reader.text("stdout") == text

    async def test_invalid_utf8_is_kept(self, supervisors, tmp_path):
        _, reader = await run(supervisors, shell(r"printf '\377\303'; sleep 0.05; printf '\251'", tmp_path))
        assert reader.channels["stdout"] == b"\xff\xc3\xa9"

    async def test_first_bytes_come_at_once(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(supervised.spawn, shell("printf partial; exec sleep 1000", tmp_path))
            with trio.fail_after(5):
                await reader.wait_for("stdout", b"partial")
            await supervised.interrupt("seen enough")

    async def test_unwanted_channels_are_not_kept(self, supervisors, tmp_path):
        spec = shell("echo out; echo err >&2", tmp_path, want_stdout=False, want_stderr=False)
        _, reader = await run(supervisors, spec)
        assert set(reader.channels) == {"header"}


class TestResults:
    async def test_a_missing_program(self, supervisors, tmp_path):
        exit_, reader = await run(supervisors, child(["no-such-program"], tmp_path))
        assert exit_.rc == reader.updates["rc"] == 127
        assert reader.text("stderr") == "tailrace: cannot run 'no-such-program': no such file\n"

    async def test_a_program_without_a_name_is_missing(self, supervisors, tmp_path):
        exit_, reader = await run(supervisors, child([""], tmp_path))
        assert exit_.rc == 127
        assert reader.text("stderr") == "tailrace: cannot run '': no such file\n"

    async def test_a_program_of_megabytes_is_refused_in_one_line(self, supervisors, tmp_path):
        exit_, reader = await run(supervisors, child(["x" * 5_000_000], tmp_path))
        assert exit_.rc == 127
        assert len(reader.text("stderr")) < 2000
        assert reader.text("stderr").endswith("x…': no such file\n")

    async def test_a_missing_path(self, supervisors, tmp_path):
        exit_, reader = await run(supervisors, child(["./gone"], tmp_path))
        assert exit_.rc == 127
        assert reader.text("stderr") == "tailrace: cannot run './gone': no such file\n"

    async def test_a_file_that_is_no_program(self, supervisors, tmp_path):
        (tmp_path / "plain").write_text("hello")
        exit_, reader = await run(supervisors, child(["./plain"], tmp_path))
        assert exit_.rc == 126
        assert reader.text("stderr") == "tailrace: cannot run './plain': permission denied\n"

    async def test_a_missing_interpreter(self, supervisors, tmp_path):
        (tmp_path / "script").write_text("#!/no/such/interpreter\n")
        (tmp_path / "script").chmod(0o755)
        exit_, reader = await run(supervisors, child(["./script"], tmp_path))
        assert exit_.rc == 127
        assert reader.text("stderr").startswith("tailrace: cannot run './script': ")

    async def test_a_script_without_an_interpreter_line_is_the_shells(self, supervisors, tmp_path):
        (tmp_path / "script").write_text("exit 3\n")
        (tmp_path / "script").chmod(0o755)
        exit_, _ = await run(supervisors, child(["./script"], tmp_path))
        assert exit_.rc == 3

    async def test_the_program_is_looked_for_in_the_childs_own_path(self, supervisors, tmp_path):
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/tool").write_text("#!/bin/sh\necho $0 $1\n")
        (tmp_path / "bin/tool").chmod(0o755)
        spec = child(["tool", "a b"], tmp_path, env={"PATH": f"/nowhere:{tmp_path}/bin:/bin"})
        exit_, reader = await run(supervisors, spec)
        assert exit_.rc == 0
        assert reader.text("stdout") == f"{tmp_path}/bin/tool a b\n"

    @pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "USR1"])
    async def test_a_signal_is_minus_one_and_its_name(self, supervisors, tmp_path, name):
        exit_, reader = await run(supervisors, shell(f"kill -{name} $$", tmp_path))
        assert (exit_.rc, exit_.signal, exit_.reason) == (-1, f"SIG{name}", None)
        assert (reader.updates["rc"], reader.updates["signal"]) == (-1, f"SIG{name}")
        assert f"process killed by signal SIG{name}\n" in reader.text("header")

    async def test_a_missing_directory_is_made(self, supervisors, tmp_path):
        _, reader = await run(supervisors, shell("pwd", tmp_path, cwd=str(tmp_path / "a/b")))
        assert reader.text("stdout") == f"{tmp_path}/a/b\n"

    async def test_a_directory_that_is_a_file(self, supervisors, tmp_path):
        (tmp_path / "file").touch()
        exit_, reader = await run(supervisors, shell("pwd", tmp_path, cwd=str(tmp_path / "file/b")))
        assert exit_.rc == 126
        assert reader.text("stderr").startswith("tailrace: cannot enter ")

    async def test_the_environment_is_exactly_what_was_given(self, supervisors, tmp_path):
        _, reader = await run(supervisors, child(["/usr/bin/env"], tmp_path, env={"A": "1", "B": "\udcff"}))
        assert reader.channels["stdout"] == b"A=1\nB=\xff\n"

    async def test_no_signal_is_ignored_or_blocked_in_a_child(self, supervisors, tmp_path):
        _, reader = await run(supervisors, shell("grep -E 'Sig(Blk|Ign)' /proc/self/status", tmp_path))
        _, blocked, _, ignored = reader.text("stdout").split()
        assert int(blocked, 16) == 0
        assert int(ignored, 16) & 0x7FFFFFFF == 0  # signals 32 and 33 are the C library's own business

    async def test_no_descriptor_leaks_into_a_child(self, supervisors, tmp_path):
        _, reader = await run(supervisors, shell("ls /proc/$$/fd", tmp_path))
        assert reader.text("stdout").split() == ["0", "1", "2"]

    async def test_updates_at_the_end_have_an_order(self, supervisors, tmp_path):
        _, reader = await run(supervisors, shell("exec sleep 1000", tmp_path, max_time_s=0.1))
        assert reader.update_keys == ["failure_reason", "signal", "rc", "elapsed"]


class TestStandardInput:
    async def test_none_is_an_empty_one(self, supervisors, tmp_path):
        _, reader = await run(supervisors, child(["cat"], tmp_path))
        assert "stdout" not in reader.channels

    async def test_it_is_written_and_closed(self, supervisors, tmp_path):
        data = os.urandom(3_000_000)
        digest = hashlib.blake2b()
        exit_, _ = await run(supervisors, child(["cat"], tmp_path, stdin=data), digest=digest)
        assert exit_.rc == 0
        assert digest.digest() == hashlib.blake2b(data).digest()

    async def test_a_child_that_does_not_want_it(self, supervisors, tmp_path):
        exit_, _ = await run(supervisors, child(["true"], tmp_path, stdin=b"x" * 3_000_000))
        assert exit_.rc == 0

    async def test_a_terminal(self, supervisors, tmp_path):
        script = "tty; test -t 0 && test -t 1 && test -t 2 && echo yes; cat; echo err >&2"
        exit_, reader = await run(supervisors, shell(script, tmp_path, pty=True))
        assert exit_.rc == 0
        first, *rest = reader.text("stdout").split("\r\n")
        assert first.startswith("/dev/pts/")
        assert rest == ["yes", "err", ""]

    async def test_a_terminal_in_a_hurry_loses_nothing(self, supervisors, tmp_path):
        _, reader = await run(supervisors, python("print('x' * 79 + '\\n', end='') ; " * 1000, tmp_path, pty=True))
        assert len(reader.text("stdout")) == 81 * 1000


class TestStopping:
    async def test_silence(self, supervisors, tmp_path):
        exit_, reader = await run(supervisors, shell("echo a; exec sleep 1000", tmp_path, timeout_s=0.2))
        assert (exit_.rc, exit_.signal, exit_.reason) == (-1, "SIGKILL", "timeout_without_output")
        assert reader.updates["failure_reason"] == "timeout_without_output"
        assert "command timed out: 0.2 seconds without output, attempting to kill\n" in reader.text("header")

    async def test_unwanted_output_is_not_silence(self, supervisors, tmp_path):
        script = "for i in 1 2 3 4 5 6; do sleep 0.1; echo x; done; exit 3"
        exit_, _ = await run(supervisors, shell(script, tmp_path, timeout_s=0.4, want_stdout=False))
        assert (exit_.rc, exit_.reason) == (3, None)

    async def test_total_time(self, supervisors, tmp_path):
        spec = shell("while :; do echo x; sleep 0.02; done", tmp_path, timeout_s=100, max_time_s=0.3)
        exit_, reader = await run(supervisors, spec)
        assert exit_.reason == reader.updates["failure_reason"] == "timeout"
        assert 0.3 <= exit_.elapsed < 5

    async def test_lines(self, supervisors, tmp_path):
        spec = shell("echo 1; echo 2 >&2; sleep 0.05; printf '3\n4\n5\n'; exec sleep 1000", tmp_path, max_lines=3)
        exit_, reader = await run(supervisors, spec)
        assert exit_.reason == "max_lines_failure"
        assert (reader.text("stdout"), reader.text("stderr")) == ("1\n3\n", "2\n")
        assert reader.gaps == [("stdout", 4, 2, "max_lines")]

    async def test_as_many_lines_as_allowed_are_allowed(self, supervisors, tmp_path):
        exit_, reader = await run(supervisors, shell("echo 1; echo 2", tmp_path, max_lines=2))
        assert (exit_.rc, exit_.reason, reader.text("stdout")) == (0, None, "1\n2\n")

    async def test_a_polite_child_ends_by_term(self, supervisors, tmp_path):
        script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
        exit_, reader = await self.interrupted(supervisors, shell(script, tmp_path, term_s=10.0))
        assert (exit_.rc, exit_.signal, exit_.reason) == (-1, None, "interrupted")
        assert reader.text("stdout") == "ready\nbye\n"
        assert "command interrupted: enough, attempting to kill\n" in reader.text("header")

    async def test_the_chosen_signal_and_then_kill(self, supervisors, tmp_path):
        script = "trap '' INT; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done"
        spec = shell(script, tmp_path, signal="USR1", kill_grace_s=0.3)
        exit_, reader = await self.interrupted(supervisors, spec)
        assert (exit_.signal, exit_.reason) == ("SIGKILL", "interrupted")
        assert reader.text("stdout") == "ready\nusr1\n"

    async def test_nobody_survives(self, supervisors, tmp_path):
        script = "trap '' TERM; (setsid sleep 1000 &) ; echo ready; sleep 1000"
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(supervised.spawn, shell(script, tmp_path, term_s=0.3))
            await reader.wait_for("stdout", b"ready")
            await wait_until(lambda: len(descendants(supervised.pid)) == 3)
            family = descendants(supervised.pid)
            await supervised.interrupt("stop")
            with trio.fail_after(2):
                await wait_until(lambda: not any(map(alive, family)))
        assert reader.updates["failure_reason"] == "interrupted"

    async def test_nobody_survives_who_forks_all_the_time(self, supervisors, tmp_path):
        script = "trap '' TERM HUP INT; echo ready; while :; do (setsid sleep 1000 &); sleep 0.001; done"
        exit_, _ = await self.interrupted(supervisors, shell(script, tmp_path))
        assert exit_.signal == "SIGKILL"

    async def test_nothing_starts_after_an_interrupt(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader:
            await supervised.interrupt("not today")
            exit_ = await supervised.spawn(shell("echo hello", tmp_path))
        assert (exit_.rc, exit_.reason) == (-1, "interrupted")
        assert reader.updates["failure_reason"] == "interrupted"
        assert "stdout" not in reader.channels

    async def test_a_reason_of_megabytes_is_cut(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(supervised.spawn, shell("echo here; exec sleep 1000", tmp_path))
            await reader.wait_for("stdout", b"here\n")
            await supervised.interrupt("y" * 5_000_000)
        assert reader.updates["failure_reason"] == "interrupted"
        assert len(reader.text("header")) < 10_000

    async def test_a_second_interrupt_is_harmless(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervised.spawn, shell("echo ready; exec sleep 1000", tmp_path))
                await reader.wait_for("stdout", b"ready")
                await supervised.interrupt("one")
                await supervised.interrupt("two")
            await supervised.interrupt("three")
        assert reader.text("header").count("attempting to kill") == 1

    async def interrupted(self, supervisors, spec):
        supervised = await supervisors.start("1")
        exits = []

        async def spawn():
            exits.append(await supervised.spawn(spec))

        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(spawn)
            await reader.wait_for("stdout", b"ready")
            await supervised.interrupt("enough")
        assert not descendants(supervised.pid)
        return exits[0], reader


class TestDescendants:
    async def test_one_that_holds_the_output_and_is_silent_is_left_alone(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader:
            exit_ = await supervised.spawn(shell("sleep 1000 & echo $!", tmp_path))
            left = int(reader.text("stdout"))
        assert (exit_.rc, exit_.reason) == (0, None)
        assert exit_.elapsed >= 5
        assert "holds the command's output open" in reader.text("header")
        await supervised.aclose()
        assert alive(left)
        os.kill(left, signal.SIGKILL)

    async def test_one_that_still_writes_is_heard(self, supervisors, tmp_path):
        _, reader = await run(supervisors, shell("(sleep 0.3; echo late) & echo early", tmp_path))
        assert reader.text("stdout") == "early\nlate\n"

    async def test_one_without_the_output_is_not_waited_for(self, supervisors, tmp_path):
        with trio.fail_after(4):
            _, reader = await run(supervisors, shell("sleep 1000 >/dev/null 2>&1 & echo $!", tmp_path))
        os.kill(int(reader.text("stdout")), signal.SIGKILL)


class TestLogFiles:
    async def test_follow_loses_nothing(self, supervisors, tmp_path):
        log = tmp_path / "log"
        log.write_text("before\n")
        script = "for i in $(seq 1000); do echo line $i >>log; done"
        spec = shell(script, tmp_path, logfiles=(LogFile("build", "log", follow=True),))
        _, reader = await run(supervisors, spec)
        assert reader.text("log:build") == "".join(f"line {i}\n" for i in range(1, 1001))

    async def test_without_follow_a_changed_file_is_there_from_its_beginning(self, supervisors, tmp_path):
        (tmp_path / "old").write_text("old\n")
        (tmp_path / "changed").write_text("first\n")
        logs = (LogFile("old", "old"), LogFile("changed", "changed"), LogFile("new", "sub/new"), LogFile("no", "none"))
        spec = shell("echo second >>changed; mkdir sub; echo new >sub/new", tmp_path, logfiles=logs)
        _, reader = await run(supervisors, spec)
        assert reader.text("log:changed") == "first\nsecond\n"
        assert reader.text("log:new") == "new\n"
        assert "log:old" not in reader.channels

    async def test_it_comes_while_the_child_runs(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            spec = shell("echo hello >log; exec sleep 1000", tmp_path, logfiles=(LogFile("build", "log"),))
            nursery.start_soon(supervised.spawn, spec)
            with trio.fail_after(5):
                await reader.wait_for("log:build", b"hello\n")
            await supervised.interrupt("")

    async def test_rotation(self, supervisors, tmp_path):
        script = "echo 1 >>log; sleep 0.3; echo 2 >>log; mv log log.1; echo 3 >>log; sleep 0.3; rm log; echo 4 >log"
        spec = shell(script, tmp_path, logfiles=(LogFile("build", "log", follow=True),))
        _, reader = await run(supervisors, spec)
        assert reader.text("log:build") == "1\n2\n3\n4\n"

    async def test_log_output_is_a_sign_of_life(self, supervisors, tmp_path):
        script = "for i in 1 2 3 4 5 6 7 8; do sleep 0.1; echo x >>log; done"
        spec = shell(script, tmp_path, timeout_s=0.5, logfiles=(LogFile("build", "log"),))
        exit_, _ = await run(supervisors, spec)
        assert exit_.reason is None


class TestBackpressure:
    async def test_a_full_ring_stops_the_child_and_nothing_else(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        exits = []

        async def spawn(spec):
            exits.append(await supervised.spawn(spec))

        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            reader.running = trio.Event()
            nursery.start_soon(spawn, shell("exec yes", tmp_path, timeout_s=0.5))
            await wait_until(lambda: self.is_full(supervised))
            # Longer than the silence that the child is allowed: it is not silent, it is not read.
            await trio.sleep(1)
            assert self.is_full(supervised)
            family = descendants(supervised.pid)
            started = trio.current_time()
            await supervised.interrupt("full")
            await wait_until(lambda: not any(map(alive, family)))
            assert trio.current_time() - started < 0.1
            reader.running.set()
        assert exits[0].reason == "interrupted"
        assert reader.agrees()

    async def test_a_slow_reader_gets_every_byte(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(supervised.spawn, shell("seq 1000000", tmp_path))
            while not supervised.journal.ended:
                reader.running = trio.Event()
                await trio.sleep(0.02)
                reader.running.set()
                await trio.sleep(0.001)
        assert reader.text("stdout") == "".join(f"{i}\n" for i in range(1, 1_000_001))

    async def test_closing_a_full_one_is_quick(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervised.spawn, shell("exec yes", tmp_path))
            await wait_until(lambda: self.is_full(supervised))
            with trio.fail_after(2):
                await supervised.aclose()
        assert not supervised.directory.exists()

    @staticmethod
    def is_full(supervised):
        return supervised.journal.end - supervised.journal.begin > 2_500_000


class TestSequences:
    async def test_children_one_after_another_in_one_journal(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader:
            await supervised.append("header", b"first\n")
            first = await supervised.spawn(shell("echo 1; exit 4", tmp_path, final=False))
            second = await supervised.spawn(shell("echo 2", tmp_path, final=False))
            await supervised.update({"got_revision": "abc"})
            await supervised.update({"rc": 0})
            await supervised.finish(("SomeError", "it failed"))
        assert (first.rc, second.rc) == (4, 0)
        assert reader.text("stdout") == "1\n2\n"
        assert reader.updates == {"got_revision": "abc", "rc": 0}
        assert reader.failure == ("SomeError", "it failed")
        assert reader.agrees()

    async def test_captured_output_is_not_in_the_journal(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader:
            exit_ = await supervised.spawn(shell("echo secret; echo err >&2", tmp_path, capture=True, final=False))
            much = await supervised.spawn(shell("yes | head -c 200000", tmp_path, capture=True, final=False))
            await supervised.finish()
        assert exit_.captured == b"secret\n"
        assert len(much.captured) == 65536
        assert "stdout" not in reader.channels
        assert reader.text("stderr") == "err\n"

    async def test_nothing_is_added_behind_the_end(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised):
            await supervised.finish()
        supervised = await supervisors.start("2")
        await supervised.finish()
        with pytest.raises(LocalProtocolError, match=r"complete|receipt"):
            await supervised.append("stdout", b"x")
        with pytest.raises(LocalProtocolError, match=r"complete|receipt"):
            await supervised.finish()
        with pytest.raises(LocalProtocolError, match=r"complete|receipt"):
            await supervised.spawn(shell("true", tmp_path))

    async def test_large_pieces_are_appended_whole(self, supervisors):
        supervised = await supervisors.start("1")
        data = os.urandom(6_000_000)
        async with reading(supervised) as reader:
            await supervised.append("stdout", data)
            await supervised.finish()
        assert reader.channels["stdout"] == data

    async def test_requests_that_make_no_sense_are_refused(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        with pytest.raises(LocalProtocolError, match="NOSUCH"):
            await supervised.spawn(shell("true", tmp_path, signal="NOSUCH"))
        with pytest.raises(LocalProtocolError, match="channel"):
            await supervised.append("stdwhat", b"x")


class TestLives:
    async def test_the_supervisor_goes_when_all_was_released(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised):
            await supervised.spawn(shell("echo hello", tmp_path))
            directory, pid = supervised.directory, supervised.pid
        await wait_until(lambda: not alive(pid) and not directory.exists())

    async def test_it_waits_for_the_release(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        await supervised.spawn(shell("echo hello", tmp_path))
        assert supervised.journal.ended
        await trio.sleep(0.1)
        assert alive(supervised.pid)
        supervised.released(supervised.journal.end)
        await wait_until(lambda: not alive(supervised.pid))

    async def test_a_cancelled_spawn_leaves_the_child_running(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(supervised.spawn, shell("echo ready; read x; exec sleep 1000", tmp_path, stdin=b"x\n"))
            await reader.wait_for("stdout", b"ready")
            nursery.cancel_scope.cancel()
            await supervised.interrupt("now")
        assert reader.updates["failure_reason"] == "interrupted"
        assert reader.agrees()

    async def test_closing_kills_what_runs(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with trio.open_nursery() as nursery:
            spec = shell("trap '' TERM; (setsid sleep 1000 &); sleep 1000", tmp_path, term_s=100)
            nursery.start_soon(supervised.spawn, spec)
            await wait_until(lambda: len(descendants(supervised.pid)) == 3)
            family = descendants(supervised.pid)
            with trio.fail_after(2):
                await supervised.aclose()
        assert not any(map(alive, family))
        assert not supervised.directory.exists()

    async def test_many_at_once(self, supervisors, tmp_path):
        done = []

        async def one(number):
            supervised = await supervisors.start(f"many {number}")
            async with reading(supervised) as reader:
                exit_ = await supervised.spawn(shell(f"seq {number} 1000; exit {number}", tmp_path))
            await supervised.aclose()
            done.append((exit_.rc, reader.agrees(), reader.text("stdout").split("\n")[0]))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        assert sorted(done) == [(number, True, str(number)) for number in range(20)]

    async def test_a_short_commands_supervisor_is_there_for_the_next_one(self, tmp_path):
        async with open_supervisors(tmp_path / "s", idle_max=1) as supervisors:
            pids = set()
            for number in range(5):
                supervised = await supervisors.start(str(number), Label.of(KEY, float(number)))
                async with reading(supervised) as reader:
                    exit_ = await supervised.spawn(shell(f"echo {number}; exit {number}", tmp_path), b"header\n")
                await supervised.aclose()
                assert (exit_.rc, reader.text("stdout")) == (number, f"{number}\n")
                assert reader.text("header").startswith("header\n")
                assert reader.agrees()
                pids.add(supervised.pid)
                await wait_until(lambda supervised=supervised: supervised.is_fresh)
                assert Journal.map(str(supervised.directory / "journal.ring")).label is None
            assert len(pids) == 1
            await supervised.interrupt("the one before is nothing to the next")
            supervised = await supervisors.start("last")
            assert supervised.pid in pids
            async with reading(supervised):
                assert (await supervised.spawn(shell("exit 3", tmp_path))).rc == 3
            await supervised.aclose()
            await wait_until(lambda: not any(map(alive, pids)))
            assert list((tmp_path / "s").iterdir()) == []

    async def test_no_other_command_begins_where_something_is_left_of_one(self, tmp_path):
        async with open_supervisors(tmp_path / "s", idle_max=1) as supervisors:
            for script in ("setsid sleep 1000 >/dev/null 2>&1 &", "seq 100000"):
                supervised = await supervisors.start("1")
                async with reading(supervised):
                    await supervised.spawn(shell(script, tmp_path))
                await supervised.aclose()
                await wait_until(lambda supervised=supervised: not alive(supervised.pid))
                assert not supervised.is_fresh
                await wait_until(lambda supervised=supervised: not supervised.directory.exists())

    async def test_an_idle_supervisor_that_is_killed_is_not_missed(self, tmp_path):
        async with open_supervisors(tmp_path / "s", idle_max=1) as supervisors:
            supervised = await supervisors.start("1")
            async with reading(supervised):
                await supervised.spawn(shell("true", tmp_path))
            await supervised.aclose()
            await wait_until(lambda: supervised.is_fresh)
            os.kill(supervised.pid, signal.SIGKILL)
            await wait_until(lambda: not supervised.directory.exists())
            again = await supervisors.start("2")
            async with reading(again):
                assert (await again.spawn(shell("exit 4", tmp_path))).rc == 4
            await again.aclose()
        assert list((tmp_path / "s").iterdir()) == []

    async def test_an_idle_supervisor_that_was_given_a_command_waits_for_the_next_daemon(self, tmp_path):
        async with open_supervisors(tmp_path / "s", idle_max=2) as supervisors:
            firsts = [await supervisors.start(str(number)) for number in range(2)]
            for first in firsts:
                async with reading(first):
                    await first.spawn(shell("true", tmp_path))
                await first.aclose()
            await wait_until(lambda: all(first.is_fresh for first in firsts))
            # One is given a command, and the daemon is gone before it has said more; the other is nobody's.
            taken = [await supervisors.start("3", Label.of(KEY, 1.0)), await supervisors.start("4")]
            for supervised in taken:
                supervised.detach()
            await wait_until(lambda: not taken[1].directory.exists())
            assert taken[0].directory.exists()
        async with open_supervisors(tmp_path / "s") as supervisors:
            (left,) = supervisors.left
            assert left.label.key == KEY
            assert not await left.supervised.rejoin()
        assert list((tmp_path / "s").iterdir()) == []

    async def test_a_label_that_is_too_long_for_the_ring_stands_beside_it(self, tmp_path):
        label = Label.of(attrs.evolve(KEY, name="n" * 10_000), 1.0)
        async with open_supervisors(tmp_path / "s", idle_max=1) as supervisors:
            (await supervisors.start("1", label)).detach()
        async with open_supervisors(tmp_path / "s") as supervisors:
            (left,) = supervisors.left
            assert left.label == label

    async def test_commands_have_directories_of_their_own(self, supervisors, tmp_path):
        names = ["a/b", "..", "", ".", "x" * 500, "x" * 501, "\udcff", "a%2Fb"]
        directories = {(await supervisors.start(name)).directory for name in names}
        assert len(directories) == len(names)
        assert {directory.parent for directory in directories} == {supervisors.directory}
        with pytest.raises(FileExistsError):
            await supervisors.start("a/b")

    async def test_a_killed_supervisor_has_a_successor_that_ends_what_it_ran(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        killed = supervised.pid
        async with reading(supervised) as reader:
            with pytest.RaisesGroup(SupervisorLost):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(supervised.spawn, shell("echo before; exec sleep 1000", tmp_path))
                    await reader.wait_for("stdout", b"before\n")
                    (orphan,) = descendants(killed)
                    os.kill(killed, signal.SIGKILL)
        assert reader.text("stdout") == "before\n"
        assert reader.failure is not None
        assert reader.failure[0] == "SupervisorLost"
        assert reader.agrees()
        assert not alive(orphan)
        with pytest.raises(SupervisorLost):
            await supervised.append("header", b"more")
        await wait_until(lambda: not supervised.directory.exists())
        await supervised.aclose()

    async def test_without_its_journal_a_dead_supervisor_has_no_successor(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        (supervised.directory / "journal.ring").rename(tmp_path / "gone")
        os.kill(supervised.pid, signal.SIGKILL)
        with pytest.raises(SupervisorLost):
            await supervised.wait_grown(supervised.journal.end)
        await supervised.aclose()
        assert not supervised.directory.exists()

    async def test_one_that_dies_in_the_middle_of_a_request_fails_that_alone(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        os.kill(supervised.pid, signal.SIGSTOP)
        failed = []

        async def ask():
            with pytest.raises(SupervisorLost):
                await supervised.spawn(child(["cat"], tmp_path, stdin=bytes(8_000_000)))
            failed.append(supervised)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(supervised.pid, signal.SIGKILL)
        assert failed
        again = await supervisors.start("2")
        assert (await again.spawn(shell("exit 3", tmp_path))).rc == 3

    async def test_one_that_is_told_to_end_interrupts_its_command(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(supervised.spawn, shell("echo ready; exec sleep 1000", tmp_path))
            await reader.wait_for("stdout", b"ready")
            os.kill(supervised.pid, signal.SIGTERM)
        assert reader.updates["failure_reason"] == "interrupted"
        assert reader.agrees()

    async def test_a_dead_helper_is_replaced(self, supervisors, tmp_path):
        first = supervisors.helper_pid
        os.kill(first, signal.SIGKILL)
        exit_, _ = await run(supervisors, shell("exit 5", tmp_path))
        assert exit_.rc == 5
        assert supervisors.helper_pid != first

    async def test_nothing_outlives_the_context(self, tmp_path):
        async with open_supervisors(tmp_path / "s") as supervisors:
            supervised = await supervisors.start("1")
            with trio.move_on_after(0.2):
                await supervised.spawn(shell("exec sleep 1000", tmp_path))
            helper = supervisors.helper_pid
            family = descendants(supervised.pid)
        assert family
        assert not any(map(alive, [*family, supervised.pid, helper]))
        assert list((tmp_path / "s").iterdir()) == []

    async def test_an_idle_child_costs_nothing(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        burst = "import os, time\nfor i in range(50_000): os.write(1, b'x\\n')\n"
        script = f"{burst}print('ready', flush=True)\ntime.sleep(1000)"
        spec = python(script, tmp_path, timeout_s=1000, logfiles=(LogFile("log", "log"),))
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            nursery.start_soon(supervised.spawn, spec)
            await reader.wait_for("stdout", b"ready")
            before = ticks(supervised.pid)
            await trio.sleep(0.5)
            assert ticks(supervised.pid) - before <= 5  # of 50
            await supervised.interrupt("")

    async def test_private_memory(self, supervisors, tmp_path):
        supervised = await supervisors.start("1")
        async with reading(supervised) as reader, trio.open_nursery() as nursery:
            script = "head -c 50000000 /dev/zero; echo ready; exec sleep 1000"
            nursery.start_soon(supervised.spawn, shell(script, tmp_path))
            await reader.wait_for("stdout", b"ready")
            rollup = Path(f"/proc/{supervised.pid}/smaps_rollup").read_text().split("\n")
            private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
            assert private < 8 * 1024
            await supervised.interrupt("")


class TestTheDaemonsDeath:
    """What a killed daemon leaves: the layout by which a later one can find its commands again."""

    DAEMON = textwrap.dedent("""
        import os, sys, trio
        from pathlib import Path
        from tailrace.worker.supervisor import Child
        from tailrace.worker.supervisors import open_supervisors

        async def main():
            async with open_supervisors(Path(sys.argv[1])) as supervisors:
                supervised = await supervisors.start("build")
                async with trio.open_nursery() as nursery:
                    script = "echo before; while ! test -e go; do sleep 0.01; done; echo after; exit 9"
                    child = Child(argv=["sh", "-c", script], cwd=sys.argv[2], env=dict(os.environ), final=True)
                    nursery.start_soon(supervised.spawn, child)
                    await supervised.wait_grown(0)
                    print(supervised.pid, flush=True)

        trio.run(main)
    """)

    @pytest.fixture
    def orphan(self, tmp_path):
        """The process id of a supervisor whose daemon was killed."""
        environ = {**os.environ, "PYTHONPATH": str(Path(tailrace.worker.__file__).parents[2])}
        command = [sys.executable, "-c", self.DAEMON, str(tmp_path / "s"), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as daemon:
            pid = int(daemon.stdout.readline())
            daemon.kill()
        yield pid
        if alive(pid):
            os.kill(pid, signal.SIGKILL)

    async def test_the_command_goes_on_and_its_journal_can_be_read(self, orphan, tmp_path):
        journal = Journal.map(str(tmp_path / "s/build/journal.ring"))
        assert alive(orphan)
        (tmp_path / "go").touch()
        await wait_until(lambda: journal.ended)
        batch = journal.batch(0, 1 << 20)
        assert batch.channel_bytes("stdout") == b"before\nafter\n"
        assert batch.updates()["rc"] == 9
        ledger = Ledger()
        ledger.add(batch)
        assert ledger.agrees(batch.receipt())
        assert alive(orphan)

    async def test_the_next_daemon_clears_up(self, orphan, tmp_path):
        family = descendants(orphan)
        async with open_supervisors(tmp_path / "s"):
            assert list((tmp_path / "s").iterdir()) == []
            await wait_until(lambda: not any(map(alive, [orphan, *family])))

    async def test_the_next_daemon_goes_on_with_what_was_labelled(self, tmp_path):
        script = "echo before; while ! test -e go; do sleep 0.01; done; echo after; exit 9"
        async with open_supervisors(tmp_path / "s") as supervisors, trio.open_nursery() as nursery:
            first = await supervisors.start("build", Label.of(KEY, 3.0))
            nursery.start_soon(first.spawn, shell(script, tmp_path))
            await wait_until(lambda: first.ends_itself and first.journal.end > 0)
            first.detach()
            nursery.cancel_scope.cancel()
        async with open_supervisors(tmp_path / "s") as supervisors:
            (left,) = supervisors.left
            assert (left.label.key, left.label.term_s) == (KEY, 3.0)
            async with reading(left.supervised) as reader:
                (tmp_path / "go").touch()
                assert await left.supervised.rejoin()
            assert left.supervised.pid == first.pid
            assert reader.text("stdout") == "before\nafter\n"
            assert reader.updates["rc"] == 9
            assert reader.agrees()

    async def test_the_next_daemon_ends_what_had_not_begun(self, tmp_path):
        async with open_supervisors(tmp_path / "s") as supervisors:
            first = await supervisors.start("build", Label.of(KEY, 0.0))
            await first.append("header", b"sh -c ...\n")
            first.detach()
        async with open_supervisors(tmp_path / "s") as supervisors:
            (left,) = supervisors.left
            async with reading(left.supervised) as reader:
                assert not await left.supervised.rejoin()
                await left.supervised.finish(("WorkerRestarted", "so it was"))
            assert reader.failure == ("WorkerRestarted", "so it was")
            assert reader.text("header") == "sh -c ...\n"

    async def test_the_exit_of_a_child_that_an_earlier_daemon_has_started_is_not_taken_for_a_new_ones(self, tmp_path):
        async with open_supervisors(tmp_path / "s") as supervisors, trio.open_nursery() as nursery:
            first = await supervisors.start("build", Label.of(KEY, 0.0))
            nursery.start_soon(
                first.spawn, shell("echo; while ! test -e go; do sleep 0.01; done", tmp_path, final=False)
            )
            await wait_until(lambda: first.journal.end > 0)
            first.detach()
            nursery.cancel_scope.cancel()
        async with open_supervisors(tmp_path / "s") as supervisors:
            (left,) = supervisors.left
            (tmp_path / "go").touch()
            assert not await left.supervised.rejoin()
            assert (await left.supervised.spawn(shell("exit 4", tmp_path))).rc == 4
