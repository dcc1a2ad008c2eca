"""`instil push`: a run's model to the model hub."""

from __future__ import annotations

from typing import Annotated

import typer

from instil.cli.options import RunFolder, refuse_quantized
from instil.cli.terminal import say
from instil.ship.formats import Format, Quantization


def push(
    run: RunFolder,
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Its name on the hub.")],
    form: Annotated[Format, typer.Option("--format", help="As in instil export.")] = Format.HF,
    quantize: Annotated[
        Quantization, typer.Option(help="How a GGUF file keeps matrices.")
    ] = Quantization.F16,
    public: Annotated[
        bool, typer.Option("--public", help="Everybody may see it. [default: private]")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")
    ] = False,
) -> None:
    """Send a run's model to the hub, with its card and certificate; private unless said.

    The token is that of the hub's own client (`hf auth login`, or HF_TOKEN).
    """
    from instil import format as fmt
    from instil.ship.push import Sent
    from instil.ship.push import push as send

    refuse_quantized(form, quantize)

    def listed(files: tuple[Sent, ...]) -> None:
        for file in files:
            say(f"{fmt.size(file.bytes):>10}  {file.name}")

    where = send(
        run,
        name,
        form=form,
        quantize=quantize,
        public=public,
        dry_run=dry_run,
        on_files=listed,
    )
    say("nothing was sent" if dry_run else f"sent: {where}")
