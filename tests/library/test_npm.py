from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import requests

from instil.data.sources import index
from instil.data.sources.fetch import fetch_member
from instil.data.sources.uri import NPM, is_package, is_public, parse_uri
from instil.errors import DataError
from instil.library.npm import NpmRegistry, NpmSettings, npm_registry, read_npm_settings

REGISTRY = "https://npm.example/here/"


def tgz(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


ARCHIVE = tgz({"package/data/a.csv": b"text,label\n", "package/index.js": b"process.exit(1)"})
SHA = hashlib.sha256(ARCHIVE).hexdigest()


class Registered(requests.Session):
    """A registry in memory that notes what it is asked."""

    def __init__(self, pages: dict[str, bytes]):
        super().__init__()
        self.pages, self.asked = pages, []

    def get(self, url, **options):
        self.asked.append(url)
        answer = requests.Response()
        answer.url, answer.status_code = url, 200 if url in self.pages else 404
        answer.raw = io.BytesIO(self.pages.get(url, b""))
        return answer


REGISTERED = NpmRegistry(REGISTRY, Registered({f"{REGISTRY}@my/rows/-/rows-1.2.0.tgz": ARCHIVE}))


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "indexes_for", lambda path: (REGISTERED,))


def fetch(uri: str = "npm:@my/rows@1.2.0/package/data/a.csv", *, sha256: str = SHA) -> Path:
    return fetch_member(uri, sha256=sha256)


@pytest.mark.parametrize(
    ("uri", "project", "version"),
    [
        ("npm:@my/rows@1.2.0/package/a.csv", "@my/rows", "1.2.0"),
        ("npm:rows@1.0.0-beta.1/package/data/", "rows", "1.0.0-beta.1"),
    ],
)
def test_an_address_names_package_version_and_path(uri: str, project: str, version: str) -> None:
    path = parse_uri(uri)
    assert (path.project, path.version, path.registry) == (project, version, NPM)
    assert is_package(uri)
    assert is_public(uri)


@pytest.mark.parametrize("uri", ["npm:rows/package/a.csv", "npm:@my/rows@1.0", "npm:rows==1/a"])
def test_another_form_is_refused_with_the_right_one(uri: str) -> None:
    with pytest.raises(DataError, match="npm:NAME@VERSION/path"):
        parse_uri(uri)


@pytest.mark.parametrize("uri", ["reviews.csv", "C:/reviews.csv", "sub/npm/a.csv"])
def test_a_path_is_no_package_and_is_not_told(uri: str) -> None:
    assert not is_package(uri)
    assert not is_public(uri)


def test_a_file_is_fetched_out_of_the_pinned_archive() -> None:
    assert fetch().read_bytes() == b"text,label\n"


def test_another_archive_than_the_pinned_one_is_refused() -> None:
    with pytest.raises(DataError, match=f"found: {SHA}"):
        fetch(sha256="0" * 64)


@pytest.mark.parametrize("uri", ["npm:@my/rows@1.3.0/package/a.csv", "npm:other@1.0/package/a"])
def test_an_archive_that_is_not_there_speaks_of_npm(uri: str) -> None:
    with pytest.raises(DataError, match=r"answered 404[^!]*npm's settings"):
        fetch(uri)


# ---- settings


def test_the_environment_wins_over_what_npm_prints() -> None:
    printed = json.dumps({"registry": "https://npm.example/", "cafile": "/ca.pem", "fund": True})
    plain = read_npm_settings({}, printed=printed)
    assert plain == NpmSettings("https://npm.example/", {}, "/ca.pem", "")
    other = read_npm_settings({"NPM_CONFIG_REGISTRY": REGISTRY}, printed=printed)
    assert other.registry == REGISTRY


def test_without_npm_the_users_file_is_read(tmp_path: Path) -> None:
    own = tmp_path / "npmrc"
    own.write_text(
        "; mine\nregistry = https://${HOST}/npm/\n@my:registry=https://my.example/\n"
        "//my.example/:_authToken=${TOKEN}\n"
    )
    environ = {"npm_config_userconfig": str(own), "HOST": "npm.example"}
    settings = read_npm_settings(environ, printed="")
    assert npm_registry(settings, project="rows").url == "https://npm.example/npm/"
    assert npm_registry(settings, project="@my/rows").url == "https://my.example/"


def test_without_any_setting_no_address_is_made_up(tmp_path: Path) -> None:
    environ = {"npm_config_userconfig": str(tmp_path / "none")}
    settings = read_npm_settings(environ, printed="")
    assert settings.registry == ""
    with pytest.raises(DataError, match="npm_config_registry"):
        npm_registry(settings, project="rows")


def test_a_password_in_the_address_is_not_shown() -> None:
    found = npm_registry(NpmSettings("https://me:secret@npm.example/"), project="rows")
    assert found.name == "https://npm.example/"
