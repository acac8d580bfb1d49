from __future__ import annotations

from tailrace.link.lanes import Lanes


def planned(lanes, builders):
    plan = lanes.plan(builders)
    lanes.set(builders, {name for name, _directory in plan})
    return plan


def test_a_builder_is_its_own_first_lane():
    lanes = Lanes()
    assert planned(lanes, [("a", "x")]) == [("a", "x")]
    assert lanes.idle("a", set()) == "a"
    assert lanes.idle("a", {"a"}) is None


def test_further_lanes_have_the_same_directory_and_stay():
    lanes = Lanes()
    planned(lanes, [("a", "x"), ("b", "y")])
    lanes.open("a")
    assert planned(lanes, lanes.builders) == [("a", "x"), ("a~2", "x"), ("b", "y")]
    assert lanes.idle("a", {"a"}) == "a~2"
    assert lanes.builders == [("a", "x"), ("b", "y")]
    assert planned(lanes, [("a", "x")]) == [("a", "x"), ("a~2", "x")]


def test_a_lane_that_the_worker_does_not_give_is_not_used():
    lanes = Lanes()
    planned(lanes, [("a", "x")])
    lanes.open("a")
    lanes.set(lanes.builders, {"a"})
    assert lanes.idle("a", {"a"}) is None


def test_a_lane_is_not_called_like_a_builder():
    lanes = Lanes()
    planned(lanes, [("a", "x"), ("a~2", "y")])
    lanes.open("a")
    assert planned(lanes, lanes.builders) == [("a", "x"), ("a~2~", "x"), ("a~2", "y")]
