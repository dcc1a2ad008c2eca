"""How much may be read out of a file that somebody else made; each limit can be raised.

A few kilobytes of gzip can unpack to gigabytes, a line may never end, a query may run for ever.
Real data stays far below these limits; where some does not, an environment variable raises one::

    INSTIL_UNPACKED_BYTES   bytes that a packed file unpacks to
    INSTIL_LINE_BYTES       characters of one line, or of one cell of a table
    INSTIL_QUERY_SECONDS    seconds of computing until a query gives its next row
"""

from __future__ import annotations

import os

from instil.errors import DataError

UNPACKED = "INSTIL_UNPACKED_BYTES"
LINE = "INSTIL_LINE_BYTES"
QUERY = "INSTIL_QUERY_SECONDS"

_SMALLEST = 64 << 20
_TIMES = 100  # texts pack to a third or a tenth of their bytes
_LINE_BYTES = 64 << 20
_QUERY_SECONDS = 60


def unpacked_bytes(packed: int) -> int:
    """Return the bytes that a file of `packed` bytes may unpack to: 64 MiB, or a hundred times it.

    Raises:
        DataError: the environment variable is no whole number.
    """
    return _from_environment(UNPACKED) or max(_SMALLEST, _TIMES * packed)


def line_bytes() -> int:
    """Return the characters that a line or a cell may have; raises as `unpacked_bytes`."""
    return _from_environment(LINE) or _LINE_BYTES


def query_seconds() -> int:
    """Return the seconds that a query may compute for one row; raises as `unpacked_bytes`."""
    return _from_environment(QUERY) or _QUERY_SECONDS


def too_much(what: str, *, limit: int, name: str, where: str) -> DataError:
    """Return the error for what passes a limit, which says how to raise it."""
    return DataError(
        what,
        where=where,
        allowed=f"{limit:,}",
        fix=f"if it is what it should be, raise the limit: {name}={limit * 10} instil ...",
    )


def check_unpacked(size: int, *, packed: int, what: str, where: str) -> None:
    """Refuse what unpacks to more than a file of `packed` bytes may.

    Raises:
        DataError: saying that `what` unpacks to more, and how to raise the limit.
    """
    limit = unpacked_bytes(packed)
    if size > limit:
        raise too_much(what, limit=limit, name=UNPACKED, where=where)


def _from_environment(name: str) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or not 0 < len(text) < 19 or int(text) < 1:
        raise DataError("this is no whole number from 1 on", where=name, found=text)
    return int(text)
