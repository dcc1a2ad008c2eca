"""The form of a `pypi:` address.

A worked example, an archive within an archive::

    pypi:vaderSentiment==0.5/vaderSentiment-0.5/extra/inner.tar.gz!/inner/rows.txt
         project          version  path in the archive          path in the inner archive
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from instil.data.archive import unsafe_path
from instil.errors import DataError, Problem

PREFIX = "pypi:"
_FORM = re.compile(r"pypi:(?P<name>[A-Za-z0-9][\w.-]*?)==(?P<version>[^/\s]+)/(?P<path>.+)", re.A)
_EXAMPLE = "pypi:NAME==VERSION/path/in/the/archive"


@dataclass(frozen=True, slots=True)
class PackagePath:
    """A parsed `pypi:` address."""

    project: str
    """The package's name."""
    version: str
    """Its version."""
    paths: tuple[str, ...]
    """The path in the archive, then the path in the archive found there, and so on."""

    @property
    def is_folder(self) -> bool:
        """Whether a folder is meant."""
        return self.paths[-1].endswith("/")


def parse_uri(uri: str) -> PackagePath:
    """Parse a `pypi:` address.

    >>> parse_uri("pypi:evals==3.0/evals/data/rows.jsonl").paths
    ('evals/data/rows.jsonl',)

    Raises:
        DataError: when it has not the right form, or a path in it leads out of the archive.
    """
    match = _FORM.fullmatch(uri)
    if match is None:
        raise DataError(Problem("not a package address", found=uri, allowed=_EXAMPLE))
    paths = tuple(match["path"].split("!/"))
    problems = [
        Problem("a path that may not be used", where=uri, found=f"{path!r}: {why}")
        for path in paths
        if (why := unsafe_path(path))
    ]
    problems += [
        Problem("only the last path may be a folder", where=uri, found=path)
        for path in paths[:-1]
        if path.endswith("/")
    ]
    if problems:
        raise DataError(*problems)
    return PackagePath(match["name"], match["version"], paths)
