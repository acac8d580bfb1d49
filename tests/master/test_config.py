"""A master's directory: what it says, who may write it, and how clearly it refuses."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from tailrace.errors import StoreError
from tailrace.master import config


def test_a_new_directory_says_what_was_asked_for(tmp_path):
    made = config.create_master(tmp_path / "m", ["tailrace://127.0.0.1:0", "tailrace+unix:///tmp/ü"])
    assert config.load(tmp_path / "m") == made
    assert made.listen == ("tailrace://127.0.0.1:0", "tailrace+unix:///tmp/ü")
    assert len(made.master_id) == 32


def test_a_directory_in_use_is_not_overwritten(tmp_path):
    first = config.create_master(tmp_path)
    with pytest.raises(StoreError, match="in use"):
        config.create_master(tmp_path, ["tailrace://0.0.0.0:1"])
    assert config.load(tmp_path) == first


def test_a_directory_that_is_no_masters_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match="tailrace master create"):
        config.load(tmp_path / "absent")
    (tmp_path / config.CONFIG_FILE).write_text("[worker]\n")
    with pytest.raises(StoreError, match=r"no \[master\]"):
        config.load(tmp_path)


def test_a_newer_directory_is_refused_in_one_line(tmp_path):
    config.create_master(tmp_path)
    (tmp_path / config.VERSION_FILE).write_text(f"{config.STATE_VERSION + 1}\n")
    with pytest.raises(StoreError, match="use a newer Tailrace") as caught:
        config.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_version_file_that_is_no_number_is_refused(tmp_path):
    config.create_master(tmp_path)
    (tmp_path / config.VERSION_FILE).write_text("soon\n")
    with pytest.raises(StoreError, match="not a version number"):
        config.load(tmp_path)


def test_limits_are_read_by_their_names(tmp_path):
    config.create_master(tmp_path)
    path = tmp_path / config.CONFIG_FILE
    path.write_text(path.read_text() + "ping_interval_s = 0.5\nstreams_max = 7\n")
    limits = config.load(tmp_path).limits
    assert (limits.ping_interval_s, limits.streams_max) == (0.5, 7)


@pytest.mark.parametrize(
    ("name", "default", "other"), [("durability", "disk", "relaxed"), ("when_full", "wait", "gap")]
)
def test_what_becomes_of_logs_is_said_in_words(tmp_path, name, default, other):
    assert getattr(config.create_master(tmp_path), name) == default
    path = tmp_path / config.CONFIG_FILE
    path.write_text(f'[master]\nlisten = ["tailrace://127.0.0.1:0"]\n{name} = "{other}"\n')
    assert getattr(config.load(tmp_path), name) == other
    path.write_text(f'[master]\nlisten = ["tailrace://127.0.0.1:0"]\n{name} = "none"\n')
    with pytest.raises(StoreError, match=f'{name} is "{default}" or "{other}"'):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ping_intervall_s = 1", "unknown limit ping_intervall_s"),
        ("streams_max = 0.5", "whole number"),
        ("streams_max = true", "must be a number"),
        ("ping_interval_s = -1", "ping_interval_s"),
        ('ping_interval_s = "1"', "must be a number"),
        ("ping_interval_s = ", "tailrace.toml"),
    ],
)
def test_a_wrong_limit_is_named(tmp_path, line, said):
    config.create_master(tmp_path)
    path = tmp_path / config.CONFIG_FILE
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(StoreError, match=said):
        config.load(tmp_path)


@pytest.mark.parametrize("text", ["listen = []", "listen = 1", "listen = [1]", "lissen = []", ""])
def test_a_master_must_listen_somewhere(tmp_path, text):
    config.create_master(tmp_path)
    (tmp_path / config.CONFIG_FILE).write_text(f"[master]\n{text}\n")
    with pytest.raises(StoreError, match=r"tailrace\.toml"):
        config.load(tmp_path)


def test_a_certificate_that_is_not_there_is_named(tmp_path):
    config.create_master(tmp_path)
    (tmp_path / config.CONFIG_FILE).write_text(
        '[master]\nlisten = ["tailrace+tls://:1"]\n[tls]\ncertificate = "c.pem"\n'
    )
    with pytest.raises(StoreError, match=r"c\.pem"):
        config.load(tmp_path).tls()


def test_a_secret_is_long_url_safe_and_kept_private(tmp_path):
    config.create_master(tmp_path)
    secret = config.add_worker(tmp_path, "w1")
    assert len(secret) >= 43
    assert secret.replace("-", "").replace("_", "").isalnum()
    assert config.load_accounts(tmp_path) == {"w1": secret}
    assert stat.S_IMODE((tmp_path / config.ACCOUNTS_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", ".", "-x", "a b", "a:b", "a/b", "a\nb", "é", "x" * 65])
def test_a_name_that_would_confuse_is_refused(tmp_path, name):
    config.create_master(tmp_path)
    with pytest.raises(StoreError, match="cannot name a worker"):
        config.add_worker(tmp_path, name)
    assert config.load_accounts(tmp_path) == {}


def test_a_worker_is_added_once_and_can_be_removed(tmp_path):
    config.create_master(tmp_path)
    config.add_worker(tmp_path, "w1")
    with pytest.raises(StoreError, match="exists already"):
        config.add_worker(tmp_path, "w1")
    config.remove_worker(tmp_path, "w1")
    with pytest.raises(StoreError, match="no worker w1"):
        config.remove_worker(tmp_path, "w1")


def test_workers_added_at_the_same_time_are_all_there(tmp_path):
    config.create_master(tmp_path)
    names = [f"w{number}" for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        secrets = dict(zip(names, pool.map(lambda name: config.add_worker(tmp_path, name), names), strict=True))
    assert config.load_accounts(tmp_path) == secrets


def test_an_accounts_file_that_makes_no_sense_is_named_with_its_line(tmp_path):
    config.create_master(tmp_path)
    (tmp_path / config.ACCOUNTS_FILE).write_text("# fine\nw1 secret\nw2\n")
    with pytest.raises(StoreError, match="accounts:3"):
        config.load_accounts(tmp_path)


def test_one_master_serves_a_directory(tmp_path):
    config.create_master(tmp_path)
    with config.serve_lock(tmp_path), pytest.raises(StoreError, match="already"), config.serve_lock(tmp_path):
        pass
    with config.serve_lock(tmp_path):
        pass
