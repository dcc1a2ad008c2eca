"""Readers of folders: one text a file, and lists of trivia questions in YAML."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from instil.config.yamlfile import BoundedComposer
from instil.data.readers.rowfile import Faults, PlacedRow, RowFile, excerpt
from instil.data.readers.textfile import reading_text
from instil.errors import DataError, Problem

TEXT_ENDINGS = (".txt", ".text", ".md", "")
"""Files of a folder that are rows; an empty ending is a name without a dot."""
YAML_ENDINGS = (".yaml", ".yml")
"""Files with trivia lists."""

_ABOUT = {"AUTHOR", "DESCRIPTION", "CONFIG"}
"""Keys of a trivia list that say something about the list itself."""


def read_folder(file: RowFile) -> Iterator[PlacedRow]:
    """Read a folder of text files, one a row.

    Columns: `text` (the whole), `folder` (the path below the folder that was given, often the
    label), `file` (the name), `first_line` (often a headline) and `rest` (what comes after it).
    Files other than `TEXT_ENDINGS` and hidden ones are no rows.

    Raises:
        DataError: for a folder without text files; for bytes that are not in the encoding.
    """
    rows = 0
    for path in files_of(file, TEXT_ENDINGS):
        rows += 1
        below = path.relative_to(file.path)
        place = f"{file.place.rstrip('/')}/{below.as_posix()}"
        with reading_text(path, encoding=file.encoding, place=place) as stream:
            text = stream.read().strip()
        first, _, rest = text.partition("\n")
        folder = below.parent.as_posix()
        yield (
            place,
            {
                "text": text,
                "folder": "" if folder == "." else folder,
                "file": path.name,
                "first_line": first.strip(),
                "rest": rest.strip(),
            },
        )
    Faults(file.place).done(rows=rows, fix=endings_found(file, TEXT_ENDINGS))


def read_trivia(file: RowFile) -> Iterator[PlacedRow]:
    """Read YAML lists of trivia: a question, and the answers that are right.

    ::

        AUTHOR: somebody            # AUTHOR, DESCRIPTION and CONFIG are no questions
        What is 6 x 7?: [42, forty-two]

    Columns: `question`, `answers` (a list of texts, each as it is written: `1990` and `true` stay
    so), `category` (the file's name). A question that stands twice is two rows.

    Raises:
        DataError: for YAML that cannot be read (with its line); for answers that are not a list.
    """
    faults, rows = Faults(file.place, file.bad), 0
    paths = list(files_of(file, YAML_ENDINGS)) if file.path.is_dir() else [file.path]
    for path in paths:
        place = file.place
        if file.path.is_dir():
            place = f"{place.rstrip('/')}/{path.relative_to(file.path).as_posix()}"
        try:
            pairs = _questions(replace(file, path=path, place=place))
        except DataError as error:
            faults.add(error.problems[0])
            continue
        for key, answers in pairs:
            rows += 1
            where = f"{place}:{key.start_mark.line + 1}"
            texts = _answers(answers)
            if not texts:
                faults.add(_no_answers(str(key.value), where=where))
            elif not faults.count:
                question = str(key.value)
                yield where, {"question": question, "answers": texts, "category": path.stem}
    faults.done(rows=rows, fix=endings_found(file, YAML_ENDINGS))


def files_of(file: RowFile, endings: tuple[str, ...]) -> Iterator[Path]:
    """Files below a folder with one of the endings, in an order that no machine changes."""
    if not file.path.is_dir():
        raise DataError("this is not a folder", where=file.place, fix="set `format:`")
    for folder, below, names in os.walk(file.path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in endings:
                path = Path(folder, name)
                if path.exists() and not path.is_file():
                    what = "this is a device or a pipe, not a file"
                    raise DataError(what, where=str(path), fix="take it out of the folder")
                yield path


def endings_found(file: RowFile, endings: tuple[str, ...]) -> str:
    """For a folder without rows: what is in it, and what would have been read."""
    wanted = ", ".join(ending or "no ending" for ending in endings)
    if not file.path.is_dir():
        return "write one question a line"
    names = [Path(name) for _, _, names in os.walk(file.path) for name in names]
    found = Counter(name.suffix.lower() or "no ending" for name in names)
    listed = ", ".join(f"{ending} ({count})" for ending, count in found.most_common(5))
    return f"files with these endings are read: {wanted}; found: {listed or 'no files'}"


def _questions(file: RowFile) -> list[tuple[ScalarNode, Node]]:
    """The questions of one list, as YAML nodes: they know their line, and scalars as written."""
    with reading_text(file.path, encoding=file.encoding, place=file.place) as stream:
        text = stream.read()
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.Composer = BoundedComposer
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(
            f"this is not valid YAML: {error.problem}", where=f"{file.place}:{line}"
        ) from error
    except YAMLError as error:
        raise DataError(
            f"this is not valid YAML: {excerpt(str(error))}", where=file.place
        ) from error
    if root is None:
        return []
    if not isinstance(root, MappingNode):
        raise DataError("this is not a list of `question: answers`", where=file.place)
    return [
        (key, value)
        for key, value in root.value
        if isinstance(key, ScalarNode) and key.value not in _ABOUT
    ]


def _answers(node: Node) -> list[str]:
    """All answers as text; none when the node is not a list of plain values."""
    if not isinstance(node, SequenceNode):
        return []
    texts = [str(item.value) for item in node.value if isinstance(item, ScalarNode)]
    return texts if len(texts) == len(node.value) and all(texts) else []


def _no_answers(question: str, *, where: str) -> Problem:
    return Problem(
        "the answers to this question are not a list of texts",
        where=where,
        found=excerpt(question),
        allowed="- answer, one a line",
    )
