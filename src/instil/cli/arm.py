"""One arm of a study in a process of its own: `python -m instil.cli.arm FOLDER NAME run|prompt`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Do the job that the arguments name; return the exit code."""
    from instil.cli.failures import INTERRUPTED
    from instil.cli.progress import make_progress
    from instil.cli.terminal import say
    from instil.config.recipe import load_recipe
    from instil.errors import InstilError
    from instil.signals import CTRL_C, ENDING, interrupt, on_signals
    from instil.study.folder import Job, StudyFolder, Work
    from instil.study.worker import do

    path, name, work, *rest = arguments
    folder = StudyFolder(Path(path))
    try:
        job = Job(name, load_recipe(folder.recipe(name)), Work(work), merge=bool(rest))
        # Where the study runs in the background, shells have Ctrl-C ignored; its arms must hear it.
        with on_signals(interrupt, CTRL_C, *ENDING), make_progress() as progress:
            do(folder, job, progress=progress)
    except InstilError as error:
        say(error, err=True)
        return InstilError.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
