"""`git`: clones or fetches, checks out, cleans, and says what revision stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .source import Source, Steps, optional_plain_text, plain_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tailrace._core import Value

    from .command import Arguments, Context


def git(context: Context) -> Source:
    """The command `git`.

    Arguments beside those of every source command: `repourl`, `branch` ("master"; any ref), `revision`, `submodules`,
    `ignore_ignores` (remove ignored files as well; true), `reference` (a repository to borrow objects from),
    `gerrit_branch` (checked out in place of `branch`), `progress`, `shallow` (true, or how many commits; without
    effect when there is a `revision`). Update: `got_revision`.
    """
    return Source(context, GitTree(context.arguments))


@final
class GitTree:
    """A tree of git's. The commit is checked out by itself, on no branch."""

    metadata = ".git"

    def __init__(self, arguments: Arguments) -> None:
        self._url = arguments.text("repourl")
        self._branch = optional_plain_text(arguments, "gerrit_branch") or plain_text(arguments, "branch", "master")
        self._revision = optional_plain_text(arguments, "revision")
        self._submodules = arguments.flag("submodules", False)
        self._clean = ["git", "clean", "-d", "-f", "-f"] + ["-x"] * arguments.flag("ignore_ignores", True)
        self._reference = arguments.optional_text("reference")
        self._progress = ["--progress"] * arguments.flag("progress", False)
        depth = arguments.raw("shallow") if arguments.flag("shallow", False) else 0
        self._depth = ["--depth", f"{depth:d}"] if depth and not self._revision else []

    @property
    def identity(self) -> str:
        return f"git {self._url}\n"

    async def make(self, steps: Steps, directory: Path) -> None:
        reference = ["--reference", self._reference] if self._reference else []
        options = [*reference, *self._depth, *self._progress]
        await steps.run("git", "clone", "--no-checkout", *options, "--", self._url, str(directory))
        await self._check_out(steps, directory)

    async def update(self, steps: Steps, directory: Path) -> None:
        await steps.run(*self._clean, cwd=directory)
        await self._check_out(steps, directory)

    async def results(self, steps: Steps, directory: Path) -> Mapping[str, Value]:
        return {"got_revision": await steps.ask("git", "rev-parse", "HEAD", cwd=directory)}

    async def _check_out(self, steps: Steps, directory: Path) -> None:
        target = await self._target(steps, directory)
        await steps.run("git", "checkout", "--force", "--detach", target, "--", cwd=directory)
        if self._submodules:
            await steps.run("git", "submodule", "sync", "--recursive", cwd=directory)
            update = ["git", "submodule", "update", "--init", "--recursive", "--force"]
            await steps.run(*update, cwd=directory)
            await steps.run("git", "submodule", "foreach", "--recursive", *self._clean, cwd=directory)

    async def _target(self, steps: Steps, directory: Path) -> str:
        """What is to be checked out, after it was fetched if need be."""
        fetch = ["git", "fetch", "--force", "--tags", *self._depth, *self._progress, "--", self._url]
        if self._revision is None:
            await steps.run(*fetch, f"+{self._branch}", cwd=directory)
            return "FETCH_HEAD"
        known = await steps.ask(
            "git", "rev-parse", "--verify", "--quiet", f"{self._revision}^{{commit}}", cwd=directory
        )
        if known is None:
            # The branch too, as it may be one that is not among the heads.
            await steps.run(*fetch, "+refs/heads/*:refs/remotes/origin/*", f"+{self._branch}", cwd=directory)
        return self._revision
