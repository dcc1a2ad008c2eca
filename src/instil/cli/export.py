"""`instil export`: a run's model in a folder of its own, held against the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from instil.cli.options import RunFolder, place, refuse_quantized
from instil.cli.terminal import say
from instil.ship.formats import Format, Quantization

if TYPE_CHECKING:
    from instil.ship.verify import Verified

NOT_SOUND = 4
"""The exit code where a model does not answer as the run's."""


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.")],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="hf: as the run saved it. merged: one transformers model. gguf: one file for "
            "llama.cpp. gguf-lora: the adapter for llama.cpp. ollama: gguf with a Modelfile.",
        ),
    ] = Format.HF,
    quantize: Annotated[
        Quantization, typer.Option(help="How a GGUF file keeps matrices.")
    ] = Quantization.F16,
    merge: Annotated[bool, typer.Option("--merge", help="The same as --format merged.")] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not ask the exported model anything.")
    ] = False,
) -> None:
    """Write a run's model for use without instil, and hold it against the run's own.

    With a card and a certificate: base model and adapter by their hashes, the test's figures, what
    was forgotten. The exported model is asked the run's validation rows again (`instil verify`);
    exit code 4: it does not answer as the run's model does.
    """
    from instil.cli.predict import refuse_existing

    refuse_existing(out, force=False, fix="name a folder that does not exist yet")
    if merge and form not in (Format.HF, Format.MERGED):
        raise typer.BadParameter("it goes with no other --format", param_hint="--merge")
    form = Format.MERGED if merge else form
    refuse_quantized(form, quantize)

    from instil import format as fmt
    from instil.ship.export import export as write

    exported = write(run, out=out, form=form, quantize=quantize)
    for note in exported.notes:
        say(note)
    say(f"model: {exported.path} ({fmt.size(exported.bytes)})")
    if no_verify:
        return
    from importlib.util import find_spec

    from instil.ship.verify import verify as hold

    if exported.weights.suffix == ".gguf" and find_spec("xllamacpp") is None:
        say('not verified: llama.cpp is not installed (pip install "instil[gguf]")', err=True)
        return
    show_verified(hold(str(exported.weights), run=run, say=lambda line: say(line, err=True)))


def verify(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="An exported folder, a .gguf file, or the address of a server (llama.cpp, Ollama, "
            "vLLM or another OpenAI-compatible one).",
        ),
    ],
    run: Annotated[
        Path, typer.Option(parser=place, metavar="RUN", help="The run that it came from.")
    ],
    rows: Annotated[int, typer.Option(min=2, help="Validation rows to ask.")] = 50,
    model: Annotated[
        str, typer.Option(help="Which of a server's models. [default: its only one]")
    ] = "",
) -> None:
    """Ask a model, wherever it runs, the run's validation rows again, and say what became of it.

    A server's token is read from the environment variable INSTIL_KEY. Exit code 4: the model does
    not answer as the run's model does (adapter not applied, template differs, BOS doubled, stop
    token missing, other weights, or worse beyond doubt).
    """
    import os

    from instil.ship.verify import verify as hold

    key = os.environ.get("INSTIL_KEY", "")
    show_verified(
        hold(target, run=run, rows=rows, model=model, key=key, say=lambda line: say(line, err=True))
    )


def show_verified(verified: Verified) -> None:
    """Print what was found, and exit with 4 where the model is not the run's.

    Raises:
        typer.Exit: It is not.
    """
    from instil import format as fmt

    say(f"verified: {verified.finding}: {verified.detail}")
    line = f"{verified.same} of {fmt.plural(verified.rows, 'answer')} the same"
    if verified.largest is not None:
        line += f", log-probabilities differ by {verified.largest:.2g} at most"
    if verified.distance is not None:
        line += (
            f", the next token's by {100 * verified.distance:.2g} % on average (total variation)"
        )
    say("; ".join([line, *verified.notes]))
    if not verified.finding.sound:
        raise typer.Exit(NOT_SOUND)
