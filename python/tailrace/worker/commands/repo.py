"""`repo`: many git repositories by a manifest, with Google's program of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .child import make_directory
from .source import Source, Steps, optional_plain_text, plain_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tailrace._core import Value

    from .command import Arguments, Context

OVERRIDE = "manifest_override.xml"
"""What `manifest_override_url` becomes, in the tree."""


def repo(context: Context) -> Source:
    """The command `repo`.

    Arguments beside those of every source command: `manifest_url`, `manifest_branch` ("master"), `manifest_file`
    ("default.xml"), `manifest_override_url` (a URL or a path: what is synchronised in place of the manifest),
    `tarball` (unpacked before the first synchronisation if it exists, made after it if not), `repo_downloads` (changes
    under review: `"project change/patchset"`, or several such pairs), `jobs`.
    Updates: `repo_downloaded`, one `"change/patchset revision"` for each, and `got_revision`, the manifest's.
    """
    return Source(context, RepoTree(context.arguments))


@final
class RepoTree:
    """A tree of repo's."""

    metadata = ".repo"

    def __init__(self, arguments: Arguments) -> None:
        self._url = plain_text(arguments, "manifest_url")
        self._branch = plain_text(arguments, "manifest_branch", "master")
        self._file = plain_text(arguments, "manifest_file", "default.xml")
        self._override = optional_plain_text(arguments, "manifest_override_url")
        self._tarball = optional_plain_text(arguments, "tarball")
        self._downloads = _downloads(arguments)
        jobs = arguments.count("jobs")
        self._jobs = [f"-j{jobs}"] if jobs else []

    @property
    def identity(self) -> str:
        return f"repo {self._url} {self._branch} {self._file}\n"

    async def make(self, steps: Steps, directory: Path) -> None:
        await make_directory(directory)
        tarball = directory.parent / self._tarball if self._tarball else None
        unpacks = tarball is not None and await trio.to_thread.run_sync(tarball.exists)
        if unpacks:
            await steps.run("tar", "-xf", str(tarball), cwd=directory)
        await self._synchronise(steps, directory)
        if tarball is not None and not unpacks:
            # The name says how it is compressed, so the new one has it at its end as well.
            new = tarball.with_name(f".new-{tarball.name}")
            await make_directory(tarball.parent)
            await steps.run("tar", "-caf", str(new), self.metadata, cwd=directory)
            await steps.run("mv", "-f", "--", str(new), str(tarball))

    async def update(self, steps: Steps, directory: Path) -> None:
        await steps.run("repo", "forall", "-c", "git reset --hard -q && git clean -d -f -f -x -q", cwd=directory)
        await self._synchronise(steps, directory)

    async def results(self, steps: Steps, directory: Path) -> Mapping[str, Value]:
        revision = await steps.ask("git", "rev-parse", "HEAD", cwd=directory / self.metadata / "manifests")
        updates: dict[str, Value] = {"got_revision": revision} if revision else {}
        downloaded = [await self._revision(steps, directory, *pair) for pair in self._downloads]
        return {**updates, "repo_downloaded": downloaded} if downloaded else updates

    async def _synchronise(self, steps: Steps, directory: Path) -> None:
        await steps.run("repo", "init", "-u", self._url, "-b", self._branch, "-m", self._file, cwd=directory)
        override = await self._fetch_override(steps, directory, self._override) if self._override else []
        await steps.run("repo", "sync", "--detach", "--force-sync", *override, *self._jobs, cwd=directory)
        for project, change in self._downloads:
            await steps.run("repo", "download", project, change, cwd=directory)

    async def _fetch_override(self, steps: Steps, directory: Path, url: str) -> list[str]:
        target = directory / OVERRIDE
        if "://" in url:
            await steps.run("wget", "-nv", "-O", str(target), url, cwd=directory)
        else:
            await steps.run("cp", "-f", "--", url, str(target), cwd=directory.parent)
        return ["-m", str(target)]

    async def _revision(self, steps: Steps, directory: Path, project: str, change: str) -> str:
        found = await steps.run("repo", "forall", project, "-c", "git rev-parse HEAD", cwd=directory, capture=True)
        return f"{change} {found.decode(errors='replace').strip()}"


def _downloads(arguments: Arguments) -> list[tuple[str, str]]:
    """Pairs of a project and a change."""
    if "repo_downloads" not in arguments:
        return []
    pairs = []
    for entry in arguments.texts("repo_downloads"):
        words = entry.split()
        if len(words) % 2 or any(word.startswith("-") for word in words):
            raise arguments.wrong("repo_downloads", 'made of texts like "project change/patchset"')
        pairs += list(zip(words[::2], words[1::2], strict=True))
    return pairs
