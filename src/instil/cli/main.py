"""The `instil` command: its subcommands, and how errors end it.

Exit codes: 0 done; 2 a mistake that the user can mend (told as `Problem`s, without a traceback);
3 more forgotten than the budget allows; 4 an exported model does not answer as the run's, or a gate
is not passed; 130 stopped with Ctrl-C; 1 a mistake of instil's own, whose traceback is in a log
file (see `failures`).
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
    advise,
    chat,
    check,
    compare,
    correct,
    export,
    gate,
    init_,
    models,
    predict,
    preview,
    push,
    report,
    run_,
    serve,
    status,
    studies,
    tasks,
    ui,
)
from instil.cli.failures import INTERRUPTED, is_failure, told, wants_traceback
from instil.cli.terminal import prepare_streams, say
from instil.errors import InstilError
from instil.memory_limits import require_libraries
from instil.sanitize import shortened, visible

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


_COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (init_.init, "init reviews.csv --label stars"),
    (_with_torch(check.check), "check reviews.recipe.yaml"),
    (_with_torch(preview.preview), "preview reviews.recipe.yaml --html seen.html"),
    (_with_torch(advise.advise), "advise reviews.recipe.yaml"),
    (_with_torch(run_.run), "run reviews.recipe.yaml --set train.learning_rate=2e-4"),
    (report.report, "report runs/reviews"),
    (status.status, "status runs/reviews"),
    (compare.compare, "compare runs/reviews runs/reviews-2"),
    (_with_torch(studies.methods), "methods reviews.recipe.yaml --arms lora,full --seeds 0,1,2"),
    (_with_torch(studies.curve), "curve reviews.recipe.yaml --sizes 50,200,800"),
    (_with_torch(studies.sequence), "sequence a.recipe.yaml b.recipe.yaml"),
    (_with_torch(studies.generalise), "generalise mixture.recipe.yaml --sizes 500,5000 --alone"),
    (_with_torch(predict.predict), "predict runs/reviews --rows new.csv"),
    (_with_torch(chat.chat), "chat runs/reviews"),
    (_with_torch(export.export), "export runs/reviews my-model --format gguf"),
    (_with_torch(export.verify), "verify my-model --run runs/reviews"),
    (_with_torch(serve.serve), "serve runs/reviews"),
    (gate.gate, "gate runs/reviews --min accuracy=0.85 --beats prompting"),
    (push.push, "push runs/reviews me/reviews --dry-run"),
    (correct.correct, "correct reviews.task.yaml reviews.labels.jsonl better.csv"),
    (ui.ui, "ui"),
    (models.models, "models"),
    (tasks.tasks, "tasks show amazon_reviews"),
)
"""In the order of `instil --help`, each with an example."""
for _command, _example in _COMMANDS:
    app.command(_example.split()[0], epilog=f"Example: `instil {_example}`")(_command)


def main() -> None:
    """Run the command line."""
    app(prog_name="instil")
