"""The benchmarks' own promises: what is written down of a run, what README shows of it, what counts as worse."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "bench"))

import compare
import report
from row import Row

README = Path(__file__).parent.parent / "README.md"


def a_report(*rows: Row, group: str = "stream") -> report.Report:
    found = report.begin("./dev bench", rounds=3, scale=1.0)
    found.groups[group] = list(rows)
    return found


def test_readme_shows_the_run_that_is_kept():
    [shown] = re.findall(f"{report.BEGIN}\n(.*?){report.END}", README.read_text(), re.DOTALL)
    assert shown == report.markdown(report.load(report.KEPT)), (
        "./dev bench --render bench/results.json --markdown README.md"
    )


def test_a_report_is_read_as_it_was_written(tmp_path):
    written = a_report(Row(job="a", unit="MB/s", ours=5.0, peer="bare", theirs=10.0, at_least=0.8, more={"cpu": 1.5}))
    (tmp_path / "a.json").write_text(written.to_json())
    assert report.load(tmp_path / "a.json") == written
    said = json.loads(written.to_json())
    assert said["groups"]["stream"][0]["met"] is False
    assert set(said["machine"]) == {"cores", "cpu", "system", "python"}


def test_the_table_goes_between_the_markers_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put_markdown(a_report(Row(job="a", unit="MB/s", ours=123.4, at_least=100)), page)
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\nMeasured by")
    assert text.endswith(f"| a | 123 MB/s |  |  | ≥ 100 | met |\n{report.END}\nafter\n")
    assert "old" not in text


def test_the_summary_counts_targets_and_names_what_missed():
    rows = [
        Row(job="fast", unit="MB/s", ours=9, peer="bare", theirs=10, at_least=0.8),
        Row(job="dear", unit="s/GB", ours=2, peer="bare", theirs=1, at_most=1.3),
        Row(job="free", unit="µs", ours=2),
    ]
    assert report.summary(rows).splitlines() == [
        "1 of 2 targets met, 1 missed; 3 figures.",
        "  missed: dear: 2.00 × bare, wanted ≤ 1.3",
    ]


@pytest.mark.parametrize(
    ("unit", "new", "code"), [("MB/s", 85, 1), ("MB/s", 95, 0), ("MB/s", 150, 0), ("µs", 115, 1), ("µs", 50, 0)]
)
def test_worse_is_less_of_speed_and_more_of_cost(unit, new, code, capsys):
    old, now = ([a_report(Row(job="a", unit=unit, ours=ours))] for ours in (100, new))
    assert compare.tell(list(compare.pairs(old, now)), tolerance=0.1) == code
    assert ("worse: a" in capsys.readouterr().out) == bool(code)


def test_two_builds_are_compared_round_by_round():
    """A machine that becomes twice as slow in the second round says nothing of either."""
    old, new = (
        [a_report(Row(job="a", unit="MB/s", ours=ours)) for ours in speeds] for speeds in ((100, 50, 25), (98, 52, 25))
    )
    [pair] = compare.pairs(old, new)
    assert (pair.old, pair.new, pair.ratio) == (50, 52, 1)


def test_with_an_earlier_run_ratios_to_the_peer_are_compared(capsys):
    """Half as fast, as is the peer: it was the machine."""
    before = a_report(Row(job="a", unit="MB/s", ours=100, peer="bare", theirs=200))
    assert compare.with_report(before, a_report(Row(job="a", unit="MB/s", ours=50, peer="bare", theirs=100)), 0.1) == 0
    assert compare.with_report(before, a_report(Row(job="a", unit="MB/s", ours=50, peer="bare", theirs=200)), 0.1) == 1
    assert "worse: a" in capsys.readouterr().out
