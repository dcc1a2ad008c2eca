"""Tasks from YAML: the library's by name, a user's own by path.

`load_task("amazon_reviews")` reads the library, `load_task("mugs.yaml")` a file. Keys
left out of a file get these values: `cluster` the task's id; `choices` the words of `labels`;
`metric` accuracy where there are choices; in a template of role `answer`, `choices` the task's, and
`target` the row's answer in the template's own wording::

    >>> task = parse_task('''
    ... id: mugs
    ... source: mugs.csv
    ... text: review
    ... target: label
    ... choices: [good, bad]
    ... templates:
    ...   - {id: yes_no, prompt: "Satisfied? {{ review }}", choices: [yes, no]}
    ... ''', where="mugs.yaml", folder=None)
    >>> task.templates[0].target
    '{{ choices[["good", "bad"].index(label | string)] }}'
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

from instil.config.validation import validate
from instil.config.yamlfile import Loc, YamlFile, parse_yaml, read_text
from instil.errors import Problem, TaskError, nearest
from instil.scoring.metrics import METRICS
from instil.tasks.form import Collection, TaskForm, TemplateForm
from instil.tasks.imports.foreign import Question, answer_target, read_collection
from instil.tasks.template import FIELD, alike, columns_of, expression_names, flaws, unknown_field
from instil.types import Role, SourceSpec, Task, Template

_PACKAGES, _SQLITE, _HUB, _MADE = ("pypi:", "npm:"), "sqlite:", "hub:", "made:"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")

_RESERVED = frozenset({"choices", "row", "range", "loop", "self"})
_STAND_IN = {"id": "taken", "prompt": ""}


def load_task(ref: str) -> Task:
    """Load a task by its library name, or from a YAML file.

    Args:
        ref: A name in `library()` or `hub_library()`, or a path.

    Raises:
        TaskError: naming every mistake in the file, or the nearest library task.
    """
    if ref in library() or ref in hub_library():
        text = _folder().joinpath(*f"{ref}.yaml".split("/")).read_text(encoding="utf-8")
        return parse_task(text, where=f"{ref}.yaml (library)", folder=None)
    path = Path(ref)
    named = ref.startswith("hub/") or not re.search(r"[/\\]|\.ya?ml$", ref)
    if not path.is_file() and named and not ref.endswith((".yaml", ".yml")):
        known = (*library(), *hub_library())
        raise TaskError(
            f"there is no library task {ref!r}",
            allowed=", ".join(known),
            nearest=nearest(ref, known),
            fix="for a task file of your own give its path, ending in .yaml",
        )
    text = read_text(path, error=TaskError)
    return parse_task(text, where=str(path), folder=path.absolute().parent)


@cache
def library() -> tuple[str, ...]:
    """Name the tasks that come with instil and run from packages, sorted."""
    return _named(_folder())


@cache
def hub_library() -> tuple[str, ...]:
    """Name the tasks for well-known data sets of the hub, sorted: `hub/imdb`."""
    return tuple(f"hub/{name}" for name in _named(_folder().joinpath("hub")))


def _named(folder: resources.abc.Traversable) -> tuple[str, ...]:
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def parse_task(text: str, *, where: str, folder: Path | None) -> Task:
    """Turn a task file's text into a task.

    Args:
        text: YAML.
        where: The file's name, for messages.
        folder: The folder that a relative path in `source` starts from; None leaves it relative.

    Raises:
        TaskError: with every mistake, each with its line.
    """
    file = parse_yaml(text, where=where, error=TaskError)
    if not isinstance(file.data, dict):
        fix = "start with `id:`, `source:`, `text:`, `target:` and `templates:`"
        raise TaskError("this is not a task file", where=where, fix=fix)
    data = dict(file.data)
    if isinstance(data.get("source"), str):
        data["source"] = {"uri": data["source"]}
    entries = data.get("templates")
    if isinstance(entries, dict) and "from" in entries:
        entries = [entries]
    listed: list[object] = entries if isinstance(entries, list) else []
    foreign = {n: e for n, e in enumerate(listed) if isinstance(e, dict) and "from" in e}
    if foreign:  # each has a form of its own; until it is read a template stands in its place
        data["templates"] = [_STAND_IN if n in foreign else e for n, e in enumerate(listed)]
    form = validate(TaskForm, data, place=file.place, error=TaskError)
    if form.labels and not form.choices:
        form = form.model_copy(update={"choices": tuple(form.labels.values())})
    templates, numbers = list[Template](), list[int]()
    for number, own in enumerate(form.templates):
        taken = [_template(own, form)]
        if number in foreign:
            loc = ("templates", number)
            taken = _taken(foreign[number], form, file, loc=loc, folder=folder)
        templates += taken
        numbers += [number] * len(taken)
    task = _task(form, templates, folder=folder)
    problems = [*_source_problems(task, file), *_task_problems(task, file, numbers)]
    problems += [
        *_field_problems(task, file),
        *_template_problems(task, file, numbers, set(foreign)),
    ]
    if problems:
        raise TaskError(*problems)
    return task


def _taken(
    entry: dict[str, object], task: TaskForm, file: YamlFile, *, loc: Loc, folder: Path | None
) -> list[Template]:
    """Read the collection that an entry of `templates` names."""
    form = validate(
        Collection, entry, place=lambda inner: file.place((*loc, *inner)), error=TaskError
    )
    path = (folder or Path()) / os.path.expanduser(form.from_)
    try:
        return read_collection(form.model_copy(update={"from_": str(path)}), _question(task))
    except TaskError as error:
        place, problems = file.place(loc), error.problems
        places = [f"{place} ({p.where})" if p.where else place for p in problems]
        told = (replace(p, where=w) for p, w in zip(problems, places, strict=True))
        raise TaskError(*told) from None


def find_template(task: Task, id: str) -> Template:
    """Return the task's template of that id; TaskError names the nearest."""
    for template in task.templates:
        if template.id == id:
            return template
    ids = [template.id for template in task.templates]
    what = f"task {task.id!r} has no template {id!r}"
    raise TaskError(what, allowed=", ".join(ids), nearest=nearest(id, ids))


