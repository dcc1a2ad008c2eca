"""What the machine's pip knows about package indexes: addresses, proxy, certificates.

pip's own settings are read, so that a machine that can `pip install` can fetch data too, and
nothing has to be said twice. pip is asked, not imported: its internals are not an interface.

A setting is looked for in the environment (`PIP_INDEX_URL`), then in what `pip config list`
prints::

    global.index-url='https://mirror.example/simple'    ->  index-url
    install.extra-index-url='file:///srv/simple'        ->  extra-index-url

Tests: `tests/data/sources/test_fetch.py`.
"""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

_SECTIONS = ("global", "install", "download")  # a later section wins over an earlier one
_TIMEOUT = 60.0  # seconds
_TRUE = {"1", "true", "yes", "on", "y", "t"}


@dataclass(frozen=True, slots=True)
class PipSettings:
    """The settings that say where packages come from."""

    index: str = ""
    """Address of the main index; empty: the public one."""
    extra_indexes: tuple[str, ...] = ()
    """Further indexes, `file://` ones among them."""
    find_links: tuple[str, ...] = ()
    """Folders (or pages) with archives."""
    no_index: bool = False
    """Look at `find_links` alone."""
    cert: str = ""
    """File of certificates to trust."""
    client_cert: str = ""
    """The client's own certificate."""
    proxy: str = ""
    """Proxy for http and https."""
    trusted_hosts: tuple[str, ...] = ()
    """`host` or `host:port` whose certificate is not checked."""
    timeout: float = _TIMEOUT
    """Seconds to wait for an answer."""


def read_pip_settings(
    environ: Mapping[str, str] | None = None, *, printed: str | None = None
) -> PipSettings:
    """Read pip's settings from the environment, then from `pip config list`.

    Args:
        environ: The environment; by default this process's own.
        printed: What `pip config list` prints; None: it is asked.

    Returns:
        The settings; the defaults where pip says nothing or is not installed.
    """
    if printed is None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
        printed = printed_by(command)
    settings: dict[tuple[int, str], str] = {}
    for line in printed.splitlines():  # lines of the environment are in none of the sections
        left, equals, right = line.partition("=")
        section, _, key = left.strip().partition(".")
        if equals and section in _SECTIONS:
            with contextlib.suppress(ValueError, SyntaxError):  # what pip did not write by `repr`
                right = str(ast.literal_eval(right.strip()))
            settings[_SECTIONS.index(section), key] = right.strip()
    values = {key: value for (_, key), value in sorted(settings.items())}
    for name, value in (os.environ if environ is None else environ).items():
        if name.startswith("PIP_") and value:  # an empty variable counts as unset, as for pip
            values[name[4:].lower().replace("_", "-")] = value
    timeout = _TIMEOUT
    with contextlib.suppress(ValueError):
        timeout = max(1.0, float(values.get("timeout") or values.get("default-timeout", "")))
    return PipSettings(
        index=values.get("index-url", "").strip(),
        extra_indexes=tuple(values.get("extra-index-url", "").split()),
        find_links=tuple(values.get("find-links", "").split()),
        no_index=values.get("no-index", "").strip().lower() in _TRUE,
        cert=values.get("cert", ""),
        client_cert=values.get("client-cert", ""),
        proxy=values.get("proxy", ""),
        trusted_hosts=tuple(values.get("trusted-host", "").split()),
        timeout=timeout,
    )


def without_password(url: str) -> str:
    """Return the address fit to be shown: a user name or token in it is taken out.

    >>> without_password("https://me:secret@mirror.example/simple")
    'https://mirror.example/simple'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def printed_by(command: Sequence[str]) -> str:
    """Return what a program prints; empty where there is none of its name, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""
