"""Package indexes: which archive of a project is meant, and how it is downloaded.

They are those of pip's own settings (`pip_settings`), or the registry of npm's. pip is asked for
its settings alone: to download is done here, so that no package is ever built.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import requests
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    NoSuchProjectError,
    PyPISimple,
    UnparsableFilenameError,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
    parse_filename,
)
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.util.retry import Retry

from instil.data.sources.fetch import on_bytes
from instil.data.sources.pip_settings import PipSettings, read_pip_settings, without_password
from instil.data.sources.uri import NPM, PackagePath
from instil.errors import DataError, nearest

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Listing:
    """One archive on a project's page."""

    filename: str
    """`name-1.0-py3-none-any.whl`."""
    version: str
    """As written in the file's name."""
    kind: str
    """`wheel`, `sdist`, or another word for what is neither."""
    url: str
    """Where it lies."""
    sha256: str = ""
    """As the page states it (not checked here); empty where it does not."""


class IndexUnreachableError(Exception):
    """An index did not answer, or answered with an error; the text says which and why."""


@dataclass(frozen=True)
class SimpleIndex:
    """An index that speaks pip's simple protocol, over http(s) or from `file://`."""

    url: str
    """Its address."""
    session: requests.Session = field(repr=False)
    """Knows proxy, certificates and passwords."""
    timeout: float = 60.0
    """Seconds to wait for an answer."""

    @property
    def name(self) -> str:
        """What to call it in messages: the address without a password."""
        return without_password(self.url)

    def listings(self, path: PackagePath) -> Sequence[Listing]:
        """All archives of a project; none where it does not know the project.

        Raises:
            IndexUnreachableError: when it cannot be asked.
        """
        client = PyPISimple(endpoint=self.url, session=self.session)
        try:
            page = client.get_project_page(path.project, timeout=self.timeout)
        except NoSuchProjectError:
            return ()
        except _TROUBLE as error:
            raise IndexUnreachableError(f"{self.name}: {reason(error)}") from error
        return [
            Listing(
                filename=package.filename,
                version=package.version or "",
                kind=package.package_type or "",
                url=package.url,
                sha256=(package.digests or {}).get("sha256", ""),
            )
            for package in page.packages
        ]

    def download(self, listing: Listing, path: Path) -> None:
        """Stream the archive to `path`.

        Raises:
            IndexUnreachableError: when the archive does not arrive whole.
        """
        show, done = on_bytes.get(), 0
        try:
            with self.session.get(listing.url, stream=True, timeout=self.timeout) as response:
                response.raise_for_status()
                length = response.headers.get("Content-Length", "")
                with open(path, "wb") as sink:
                    for chunk in response.iter_content(_CHUNK):
                        sink.write(chunk)
                        done += len(chunk)
                        if show:
                            show(listing.filename, done, int(length) if length.isdigit() else None)
        except _TROUBLE as error:
            what = f"{listing.filename} from {self.name}: {reason(error)}"
            raise IndexUnreachableError(what) from error


class FolderIndex(SimpleIndex):
    """A local folder of archives (pip's `find-links`); its `url` is a path."""

    def listings(self, path: PackagePath) -> Sequence[Listing]:
        """Archives in the folder whose file name says that they are the project's."""
        found = []
        for file in sorted(Path(self.url).iterdir()):
            try:
                owner, version, kind = parse_filename(file.name, project_hint=path.project)
            except UnparsableFilenameError:
                continue
            if file.is_file() and canonicalize_name(owner) == canonicalize_name(path.project):
                found.append(Listing(file.name, version, kind, url=file.absolute().as_uri()))
        return found


def find_listing(
    path: PackagePath, *, sha256: str, filename: str, advice: str
) -> tuple[SimpleIndex, Listing]:
    """Find the archive that an address means: the first index that has it wins.

    Args:
        path: Project and version.
        sha256: Of the archive; decides where a page states it for several archives.
        filename: Name of the archive; empty: the only wheel, else the only sdist.
        advice: What to do when no index can be reached.

    Returns:
        The index, and the archive's listing there.

    Raises:
        DataError: when no index can be reached, none has the version, or several archives fit.
    """
    seen: list[Listing] = []
    silent: list[str] = []
    asked = indexes_for(path)
    for index in asked:
        try:
            listings = index.listings(path)
        except IndexUnreachableError as error:
            silent.append(str(error))
            continue
        seen += listings
        versions = [one for one in listings if _same_version(one.version, path.version)]
        listing = _choose(versions, sha256=sha256, filename=filename, path=path)
        if listing is not None:
            return index, listing
    package = f"{path.project} {path.version}"
    versions = [one for one in seen if _same_version(one.version, path.version)]
    names, known = [one.filename for one in versions], dict.fromkeys(one.version for one in seen)
    if silent:
        raise DataError(
            f"{package} cannot be fetched: no package index that has it could be reached",
            found="; ".join(silent),
            fix=advice,
        )
    if not seen:
        raise DataError(
            f"no package index knows the project {path.project}",
            found=f"asked: {', '.join(i.name for i in asked) or 'none (pip is set to no-index)'}",
            fix="check the name, or set the package index in pip's settings",
        )
    if not versions:
        raise DataError(
            f"{path.project} has no version {path.version}",
            allowed=", ".join(list(known)[-12:]),
            nearest=nearest(path.version, known),
        )
    raise DataError(
        f"{package} has no archive of this name",
        found=filename,
        allowed=", ".join(names[:12]),
        nearest=nearest(filename, names),
    )


