from __future__ import annotations

import os

import pytest

from tailrace.errors import RemoteError


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "Z"


async def refused(desk, *words, **args):
    with pytest.raises(RemoteError) as caught:
        await desk.start("shell", args)
    for word in words:
        assert word in caught.value.text


async def test_a_list_is_run_as_it_is(desk):
    report = await desk.run("shell", command=["printf", "%s|", "a b", "$HOME", "*"])
    assert (report.stdout, report.stderr, report.rc) == (b"a b|$HOME|*|", b"", 0)
    assert report.updates["elapsed"] >= 0
    assert report.completed == 1
    assert report.failure is None


async def test_words_that_are_no_text_reach_the_child_as_they_are(desk):
    report = await desk.run("shell", command=["sh", "-c", 'printf %s "$0$X"', b"a\xff"], env={"X": b"\xfe"})
    assert (report.stdout, report.rc) == (b"a\xff\xfe", 0)


async def test_a_string_goes_through_the_shell(desk):
    report = await desk.run("shell", command="echo out; echo err >&2; exit 7")
    assert (report.stdout, report.stderr, report.rc) == (b"out\n", b"err\n", 7)


async def test_bytes_arrive_as_they_were_written(desk):
    data = bytes(range(256)) * 4096
    desk.dir.joinpath("data").write_bytes(data)
    report = await desk.run("shell", command=["cat", "data"])
    assert report.stdout == data


async def test_the_working_directory_is_made(desk):
    report = await desk.run("shell", command=["pwd"], workdir="deep/er")
    assert report.stdout == f"{desk.dir}/deep/er\n".encode()


async def test_a_working_directory_that_cannot_be_made_is_said_in_one_line(desk):
    desk.dir.joinpath("file").write_text("")
    report = await desk.run("shell", command=["pwd"], workdir="file/x")
    assert report.rc == 126
    assert report.stderr.count(b"\n") == 1
    assert b"file/x" in report.stderr


async def test_a_missing_executable_is_127_and_one_line(desk):
    report = await desk.run("shell", command=["no-such-program"])
    assert report.rc == 127
    assert report.stderr.count(b"\n") == 1
    assert b"no-such-program" in report.stderr


async def test_hidden_arguments_reach_the_child_and_nothing_else(desk):
    for hidden in (("obfuscated", "hunter2", "XXX"), ["obfuscated", "hunter2", "XXX"]):
        report = await desk.run("shell", command=["sh", "-c", "printf %s $0 | tr a-z A-Z", hidden])
        assert report.stdout == b"HUNTER2"
        assert b"hunter2" not in report.header
        assert b"XXX" in report.header


async def test_the_header_says_what_runs_where(desk):
    report = await desk.run("shell", command=["echo", "a b"], timeout=1200, env={"KEY": "secret-value"})
    first, *rest = report.header.decode().splitlines()
    assert first == "echo 'a b'"
    assert rest[0] == f" in dir {desk.dir} (timeout 1200 secs)"
    assert b"secret-value" not in report.header


async def test_the_environment_is_shown_when_asked_for(desk):
    report = await desk.run("shell", command=["true"], logEnviron=True, env={"KEY": "value-of-key"})
    assert b"KEY=value-of-key" in report.header


async def test_the_environment_reaches_the_child(desk):
    report = await desk.run("shell", command="echo $KEY $PWD", env={"KEY": ["a", "b"]})
    assert report.stdout == f"a:b {desk.dir}\n".encode()


async def test_unwanted_channels_are_not_sent(desk):
    report = await desk.run("shell", command="echo out; echo err >&2", want_stdout=False, want_stderr=1)
    assert (report.stdout, report.stderr) == (b"", b"err\n")


async def test_stdin_is_written_and_closed(desk):
    assert (await desk.run("shell", command=["cat"], initial_stdin="hällo")).stdout == "hällo".encode()
    assert (await desk.run("shell", command=["cat"])).stdout == b""


