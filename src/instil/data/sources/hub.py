"""Data sets of the model hub: which of a repository's files hold the rows that are asked for.

No code of a data set runs: its files (Parquet, CSV, JSON Lines, Arrow ...) are read as they are. A
repository says in its README's header which file belongs to which configuration and part; where it
does not, the names of files and folders tell, by the hub's own habit, and of several formats the
commonest is read::

    data/train-00000-of-00002.parquet      part train of the only configuration
    de/validation.jsonl                    part validation of configuration de
    rows.csv                               part train

A data set that was once a script has its rows in the branch `refs/convert/parquet`, which is looked
into when the newest revision has no file of rows.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.utils import glob_translate

from instil.config.yamlfile import parse_yaml
from instil.data.sources.uri import HUB, HubPath, is_local_copy, parse_hub
from instil.errors import DataError, nearest
from instil.files import cache_dir, write_whole

INSTALL = "pip install huggingface_hub"
CONVERTED = "refs/convert/parquet"
DEFAULT = "default"
_FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".arrow")
_ENDINGS = tuple(
    f"{ending}{packed}" for ending in _FORMATS for packed in ("", ".gz", ".bz2", ".xz", ".zip")
)
_NO_ROWS = frozenset({"dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json"})
_PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Part -> the words that name it in a path."""

Parts = dict[str, dict[str, list[str]]]
"""Configuration -> part -> the paths of its files."""


def hub_files(uri: str) -> list[tuple[str, Path]]:
    """Find the files that hold the rows, fetching them where they are not on this machine.

    Args:
        uri: `hub:owner/name[@revision][?config=..&split=..]`, or `hub:./folder[?..]` for a local
            copy; split may join several parts by `+`.

    Returns:
        (what to call the file in messages, the file), in the order of the names.

    Raises:
        DataError: the data set is not there or has no file of rows, or it has no configuration or
            part of this name, or several and none is named.
    """
    path, _, options = uri.removeprefix(HUB).partition("?")
    if not is_local_copy(uri):
        return _from_hub(parse_hub(uri))
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder))
    # The options are checked like any other's.
    wanted = parse_hub(f"{HUB}local?{options}" if options else f"{HUB}local")
    return _from_folder(replace(wanted, dataset=path), folder)


def arrange(names: Iterable[str], *, readme: str = "") -> Parts:
    """Sort a repository's files into configurations and parts.

    >>> arrange(["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"])
    {'default': {'test': ['data/test-00000-of-00001.parquet'], 'train': \
['data/train-00000-of-00001.parquet']}}
    """
    rows = sorted(name for name in names if _has_rows(name))
    declared = _declared(readme, rows)
    if declared:
        return declared
    folders = {PurePosixPath(name).parts[0] if "/" in name else "" for name in rows}
    several = len(folders) > 1 or (len(folders) == 1 and CONVERTED in readme)
    words = {word for folder in folders for word in re.split(r"[^a-z]+", folder.lower())}
    told = {word for known in _PARTS.values() for word in known}
    # The usual folder for data, or one of a part, is no configuration.
    configs = several and not folders & {"", "data"} and not words & told
    arranged: Parts = {}
    for name in rows:
        config = PurePosixPath(name).parts[0] if configs else DEFAULT
        inner = name.removeprefix(f"{config}/") if configs else name
        arranged.setdefault(config, {}).setdefault(part_of(inner), []).append(name)
    return {
        config: {part: of_one_format(files) for part, files in parts.items()}
        for config, parts in arranged.items()
    }


def of_one_format(names: Sequence[str]) -> list[str]:
    """Leave out what often is the same rows in a second form, which would count twice.

    The commonest format stays; a bare JSON beside others is often no table at all.

    >>> of_one_format(["a.csv", "a.parquet", "b.csv.gz", "stats.json"])
    ['a.csv', 'b.csv.gz']
    """
    formats = Counter(map(_format_of, names))
    kept = min(formats, key=lambda f: (f == ".json", -formats[f], _FORMATS.index(f)))
    return [name for name in names if _format_of(name) == kept]


