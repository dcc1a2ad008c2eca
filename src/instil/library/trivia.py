"""Reader of lists of trivia questions in YAML."""

from __future__ import annotations

from collections.abc import Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from instil.config.yamlfile import BoundedComposer
from instil.data.readers.folders import endings_found, files_of
from instil.data.readers.rowfile import Faults, PlacedRow, RowFile, excerpt
from instil.data.readers.textfile import reading_text
from instil.errors import DataError, Problem

ENDINGS = (".yaml", ".yml")
_ABOUT = {"AUTHOR", "DESCRIPTION", "CONFIG"}
"""Keys of a list that say something about the list itself."""


def read_trivia(file: RowFile) -> Iterator[PlacedRow]:
    """Read a list of trivia, or a folder of them: questions, and the answers that are right.

    ::

        AUTHOR: somebody            # AUTHOR, DESCRIPTION and CONFIG are no questions
        What is 6 x 7?: [42, forty-two]

    Columns: `question`, `answers` (a list of texts, each as it is written: `1990` and `true` stay
    so), `category` (the file's name). A question that stands twice is two rows.

    Raises:
        DataError: for YAML that cannot be read (with its line); for answers that are not a list.
    """
    faults, rows = Faults(file.place, file.bad), 0
    lists = [(file.path, file.place)]
    if file.path.is_dir():
        lists = [(path, place) for path, place, _ in files_of(file, ENDINGS)]
    for path, place in lists:
        try:
            with reading_text(path, encoding=file.encoding, place=place) as stream:
                pairs = _questions(stream.read(), place=place)
        except DataError as error:
            faults.add(error.problems[0])
            continue
        for key, answers in pairs:
            rows += 1
            where, question = f"{place}:{key.start_mark.line + 1}", str(key.value)
            items = answers.value if isinstance(answers, SequenceNode) else []
            texts = [str(item.value) for item in items if isinstance(item, ScalarNode)]
            if not texts or len(texts) < len(items) or not all(texts):
                what = "the answers to this question are not a list of texts"
                allowed = "- answer, one a line"
                faults.add(Problem(what, where=where, found=excerpt(question), allowed=allowed))
            elif not faults.count:
                yield where, {"question": question, "answers": texts, "category": path.stem}
    fix = endings_found(file, ENDINGS) if file.path.is_dir() else "write one question a line"
    faults.done(rows=rows, fix=fix)


def _questions(text: str, *, place: str) -> list[tuple[ScalarNode, Node]]:
    """The questions of one list, as YAML nodes: they know their line, and scalars as written."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = BoundedComposer
    try:
        root = yaml.compose(text)
    except YAMLError as error:
        what, where = excerpt(str(error)), place
        if isinstance(error, MarkedYAMLError):
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            what, where = str(error.problem), f"{place}:{line}"
        raise DataError(f"this is not valid YAML: {what}", where=where) from error
    if root is None:
        return []
    if not isinstance(root, MappingNode):
        raise DataError("this is not a list of `question: answers`", where=place)
    return [
        (key, value)
        for key, value in root.value
        if isinstance(key, ScalarNode) and key.value not in _ABOUT
    ]
