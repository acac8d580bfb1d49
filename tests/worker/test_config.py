from __future__ import annotations

import pytest

from tailrace.errors import LocalProtocolError
from tailrace.worker.config import create_worker, read_config


@pytest.fixture
def directory(tmp_path):
    create_worker(tmp_path / "w", masters=["tailrace://a:1", "tailrace://b:2"], name='the "w"', secret="s3cret")
    return tmp_path / "w"


def write(directory, text):
    (directory / "tailrace.toml").write_text(text)


GOOD = '[worker]\nmasters = ["tailrace://a:1"]\nname = "w"\nsecret_file = "secret"\n'


def test_what_was_created_is_read(directory):
    config = read_config(directory)
    assert config.masters == ("tailrace://a:1", "tailrace://b:2")
    assert (config.name, config.secret) == ('the "w"', "s3cret")
    assert (directory / "secret").stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in repr(config)


def test_a_worker_is_not_created_over_another(directory):
    with pytest.raises(FileExistsError):
        create_worker(directory, masters=["x"], name="x", secret="x")
    assert read_config(directory).secret == "s3cret"


def test_all_settings(directory):
    write(
        directory,
        GOOD
        + 'numcpus = 3\nreport_environ = "none"\ndelete_leftover_dirs = true\nwhen_full = "gap"\n'
        + "[limits]\ncommands_max = 5\nspool_bytes_max = 7\n",
    )
    config = read_config(directory)
    assert config.manners.numcpus == 3
    assert config.manners.report_environ == "none"
    assert config.manners.delete_leftover_dirs is True
    assert config.manners.when_full == "gap"
    assert config.limits.commands_max == 5
    assert config.limits.spool_bytes_max == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["worker.masters", "missing"]),
        (GOOD.replace('"w"', "7"), ["worker.name", "a string"]),
        (GOOD.replace('["tailrace://a:1"]', "[]"), ["worker.masters", "one at least"]),
        (GOOD + "numcpu = 3\n", ["worker.numcpu", "no setting"]),
        (GOOD + "numcpus = 0\n", ["worker.numcpus", "1 or more"]),
        (GOOD + 'report_environ = "some"\n', ["worker.report_environ", "filtered"]),
        (GOOD + 'when_full = "drop"\n', ["worker.when_full", "wait", "gap"]),
        (GOOD + "[limits]\nping = 3\n", ["no limit", "ping"]),
        (GOOD + '[limits]\nping_interval_s = "x"\n', ["limits.ping_interval_s", "a number"]),
        (GOOD + "[limits]\nping_interval_s = 0\n", ["ping_interval_s", "0"]),
        ("[worker\n", ["not TOML"]),
        ("worker = 3\n", ["worker", "a table"]),
        (GOOD + "[other]\n", ["no setting other"]),
    ],
)
def test_a_wrong_file_says_what_and_where(directory, text, words):
    write(directory, text)
    with pytest.raises(LocalProtocolError) as caught:
        read_config(directory)
    for word in ["tailrace.toml", *words]:
        assert word in str(caught.value)


def test_a_secret_is_private_also_where_a_file_was(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w/secret").touch(0o644)
    create_worker(tmp_path / "w", masters=["tailrace://a:1"], name="w", secret="s3cret")
    assert (tmp_path / "w/secret").stat().st_mode & 0o777 == 0o600


def test_an_empty_secret_is_refused(directory):
    (directory / "secret").write_text("\n")
    with pytest.raises(LocalProtocolError, match="no secret"):
        read_config(directory)


def test_a_directory_without_settings_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path)
