"""Ten thousand sessions in which everything goes wrong, and builds that are broken and found out."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from .mutations import MUTATIONS
from .story import Broken, Plan, play

SESSIONS = 10_000
PARTS = 8
PARTS_OF_A_TEST = 2
"""What every run of the tests plays; `./dev soak` plays the others. A part takes half a minute."""
SEEDS = 25
"""Within so many seeds a broken build is found."""


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="tailrace")


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [pytest.param(part, marks=[] if part < PARTS_OF_A_TEST else pytest.mark.soak) for part in range(PARTS)],
)
def test_no_invariant_breaks(part):
    sessions, seed = 0, part * 10_000
    while sessions < SESSIONS / PARTS:
        try:
            sessions += play(seed).sessions
        except Exception as error:
            raise AssertionError(f"./dev simulate --from {seed} --seeds 1 --trace: {error}") from error
        seed += 1


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_build_that_is_broken_is_found_out(name):
    for seed in range(SEEDS):
        try:
            play(seed, mutation=MUTATIONS[name])
        except Exception:  # whatever is not as it should be
            return
    raise AssertionError(f"{SEEDS} seeds have not found {name}")


def test_what_is_durable_before_it_is_synced_is_found_missing():
    with pytest.raises(Broken, match=r"were durable, and .* there|was forgotten, of which"):
        for seed in range(SEEDS):
            play(seed, mutation=MUTATIONS["durable_before_sync"])


def test_a_seed_is_the_same_story_every_time():
    plan = Plan(faults=20)
    assert play(7, plan) == play(7, plan)
    assert play(7, plan) != play(8, plan)


def test_a_seed_that_fails_says_how_to_see_it_again():
    # Of this one every seed fails.
    told = [sys.executable, "-m", "tests.simulation", "--seeds", "2", "--break", "a_batch_is_delivered_twice"]
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    again = next(line for line in done.stdout.splitlines() if "again: " in line)
    command = again.partition("./dev simulate ")[2].split()
    once_more = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *command], capture_output=True, text=True, check=False
    )
    assert once_more.returncode == 1
    assert f"seed {command[1]}: " in once_more.stdout
