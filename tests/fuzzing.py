"""What is fuzzed: readers of files that somebody else made, with a corpus of what broke them once.

A target takes bytes and reads them as far as a run would. It may return or raise an `InstilError`;
any other exception, a warning, or more than `SECONDS` is a finding. To keep one, put its bytes into
`tests/corpus/<target>/`, under a name that says what it is: each file there is tried as it is, and
changed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from chat_templates import byte_level
from instil.config.recipe import load_recipe
from instil.config.yamlfile import read_text
from instil.data.build import render_example
from instil.data.sources.source import read_table
from instil.data.templatecheck import check_templates
from instil.encode.chat_format import ChatFormat, chat_format
from instil.encode.chat_template import ChatRules
from instil.errors import InstilError
from instil.init.inspect import Wishes, inspect_table
from instil.tasks.task import parse_task
from instil.tasks.template import evaluate, flaws, names, render
from instil.types import OnBadRow, Row, SourceSpec, Task, Template, TrainOn

CORPUS = Path(__file__).parent / "corpus"
SECONDS = 5.0
ROWS = 50
"""Rows that are read of a file."""


def read_yaml(data: bytes, folder: Path) -> None:
    """As a recipe, and as a task file."""
    file = folder / "made.yaml"
    file.write_bytes(data)
    with contextlib.suppress(InstilError):
        load_recipe(file)
    parse_task(read_text(file, error=InstilError), where=file.name, folder=folder)


FIELDS: dict[str, object] = {
    "text": "It was <good>, café. Mostly.",
    "mood": "good",
    "n": -1.5,
    "names": ["b", "a", ""],
    "nothing": None,
    "more": {"a": [1, {"b": "c"}]},
}
TASK = Task(
    "moods", "k", "moods", "", "", SourceSpec("rows.csv"), "text", "mood",
    (Template("plain", "{{ text }}", "{{ mood }}", choices=("good", "bad")),),
    choices=("good", "bad"),
)  # fmt: skip
TALK = Task(
    "talk", "k", "talk", "", "", SourceSpec("rows.jsonl"), "prompt", "completion",
    (Template("plain", "{{ prompt }}", "{{ completion }}"),),
    metric="exact_match", history="history", train_on=TrainOn.ALL,
)  # fmt: skip


def read_template(data: bytes, folder: Path) -> None:
    """As a prompt, as an expression, and as a model's chat template."""
    source = data.decode("utf-8", "replace")
    template = Template("made", source, "{{ mood }}", choices=TASK.choices)
    actions: list[Callable[[], object]] = [
        lambda: render(source, FIELDS, where="made"),
        lambda: evaluate(source.strip("{}% \n"), FIELDS, where="made"),
        lambda: names(source),
        lambda: flaws(template, TASK),
        lambda: check_templates(
            replace(TASK, templates=(template,)), [Row("moods", "1", "1", FIELDS)]
        ),
        lambda: chat_format(_tokenizer(source), ChatRules(date="2026-03-04")),
    ]
    for action in actions:
        with contextlib.suppress(InstilError):
            action()


def read_csv(data: bytes, folder: Path) -> None:
    """As comma-separated and as tab-separated values, strictly and leaving bad rows out."""
    _read_tables(data, folder, endings=("csv", "tsv"))


def read_json(data: bytes, folder: Path) -> None:
    """As JSON and as JSON Lines."""
    _read_tables(data, folder, endings=("json", "jsonl"))


def read_chat(data: bytes, folder: Path) -> None:
    """As conversations: rows, turns, and tokens through a chat template."""
    file = folder / "made.jsonl"
    file.write_bytes(data)
    for place, columns in islice(read_table(SourceSpec(str(file))), ROWS):
        row = Row("talk", "1", "1", {"prompt": "", "completion": "", **columns}, place)
        with contextlib.suppress(InstilError):
            example = render_example(TALK, TALK.templates[0], row)
            _chat().spoken(example)
            _chat().answered(example.messages, ["yes", "no"], tools=example.tools)
    inspect_table(SourceSpec(str(file)), wishes=Wishes())


