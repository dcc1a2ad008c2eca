"""instil: labelled rows in, a proven instruct model out.

`instil.run`, `instil.check`, `instil.load` and `instil.Run` are those of `instil.api`, which is
imported when they are first used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from instil.api import Run, check, load, run

__all__ = ["Run", "__version__", "check", "load", "run"]

__version__ = "0.1.0"

# torch's threads meet behind every operation, and spin some milliseconds before a waiting one
# sleeps. On busy cores the one that spins takes the time of the one that it waits for: training
# ran ten times slower than with a short spin, and was no faster on idle cores (docs/002). libgomp
# reads this when it is loaded: before any import of torch. Child processes inherit it.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "200"


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from instil import api

    return getattr(api, name)
