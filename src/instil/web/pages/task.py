"""The page of a task file: labels, group, templates beside three rows, and what the audit finds.

Templates are rendered as they are typed, with the tokens that are trained on marked as soon as the
model's tokenizer is here. Whatever is changed is changed in the task file, whose comments stay.

Tests: `tests/web/test_task.py`.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml.comments import CommentedMap
from starlette.requests import Request
from starlette.responses import Response

from instil.config.recipe import Recipe, load_recipe
from instil.config.sections import Train
from instil.config.yamlfile import parse_yaml
from instil.config.yamlwriter import edited
from instil.data.build import render_example
from instil.data.correct import Mark, add_mark, load_marks, marks_file
from instil.data.findings import Finding, audit_rows
from instil.data.registry import load_rows
from instil.data.sources.source import read_table
from instil.data.templatecheck import check_templates
from instil.errors import InstilError, Problem, TaskError
from instil.files import write_whole
from instil.report.page import Run
from instil.report.sections.origin import token_runs
from instil.stages.context import prepare_use
from instil.tasks.task import parse_task
from instil.tasks.template import spelt
from instil.types import (
    Fate,
    Part,
    Piece,
    Row,
    SystemTurn,
    Task,
    Template,
    Thinking,
)
from instil.web.jobs import command_line
from instil.web.site import Site, aside, form, here, text_of, told

if TYPE_CHECKING:
    from instil.encode.chat_format import ChatFormat

ROWS = 3
"""Rows that each template is shown with."""
TRIED = 200
"""Rows that go through every template when the rows are looked at."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A template and what it makes of some rows."""

    number: int
    """Its place in the file, from 0."""
    id: str
    """Its id."""
    role: str
    """What it asks."""
    prompt: str
    """Its text; empty where the file takes it from a collection."""
    target: str
    """What it has the model say, where it is its own."""
    errors: tuple[str, ...] = ()
    """What is wrong with it."""
    examples: tuple[tuple[str, tuple[Run, ...]], ...] = ()
    """A row's place, and the example by tokens or texts."""


def examples_of(
    task: Task, template: Template, row: Row, *, chat: ChatFormat | None, train: Train
) -> Iterator[tuple[str, tuple[Run, ...]]]:
    """Yield what a row is trained on through a template: its place and fate, and its tokens.

    Args:
        task: The row's task.
        template: One of its templates.
        row: The row.
        chat: The model's chat format, with the recipe's rules; None: texts are shown in its place.
        train: The recipe's own, for the length policy.
    """
    place, example = row.place or f"row {row.id}", render_example(task, template, row)
    if chat is None:
        asked = "".join(f"{message.role}: {message.shown}\n" for message in example.messages)
        lines = [Piece(line, False) for line in asked.splitlines(keepends=True)]
        yield place, token_runs([*lines, Piece(example.answer.shown, True)])
        return
    from instil.encode.mask import encode_turns, token_view

    for encoded in encode_turns(
        example, chat, max_length=train.max_length, too_long=train.too_long
    ):
        fate = "" if encoded.fate is Fate.KEPT else f", {encoded.fate}: {encoded.why}"
        yield f"{place}{fate}", token_runs(token_view(encoded, chat))


