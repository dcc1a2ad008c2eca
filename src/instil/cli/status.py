"""`instil status`: how far a run has come, and whether all of it is what was written."""

from __future__ import annotations

from instil.cli.options import RunFolder
from instil.cli.terminal import say


def status(
    run: RunFolder,
) -> None:
    """Say which stages of a run are done, who works in it, and whether its files are whole.

    Exit code 0: all that is there is what was written; 2: something is not, and is named.
    """
    from instil.stages.directory import describe

    told = describe(run)
    for line in told.lines:
        say(line)
    if told.problems:
        from instil.errors import RefusedError

        raise RefusedError(*told.problems)
