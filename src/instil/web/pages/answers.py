"""The page of a run's answers: every test row with what each arm said, filtered; wrong labels.

A row whose label is wrong can be marked. The marks go to `TASK.labels.jsonl` beside the task file,
which `instil correct` turns into a corrected file of rows.

Tests: `tests/web/test_runs.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from instil.config.recipe import load_recipe
from instil.data.correct import Mark, add_mark, load_marks, marks_file
from instil.data.registry import load_rows
from instil.data.split import load_splits, part_rows
from instil.errors import InstilError
from instil.results.names import PROMPTING, TUNED, ZERO_SHOT
from instil.scoring.metrics import NATS, find_metric
from instil.stages.origins import row_origins
from instil.stages.runfiles import RECIPE, SPLITS, load_scores, load_summary, require_same
from instil.tasks.task import load_task
from instil.types import Part, Row, Task
from instil.web.jobs import command_line
from instil.web.pages.runs import TABS, run_folder
from instil.web.pages.start import summary_of
from instil.web.site import Site, aside, form, here, number, once, picked, told

ROWS = 20
"""Rows a page."""
OUTCOMES = {
    "": "all answers",
    "wrong": "wrong",
    "right": "right",
    "mended": "right, where prompting was wrong",
    "broken": "wrong, where prompting was right",
}
"""What is shown -> in words."""
ORDERS = {
    "": "as they were tested",
    "sure": "the surest first",
    "unsure": "the least sure first",
}
CERTAINTIES = {"": "any", "above": "90 % sure and more", "below": "less than 60 % sure"}
GUARD = "guard"
"""What stands in place of a task for the guard's rows."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one arm answered."""

    text: str
    """The answer."""
    value: float | None
    """Its score; None: it could not be scored."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A test row with all answers."""

    row: str
    """Its id."""
    target: str
    """The right answer."""
    template: str
    """The one that the tuned model was asked with."""
    sure: float | None
    """The tuned model's probability of its answer; None where there are no choices."""
    said: Mapping[str, Said]
    """Arm -> what it answered."""

    @property
    def right(self) -> bool:
        """Whether the tuned model is right; with scores between 0 and 1, wholly right."""
        return _right(self.said.get(TUNED))

    @property
    def right_by_prompting(self) -> bool:
        """Whether the best prompt is right."""
        return _right(self.said.get(PROMPTING))


def _right(said: Said | None) -> bool:
    return said is not None and said.value is not None and said.value >= 1


def answers(folder: Path, task: str) -> list[Answered]:
    """Return a task's test rows with all answers, in the order of the file of scores."""
    rows: dict[str, dict[str, Any]] = {}
    known = next((t.probabilities for t in load_summary(folder).tasks if t.task == task), None)
    heat = known.temperature if known else 1.0
    for line in load_scores(folder, f"test-{task}"):
        row = rows.setdefault(line["row"], {"said": {}, "target": line["target"]})
        row["said"].setdefault(line["arm"], Said(line["prediction"], line["value"]))
        if line["arm"] == TUNED:
            scores = line["choice_scores"]
            row |= {"template": line["template"], "target": line["target"]}
            # The largest of the softmax.
            shares = [exp((each - max(scores)) / heat) for each in scores]
            row["sure"] = 1 / sum(shares) if shares else None
    return [
        Answered(id, row["target"], row.get("template", ""), row.get("sure"), row["said"])
        for id, row in rows.items()
    ]


def answers_of(site: Site, folder: Path, task: str) -> list[Answered]:
    """Return a task's test rows with all answers, read once."""
    scores = folder / "scores" / f"test-{task}.jsonl"
    return once(site, "answers", scores, lambda _: answers(folder, task))


@dataclass(frozen=True, slots=True)
class Filter:
    """What is shown."""

    outcome: str = ""
    target: str = ""
    said: str = ""
    template: str = ""
    sure: str = ""
    order: str = ""

    def of(self, answered: Sequence[Answered]) -> list[Answered]:
        """Return the rows that are asked for, in the order that is asked for."""
        wanted = [
            each
            for each in answered
            if self.target in ("", each.target)
            and self.template in ("", each.template)
            and (not self.said or self.said == _text(each.said.get(TUNED)))
            and {
                "above": each.sure is not None and each.sure >= 0.9,
                "below": each.sure is not None and each.sure < 0.6,
            }.get(self.sure, True)
            and {
                "wrong": not each.right,
                "right": each.right,
                "mended": each.right and not each.right_by_prompting,
                "broken": not each.right and each.right_by_prompting,
            }.get(self.outcome, True)
        ]
        if self.order:
            sign = -1 if self.order == "sure" else 1
            wanted.sort(key=lambda each: sign * (each.sure if each.sure is not None else 0.5))
        return wanted


def _text(said: Said | None) -> str:
    return said.text if said else ""


def _task(folder: Path, name: str) -> tuple[Task | None, Path | None]:
    """Return a task of the run, and its file where it is the user's own.

    None, where it is gone or cannot be read.
    """
    for use in load_recipe(folder / RECIPE).tasks:
        with contextlib.suppress(InstilError):
            task, path = load_task(use.use), Path(use.use)
            if task.id == name:
                return task, path if path.is_file() else None
    return None, None


