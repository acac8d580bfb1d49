"""The map of the commands, and the one place where whatever goes wrong becomes a line and an exit code."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path  # noqa: TC003  (cyclopts reads the annotations)
from typing import TYPE_CHECKING, Annotated

import trio
from cyclopts import App, CycloptsError, Group, Parameter, UnknownCommandError, UnknownOptionError

from .failure import OURS, USAGE, explain, one_line, say
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOGUE = """\
A first look: `tailrace demo`. Then, on machines of one's own:

    tailrace master create m
    tailrace master add-worker m w1 --secret-file w1.secret
    tailrace master serve m

    tailrace worker create w --name w1 --secret-file w1.secret \\
        --master tailrace://127.0.0.1:7117
    tailrace worker serve w

    tailrace --dir m run --on w1 -- make -j8

Exit codes: 0 well; 1 a transfer failed, or a run did not verify; 2 usage; 125 Tailrace itself failed, or the run was
lost. `run` has more.
"""

_USE = Group("Runs", sort_key=1)
_FILES = Group("Files", sort_key=2)
_SERVE = Group("Daemons", sort_key=3)
_GLOBAL = Group("Everywhere", sort_key=9)

app = App(
    name="tailrace",
    help="Run commands on a farm of workers and stream their logs and files back, without losing a byte.",
    help_format="markdown",
    backend="trio",
    version=lambda: _version(),
    default_parameter=Parameter(negative="", show_default=False),
    group_parameters=Group("Options", sort_key=5),
)
app["--help"].group = _GLOBAL
app["--version"].group = _GLOBAL

app.command("tailrace.cli.demo.demo:demo", group=_USE)
app.command("tailrace.cli.run:run", group=_USE, usage="Usage: tailrace run [OPTIONS] -- CMD...")
app.command("tailrace.cli.logs:logs", group=_USE)
app.command("tailrace.cli.runs:ps", group=_USE)
app.command("tailrace.cli.runs:show", group=_USE)
app.command("tailrace.cli.runs:stop", group=_USE)
app.command("tailrace.cli.verify:verify", group=_USE)
app.command("tailrace.cli.files:put", group=_FILES)
app.command("tailrace.cli.files:get", group=_FILES)
app.command("tailrace.cli.runs:workers", group=_SERVE)

_master = App(name="master", help="Make a master, give it workers, serve it.", group=_SERVE)
_master.command("tailrace.cli.master:create")
_master.command("tailrace.cli.master:add_worker")
_master.command("tailrace.cli.master:serve")
app.command(_master)

_worker = App(name="worker", help="Make a worker, serve it.", group=_SERVE)
_worker.command("tailrace.cli.worker:create")
_worker.command("tailrace.cli.worker_serve:serve")
app.command(_worker)


@app.meta.default
def _everything(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json: Annotated[bool, Parameter(group=_GLOBAL)] = False,
    dir: Annotated[Path | None, Parameter(group=_GLOBAL)] = None,  # noqa: A002  (it is the option's name)
) -> int:
    """
    Parameters
    ----------
    json
        Print JSON lines; bytes as `data_b64`.
    dir
        The master's directory; else TAILRACE_DIR.
    """
    told = Settings(json=json, directory=dir)
    command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    call = partial(command, *bound.args, **bound.kwargs, **dict.fromkeys(ignored, told))
    if inspect.iscoroutinefunction(command):
        return trio.run(call) or 0
    return call() or 0


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code, and has said on standard error why it is not 0."""
    try:
        if set(arguments) <= {"master", "worker", "--help", "-h"}:
            for group in (app, _master, _worker):
                group.resolved_commands()  # their summaries are in their docstrings
        # Set for good, each command's help would end with it.
        app.help_epilogue = _EPILOGUE if set(arguments) <= {"--help", "-h"} else None
        result = app.meta(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        say(f"{_usage(error)}")
        return USAGE
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else OURS
    except BaseException as error:
        return explain(error)


def _usage(error: CycloptsError) -> str:
    chain = " ".join(("tailrace", *(error.command_chain or ())))
    if isinstance(error, UnknownCommandError):  # its own text would import every command
        return one_line(f"there is no command {' '.join((error.unused_tokens or [''])[:1])}; see: {chain} --help")
    text = one_line(str(error)).rstrip(".")
    if isinstance(error, UnknownOptionError) and error.command_chain and error.command_chain[0] == "run":
        return f"{text}; what belongs to the command goes after `--`: tailrace run -- CMD…"
    return f"{text}; see: {chain} --help"


def _version() -> str:
    from tailrace._core import __version__

    return f"tailrace {__version__}"