def _read_tables(data: bytes, folder: Path, *, endings: tuple[str, ...]) -> None:
    for ending in endings:
        file = folder / f"made.{ending}"
        file.write_bytes(data)
        for policy in OnBadRow:
            with contextlib.suppress(InstilError):
                list(islice(read_table(SourceSpec(str(file), on_bad_row=policy)), ROWS))
        with contextlib.suppress(InstilError):
            inspect_table(SourceSpec(str(file)), wishes=Wishes())


@cache
def _bytes() -> Any:
    return byte_level("chatml")


def _tokenizer(template: str) -> Any:
    tokenizer = _bytes()
    tokenizer.chat_template = template
    return tokenizer


@cache
def _chat() -> ChatFormat:
    return chat_format(byte_level("chatml"))


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "yaml": read_yaml,
    "template": read_template,
    "csv": read_csv,
    "json": read_json,
    "chat": read_chat,
}
PIECES: dict[str, tuple[str, ...]] = {
    # what is put into the corpus' files
    "yaml": ("&a ", "*a", "<<: ", "!!str ", "- ", ": ", "? ", "|\n  ", ">\n", "{", "}", "[", "]",
             "'", '"', "# ", "---\n", "id: ", "\n", "  ", "\t", "~", "1e999", ".nan", "%YAML 9.9\n",
             "2001-02-30", "0x", "\\", "@", "`", "templates:", "fields: ", "from: x"),
    "template": ("{{", "}}", "{%", "%}", "{#", "#}", " text ", " row", "row[", "choices", " | ",
                 "join", "('a')", "[0]", "[::-1]", ".items()", "for x in ", "if ", "else", "endif",
                 "endfor", "set x = ", "~", "+", " * ", " ** ", "//", "%", "range(9)", "messages",
                 ".__class__", "tojson", "first_words(", ")", "'", '"', "none", "loop.index",
                 "99999999", "namespace(a=1)", "raise_exception('x')", "m.content", "lipsum()"),
    "csv": (",", ";", "\t", "|", '"', '""', "\n", "\r\n", "\r", "\0", "\ufeff", "=1+1", "text",
            "mood", "nan", "1e999", "\u202e", "\x1b[31m", "\u2028", "  ", "-0", "\x1a"),
    "json": ("{", "}", "[", "]", ",", ":", '"', "\\", "\\u0000", "\\ud800", "null", "NaN",
             "Infinity", "1e999", "-0", "true", '"text"', '"data"', "\n", "\0", "\ufeff", "//x\n",
             '{"a": 1}', "[[]]", "'", '"\\', "9" * 400),
    "chat": ("{", "}", "[", "]", ",", ":", '"', "null", "3", '"role"', '"user"', '"assistant"',
             '"tool"', '"system"', '"content"', '"messages"', '"conversations"', '"from"',
             '"value"', '"tools"', '"tool_calls"', '"prompt"', '"completion"', '"function"',
             "<|im_start|>", "<think>", "</think>", "\\ud800", "\n", '{"role": "user"}', "[{}]"),
}  # fmt: skip


def seeds(target: str) -> list[bytes]:
    """The corpus of a target, in the order of the names."""
    return [file.read_bytes() for file in sorted((CORPUS / target).iterdir())]


@st.composite
def made(draw: st.DrawFn, target: str) -> bytes:
    """A file of the corpus with a few changes, or two of them joined."""
    known = seeds(target)
    data = draw(st.sampled_from(known))
    pieces = st.sampled_from(PIECES[target]).map(lambda text: text.encode())
    for _ in range(draw(st.integers(0, 6))):
        begin = draw(st.integers(0, min(len(data), 4000)))
        end = begin + draw(st.sampled_from([0, 0, 1, 3, 20]))
        taken = draw(st.sampled_from(known))
        put = draw(pieces | st.binary(max_size=3) | st.just(taken[: len(taken) // 2]))
        data = data[:begin] + put + data[end:]
    return data


def ends_well(target: str, data: bytes, folder: Path) -> None:
    """Give bytes to a target; raise what is neither a result nor an `InstilError`, nor soon."""
    began = time.thread_time()
    with contextlib.suppress(InstilError):
        TARGETS[target](data, folder)
    took = time.thread_time() - began
    assert took < SECONDS, f"{took:.1f} s for {data!r:.200}"
