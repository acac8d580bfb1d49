"""Links are followed on paper as the kernel follows them on the disk."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import UnsafeArchive
from tailrace.files.confined import DEPTH_MAX, components, symlink_leaves


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        (b"a", (b"a",)),
        (b"./a//b/.", (b"a", b"b")),
        (b"/", ()),
        (b".", ()),
        (b"...", (b"...",)),
        (b"a" * 9, (b"a" * 9,)),
    ],
)
def test_the_steps_of_a_path(path, steps):
    assert components(path, "path") == steps


@pytest.mark.parametrize("path", [b"/a", b"//", b"..", b"a/..", b"../a", b"a/" * (DEPTH_MAX + 1)])
def test_paths_that_leave_are_refused(path):
    with pytest.raises(UnsafeArchive):
        components(path, "path")


STEP = st.sampled_from([b"..", b".", b"a", b"b", b"l", b"m"])


@given(st.lists(STEP, min_size=1, max_size=5), st.lists(STEP, min_size=1, max_size=5), st.booleans())
def test_a_link_that_the_kernel_follows_out_was_seen_to_leave(tmp_path_factory, first, second, deep):
    root = tmp_path_factory.mktemp("root")
    (root / "tree" / "a" / "b" / "a").mkdir(parents=True)
    (root / "tree" / "b").mkdir()
    (root / "a" / "b").mkdir(parents=True)
    place = (b"a",) if deep else ()
    links = {(*place, b"l"): b"/".join(first), (b"m",): b"/".join(second)}
    for path, target in links.items():
        os.symlink(target, os.path.join(os.fsencode(root / "tree"), *path))
    for path, target in links.items():
        try:
            real = os.path.realpath(os.path.join(os.fsencode(root / "tree"), *path), strict=True)
        except OSError:
            continue
        inside = (real + b"/").startswith(os.fsencode(root / "tree") + b"/")
        assert inside or symlink_leaves(path[:-1], target, links)


def test_a_loop_leads_nowhere():
    assert not symlink_leaves((), b"l", {(b"l",): b"l"})
