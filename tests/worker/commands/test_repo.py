"""`repo` against a stand-in for the program: it notes how it was called, and does with git what repo would do."""

from __future__ import annotations

import os
import subprocess
import textwrap

import pytest

from tailrace.errors import RemoteError

from .test_git import Repository, no_settings_of_mine

__all__ = ["no_settings_of_mine"]

PROGRAM = """
    #!/bin/sh
    # A stand-in for repo with one project, whose name and place is the text of the manifest.
    set -e
    echo "$*" >>"$REPO_CALLS"
    command=$1; shift
    case $command in
    init)
        while getopts u:b:m: option; do
            case $option in u) url=$OPTARG ;; b) branch=$OPTARG ;; m) file=$OPTARG ;; esac
        done
        test -d .repo/manifests || git clone -q "$url" .repo/manifests
        git -C .repo/manifests fetch -q "$url" "$branch"
        git -C .repo/manifests checkout -q --detach FETCH_HEAD
        echo "$PWD/.repo/manifests/$file" >.repo/manifest
        ;;
    sync)
        manifest=$(cat .repo/manifest)
        while test $# -gt 0; do
            case $1 in -m) manifest=$2; shift ;; esac
            shift
        done
        url=$(cat "$manifest")
        test -d project || git clone -q "$url" project
        git -C project fetch -q "$url"
        git -C project checkout -q --detach FETCH_HEAD
        ;;
    download)
        git -C "$1" fetch -q origin "refs/changes/$2"
        git -C "$1" checkout -q --detach FETCH_HEAD
        ;;
    forall)
        test -d project || exit 0
        while test "$1" != -c; do shift; done
        cd project && sh -c "$2"
        ;;
    esac
"""


@pytest.fixture
def project(tmp_path):
    project = Repository(tmp_path / "project")
    project.git("update-ref", "refs/changes/12/1", project.commit("change", hello="changed\n"))
    project.change = project.head
    project.git("reset", "-q", "--hard", "HEAD~")
    return project


@pytest.fixture
def manifest(tmp_path, project):
    manifest = Repository(tmp_path / "manifest")
    manifest.commit("manifest", **{"default.xml": f"{project.path}\n"})
    return manifest


@pytest.fixture
def calls(tmp_path, monkeypatch):
    program = tmp_path / "bin/repo"
    program.parent.mkdir()
    program.write_text(textwrap.dedent(PROGRAM).lstrip())
    program.chmod(0o755)
    notes = tmp_path / "calls"
    notes.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("REPO_CALLS", str(notes))

    def take():
        lines = notes.read_text().splitlines()
        notes.write_text("")
        return lines

    return take


@pytest.fixture
def sync(desk, manifest, calls):
    async def run(**args):
        return await desk.run("repo", **{"workdir": "build", "manifest_url": str(manifest.path), **args})

    return run


async def test_a_tree_is_made_and_then_brought_up_to_date(desk, manifest, project, calls, sync):
    report = await sync(jobs=3)
    assert report.rc == 0, report.stderr
    assert report.updates["got_revision"] == manifest.head
    assert "repo_downloaded" not in report.updates
    assert calls() == [f"init -u {manifest.path} -b master -m default.xml", "sync --detach --force-sync -j3"]
    (desk.dir / "build/project/rubbish").touch()
    (desk.dir / "build/project/hello").write_text("changed by the build")
    project.commit("second", hello="two\n")
    assert (await sync()).rc == 0
    assert (desk.dir / "build/project/hello").read_text() == "two\n"
    assert not (desk.dir / "build/project/rubbish").exists()
    assert calls()[0].startswith("forall -c git reset --hard")


async def test_changes_under_review_are_downloaded_and_told(desk, project, calls, sync):
    report = await sync(repo_downloads=["project 12/1"])
    assert report.rc == 0, report.stderr
    assert report.updates["repo_downloaded"] == [f"12/1 {project.change}"]
    assert (desk.dir / "build/project/hello").read_text() == "changed\n"
    assert "download project 12/1" in calls()


async def test_another_manifest(desk, manifest, calls, sync):
    manifest.git("checkout", "-q", "-b", "next")
    manifest.commit("next", **{"other.xml": (manifest.path / "default.xml").read_text()})
    report = await sync(manifest_branch="next", manifest_file="other.xml")
    assert (report.rc, report.updates["got_revision"]) == (0, manifest.head)
    assert calls()[0] == f"init -u {manifest.path} -b next -m other.xml"


async def test_a_manifest_in_place_of_the_manifest(desk, tmp_path, sync):
    other = Repository(tmp_path / "other")
    override = tmp_path / "override.xml"
    override.write_text(f"{other.path}\n")
    report = await sync(manifest_override_url=str(override))
    assert report.rc == 0, report.stderr
    assert (
        subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=desk.dir / "build/project", text=True).strip()
        == other.head
    )


async def test_a_tarball_saves_the_first_synchronisation(desk, tmp_path, calls, sync):
    tarball = tmp_path / "cache/repo.tar.gz"
    assert (await sync(tarball=str(tarball))).rc == 0
    names = subprocess.check_output(["tar", "-tf", str(tarball)], text=True).split()
    assert ".repo/manifests/default.xml" in names
    assert os.listdir(tarball.parent) == ["repo.tar.gz"]
    report = await sync(tarball=str(tarball), mode="clobber")
    assert report.rc == 0
    assert f"tar -xf {tarball}".encode() in report.header
    assert b"tar -caf" not in report.header


async def test_a_failing_synchronisation_is_the_commands_rc(tmp_path, sync):
    report = await sync(manifest_url=str(tmp_path / "nowhere"))
    assert report.rc == 128
    assert report.completed == 1


async def test_without_repo_it_is_minus_one(sync):
    report = await sync(env={"PATH": "/usr/bin:/bin"})
    assert report.rc == -1
    assert b"tailrace: cannot run 'repo': no such file\n" in report.stderr


@pytest.mark.parametrize(
    "args", [{"manifest_url": None}, {"repo_downloads": ["one"]}, {"repo_downloads": 7}, {"jobs": -1}]
)
async def test_arguments_that_do_not_fit_refuse_the_start(sync, args):
    with pytest.raises(RemoteError, match="repo: the argument"):
        await sync(**args)