def _rows(site: Site, folder: Path, task: Task | None) -> Mapping[str, Row]:
    """Return a task's test rows by id; none where they are not what the run was judged on."""
    if task is None:
        return {}

    def read(_: Path) -> Mapping[str, Row]:
        with contextlib.suppress(InstilError):
            (split,) = (each for each in load_splits(folder / SPLITS) if each.task == task.id)
            loaded = load_rows(task).rows
            *others, test = (part_rows(split, loaded, part) for part in Part)
            now = row_origins(task, [*chain(*others), *test])
            require_same(folder, now, which=now.__contains__)
            return {row.id: row for row in test}
        return {}

    source = Path(task.source.uri)
    changed = source.stat().st_mtime_ns if source.is_file() else 0
    return once(site, "rows", folder / RECIPE, read, how=(repr(task), changed))


async def show(request: Request) -> Response:
    """`GET /answers/{name}`: a page of rows."""
    site, asked = here(request), request.query_params
    folder, name = run_folder(request)
    kept = {
        each: asked.get(each, "")
        for each in ("outcome", "target", "said", "template", "sure", "order")
    }
    first = number(asked.get("from", ""))

    def look() -> Response:
        summary = summary_of(site, folder)
        tasks = {task.task: task for task in summary.tasks}
        common: dict[str, Any] = {
            "name": name,
            "tab": "answers",
            "tabs": TABS,
            "page": ROWS,
            "first": first,
        }
        if asked.get("task") == GUARD:
            return _guard(site, folder, list(tasks), common)
        task = picked(tasks, asked.get("task", ""))
        answered = answers_of(site, folder, task)
        wanted = Filter(**kept).of(answered)
        known, file = _task(folder, task)
        rows = _rows(site, folder, known)
        marked = load_marks(marks_file(file)) if file else {}
        texts = {id: str(row.fields[known.text]) for id, row in rows.items()} if known else {}
        labels = {id: str(row.fields[known.target]) for id, row in rows.items()} if known else {}
        lines = [
            (each, texts.get(each.row, ""), labels.get(each.row, each.target), marked.get(each.row))
            for each in wanted[first : first + ROWS]
        ]
        command = ""
        if file and marked:
            names = [_name(site, path) for path in (file, marks_file(file))]
            command = command_line(["correct", *names, f"{task}.corrected.csv"])
        return site.page(
            "answers.html.jinja",
            **common,
            task=task,
            tasks=[*tasks, *([GUARD] if summary.forgetting else [])],
            lines=lines,
            count=len(wanted),
            all=len(answered),
            kept=kept,
            outcomes=OUTCOMES,
            orders=ORDERS,
            certainties=CERTAINTIES,
            targets=_few(each.target for each in answered),
            saids=_few(_text(each.said.get(TUNED)) for each in answered),
            templates=_few(each.template for each in answered),
            arms=[
                (ZERO_SHOT, "base, zero-shot"),
                (PROMPTING, "base, best prompt"),
                (TUNED, "tuned"),
            ],
            choices=known.choices if known else (),
            rows=rows,
            can_mark=file is not None and bool(rows),
            marks=len(marked),
            line=command,
        )

    return await aside(look)


def _name(site: Site, path: Path) -> str:
    return site.workplace.name(path) if path.is_relative_to(site.workplace.folder) else str(path)


def _few(values: Any) -> list[str]:
    distinct = set(values)
    return sorted(distinct) if len(distinct) <= 100 else []


def _guard(site: Site, folder: Path, tasks: Sequence[str], common: Mapping[str, Any]) -> Response:
    """Return the guard's rows, the greatest losses of each metric first."""
    lines = once(
        site, "guard", folder / "scores" / "guard.jsonl", lambda _: load_scores(folder, "guard")
    )
    changed = sorted(
        (line for line in lines if None not in (line["before"], line["after"])),
        key=lambda line: (line["metric"] == NATS.name, line["metric"], _gain(line)),
    )
    first = common["first"]
    return site.page(
        "guard.html.jinja",
        **common,
        task=GUARD,
        tasks=[*tasks, GUARD],
        lines=changed[first : first + ROWS],
        count=len(changed),
    )


def _gain(line: Mapping[str, Any]) -> float:
    change: float = line["after"] - line["before"]
    return change if find_metric(line["metric"]).higher_is_better else -change


async def mark(request: Request) -> Response:
    """`POST /mark/{name}`: note that a row's label is wrong, what is right, or take that back."""
    site, said = here(request), await form(request)
    folder, name = run_folder(request)

    def write() -> Response:
        task, row = said.get("task", ""), said.get("row", "")
        asked, file = _task(folder, task)
        known = _rows(site, folder, asked).get(row)
        if asked is None or file is None or known is None:
            text = "The rows are not those that the run was judged on any more: mark a new run's."
            return site.page("message.html.jinja", status=400, title="Not marked", text=text)
        was = str(known.fields[asked.target])
        now = None if said.get("now") == "leave-out" else said.get("now", "")
        if now and (now == was or (asked.choices and now not in asked.choices)):
            text = f"{now} is {'its label already' if now == was else 'no label of the task'}."
            return site.page("message.html.jinja", status=400, title="Not marked", text=text)
        add_mark(marks_file(file), Mark(row, known.place, was, now))
        back = {key.removeprefix("back:"): v for key, v in said.items() if key.startswith("back:")}
        return site.go("answers", name, task=task, **back)

    try:
        return await aside(write)
    except InstilError as error:
        return site.page("message.html.jinja", status=400, title="Not marked", text=told(error)[0])
