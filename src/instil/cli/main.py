"""The `instil` command: its subcommands, and how errors end it.

Exit codes: 0 done; 2 a mistake that the user can mend (told as `Problem`s, without a traceback);
130 stopped with Ctrl-C; 1 a mistake of instil's own, whose traceback is in a log file (see
`failures`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
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
from instil.cli.failures import is_failure, told, wants_traceback
from instil.cli.terminal import prepare_streams, say
from instil.errors import InstilError
from instil.memory_limits import require_libraries
from instil.sanitize import shortened, visible

INTERRUPTED = 130
_Usage: Any = typer.BadParameter.__mro__[1]  # what typer raises for a wrong command line


class Commands(TyperGroup):
    """The group of all commands, which turns exceptions into messages and exit codes."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line; what it quotes of a wrong one is made visible."""
        prepare_streams()
        try:
            return super().make_context(*args, **kwargs)
        except _Usage as error:
            raise _made_visible(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command; see the module's docstring for the exit codes."""
        try:
            return super().invoke(ctx)
        except _Usage as error:
            raise _made_visible(error) from None
        except KeyboardInterrupt:
            say("stopped", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BaseException as error:
            piped = isinstance(error, OSError) and error.errno == errno.EPIPE
            ends = isinstance(error, typer.Exit | typer.Abort) or not is_failure(error)
            if ends or piped or (wants_traceback() and not isinstance(error, InstilError)):
                raise
            message, code = told(error)
            say(message, err=True)
            raise typer.Exit(code) from None


def _made_visible(error: Any) -> Any:
    error.message = shortened(visible(error.message), most=600)
    return error


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
        say(f"instil {__version__}")
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


def _with_torch(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that first looks whether there is room to load torch in."""

    @wraps(command)
    def checked(*args: Any, **kwargs: Any) -> None:
        require_libraries()
        command(*args, **kwargs)

    return checked


app.command("init", epilog="Example: `instil init reviews.csv --label stars`")(init_.init)
app.command("check", epilog="Example: `instil check reviews.recipe.yaml`")(_with_torch(check.check))
app.command("preview", epilog="Example: `instil preview reviews.recipe.yaml --html seen.html`")(
    _with_torch(preview.preview)
)
app.command(
    "run", epilog="Example: `instil run reviews.recipe.yaml --set train.learning_rate=2e-4`"
)(_with_torch(run_.run))
app.command("report", epilog="Example: `instil report runs/reviews`")(report.report)
app.command("status", epilog="Example: `instil status runs/reviews`")(status.status)
app.command("compare", epilog="Example: `instil compare runs/reviews runs/reviews-2`")(
    compare.compare
)
app.command(
    "methods", epilog="Example: `instil methods reviews.recipe.yaml --arms lora,full --seeds 0,1,2`"
)(_with_torch(methods.methods))
app.command("curve", epilog="Example: `instil curve reviews.recipe.yaml --sizes 50,200,800`")(
    _with_torch(curve.curve)
)
app.command("sequence", epilog="Example: `instil sequence a.recipe.yaml b.recipe.yaml`")(
    _with_torch(sequence.sequence)
)
app.command("predict", epilog="Example: `instil predict runs/reviews --rows new.csv`")(
    _with_torch(predict.predict)
)
app.command("chat", epilog="Example: `instil chat runs/reviews`")(_with_torch(chat.chat))
app.command("export", epilog="Example: `instil export runs/reviews my-model --merge`")(
    _with_torch(export.export)
)
app.command("models", epilog="Example: `instil models`")(models.models)
app.command("tasks", epilog="Example: `instil tasks show amazon_reviews`")(tasks.tasks)


def main() -> None:
    """Run the command line."""
    app(prog_name="instil")