def part_of(name: str) -> str:
    """Tell which part a file holds, by the words of its name, then of its folders.

    >>> part_of("data/val-00000-of-00001.parquet"), part_of("test/rows.csv"), part_of("rows.csv")
    ('validation', 'test', 'train')
    """
    for piece in reversed(PurePosixPath(name).parts):
        words = re.split(r"[^a-z]+", piece.lower())
        for part, known in _PARTS.items():
            if set(words) & set(known):
                return part
    return "train"


def chosen(parts: Parts, address: HubPath) -> list[str]:
    """Return the paths of the configuration and the parts that are asked for.

    Raises:
        DataError: there is none of this name, or several and none is named.
    """
    where = f"hub:{address.dataset}"
    if not parts:
        what = "the data set has no file of rows that can be read"
        fix = "data sets that are scripts cannot be read; look for a copy in Parquet"
        raise DataError(what, where=where, fix=fix)
    config = _picked("config", address.config, parts, where=where, usual=DEFAULT)
    by_part = parts[config]
    wanted = re.split(r"[+ ]", address.split)
    picked = [_picked("split", part, by_part, where=where, usual="train") for part in wanted]
    return [name for part in picked for name in by_part[part]]


def _picked(key: str, wanted: str, known: Mapping[str, object], *, where: str, usual: str) -> str:
    if wanted in known:
        return wanted
    if not wanted and (usual in known or len(known) == 1):
        return usual if usual in known else next(iter(known))
    raise DataError(
        f"there is no {key} {wanted!r}" if wanted else f"say which {key} is meant",
        where=where,
        allowed=", ".join(known),
        nearest=nearest(wanted, known),
        fix="" if wanted else f"{where}?{key}={next(iter(known))}",
    )


def _format_of(name: str) -> str:
    return next(ending for ending in _FORMATS if f"{ending}." in f"{name.lower()}.")


