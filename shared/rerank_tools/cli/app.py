"""The command line: all commands, and how failures are reported."""

from __future__ import annotations

import csv
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from rerank_core.errors import RerankError
from rerank_tools.cli.choosing import compare, evaluate, models
from rerank_tools.cli.jobs import batch, precompute, serve
from rerank_tools.cli.output import OutputClosedError, note, prepare_streams
from rerank_tools.cli.ranking import query, rerank

# Click's exceptions, wherever typer takes them from: its own copy, or the installed package.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
_CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]

_INTERRUPTED = 130
_LONGEST_CELL = 2**31 - 1

app = typer.Typer(
    name="rerank-bridge",
    help="Rerank documents, search a folder, and compare rerankers. Keys are read from the environment only.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (rerank, query, precompute, batch, compare, evaluate, models, serve):
    app.command()(command)


@app.callback()
def _set_common_options(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        typer.Option("--version", is_eager=True, callback=lambda value: _show_version(value), help="Show it."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
) -> None:
    context.obj["debug"] = debug


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer's signature
    if value:
        try:
            typer.echo(f"rerank-bridge {version('rerank-bridge')}")
        except PackageNotFoundError:
            typer.echo("rerank-bridge, not installed")
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status; a failure is one line on standard error."""
    prepare_streams()
    csv.field_size_limit(_LONGEST_CELL)
    settings = {"debug": False}
    try:
        status = app(list(arguments), prog_name="rerank-bridge", standalone_mode=False, obj=settings)
    except _CLICK_ERROR as exc:
        return _report_failure(exc, settings, status=2 if isinstance(exc, _USAGE_ERROR) else 1)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except OutputClosedError:
        return 0
    except (RerankError, OSError) as exc:
        return _report_failure(exc, settings, status=1)
    except Exception as exc:
        return _report_failure(exc, settings, status=1, unexpected=True)
    if status == _INTERRUPTED:  # newer versions of typer return it for Ctrl-C
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _report_failure(exc: Exception, settings: dict[str, bool], *, status: int, unexpected: bool = False) -> int:
    if settings["debug"]:
        traceback.print_exception(exc)
    message = getattr(exc, "format_message", exc.__str__)()
    if isinstance(exc, _USAGE_ERROR) and message:
        context = getattr(exc, "ctx", None)
        command = context.command_path if context else "rerank-bridge"
        message = f"{message.rstrip('.')}; see {command} --help"
    if unexpected:
        message = f"{type(exc).__name__}: {message} (a defect: --debug before the command shows where)"
    if message:  # without one, nothing was given and the help was shown
        note(message)
    return status
