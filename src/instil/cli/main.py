"""The `instil` command: its subcommands, and how errors end it.

Exit codes: 0 done; 2 a mistake that the user can mend (told as `Problem`s, without a traceback);
130 stopped with Ctrl-C; 1 a mistake of instil's own, with its traceback.
"""

from __future__ import annotations

import errno
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from instil import __version__
from instil.cli import (
    chat,
    check,
    compare,
    curve,
    export,
    init_,
    methods,
    models,
    predict,
    preview,
    report,
    run_,
    sequence,
    status,
    tasks,
)
from instil.errors import InstilError, Problem

INTERRUPTED = 130
_BUG = "This is a mistake in instil, not in your files; please report it with the lines above."


_SURROUNDINGS = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    }
)
"""Refusals of the file system that are the user's to mend."""


def _as_problem(error: OSError) -> Problem:
    return Problem(
        f"this cannot be read or written: {error.strerror}",
        where=str(error.filename or ""),
        fix="make room, or name a place that you may write to",
    )


class Commands(TyperGroup):
    """The group of all commands, which turns exceptions into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; see the module's docstring for the exit codes."""
        try:
            return super().invoke(ctx)
        except InstilError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.errno not in _SURROUNDINGS:
                raise
            typer.echo(str(_as_problem(error)), err=True)
            raise typer.Exit(InstilError.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            error.add_note(_BUG)
            raise


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `instil init reviews.csv`; then `instil check` and `instil run`.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"instil {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Labelled rows in, a proven instruct model out.

    instil tunes a language model on your data and shows what that bought: better than prompting
    or not, by how much, at what price, and what the model forgot.
    """


app.command("init", epilog="Example: `instil init reviews.csv --label stars`")(init_.init)
app.command("check", epilog="Example: `instil check reviews.recipe.yaml`")(check.check)
app.command("preview", epilog="Example: `instil preview reviews.recipe.yaml --html seen.html`")(
    preview.preview
)
app.command(
    "run", epilog="Example: `instil run reviews.recipe.yaml --set train.learning_rate=2e-4`"
)(run_.run)
app.command("report", epilog="Example: `instil report runs/reviews`")(report.report)
app.command("status", epilog="Example: `instil status runs/reviews`")(status.status)
app.command("compare", epilog="Example: `instil compare runs/reviews runs/reviews-2`")(
    compare.compare
)
app.command(
    "methods", epilog="Example: `instil methods reviews.recipe.yaml --arms lora,full --seeds 0,1,2`"
)(methods.methods)
app.command("curve", epilog="Example: `instil curve reviews.recipe.yaml --sizes 50,200,800`")(
    curve.curve
)
app.command("sequence", epilog="Example: `instil sequence a.recipe.yaml b.recipe.yaml`")(
    sequence.sequence
)
app.command("predict", epilog="Example: `instil predict runs/reviews --rows new.csv`")(
    predict.predict
)
app.command("chat", epilog="Example: `instil chat runs/reviews`")(chat.chat)
app.command("export", epilog="Example: `instil export runs/reviews my-model --merge`")(
    export.export
)
app.command("models", epilog="Example: `instil models`")(models.models)
app.command("tasks", epilog="Example: `instil tasks show amazon_reviews`")(tasks.tasks)


def main() -> None:
    """Run the command line."""
    app(prog_name="instil")