def _has_rows(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(piece.startswith((".", "__")) for piece in path.parts)
    return not hidden and path.name not in _NO_ROWS and name.lower().endswith(_ENDINGS)


def _declared(readme: str, names: Sequence[str]) -> Parts:
    """The configurations that the README's header lists; empty where it lists none."""
    match = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", readme, re.DOTALL)
    header = None
    with contextlib.suppress(DataError):  # a header that is broken lists none
        header = parse_yaml(match[1], where="README.md", error=DataError).data if match else None
    declared: Parts = {}
    configs = header.get("configs") if isinstance(header, Mapping) else None
    for entry in configs if isinstance(configs, list) else ():
        files = entry.get("data_files") if isinstance(entry, Mapping) else None
        if files is None:
            continue
        listed = files if isinstance(files, list) else [files]
        parts: dict[str, list[str]] = {}
        for item in listed:
            split, paths = ("", item)
            if isinstance(item, Mapping):
                split, paths = str(item.get("split", "")), item.get("path", "")
            for pattern in paths if isinstance(paths, list) else [paths]:
                wanted = str(pattern).removeprefix("./")
                try:
                    glob = glob_translate(wanted)
                except ValueError:  # `data/**.csv`: no pattern of paths
                    glob = fnmatch.translate(wanted)
                for name in (n for n in names if n == wanted or re.match(glob, n)):
                    listed_here = parts.setdefault(split or part_of(name), [])
                    if name not in listed_here:  # two patterns may fit it
                        listed_here.append(name)
        if parts:
            name = str(entry.get("config_name", DEFAULT))
            declared[DEFAULT if entry.get("default") and name != DEFAULT else name] = parts
            declared.setdefault(name, parts)
    return declared


def _from_folder(address: HubPath, folder: Path) -> list[tuple[str, Path]]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    paths = chosen(arrange(names, readme=text), address)
    shown = address.dataset.rstrip("/\\")
    return [(f"{shown}/{name}", folder / name) for name in paths]


def _from_hub(address: HubPath) -> list[tuple[str, Path]]:
    """Ask the hub; where it cannot be reached, take what it gave before."""
    where = f"hub:{address.dataset}"
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError as error:
        what = "reading from the hub needs the library huggingface_hub"
        raise DataError(what, where=where, fix=INSTALL) from error
    try:
        return _fetched(address, hub)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        revision = f", revision {address.revision}" if address.revision else ""
        raise DataError(
            f"the hub has no such data set{revision}, or it is private",
            where=where,
            found=_first_line(error),
            fix="check the name; for a private or gated one: hf auth login, and accept its terms",
        ) from error
    except DataError:
        raise
    except Exception as error:  # the HTTP clients that the library has had raise unrelated kinds
        if kept := _kept(address, hub):
            return kept
        for revision in (address.revision or None, *(() if address.revision else (CONVERTED,))):
            with contextlib.suppress(OSError):  # the library keeps no snapshot of it
                copy = hub.snapshot_download(
                    address.dataset, repo_type="dataset", revision=revision, local_files_only=True
                )
                if any(_has_rows(path.name) for path in Path(copy).rglob("*")):
                    return _from_folder(replace(address, revision=""), Path(copy))
        raise DataError(
            "the hub cannot be reached, and this data set is not on this machine",
            where=where,
            found=_first_line(error),
            fix="fetch it where the hub can be reached (`hf download --repo-type dataset "
            f"{address.dataset} --local-dir FOLDER`), bring the folder here, and write "
            "`hub:./FOLDER`",
        ) from error


def _fetched(address: HubPath, hub: Any) -> list[tuple[str, Path]]:
    def listing(revision: str) -> tuple[str, list[str]]:
        info = hub.HfApi().dataset_info(address.dataset, revision=revision or None)
        return info.sha, [sibling.rfilename for sibling in info.siblings or ()]

    def fetch(name: str) -> Path:
        return Path(hub.hf_hub_download(address.dataset, name, repo_type="dataset", revision=sha))

    sha, names = listing(address.revision)
    if not any(map(_has_rows, names)) and not address.revision:
        sha, names = listing(CONVERTED)
    readme = CONVERTED if not address.revision and "README.md" not in names else ""
    if "README.md" in names:
        readme = fetch("README.md").read_text(encoding="utf-8", errors="replace")
    paths = chosen(arrange(names, readme=readme), address)
    listed = {"sha": sha, "names": names, "readme": readme}
    write_whole(_listing(address), json.dumps(listed).encode())
    return [(f"{address.dataset}/{name}", fetch(name)) for name in paths]


def _listing(address: HubPath) -> Path:
    """Where is kept what the hub said of a data set the last time."""
    digest = hashlib.sha256(f"{address.dataset}@{address.revision}".encode()).hexdigest()
    return cache_dir() / "hub" / f"{digest[:16]}.json"


def _kept(address: HubPath, hub: Any) -> list[tuple[str, Path]]:
    """Return what was fetched before, of the files that the hub listed then; empty: never asked.

    Raises:
        DataError: Some of them were not fetched.
    """
    if not _listing(address).is_file():
        return []
    listed = json.loads(_listing(address).read_bytes())
    paths = chosen(arrange(listed["names"], readme=listed["readme"]), address)
    missing: list[str] = []
    for revision in (listed["sha"], address.revision or "main"):  # or as `hf download` brought it
        found = {
            name: hub.try_to_load_from_cache(
                address.dataset, name, repo_type="dataset", revision=revision
            )
            for name in paths
        }
        lacking = [name for name, path in found.items() if not isinstance(path, str)]
        if not lacking:
            return [(f"{address.dataset}/{name}", Path(path)) for name, path in found.items()]
        missing = missing or lacking
    raise DataError(
        "the hub cannot be reached, and some files of this data set are not on this machine",
        where=f"hub:{address.dataset}",
        found=", ".join(missing[:8]) + (" ..." if len(missing) > 8 else ""),
        fix="run the same command where the hub can be reached",
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
