"""`git` against real repositories on the disk."""

from __future__ import annotations

import os
import subprocess

import pytest

from tailrace.errors import RemoteError


class Repository:
    """A repository to clone from."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "master")
        self.commit("first", hello="one\n")

    def git(self, *argv):
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "protocol.file.allow=always"]
        command = ["git", *identity, *argv]
        return subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message, **files):
        for name, text in files.items():
            (self.path / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    @property
    def head(self):
        return self.git("rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch, tmp_path):
    settings = tmp_path / "gitconfig"
    settings.write_text("[protocol.file]\n\tallow = always\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("LC_ALL", "C")


@pytest.fixture
def upstream(tmp_path):
    return Repository(tmp_path / "upstream")


@pytest.fixture
def checkout(desk, upstream):
    async def run(**args):
        return await desk.run("git", **{"workdir": "build", "repourl": str(upstream.path), **args})

    return run


async def test_the_first_time_it_clones(desk, upstream, checkout):
    report = await checkout()
    assert (report.rc, report.updates["got_revision"]) == (0, upstream.head)
    assert (desk.dir / "build/hello").read_text() == "one\n"
    assert b"git clone" in report.header
    assert report.completed == 1
    assert report.failure is None


async def test_the_next_time_it_fetches(desk, upstream, checkout):
    await checkout()
    (desk.dir / "build/rubbish").write_text("left by the build")
    (desk.dir / "build/hello").write_text("changed by the build")
    upstream.commit("second", hello="two\n")
    report = await checkout()
    assert report.updates["got_revision"] == upstream.head
    assert (desk.dir / "build/hello").read_text() == "two\n"
    assert not (desk.dir / "build/rubbish").exists()
    assert b"git clone" not in report.header


async def test_ignored_files_stay_if_they_may(desk, upstream, checkout):
    upstream.commit("ignore", **{".gitignore": "*.o\n"})
    for ignore_ignores, stays in ((False, True), (True, False)):
        await checkout()
        (desk.dir / "build/x.o").write_text("object")
        await checkout(ignore_ignores=ignore_ignores)
        assert (desk.dir / "build/x.o").exists() == stays


async def test_a_revision(desk, upstream, checkout):
    first = upstream.head
    upstream.commit("second", hello="two\n")
    report = await checkout(revision=first)
    assert report.updates["got_revision"] == first
    third = upstream.commit("third", hello="three\n")
    report = await checkout(revision=third)
    assert (report.rc, report.updates["got_revision"]) == (0, third)
    assert (desk.dir / "build/hello").read_text() == "three\n"


async def test_an_unknown_revision_fails(checkout):
    report = await checkout(revision="0" * 40)
    assert report.rc == 128
    assert "got_revision" not in report.updates
    assert report.stderr


async def test_a_branch_and_a_change_under_review(desk, upstream, checkout):
    upstream.git("checkout", "-q", "-b", "side")
    side = upstream.commit("side", hello="side\n")
    upstream.git("update-ref", "refs/changes/12/12/1", upstream.commit("change", hello="change\n"))
    change = upstream.head
    upstream.git("reset", "-q", "--hard", side)
    upstream.git("checkout", "-q", "master")
    assert (await checkout(branch="side")).updates["got_revision"] == side
    assert (await checkout(gerrit_branch="refs/changes/12/12/1")).updates["got_revision"] == change
    assert (await checkout()).updates["got_revision"] == upstream.head


async def test_a_moved_tag_does_not_stop_it(upstream, checkout):
    upstream.git("tag", "latest")
    await checkout()
    upstream.commit("second", hello="two\n")
    upstream.git("tag", "-f", "latest")
    report = await checkout(branch="latest")
    assert (report.rc, report.updates["got_revision"]) == (0, upstream.head)
    assert b"git clone" not in report.header


async def test_another_repository_is_cloned_anew(desk, tmp_path, checkout):
    await checkout()
    other = Repository(tmp_path / "other")
    other.commit("other", other="other\n")
    report = await checkout(repourl=str(other.path))
    assert report.updates["got_revision"] == other.head
    assert b"git clone" in report.header


async def test_a_broken_tree_is_cloned_anew(desk, upstream, checkout):
    await checkout()
    (desk.dir / "build/.git/HEAD").write_text("nonsense")
    report = await checkout()
    assert (report.rc, report.updates["got_revision"]) == (0, upstream.head)
    assert b"made anew" in report.header


async def test_clobber_always_begins_anew(desk, checkout):
    await checkout()
    (desk.dir / "build/.git/mark").touch()
    assert (await checkout(mode="clobber")).rc == 0
    assert not (desk.dir / "build/.git/mark").exists()


async def test_export_leaves_no_repository(desk, upstream, checkout):
    report = await checkout(mode="export")
    assert report.updates["got_revision"] == upstream.head
    assert sorted(os.listdir(desk.dir / "build")) == ["hello"]


async def test_copy_builds_in_a_copy(desk, upstream, checkout):
    await checkout(mode="copy")
    (desk.dir / "build/rubbish").touch()
    upstream.commit("second", hello="two\n")
    report = await checkout(mode="copy")
    assert (report.rc, report.updates["got_revision"]) == (0, upstream.head)
    assert (desk.dir / "build/hello").read_text() == (desk.dir / "source/hello").read_text() == "two\n"
    assert not (desk.dir / "build/rubbish").exists()
    assert b"git clone" not in report.header


PATCH = "--- a/hello\n+++ b/hello\n@@ -1 +1 @@\n-one\n+patched\n"


async def test_a_patch_is_applied_and_does_not_stay(desk, upstream, checkout):
    report = await checkout(patch=[1, PATCH])
    assert (report.rc, report.updates["got_revision"]) == (0, upstream.head)
    assert (desk.dir / "build/hello").read_text() == "patched\n"
    await checkout()
    assert (desk.dir / "build/hello").read_text() == "one\n"


async def test_a_patch_in_a_directory(desk, upstream, checkout):
    (upstream.path / "sub").mkdir()
    upstream.commit("sub", **{"sub/hello": "one\n"})
    report = await checkout(patch=[1, PATCH, "sub"])
    assert report.rc == 0
    assert (desk.dir / "build/sub/hello").read_text() == "patched\n"
    assert (desk.dir / "build/hello").read_text() == "one\n"


async def test_a_patch_that_does_not_fit_fails(checkout):
    report = await checkout(patch=[1, PATCH.replace("-one", "-other")])
    assert report.rc == 1
    assert report.completed == 1


async def test_shallow(desk, upstream, checkout):
    upstream.commit("second", hello="two\n")
    report = await checkout(repourl=f"file://{upstream.path}", shallow=True)
    assert (report.rc, report.updates["got_revision"]) == (0, upstream.head)
    assert (desk.dir / "build/.git/shallow").exists()


async def test_a_reference(desk, tmp_path, upstream, checkout):
    assert (await checkout(reference=str(upstream.path), repourl=f"file://{upstream.path}")).rc == 0
    assert (desk.dir / "build/.git/objects/info/alternates").exists()


async def test_submodules(desk, tmp_path, upstream, checkout):
    module = Repository(tmp_path / "module")
    upstream.git("submodule", "--quiet", "add", str(module.path), "sub")
    upstream.commit("with a submodule")
    report = await checkout(submodules=True, progress=True)
    assert report.rc == 0, report.stderr
    assert (desk.dir / "build/sub/hello").read_text() == "one\n"
    (desk.dir / "build/sub/rubbish").touch()
    assert (await checkout(submodules=True)).rc == 0
    assert not (desk.dir / "build/sub/rubbish").exists()


async def test_what_cannot_be_cloned_is_tried_again(tmp_path, checkout):
    report = await checkout(repourl=str(tmp_path / "nowhere"), retry=[0.01, 2])
    assert report.rc == 128
    assert report.header.count(b"git clone") == 3
    assert report.header.count(b"trying again") == 2


async def test_an_interrupt_ends_the_waiting_too(desk, tmp_path):
    args = {"workdir": "build", "repourl": str(tmp_path / "nowhere"), "retry": (1000, 1)}
    report = await desk.start("git", args)
    await report.wait_until(lambda: b"sleep 1000" in report.header)
    await desk.interrupt()
    await desk.ended(report)
    assert (report.rc, report.updates["failure_reason"]) == (-1, "interrupted")
    assert report.completed == 1


async def test_without_git_it_is_minus_one(checkout):
    report = await checkout(env={"PATH": "/nowhere"})
    assert report.rc == -1
    assert b"tailrace: cannot run " in report.stderr


@pytest.mark.parametrize(
    "args",
    [
        {"repourl": None},
        {"workdir": None},
        {"workdir": "."},
        {"mode": "upgrade"},
        {"branch": "--upload-pack=evil"},
        {"revision": "-x"},
        {"patch": "diff"},
        {"patch": [1]},
        {"retry": [1]},
        {"retry": [-1, 1]},
    ],
)
async def test_arguments_that_do_not_fit_refuse_the_start(checkout, args):
    with pytest.raises(RemoteError, match="git: the argument"):
        await checkout(**args)


async def test_a_password_in_the_url_is_not_shown(checkout):
    report = await checkout(repourl="https://bot:hunter2@localhost:1/x.git")
    assert report.rc != 0
    assert b"https://bot:***@localhost:1/x.git" in report.header
    assert b"hunter2" not in report.header
