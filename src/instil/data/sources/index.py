"""Package indexes: which archives a project has, and how one of them is downloaded.

`PackageIndex` is all that `fetch` knows of the network, so a test hands in one of its own.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import requests
from packaging.utils import canonicalize_name
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

from instil.data.sources.pip_settings import PipSettings, without_password

Progress = Callable[[str, int, int | None], None]
"""Told the archive's name, the bytes that have come, and all bytes where known."""

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


class PackageIndex(Protocol):
    """A place with archives."""

    @property
    def name(self) -> str:
        """What to call it in messages: never with a password in it."""

    def listings(self, project: str) -> Sequence[Listing]:
        """All archives of a project; none where it does not know the project.

        Raises:
            IndexUnreachableError: when it cannot be asked.
        """

    def download(self, listing: Listing, path: Path, *, progress: Progress | None = None) -> None:
        """Write the archive to `path`.

        Raises:
            IndexUnreachableError: when the archive does not arrive whole.
        """


def pip_indexes(settings: PipSettings) -> tuple[PackageIndex, ...]:
    """All places that pip would look at: local folders first, then the indexes in order."""
    folders = [FolderIndex(path) for link in settings.find_links if (path := _local(link))]
    if settings.no_index:
        return tuple(folders)
    urls = dict.fromkeys([settings.index or PYPI_SIMPLE_ENDPOINT, *settings.extra_indexes])
    session = make_session(settings)
    return (*folders, *(SimpleIndex(url, session, timeout=settings.timeout) for url in urls))


@dataclass(frozen=True)
class FolderIndex:
    """A local folder of archives (pip's `find-links`)."""

    folder: Path
    """Where the archives lie."""

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    def listings(self, project: str) -> Sequence[Listing]:
        """Archives in the folder whose file name says that they are the project's."""
        found = []
        for path in sorted(self.folder.iterdir()):
            try:
                owner, version, kind = parse_filename(path.name, project_hint=project)
            except UnparsableFilenameError:
                continue
            if path.is_file() and canonicalize_name(owner) == canonicalize_name(project):
                found.append(Listing(path.name, version, kind, url=str(path)))
        return found

    def download(self, listing: Listing, path: Path, *, progress: Progress | None = None) -> None:
        """Copy the archive."""
        total, done = os.path.getsize(listing.url), 0
        with open(listing.url, "rb") as source, open(path, "wb") as sink:
            while chunk := source.read(_CHUNK):
                sink.write(chunk)
                done += len(chunk)
                if progress:
                    progress(listing.filename, done, total)


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
        """The address without a password."""
        return without_password(self.url)

    def listings(self, project: str) -> Sequence[Listing]:
        """The archives on the project's page."""
        client = PyPISimple(endpoint=self.url, session=self.session)
        try:
            page = client.get_project_page(project, timeout=self.timeout)
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

    def download(self, listing: Listing, path: Path, *, progress: Progress | None = None) -> None:
        """Stream the archive to `path`."""
        try:
            with self.session.get(listing.url, stream=True, timeout=self.timeout) as response:
                response.raise_for_status()
                save(response, path, name=listing.filename, progress=progress)
        except _TROUBLE as error:
            raise IndexUnreachableError(
                f"{listing.filename} from {self.name}: {reason(error)}"
            ) from error


_TROUBLE = (
    requests.RequestException,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
)


def save(response: requests.Response, path: Path, *, name: str, progress: Progress | None) -> None:
    """Stream an answer to a file, telling `progress`."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    done = 0
    with open(path, "wb") as sink:
        for chunk in response.iter_content(_CHUNK):
            sink.write(chunk)
            done += len(chunk)
            if progress:
                progress(name, done, total)


def reason(error: Exception) -> str:
    """Say why a request failed, without addresses that may hold a password."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"it answered {error.response.status_code} {error.response.reason}"
    kinds: Mapping[type[Exception], str] = {
        requests.exceptions.ProxyError: "the proxy cannot be reached",
        requests.exceptions.SSLError: "its certificate is not trusted (see pip's `cert` setting)",
        requests.exceptions.Timeout: "it did not answer in time",
        requests.exceptions.ConnectionError: "no connection",
        requests.exceptions.ChunkedEncodingError: "the connection broke off",
        requests.exceptions.InvalidSchema: "no such kind of address",
        requests.exceptions.MissingSchema: "the address lacks https://",
        UnsupportedContentTypeError: "it does not answer as a package index does",
    }
    return next(
        (text for kind, text in kinds.items() if isinstance(error, kind)), type(error).__name__
    )


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
    if settings.cert:
        session.verify = settings.cert
    if settings.client_cert:
        session.cert = settings.client_cert
    if settings.proxy:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    auth = _IndexAuth.of((settings.index, *settings.extra_indexes))
    if auth.passwords:  # an auth object switches netrc off, so it is set only where it is needed
        session.auth = auth
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


@dataclass(frozen=True)
class _IndexAuth(AuthBase):
    """Sends an index's password to that index's own host alone, as pip does."""

    passwords: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, urls: Sequence[str]) -> _IndexAuth:
        found = {}
        for url in urls:
            parts = urlsplit(url)
            if parts.username:
                host = parts.netloc.rpartition("@")[2]
                found[host] = (unquote(parts.username), unquote(parts.password or ""))
        return cls(found)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        host = urlsplit(request.url or "").netloc.rpartition("@")[2]
        known = self.passwords.get(str(host))
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
        response.status_code = 200 if path.is_file() else 404
        response.reason = "OK" if path.is_file() else "Not Found"
        response.raw = _SelfClosing(path, "rb") if path.is_file() else io.BytesIO()
        if path.is_file():
            response.headers["Content-Length"] = str(path.stat().st_size)
            response.headers["Content-Type"] = "text/html"
        return response

    def close(self) -> None:
        """Nothing is kept open."""


def _local(link: str) -> Path | None:
    """The folder that a `find-links` entry names; none for a page on the network."""
    if link.startswith("file:"):
        link = url2pathname(urlsplit(link).path)
    elif "://" in link:
        return None
    path = Path(link).expanduser()
    return path if path.is_dir() else None
