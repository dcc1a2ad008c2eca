"""Data sets of the hub: which files, and from where. The hub itself is a stand-in here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from instil.data.sources.hub import arrange, hub_files, part_of
from instil.data.sources.source import read_table
from instil.errors import DataError
from instil.types import SourceSpec

README = """---
license: mit
configs:
- config_name: small
  data_files:
  - split: train
    path: small/tr*
  - split: validation
    path: [small/dev.csv]
- config_name: large
  default: true
  data_files: "large/*.csv"
---
# A data set
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(uri: str, base: Path) -> list[str]:
    return [str(columns["text"]) for _, columns in read_table(SourceSpec(uri))]


def problem(uri: str, base: Path):
    with pytest.raises(DataError) as caught:
        rows_of(uri, base)
    return caught.value.problems[0]


def put(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def test_names_of_files_and_folders_tell_the_part():
    assert part_of("data/test-00000-of-00001.parquet") == "test"
    assert part_of("dev/a.json") == "validation"
    assert part_of("contest.csv") == "train"
    assert part_of("reviews_train.csv") == "train"


def test_folders_are_configurations_unless_they_are_parts():
    assert arrange(["de/train.csv", "en/train.csv"]) == {
        "de": {"train": ["de/train.csv"]},
        "en": {"train": ["en/train.csv"]},
    }
    assert arrange(["train/a.csv", "test/a.csv", "README.md", ".gitattributes"]) == {
        "default": {"test": ["test/a.csv"], "train": ["train/a.csv"]}
    }


def test_the_readme_says_which_file_is_what(tmp_path):
    files = ["small/tr1.csv", "small/tr2.csv", "small/dev.csv", "large/all.csv", "other.csv"]
    found = arrange(files, readme=README)
    assert found["small"] == {
        "train": ["small/tr1.csv", "small/tr2.csv"],
        "validation": ["small/dev.csv"],
    }
    assert found["large"] == found["default"] == {"train": ["large/all.csv"]}


def test_a_local_copy_with_its_readme(tmp_path):
    put(
        tmp_path / "copy",
        README_md=README,
        small__tr1_csv="text\na\n",
        small__tr2_csv="text\nb\n",
        small__dev_csv="text\nc\n",
        large__all_csv="text\nd\n",
    )
    assert rows_of("hub:./copy", tmp_path) == ["d"]
    assert rows_of("hub:./copy?config=small", tmp_path) == ["a", "b"]
    assert rows_of("hub:./copy?config=small&split=train+validation", tmp_path) == ["a", "b", "c"]
    assert problem("hub:./copy?config=smal", tmp_path).nearest == "small"
    assert problem("hub:./copy?config=small&split=test", tmp_path).allowed == "train, validation"
    places = [place for place, _ in read_table(SourceSpec("hub:./copy"))]
    assert places == ["./copy/large/all.csv:2"]


@pytest.mark.parametrize("configs", ["5", "text", "{a: 1}", "[5, null]"])
def test_a_readme_with_other_configs_lists_none(tmp_path, configs):
    put(tmp_path / "copy", README_md=f"---\nconfigs: {configs}\n---\n", train_csv="text\na\n")
    assert rows_of("hub:./copy", tmp_path) == ["a"]


def test_what_a_local_copy_lacks(tmp_path):
    assert "no such folder" in problem("hub:./copy", tmp_path).what
    put(tmp_path / "copy", script_py="import os")
    assert "no file of rows" in problem("hub:./copy", tmp_path).what
    put(tmp_path / "two", de__train_csv="text\na\n", en__train_csv="text\nb\n")
    assert "say which config" in problem("hub:./two", tmp_path).what
    assert "unknown option" in problem("hub:./two?confg=de", tmp_path).what


class ConnectError(Exception):
    """As HTTP clients raise it: no OSError."""


@pytest.fixture(params=["offline mode", "no network"])
def offline(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's own cache in a folder of the test, and no hub."""

    def fail(*_: object, **__: object) -> None:
        raise ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    if request.param == "offline mode":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    return tmp_path / "hub"


def test_offline_the_hubs_own_cache_is_read(offline, tmp_path):
    repo = offline / "datasets--owner--name"
    commit = "a" * 40
    put(repo / "snapshots" / commit, data__train_csv="text\na\n", data__test_csv="text\nb\n")
    put(repo / "refs", main=commit)
    assert rows_of("hub:owner/name", tmp_path) == ["a"]
    assert rows_of("hub:owner/name?split=test", tmp_path) == ["b"]
    assert rows_of(f"hub:owner/name@{commit}", tmp_path) == ["a"]


def test_offline_what_was_fetched_is_read_and_what_was_not_is_told(tmp_path, monkeypatch):
    names = ["data/train-0.csv", "data/train-1.csv", "data/test-0.csv"]
    info = SimpleNamespace(sha="a" * 40, siblings=[SimpleNamespace(rfilename=n) for n in names])
    snapshot = tmp_path / "hub" / "datasets--owner--name" / "snapshots" / info.sha
    down = False

    def listed(*_: object, **__: object) -> SimpleNamespace:
        if down:
            raise ConnectError("no network")
        return info

    def fetched(_: str, name: str, **__: object) -> str:
        if name.endswith("train-1.csv"):
            raise ConnectError("no network")
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(f"text\n{name}\n")
        return str(snapshot / name)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", listed)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    found = problem("hub:owner/name", tmp_path)  # broke off: never half of the rows
    assert (found.found, "some files" in found.what) == ("data/train-1.csv", True)
    assert rows_of("hub:owner/name?split=test", tmp_path) == ["data/test-0.csv"]
    down = True
    assert rows_of("hub:owner/name?split=test", tmp_path) == ["data/test-0.csv"]
    assert problem("hub:owner/name", tmp_path).found == "data/train-1.csv"


def test_the_same_rows_in_two_formats_are_read_once():
    both = ["train.csv", "train.parquet", "label_map.json"]
    assert arrange(both) == {"default": {"train": ["train.parquet"]}}
    apart = ["train.csv", "test.jsonl", "stats.json", "label_map.json"]
    assert arrange(apart)["default"] == {"train": ["train.csv"], "test": ["test.jsonl"]}
    assert arrange(["de/a.csv", "en/a.parquet"]).keys() == {"de", "en"}
    assert arrange(["a.csv.gz", "b.csv", "c.parquet"]) == {
        "default": {"train": ["a.csv.gz", "b.csv"]}
    }


def test_a_pattern_of_the_readme_stays_in_its_folder():
    names = ["a.csv", "raw/old.csv", "data/x.csv", "data/deep/x.csv"]
    listing = "---\nconfigs:\n- data_files:\n  - {split: train, path: %s}\n---\n"
    for pattern, wanted in (
        ('"*.csv"', ["a.csv"]),
        ('"data**.csv"', ["data/deep/x.csv", "data/x.csv"]),
        ('["data/**/x.csv", "data/x*"]', ["data/deep/x.csv", "data/x.csv"]),
    ):
        assert arrange(names, readme=listing % pattern)["default"]["train"] == wanted


def test_offline_without_a_copy_says_what_to_do(offline, tmp_path):
    found = problem("hub:owner/name", tmp_path)
    assert "cannot be reached" in found.what
    assert "hf download" in found.fix


class Hub:
    """Stands in for the hub: files by revision, each fetch noted."""

    def __init__(self, folder: Path, files: dict[str, dict[str, str]]) -> None:
        self.folder, self.files = folder, files
        self.fetched: list[tuple[str, str]] = []

    def dataset_info(self, repo: str, revision: str | None = None) -> SimpleNamespace:
        files = self.files.get(revision or "main", {})
        names = [SimpleNamespace(rfilename=name) for name in files]
        return SimpleNamespace(sha=f"sha-{revision or 'main'}", siblings=names)

    def download(self, repo: str, name: str, *, repo_type: str, revision: str) -> str:
        assert repo_type == "dataset"
        self.fetched.append((revision, name))
        path = self.folder / revision / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.files[revision.removeprefix("sha-")][name])
        return str(path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    def serve(files: dict[str, dict[str, str]]) -> Hub:
        made = Hub(tmp_path / "served", files)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
        return made

    return serve


def test_only_the_files_asked_for_are_fetched_at_one_commit(hub, tmp_path):
    served = hub({"main": {"train.csv": "text\na\n", "test.csv": "text\nb\n", "README.md": "# x"}})
    assert rows_of("hub:owner/name", tmp_path) == ["a"]
    assert served.fetched == [("sha-main", "README.md"), ("sha-main", "train.csv")]


def test_a_script_is_read_from_its_converted_branch(hub, tmp_path):
    converted = {"plain/train/0000.csv": "text\na\n", "plain/test/0000.csv": "text\nb\n"}
    hub({"main": {"name.py": "raise SystemExit"}, "refs/convert/parquet": converted})
    assert rows_of("hub:owner/name?config=plain&split=test", tmp_path) == ["b"]
    assert rows_of("hub:owner/name", tmp_path) == ["a"]


def test_a_data_set_that_is_not_there(hub, tmp_path, monkeypatch):
    class NotFound(errors.RepositoryNotFoundError):
        def __init__(self) -> None:
            Exception.__init__(self, "404 Client Error")

    def refuse(*_: object, **__: object) -> None:
        raise NotFound

    served = hub({})
    monkeypatch.setattr(served, "dataset_info", refuse)
    found = problem("hub:owner/name", tmp_path)
    assert "no such data set" in found.what
    assert "log" in found.fix


def test_without_the_hubs_library_the_install_command_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match="pip install huggingface_hub"):
        hub_files("hub:owner/name")