async def test_a_terminal_is_there_when_asked_for(desk):
    report = await desk.run("shell", command="test -t 1 && echo yes", usePTY=True)
    assert (report.stdout, report.rc) == (b"yes\r\n", 0)


async def test_stdin_turns_the_terminal_off_and_says_so(desk):
    report = await desk.run("shell", command="test -t 1 || cat", usePTY=True, initial_stdin="x")
    assert report.stdout == b"x"
    assert b"usePTY is ignored" in report.header


async def test_watched_files_are_logs(desk):
    desk.dir.joinpath("old.log").write_text("before\n")
    report = await desk.run(
        "shell",
        command="echo new > new.log; echo more >> old.log",
        logfiles={"new": "new.log", "old": {"filename": "old.log", "follow": True}},
    )
    assert report.channel("log", "new") == b"new\n"
    assert report.channel("log", "old") == b"more\n"


async def test_silence_has_a_limit_with_a_reason(desk):
    report = await desk.run("shell", command=["sleep", "100"], timeout=0.2)
    assert report.rc == -1
    assert report.updates["failure_reason"] == "timeout_without_output"
    assert report.updates["signal"] == "SIGKILL"


async def test_the_whole_time_has_a_limit_with_a_reason(desk):
    report = await desk.run("shell", command="while :; do echo x; sleep 0.05; done", maxTime=0.3)
    assert (report.rc, report.updates["failure_reason"]) == (-1, "timeout")


async def test_lines_have_a_limit_with_a_reason(desk):
    report = await desk.run("shell", command=["yes"], max_lines=1000)
    assert (report.rc, report.updates["failure_reason"]) == (-1, "max_lines_failure")


async def test_an_interrupt_ends_the_child_and_all_its_children(desk):
    script = 'trap "" TERM; (setsid sleep 1000 & echo $!); sleep 1000'
    report = await desk.start("shell", {"command": f"echo $$; {script}", "sigtermTime": 0.1})
    await report.wait_until(lambda: report.stdout.count(b"\n") == 2)
    pids = [int(pid) for pid in report.stdout.split()]
    await desk.interrupt("stop it")
    await desk.ended(report)
    assert report.updates["failure_reason"] == "interrupted"
    assert report.rc == -1
    assert all(gone(pid) for pid in pids)


async def test_the_signal_that_ended_it_is_told(desk):
    report = await desk.run("shell", command="kill -TERM $$")
    assert (report.rc, report.updates["signal"]) == (-1, "SIGTERM")
    assert "failure_reason" not in report.updates


async def test_an_interrupt_begins_with_the_signal_asked_for(desk):
    report = await desk.start(
        "shell", {"command": "trap 'exit 3' INT; echo on; while :; do sleep 0.01; done", "interruptSignal": "INT"}
    )
    await report.wait_until(lambda: report.stdout == b"on\n")
    await desk.interrupt()
    await desk.ended(report)
    assert (report.rc, report.updates["failure_reason"]) == (3, "interrupted")


async def test_bad_arguments_are_refused_at_the_start(desk):
    await refused(desk, "shell", "'command'", "missing")
    await refused(desk, "'command'", command=[])
    await refused(desk, "'command'", command=7)
    await refused(desk, "'command'", command=["a", 7])
    await refused(desk, "'command'", command=["a\0b"])
    await refused(desk, "obfuscated", command=["a", ("obfuscated", "b")])
    await refused(desk, "'usePTY'", "exactly", command="true", usePTY="slave-config")
    await refused(desk, "'interruptSignal'", "HUGO", command="true", interruptSignal="HUGO")
    await refused(desk, "'logfiles'", command="true", logfiles={"x": 7})
    await refused(desk, "'logfiles'", command="true", logfiles={"": "x"})
    await refused(desk, "at most 1000", command="true", logfiles={f"{number}": "x" for number in range(1001)})
    await refused(desk, "'env'", "'A'", command="true", env={"A": 7})
    await refused(desk, "'timeout'", command="true", timeout="soon")
