from __future__ import annotations

import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from instil.data.sources import archive as archive_module
from instil.data.sources.archive import unpack, unsafe_path
from instil.errors import DataError


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MEMBERS = {"pkg/data/a.csv": b"one", "pkg/data/deep/b.csv": b"two", "pkg/__init__.py": b"boom()"}


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_one_file_comes_out_of_every_kind_of_archive(tmp_path, mode):
    # the name says nothing: the kind is told by content
    archive = tmp_path / "archive"
    make_zip(archive, MEMBERS) if mode == "zip" else make_tar(archive, MEMBERS, mode)
    unpack(archive, "pkg/data/a.csv", into=tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"one"


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_folder_comes_out_with_its_subfolders_and_nothing_else(tmp_path, make):
    out = tmp_path / "out"
    unpack(make(tmp_path / "x", MEMBERS), "pkg/data/", into=out)
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == {"a.csv": b"one", "deep/b.csv": b"two"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("evil", ["pkg/../../evil.txt", "pkg//evil", "pkg/./evil", "pkg/a\\..\\b"])
def test_members_that_lead_elsewhere_are_refused(tmp_path, make, evil):
    archive = make(tmp_path / "x.zip", {"pkg/good.txt": b"", evil: b"evil"})
    out = tmp_path / "deep" / "out"
    out.parent.mkdir()
    with pytest.raises(DataError, match="may not be unpacked"):
        unpack(archive, "pkg/", into=out)
    assert not out.exists()
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "C:/x", "../x", "a/../b", "a//b", "", "a\\b", "./a"]
)
def test_unsafe_paths(path):
    assert unsafe_path(path)


@pytest.mark.parametrize("path", ["a", "a/b.txt", "a/b/", "a..b/c...", "x!y"])
def test_safe_paths(path):
    assert unsafe_path(path) == ""


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("path", ["pkg/link", "pkg/"])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("pkg/link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="a link or a device"):
        unpack(tmp_path / "x.tar", path, into=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("pkg/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="a link or a device"):
        unpack(tmp_path / "x.zip", "pkg/link", into=tmp_path / "out")


def test_an_encrypted_member_is_refused(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"a": b"text"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    archive.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        unpack(archive, "a", into=tmp_path / "out")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_member_over_the_limit_is_refused(tmp_path, make, monkeypatch):
    archive = make(tmp_path / "x", {"bomb": bytes(5000)})
    monkeypatch.setenv("INSTIL_UNPACKED_BYTES", "4999")
    with pytest.raises(DataError, match=r"has 5000 bytes, and 4999 are|more than its size lets"):
        unpack(archive, "bomb", into=tmp_path / "out")
    monkeypatch.setenv("INSTIL_UNPACKED_BYTES", "20000")
    unpack(archive, "bomb", into=tmp_path / "out")


@pytest.mark.parametrize(("cap", "members"), [("8", 9), ("9", 2)])
def test_a_folder_over_the_limit_is_refused(tmp_path, cap, members, monkeypatch):
    archive = make_zip(tmp_path / "x", {f"f/{i}": b"123" for i in range(3)})
    monkeypatch.setenv("INSTIL_UNPACKED_BYTES", cap)
    monkeypatch.setattr(archive_module, "MOST_MEMBERS", members)
    with pytest.raises(DataError, match="too large"):
        unpack(archive, "f/", into=tmp_path / "out")


def test_a_tar_that_never_ends_is_not_walked_over(tmp_path, monkeypatch):
    archive = make_tar(tmp_path / "x", {"bomb": bytes(5000), "a": b""})
    monkeypatch.setenv("INSTIL_UNPACKED_BYTES", "4999")
    with pytest.raises(DataError, match="unpacks to more than its size lets expect"):
        unpack(archive, "a", into=tmp_path / "out")


def test_a_tar_whose_header_is_a_bomb_is_not_read(tmp_path, monkeypatch):
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    (tmp_path / "x").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size)
    )
    with pytest.raises(DataError, match="unpacks to more than its size lets expect"):
        unpack(tmp_path / "x", "a", into=tmp_path / "out")
    assert max(asked) < 1 << 20


def test_a_zips_name_in_utf8_that_does_not_say_so(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"sch@@n/a": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"sch@@n", "schön".encode()))
    unpack(archive, "schön/a", into=tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"1"


def test_a_member_larger_than_it_says_is_refused(tmp_path):
    archive = make_zip(tmp_path / "x.zip", {"a": bytes(5000)})
    content = bytearray(archive.read_bytes())
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")  # the size in the central directory
    archive.write_bytes(content)
    with pytest.raises(DataError):
        unpack(archive, "a", into=tmp_path / "out")


@pytest.mark.parametrize("mode", ["zip", "w:gz", "w:bz2", "w:xz"])
def test_a_damaged_archive_is_one_clear_error(tmp_path, mode):
    archive, members = tmp_path / "x.archive", {"a": random.Random(0).randbytes(100_000)}
    make_zip(archive, members) if mode == "zip" else make_tar(archive, members, mode)
    content = bytearray(archive.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 4)
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.archive: "):
        unpack(archive, "a", into=tmp_path / "out")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.3, 0.95, "the last bytes"])
def test_a_cut_archive_is_no_whole_one(tmp_path, mode, share):
    members = {name: random.Random(name).randbytes(40_000) for name in ("a", "b")}
    archive = make_tar(tmp_path / "x.archive", members, mode)
    content = archive.read_bytes()
    archive.write_bytes(content[: -2 if share == "the last bytes" else int(share * len(content))])
    with pytest.raises(DataError, match=r"x\.archive: .* ended before the end"):
        unpack(archive, "a", into=tmp_path / "out")


def test_a_tar_that_is_cut_between_two_members_is_no_whole_one(tmp_path):
    archive = make_tar(tmp_path / "x.tar", {"p/a": bytes(512), "p/b": bytes(512)}, "w")
    archive.write_bytes(archive.read_bytes()[:1024])
    with pytest.raises(DataError, match=r"x\.tar: .* cut off"):
        unpack(archive, "p/", into=tmp_path / "out")


def test_what_is_no_archive_is_said_to_be_none(tmp_path):
    (tmp_path / "x.zip").write_text("hello")
    with pytest.raises(DataError, match="not an archive"):
        unpack(tmp_path / "x.zip", "a", into=tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("pkg/data/b.csv", "pkg/data/a.csv"),
        ("data/a.csv", "pkg/data/a.csv"),
        ("other/place/__init__.py", "pkg/__init__.py"),
        ("data/", "pkg/data/"),
        ("pkg/date/", "pkg/data/"),
    ],
)
def test_a_missing_member_names_the_nearest(tmp_path, path, near):
    with pytest.raises(DataError) as caught:
        unpack(make_zip(tmp_path / "x", MEMBERS), path, into=tmp_path / "out")
    assert caught.value.problems[0].nearest == near


def test_a_folder_asked_for_as_a_file_is_explained(tmp_path):
    with pytest.raises(DataError, match="write it as pkg/data/"):
        unpack(make_zip(tmp_path / "x", MEMBERS), "pkg/data", into=tmp_path / "out")


def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path):
    archive = make_zip(tmp_path / "x", {"f/a": b"1", "f/a/b": b"2"})
    with pytest.raises(DataError, match="of one name"):
        unpack(archive, "f/", into=tmp_path / "out")