def _folder() -> resources.abc.Traversable:
    return resources.files("instil.library")


def _task(form: TaskForm, templates: Sequence[Template], *, folder: Path | None) -> Task:
    source, uri = form.source, form.source.uri
    if folder is not None and uri.startswith((_SQLITE, _HUB)):
        scheme, _, path = uri.partition(":")
        if scheme == "sqlite" or path.startswith("."):
            uri = f"{scheme}:{folder / os.path.expanduser(path)}"
    elif folder is not None and (not _SCHEME.match(uri) or (folder / uri).exists()):
        uri = str(folder / os.path.expanduser(uri))
    own = {
        "cluster": form.cluster or form.id,
        "source": SourceSpec(**{**dict(source), "uri": uri}),
        "templates": tuple(templates),
        "metric": form.metric or ("accuracy" if form.choices else ""),
    }
    return Task(**{**dict(form), **own})


def _question(form: TaskForm) -> Question:
    return Question(form.text, form.target, form.choices)


def _template(form: TemplateForm, task: TaskForm) -> Template:
    choices, target = form.choices, form.target
    if form.role is Role.ANSWER:
        choices = task.choices if choices is None else choices
        target = answer_target(_question(task), choices) if target is None else target
    texts = {"prompt": form.prompt, "target": target or "", "system": form.system}
    own = {name: text.strip() for name, text in texts.items()}
    return Template(**{**dict(form), **own, "choices": choices or ()})


def _source_problems(task: Task, file: YamlFile) -> Iterator[Problem]:
    source, place = task.source, file.place(("source", "uri"))
    scheme = _SCHEME.match(source.uri)
    if scheme and scheme[0] not in (*_PACKAGES, _SQLITE, _HUB, _MADE):
        allowed = (
            "a path, hub:OWNER/NAME, sqlite:PATH?query=SELECT ..., made:NAME, "
            "pypi:NAME==VERSION/path/in/the/archive or npm:NAME@VERSION/path/in/the/archive"
        )
        fix = "download the file, and name it here"
        what = "unknown kind of source"
        yield Problem(what, where=place, found=source.uri, allowed=allowed, fix=fix)
    if scheme and scheme[0] in _PACKAGES and not source.sha256:
        fix = "add `sha256:`, the hash of the archive, so that everybody gets the same rows"
        yield Problem("a package needs its hash", where=place, found=source.uri, fix=fix)
    for encoding in map(str.strip, source.encoding.split(",")):
        try:
            "".encode(encoding)
        except (LookupError, ValueError):  # ValueError: a zero byte in the name
            place = file.place(("source", "encoding"))
            allowed = "utf-8, cp1252, latin-1, utf-16 ... or several to try in turn"
            yield Problem("unknown encoding", where=place, found=encoding, allowed=allowed)


