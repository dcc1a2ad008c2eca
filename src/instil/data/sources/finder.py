"""Finding the one archive that an address means, where pip (or npm) would look for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from packaging.version import InvalidVersion, Version

from instil.data.sources.index import IndexUnreachableError, Listing, PackageIndex, pip_indexes
from instil.data.sources.pip_settings import read_pip_settings
from instil.data.sources.uri import PackagePath, Registry
from instil.errors import DataError, nearest


def find_listing(
    path: PackagePath,
    *,
    sha256: str = "",
    filename: str = "",
    indexes: Callable[[], Sequence[PackageIndex]] | None = None,
    advice: str = "",
) -> tuple[PackageIndex, Listing]:
    """Find the archive: the first index that has it wins.

    Args:
        path: Project and version.
        sha256: Of the archive; decides where a page states it for several archives.
        filename: Name of the archive; empty: the only wheel, else the only sdist.
        indexes: Where to look; by default where pip (or npm) would.
        advice: What to do when no index can be reached.

    Returns:
        The index, and the archive's listing there.

    Raises:
        DataError: when no index can be reached, none has the version, or several archives fit.
    """
    seen: list[Listing] = []
    silent: list[str] = []
    places = indexes() if indexes else _usual(path)
    for index in places:
        try:
            listings = index.listings(path.project)
        except IndexUnreachableError as error:
            silent.append(str(error))
            continue
        seen += listings
        versions = [one for one in listings if same_version(one.version, path.version)]
        listing = _choose(versions, sha256=sha256, filename=filename, path=path)
        if listing is not None:
            return index, listing
    if silent:
        raise _unreachable(path, silent, advice)
    raise _not_found(path, seen, filename=filename, asked=[index.name for index in places])


def _usual(path: PackagePath) -> Sequence[PackageIndex]:
    if path.registry is Registry.NPM:
        from instil.data.sources.npm import npm_indexes, read_npm_settings

        return npm_indexes(read_npm_settings(), project=path.project)
    return pip_indexes(read_pip_settings())


def same_version(one: str, other: str) -> bool:
    """Whether two versions are the same release, however they are written.

    >>> same_version("1.0", "1.0.0")
    True
    """
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _choose(
    listings: Sequence[Listing], *, sha256: str, filename: str, path: PackagePath
) -> Listing | None:
    """The one that is meant; none when the index has nothing that fits."""
    if filename:
        return next((one for one in listings if one.filename == filename), None)
    if sha256 and (pinned := next((one for one in listings if one.sha256 == sha256), None)):
        return pinned
    for kind in ("wheel", "sdist"):
        fitting = [one for one in listings if one.kind == kind]
        if len(fitting) == 1:
            return fitting[0]
    if listings:
        raise DataError(
            f"{path.project} {path.version} has several archives",
            allowed=", ".join(sorted(one.filename for one in listings)[:12]),
            fix="say which one with `filename:`",
        )
    return None


def _client(path: PackagePath) -> str:
    return "npm" if path.registry is Registry.NPM else "pip"


def _unreachable(path: PackagePath, silent: Sequence[str], advice: str) -> DataError:
    return DataError(
        f"{path.project} {path.version} cannot be fetched: no package index that has it "
        "could be reached",
        found="; ".join(silent),
        fix=advice,
    )


def _not_found(
    path: PackagePath, seen: Sequence[Listing], *, filename: str, asked: Sequence[str]
) -> DataError:
    """Say the nearest version, or the nearest file name."""
    if not seen:
        return DataError(
            f"no package index knows the project {path.project}",
            found=f"asked: {', '.join(asked) or 'none (pip is set to no-index)'}",
            fix=f"check the name, or set the package index in {_client(path)}'s settings",
        )
    versions = dict.fromkeys(one.version for one in seen)
    if not any(same_version(version, path.version) for version in versions):
        newest = ", ".join(list(versions)[-12:])
        return DataError(
            f"{path.project} has no version {path.version}",
            allowed=newest,
            nearest=nearest(path.version, versions),
        )
    names = [one.filename for one in seen if same_version(one.version, path.version)]
    return DataError(
        f"{path.project} {path.version} has no archive of this name",
        found=filename,
        allowed=", ".join(names[:12]),
        nearest=nearest(filename, names),
    )