def indexes_for(path: PackagePath) -> tuple[SimpleIndex, ...]:
    """All places where pip (or npm) would look for a package."""
    if path.registry == NPM:
        from instil.library.npm import npm_registry, read_npm_settings

        return (npm_registry(read_npm_settings(), project=path.project),)
    return pip_indexes(read_pip_settings())


def pip_indexes(settings: PipSettings) -> tuple[SimpleIndex, ...]:
    """All places that pip would look at: local folders first, then the indexes in order."""
    session = make_session(settings)
    indexes: list[SimpleIndex] = []
    for link in settings.find_links:  # a page on the network is none
        place = url2pathname(urlsplit(link).path) if link.startswith("file:") else link
        if "://" not in place and (folder := Path(os.path.expanduser(place))).is_dir():
            indexes.append(FolderIndex(str(folder), session))
    if not settings.no_index:
        urls = dict.fromkeys([settings.index or PYPI_SIMPLE_ENDPOINT, *settings.extra_indexes])
        indexes += (SimpleIndex(url, session, timeout=settings.timeout) for url in urls)
    return tuple(indexes)


def _same_version(one: str, other: str) -> bool:
    """Whether two versions are the same release, however they are written: 1.0 and 1.0.0."""
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


_TROUBLE = (
    requests.RequestException,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
)
_REASONS: dict[type[Exception], str] = {
    requests.exceptions.ProxyError: "the proxy cannot be reached",
    requests.exceptions.SSLError: "its certificate is not trusted (see pip's `cert` setting)",
    requests.exceptions.Timeout: "it did not answer in time",
    requests.exceptions.ConnectionError: "no connection",
    requests.exceptions.ChunkedEncodingError: "the connection broke off",
    requests.exceptions.InvalidSchema: "no such kind of address",
    requests.exceptions.MissingSchema: "the address lacks https://",
    UnsupportedContentTypeError: "it does not answer as a package index does",
}


def reason(error: Exception) -> str:
    """Say why a request failed, without addresses that may hold a password."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"it answered {error.response.status_code} {error.response.reason}"
    known = (text for kind, text in _REASONS.items() if isinstance(error, kind))
    return next(known, type(error).__name__)


def make_session(settings: PipSettings) -> requests.Session:
    """A session with pip's proxy, certificates, passwords and `file://` addresses."""
    session = _Session()
    retry = Retry(
        total=2, backoff_factor=0.3, status_forcelist=(500, 502, 503, 504), raise_on_status=False
    )
    session.mount("https://", HTTPAdapter(max_retries=retry))
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("file://", _FileAdapter())
    for host in settings.trusted_hosts:
        prefix = f"https://{host}" if ":" in host else f"https://{host}/"
        session.mount(prefix, _TrustingAdapter(max_retries=retry))
    session.verify = settings.cert or session.verify
    session.cert = settings.client_cert or None
    if settings.proxy:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    parts = map(urlsplit, (settings.index, *settings.extra_indexes))
    passwords = {
        part.netloc.rpartition("@")[2]: (unquote(part.username), unquote(part.password or ""))
        for part in parts
        if part.username
    }
    if passwords:  # an auth object switches netrc off, so it is set only where it is needed
        session.auth = _IndexAuth(passwords)
    return session


class _Session(requests.Session):
    """pip's own settings win over HTTPS_PROXY and REQUESTS_CA_BUNDLE, as they do for pip."""

    def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
        merged = super().merge_environment_settings(*args, **kwargs)
        if self.proxies:
            merged["proxies"] = self.proxies
        if self.verify is not True:
            merged["verify"] = self.verify
        return merged


class _IndexAuth(AuthBase):
    """Sends an index's password to that index's own host alone, as pip does."""

    def __init__(self, passwords: dict[str, tuple[str, str]]) -> None:
        self.passwords = passwords

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        known = self.passwords.get(str(urlsplit(request.url or "").netloc.rpartition("@")[2]))
        return HTTPBasicAuth(*known)(request) if known else request


class _TrustingAdapter(HTTPAdapter):
    """For pip's `trusted-host`: the certificate is not checked; the pinned sha256 still is."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        return super().send(request, **(options | {"verify": False}))


class _SelfClosing(io.FileIO):
    """A file that is closed once it has been read: requests leaves that to a connection pool."""

    def read(self, size: int | None = -1, /) -> bytes:
        content = b"" if self.closed else super().read(-1 if size is None else size)
        if not content:
            self.close()
        return content


class _FileAdapter(BaseAdapter):
    """`file://` addresses: a folder answers with its index.html, as a web server would."""

    def send(self, request: requests.PreparedRequest, **_options: Any) -> requests.Response:  # type: ignore[override]
        response = requests.Response()
        response.request, response.url = request, request.url or ""
        path = Path(url2pathname(str(urlsplit(response.url).path)))
        path = path / "index.html" if path.is_dir() else path
        response.status_code, response.reason, response.raw = 404, "Not Found", io.BytesIO()
        if path.is_file():
            response.status_code, response.reason = 200, "OK"
            response.raw = _SelfClosing(path, "rb")
            response.headers["Content-Length"] = str(path.stat().st_size)
            response.headers["Content-Type"] = "text/html"
        return response

    def close(self) -> None:
        """Nothing is kept open."""