def _task_problems(task: Task, file: YamlFile, numbers: Sequence[int]) -> Iterator[Problem]:
    if task.choices and (len(task.choices) < 2 or len(set(task.choices)) < len(task.choices)):
        what, found = "choices must be two or more, each different", ", ".join(task.choices)
        yield Problem(what, where=file.place(("choices",)), found=found)
    first: dict[str, str] = {}
    for value, word in task.labels.items():
        if word in first:
            what = f"the values {first[word]!r} and {value!r} have the same word, {word!r}"
            fix = "give each value a word of its own, or join the values by a field"
            yield Problem(what, where=file.place(("labels", value)), fix=fix)
        first.setdefault(word, value)
    if task.labels and set(task.choices) != set(first):
        yield Problem(
            "`choices` are not the words of `labels`",
            where=file.place(("choices",)),
            found=", ".join(task.choices),
            allowed=", ".join(first),
            fix="leave `choices` out: the words of `labels` are the choices, in their order",
        )
    place = file.place(("metric",))
    if task.metric not in METRICS:
        what = "unknown metric" if task.metric else "a task of free text needs a `metric`"
        close, allowed = nearest(task.metric, METRICS), ", ".join(METRICS)
        yield Problem(what, where=place, found=task.metric, allowed=allowed, nearest=close)
    elif task.metric == "accuracy" and not task.choices:
        fix = "list the `choices`, or take exact_match, token_f1 or rougeL for free text"
        yield Problem("accuracy needs choices", where=place, found="accuracy", fix=fix)
    elif task.metric == "constraint" and not task.checks:
        fix = "name the field that lists the conditions of a row: `checks: conditions`"
        yield Problem("constraint needs `checks`", where=place, found="constraint", fix=fix)
    if task.references and any(t.choices for t in task.templates if t.role is Role.ANSWER):
        yield Problem(
            "`references` is for free text: of choices one is right",
            where=file.place(("references",)),
            found=task.references,
            fix="leave `references` out, or leave the choices out and take metric: exact_match",
        )
    ids = [template.id for template in task.templates]
    for number, name in enumerate(ids):
        if name in ids[:number]:
            place = file.place(("templates", numbers[number], "id"))
            fix = "rename one, or leave it out of a collection: skip: [...]"
            yield Problem(f"two templates have the id {name!r}", where=place, fix=fix)
    if not any(template.role is Role.ANSWER for template in task.templates):
        what = "no template has the role `answer`, the one that is judged"
        yield Problem(what, where=file.place(("templates",)))


def _field_problems(task: Task, file: YamlFile) -> Iterator[Problem]:
    """Check the expressions, and that each name is known where the columns are."""
    for name in task.fields:
        place = file.place(("fields", name))
        if not FIELD.fullmatch(name) or name in _RESERVED:
            fix = f"letters, digits and _, and none of {', '.join(sorted(_RESERVED))}"
            yield Problem(f"a field cannot be called {name!r}", where=place, fix=fix)
    columns = columns_of(task)
    known = set(columns or ())
    for name, source in task.fields.items():
        yield from _expression_problems(source, known if columns else None, file, ("fields", name))
        known.add(name)
    for key in ("where", "row_id", "group"):
        if source := getattr(task, key):
            yield from _expression_problems(source, known if columns else None, file, (key,))
    for key in ("text", "target", "references", "history", "tools", "calls", "checks"):
        name = getattr(task, key)
        if columns and name and name not in known:
            yield unknown_field(name, known, file.place((key,)))


def _expression_problems(
    source: str, known: set[str] | None, file: YamlFile, loc: Loc
) -> Iterator[Problem]:
    try:
        used = expression_names(source)
    except TaskError as error:
        yield from (replace(problem, where=file.place(loc)) for problem in error.problems)
        return
    for name in sorted(used - known) if known is not None else ():
        yield unknown_field(name, known or set(), file.place(loc))


def _template_problems(
    task: Task, file: YamlFile, numbers: Sequence[int], foreign: Set[int]
) -> Iterator[Problem]:
    for number, template in zip(numbers, task.templates, strict=True):
        for flaw in flaws(template, task):
            place = file.place(("templates", number, flaw.part))
            what = f"template {template.id!r}: {flaw.problem.what}"
            told = replace(flaw.problem, what=what, where=place)
            if number in foreign:  # a collection is not to be edited
                told = replace(told, fix=f"leave it out: skip: [{json.dumps(template.id)}]")
            yield told
    for first, second in alike(task.templates):
        if first.id == second.id:
            continue  # told already
        number = numbers[task.templates.index(second)]
        what = f"templates {first.id!r} and {second.id!r} say the same"
        fix = "leave one out, or word it differently"
        yield Problem(what, where=file.place(("templates", number)), fix=fix)