def views(site: Site, text: str, path: Path) -> tuple[list[Shown], list[str], str]:
    """Return a task file's templates with examples, what is wrong with the rest, and a note."""
    try:
        file = parse_yaml(text, where=path.name, error=TaskError)
    except InstilError as error:
        return [], [told(error)[0]], ""
    data: Any = file.data if isinstance(file.data, dict) else {}
    entries = data.get("templates")
    own = [
        Shown(
            number,
            str(entry.get("id", entry.get("from", number))),
            str(entry.get("role", "answer")),
            str(entry.get("prompt", "")),
            str(entry.get("target", "")),
        )
        for number, entry in enumerate(entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
    ]
    try:
        task = parse_task(text, where=path.name, folder=path.parent)
        rows = load_rows(task, limit=ROWS).rows
    except InstilError as error:
        starts = {n: file.lines.get(("templates", n), 0) for n in range(len(own))}
        faults: dict[int, list[str]] = {}
        for problem in error.problems:
            faults.setdefault(_template_at(problem, starts), []).append(str(problem))
        marked = [replace(each, errors=tuple(faults.get(each.number, ()))) for each in own]
        return marked, faults.get(-1, []), ""
    recipe = load_beside(path)
    chat, note = chat_of(site, task, recipe)
    train, known = recipe.train if recipe else Train(), {t.id: t for t in task.templates}
    shown = []
    for each in own:
        examples, errors = list[tuple[str, tuple[Run, ...]]](), dict[str, None]()
        for row in rows if each.id in known else ():
            try:
                examples += examples_of(task, known[each.id], row, chat=chat, train=train)
            except InstilError as error:
                errors[str(error)] = None
        shown.append(replace(each, examples=tuple(examples), errors=tuple(errors)))
    return shown, [], note


def _template_at(problem: Problem, starts: Mapping[int, int]) -> int:
    """Return the template in which a problem is, by its line; -1: in none."""
    place = re.search(r":(\d+)", problem.where)
    line = int(place[1]) if place else 0
    before = [n for n, start in starts.items() if 0 < start <= line]
    return max(before, default=-1)


def chat_of(site: Site, task: Task, recipe: Recipe | None) -> tuple[ChatFormat | None, str]:
    """Return the chat format that the recipe trains a task with, and what to say of it.

    It is loaded in a thread of its own: the first time that may be a download.
    """
    model = recipe.model if recipe else site.default_model
    rules = (
        recipe.chat_template or "" if recipe else "",
        recipe.system if recipe else SystemTurn.KEEP,
        recipe.thinking if recipe else Thinking.AUTO,
    )
    # Whether a model thinks may depend on the rows' answers, but never on labels.
    key = (model, *rules, "" if task.choices else (task.source.uri, task.target))
    kept: dict[Any, ChatFormat | Exception | None] = site.memory.setdefault("chat", {})
    if key not in kept:
        kept[key] = None
        threading.Thread(target=_load_chat, args=(kept, key, task), daemon=True).start()
    chat = kept[key]
    if chat is None:
        return None, f"The tokenizer of {Path(model).name} is being loaded; until then: texts."
    if isinstance(chat, Exception):
        return None, told(chat)[0]
    return chat, f"Tokens of {Path(model).name}; marked ones are trained on."


def _load_chat(kept: dict[Any, Any], key: Any, task: Task) -> None:
    from instil.encode.chat_template import ChatRules
    from instil.encode.chat_turns import has_thoughts
    from instil.model.load import load_tokenizer, resolve_model

    model, template, system, thinking, _ = key
    try:
        if thinking is Thinking.AUTO:
            rows = () if task.choices else load_rows(task).rows
            thoughtful = any(has_thoughts(row, task) for row in rows)
            thinking = Thinking.ON if thoughtful else Thinking.OFF
        rules = ChatRules(template, system, thinking)
        kept[key] = load_tokenizer(replace(resolve_model(model), chat=rules))
    except Exception as error:  # whoever looks at the page is told
        kept[key] = error


def load_beside(task_file: Path) -> Recipe | None:
    """Return the recipe that stands beside a task file; None, where there is none that is whole."""
    path = recipe_of(task_file)
    with contextlib.suppress(InstilError):  # the plan's page says what is wrong with it
        return load_recipe(path) if path else None
    return None


def recipe_of(task_file: Path) -> Path | None:
    """Return the recipe that stands beside a task file."""
    path = task_file.with_name(task_file.name.removesuffix(".task.yaml") + ".recipe.yaml")
    return path if path.is_file() else None


# --- addresses -----------------------------------------------------------------------------------


def _task_path(request: Request) -> Path:
    return here(request).workplace.path(request.path_params["name"])


async def task(request: Request) -> Response:
    """`GET /task/{name}`: the whole page."""
    site, path = here(request), _task_path(request)
    return await aside(lambda: _page(site, path, text_of(path)))


def _form(path: Path, text: str) -> tuple[dict[str, str], str, list[tuple[str, str]]]:
    """Return the labels with their words, the group, and the columns.

    Where the text has a mistake, those of the file, with the words and the group of the text.
    """
    task = _whole(path, text)
    known = task or _whole(path, text_of(path))
    if known is None:
        return {}, "", []  # `views` says why
    labels = dict(known.labels) or {choice: choice for choice in known.choices}
    group, columns = known.group, list[tuple[str, str]]()
    with contextlib.suppress(InstilError, StopIteration):
        columns = [(spelt(name), name) for name in next(iter(read_table(known.source)))[1]]
    with contextlib.suppress(InstilError):
        data = parse_yaml(text, where=path.name, error=TaskError).data if task is None else None
        if isinstance(data, dict):
            words = data["labels"] if isinstance(data.get("labels"), dict) else {}
            said = {str(value): str(word) for value, word in words.items()}
            labels = {value: said.get(str(value), word) for value, word in labels.items()}
            group = str(data.get("group", ""))
    return labels, group, columns


def _whole(path: Path, text: str) -> Task | None:
    """Return the task of a text; None, where it has a mistake."""
    with contextlib.suppress(InstilError):
        return parse_task(text, where=path.name, folder=path.parent)
    return None


def _page(site: Site, path: Path, text: str, *, error: str = "", saved: bool = False) -> Response:
    shown, faults, note = views(site, text, path)
    recipe = recipe_of(path)
    labels, group, columns = _form(path, text)
    marks, command = load_marks(marks_file(path)), ""
    if marks:
        names = [site.workplace.name(each) for each in (path, marks_file(path))]
        better = path.stem.removesuffix(".task") + ".corrected.csv"
        command = command_line(["correct", *names, better])
    return site.page(
        "task.html.jinja",
        marks=len(marks),
        correct=command,
        status=400 if error else 200,
        name=site.workplace.name(path),
        text=text,
        templates=shown,
        faults=[*([error] if error else []), *faults],
        labels=labels,
        group=group,
        columns=columns,
        note=note,
        saved=saved,
        recipe=site.workplace.name(recipe) if recipe else "",
    )


def changed(text: str, said: Mapping[str, str], *, where: str) -> str:
    """Return a task file's text with what the form says in it."""

    def change(data: CommentedMap) -> None:
        for name, value in said.items():
            kind, _, key = name.partition(":")
            if kind == "prompt" and key.isdigit():
                entries = data.get("templates", [])
                if int(key) < len(entries) and "prompt" in entries[int(key)]:
                    entries[int(key)]["prompt"] = value
        words = {n.partition(":")[2]: w.strip() for n, w in said.items() if n.startswith("label:")}
        _name_labels(data, words)
        if "group" in said:
            if said["group"]:
                data["group"] = said["group"]
            else:
                data.pop("group", None)

    return edited(text, change, where=where, error=TaskError)


def _name_labels(data: CommentedMap, words: Mapping[str, str]) -> None:
    """Give the values of the label other words; `choices` become `labels` where one changes."""
    if "labels" in data:
        for value in data["labels"]:
            if words.get(str(value)):
                data["labels"][value] = words[str(value)]
    elif any(word and word != value for value, word in words.items()):
        place = [*data].index("choices")
        old = [str(choice) for choice in data["choices"]]
        del data["choices"]
        data.insert(place, "labels", {choice: words.get(choice) or choice for choice in old})


async def preview(request: Request) -> Response:
    """`POST /task/{name}/preview`: the templates as they stand in the form."""
    site, path, said = here(request), _task_path(request), await form(request)

    def look() -> Response:
        try:
            text = changed(text_of(path), said, where=path.name)
        except InstilError as error:
            return site.page("faults.part.html.jinja", faults=[told(error)[0]], note="")
        shown, faults, note = views(site, text, path)
        return site.page("templates.part.html.jinja", templates=shown, faults=faults, note=note)

    return await aside(look)


async def save(request: Request) -> Response:
    """`POST /task/{name}`: write the form, or the whole text, into the task file."""
    site, path, said = here(request), _task_path(request), await form(request)

    def write() -> Response:
        text = said["text"] if "text" in said else ""
        try:
            text = text or changed(text_of(path), said, where=path.name)
            parse_task(text, where=path.name, folder=path.parent)
        except InstilError as error:
            return _page(site, path, text or text_of(path), error=told(error)[0])
        write_whole(path, text.encode())
        return _page(site, path, text, saved=True)

    return await aside(write)


async def findings(request: Request) -> Response:
    """`POST /task/{name}/findings`: look at all rows, as `instil check` does."""
    site, path = here(request), _task_path(request)
    await form(request)

    def look() -> Response:
        listed, rows, error = list[Finding](), Counter[str](), ""
        try:
            listed, rows = audit(path)
        except InstilError as bad:
            error = told(bad)[0]
        name = site.workplace.name(path)
        return site.page(
            "findings.part.html.jinja", error=error, findings=listed, name=name, rows=rows
        )

    return await aside(look)


def audit(path: Path) -> tuple[list[Finding], Counter[str]]:
    """Return what looks wrong with a task's rows and templates, and the rows of each part."""
    task = parse_task(text_of(path), where=path.name, folder=path.parent)
    beside = recipe_of(path)
    recipe = load_recipe(beside) if beside else None
    uses = recipe.tasks if recipe else ()
    use = next((use for use in uses if Path(use.use) == path.absolute()), None)
    if recipe is None or use is None:
        return [*check_templates(task, load_rows(task, limit=TRIED).rows)], Counter()
    data = prepare_use(recipe, use)
    listed = [*audit_rows(data), *check_templates(data.task, data.train[:TRIED])]
    return listed, Counter({str(part): len(data.part(part)) for part in Part})


async def mend(request: Request) -> Response:
    """`POST /task/{name}/mend`: write what a finding proposes into the task file."""
    site, path, said = here(request), _task_path(request), await form(request)

    def write() -> Response:
        text = text_of(path)
        finding = next((f for f in audit(path)[0] if f.change and f.what == said.get("what")), None)
        if finding is None:
            return _page(site, path, text, error="This has been mended, or the file was changed.")
        text = edited(
            text, lambda data: _apply(data, finding.change), where=path.name, error=TaskError
        )
        try:
            parse_task(text, where=path.name, folder=path.parent)
        except InstilError as error:
            return _page(site, path, text_of(path), error=told(error)[0])
        write_whole(path, text.encode())
        return _page(site, path, text, saved=True)

    return await aside(write)


async def leave_out(request: Request) -> Response:
    """`POST /task/{name}/leave-out`: mark the rows of a finding to be left out."""
    site, path, said = here(request), _task_path(request), await form(request)

    def write() -> Response:
        text = text_of(path)
        finding = next((f for f in audit(path)[0] if f.rows and f.what == said.get("what")), None)
        if finding is None:
            return _page(site, path, text, error="This has been mended, or the file was changed.")
        task = parse_task(text, where=path.name, folder=path.parent)
        rows = {row.id: row for row in load_rows(task).rows}
        for id in finding.rows:
            was = str(rows[id].fields[task.target])
            add_mark(marks_file(path), Mark(id, rows[id].place, was, None))
        return _page(site, path, text, saved=True)

    return await aside(write)


def _apply(data: CommentedMap, change: Mapping[str, object]) -> None:
    """Set keys (`fields.review`); a condition is added to the one that is there."""
    for name, value in change.items():
        key, _, inner = name.partition(".")
        if key == "where" and data.get("where"):
            data["where"] = f"({data['where']}) and ({value})"
        elif inner:
            data[key] = {**(data.get(key) or {}), inner: value}
        else:
            data[key] = value
