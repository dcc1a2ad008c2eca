"""Predictions of a run's model for a text, or for new rows of its task.

Tests: `tests/test_pipeline.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from instil.compare.verdict import needed_sentence
from instil.config.recipe import load_recipe
from instil.data.build import history, longest_text, prompt_turn, tools
from instil.data.registry import plain, word_of
from instil.data.sources.source import read_table
from instil.data.write import as_csv
from instil.errors import DataError, Problem, RunError, TaskError, nearest
from instil.files import file_sha256, write_whole
from instil.results.names import TUNED
from instil.results.probabilities import Fitted
from instil.ship.shipped import load_run_model
from instil.ship.underway import Underway
from instil.stages.origins import template_origins
from instil.stages.runfiles import (
    RECIPE,
    SUMMARY,
    load_manifest,
    load_probabilities,
    load_summary,
    load_tasks,
    require_same,
)
from instil.tasks.task import find_template, load_task
from instil.tasks.template import OverBudgetError, evaluate, render
from instil.types import Example, Message, Prediction, Role, SourceSpec, Task, Template, TooLong

if TYPE_CHECKING:
    from instil.evaluate.choices import OnDone
    from instil.model.load import LoadedModel, Say

_AS_FILE = "write it to a file of rows: --rows FILE --encoding NAME"
SHOWN = 5
"""Mistakes of one kind that a message lists."""
PART = 2048
"""Rows that are answered together; those of a larger file are kept part by part."""
ANSWER_TOKENS = 256
"""Longest answer to a prompt or in a conversation, in tokens."""


def predict_text(folder: Path, text: str, *, template: str = "", raw: bool = False) -> Prediction:
    """Let a run's tuned model answer one text.

    Args:
        folder: A finished run.
        text: The input text of a row; with `raw` the whole prompt.
        template: As in `predict_file`.
        raw: Send the text as it stands, and generate the answer.

    Raises:
        RunError: The folder is no finished run, the text is empty, or it is not clear which task
            of the run is meant.
        TaskError: The template asks for more than a text.
    """
    if not text.strip():
        raise RunError("the text is empty", fix="instil predict RUN 'your text'")
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise RunError("the text is not UTF-8", found=text, fix=_AS_FILE)
    load_summary(folder)
    if raw:
        example = Example("prompt", "", "", "", "", (Message("user", text.strip()),), "")
        limit = usual_answer(folder)
    else:
        asked = _asking(folder, template)
        fields = _derived(asked, {asked.task.text: text.strip()}, where="the text")
        example = _ask(asked, fields, 1, where="the text")
        limit = asked.task.max_new_tokens
    loaded = load_run_model(folder)
    require_room(loaded, {"the text": example.messages})
    return _all_answers(loaded, [example], limit)[0]


def usual_answer(folder: Path) -> int:
    """Return how many tokens an answer has at most, where nobody says: the most of its tasks."""
    tasks = load_summary(folder).tasks
    return max(ANSWER_TOKENS, *(task.max_new_tokens for task in tasks))


def require_room(loaded: LoadedModel, asked: Mapping[str, Sequence[Message]]) -> None:
    """Refuse prompts that leave the model no room for an answer.

    Args:
        loaded: The model.
        asked: The place of each prompt -> its turns.

    Raises:
        DataError: Prompts that are longer than the model's context; the first few of them.
    """
    from instil.model.soundness import context_length

    longest, _ = context_length(loaded.folder.path)
    counts = {where: len(loaded.chat.prompt(turns)) for where, turns in asked.items()}
    over = {where: count for where, count in counts.items() if longest and count >= longest}
    if over:
        raise DataError(
            *(
                Problem(
                    f"{count:,} tokens with the template around it, and the model takes {longest}",
                    where=where,
                    fix="shorten the text",
                )
                for where, count in list(over.items())[:SHOWN]
            ),
            *([Problem(f"and {len(over) - SHOWN} more")] if len(over) > SHOWN else []),
        )


@dataclass(frozen=True, slots=True)
class Predicted:
    """A file of predictions."""

    path: Path
    """Where it lies."""
    rows: int
    """How many rows are in it."""
    empty: tuple[str, ...] = ()
    """The places of rows with an empty text, which were answered all the same."""
    formulas: int = 0
    """Cells of a table that a spreadsheet would compute; they are written as they are."""
    unanswered: int = 0
    """Rows without an answer, not being sure enough for the wanted error."""
    shortened: int = 0
    """Rows longer than the model's context, of which the text was cut as it was in the run."""


def predict_file(
    folder: Path,
    *,
    rows: Path,
    out: Path,
    template: str = "",
    encoding: str = "",
    max_error: float | None = None,
    on_rows: OnDone = lambda _: None,
    on_done: OnDone = lambda _: None,
    say: Say = lambda _: None,
) -> Predicted:
    """Answer every row of a file, and write each with its columns and the prediction.

    Rows need no label. For a task with choices the line also has the probability of each and, where
    the task's `labels` or the template have other words for the values of the data, the value as
    `prediction_value`.

    Args:
        folder: A finished run.
        rows: CSV, TSV, JSON, JSONL or Parquet with the columns of the run's task.
        out: Where they go; appears whole or not at all. By its ending `.csv` (or `.tsv`) a table,
            else JSON Lines.
        template: A template's id, or `task/template` in a run of several tasks; empty: the one
            the run was judged with.
        encoding: Of a text file; empty: UTF-8 where all of the file is, else that of the task's
            own rows.
        max_error: Answer only rows that are sure enough for this share of wrong answers among those
            given, as the validation rows show with 95 % confidence; the others' prediction is
            empty, and `unanswered` says why. None: every row is answered.
        on_rows: Called with the number of rows, before any is answered.
        on_done: Called with the number of rows answered, more and more.
        say: Shows one line: how many were answered before. More than `PART` rows are looked at
            first, then answered part by part, and kept beside `out` until it is written.

    Raises:
        RunError: The folder is no finished run, it is not clear which task is meant, or no
            threshold keeps to `max_error`.
        DataError: The file cannot be read, or has a column that a prediction would take the
            place of.
        TaskError: It lacks a column that the template asks for.
    """
    asked = _asking(folder, template)
    own = asked.task.source.encoding  # text that is valid UTF-8 is nothing else
    usual = own if own.lower().startswith("utf") else f"utf-8, {own}"
    source = SourceSpec(str(rows), encoding=encoding or usual)
    places, columns = zip(*read_table(source, waiting=True), strict=True)
    names = {name for row in columns for name in row}
    written = {"prediction", "prediction_value", "probabilities", "stopped", "shortened"}
    taken = sorted(names & (written if max_error is None else {*written, "unanswered"}))
    if taken:
        raise DataError(
            *(
                Problem(
                    f"the rows have a column {name!r} already, which a prediction would replace",
                    where=str(rows),
                    fix="rename the column, or take it out",
                )
                for name in taken
            )
        )
    at_least = None if max_error is None else _at_least(folder, asked, max_error)
    on_rows(len(columns))
    rendered = _examples(asked, columns[:PART], places[:PART])
    loaded = load_run_model(folder)
    ask = partial(_answered, asked, at_least=at_least, loaded=loaded, on_done=on_done)
    if len(columns) <= PART:
        answered = ask(places, *rendered)
    else:
        read = hashlib.sha256()  # not of the file: it may be a folder, or in an archive
        for place, row in zip(places, columns, strict=True):
            read.update(repr((place, row)).encode("utf-8", "surrogatepass"))
        key = {
            "run": load_manifest(folder)["run_id"],
            "model": file_sha256(folder / SUMMARY),
            "rows": read.hexdigest(),
            "template": asked.template.id,
            "max_error": max_error,
        }
        underway = Underway(out, key=key)
        pairs = zip(underway.done, places, strict=False)
        underway.keep(sum(1 for _ in takewhile(lambda pair: pair[0]["place"] == pair[1], pairs)))
        answered = [_Answered(**each) for each in underway.done]
        if answered:
            say(f"{len(answered):,} of {len(columns):,} rows have been answered before")
            on_done(len(answered))
        begins = range(len(answered), len(columns), PART)
        parts = [slice(begin, begin + PART) for begin in begins]
        for part in parts:  # whatever would stop it is told before the hours of answering
            _, examples = _examples(asked, columns[part], places[part])
            asking = zip(places[part], _fitted(asked, examples, loaded), strict=True)
            require_room(loaded, {place: example.messages for place, example in asking})
        for part in parts:
            more = ask(places[part], *_examples(asked, columns[part], places[part]))
            underway.add([asdict(each) for each in more])
            answered += more
    lines = [{**c, **a.answer} for c, a in zip(columns, answered, strict=True)]
    empty = tuple(a.place for a in answered if a.is_empty)
    unanswered = sum(bool(a.answer.get("unanswered")) for a in answered)
    cut = sum(a.is_shortened for a in answered)
    delimiter = _DELIMITERS.get(out.suffix.lower())
    if delimiter is None:
        text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in lines)
        write_whole(out, text.encode())
    else:
        write_whole(out, _as_table(lines, delimiter).encode())
    if len(columns) > PART:
        underway.remove()
    if delimiter is None:
        return Predicted(out, len(lines), empty, unanswered=unanswered, shortened=cut)
    # What a spreadsheet takes for a formula; a number with a sign is none.
    texts = (value for row in lines for value in row.values() if isinstance(value, str))
    formulas = sum(bool(_FORMULA.match(text)) for text in texts)
    return Predicted(out, len(lines), empty, formulas, unanswered, cut)


def predict_rows(
    folder: Path,
    rows: Sequence[Mapping[str, object] | str],
    *,
    template: str = "",
    max_error: float | None = None,
    loaded: LoadedModel | None = None,
) -> list[dict[str, object]]:
    """Answer rows, each a mapping with the columns of the run's task, or its text alone.

    Args:
        folder: A finished run.
        rows: What to answer.
        template: As in `predict_file`.
        max_error: As in `predict_file`.
        loaded: The run's model as `load_run_model` returned it; None: it is loaded.

    Returns:
        For each row `prediction`; with choices also `probabilities` and, where the data have other
        values than these words, `prediction_value`; with `max_error` also `unanswered`; without
        choices `stopped`; `shortened` where the text was longer than the model's context.

    Raises:
        RunError, DataError, TaskError: As `predict_file`.
    """
    asked = _asking(folder, template)
    if not rows:
        return []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, (str, Mapping)):
            raise DataError(
                "this is neither a text nor a row with its columns",
                where=f"row {number}",
                found=f"{row!r} ({type(row).__name__})",
                fix="give texts, or mappings of column to value",
            )
    columns = [{asked.task.text: row} if isinstance(row, str) else row for row in rows]
    places = [f"row {number}" for number in range(1, len(rows) + 1)]
    at_least = None if max_error is None else _at_least(folder, asked, max_error)
    rendered = _examples(asked, columns, places)
    loaded = loaded or load_run_model(folder)
    answered = _answered(asked, places, *rendered, at_least=at_least, loaded=loaded)
    return [a.answer for a in answered]


@dataclass(frozen=True, slots=True)
class _Answered:
    """A row's answer."""

    place: str
    answer: dict[str, object]
    is_empty: bool
    """Whether the row has an empty text."""
    is_shortened: bool = False
    """Whether the model was given a part of the text alone."""


def _examples(
    asked: _Asking, columns: Sequence[Mapping[str, object]], places: Sequence[str]
) -> tuple[list[Mapping[str, object]], list[Example]]:
    """Return the fields of rows, and what is asked of them."""
    fields = [_derived(asked, c, where=place) for place, c in zip(places, columns, strict=True)]
    examples = [
        _ask(asked, each, number, where=place)
        for number, (place, each) in enumerate(zip(places, fields, strict=True), start=1)
    ]
    return fields, examples


def _answered(
    asked: _Asking,
    places: Sequence[str],
    fields: Sequence[Mapping[str, object]],
    examples: Sequence[Example],
    *,
    at_least: float | None,
    loaded: LoadedModel,
    on_done: OnDone = lambda _: None,
) -> list[_Answered]:
    """Let the model answer rows together."""
    fitted = _fitted(asked, examples, loaded)
    require_room(loaded, {p: e.messages for p, e in zip(places, fitted, strict=True)})
    predictions = _all_answers(loaded, fitted, asked.task.max_new_tokens, on_done=on_done)
    text = asked.task.text
    return [
        _Answered(
            place,
            _answer_fields(asked, e, p, at_least=at_least)
            | ({} if e is whole else {"shortened": True}),
            text in own and not plain(own[text]),
            e is not whole,
        )
        for place, own, whole, e, p in zip(
            places, fields, examples, fitted, predictions, strict=True
        )
    ]


def _all_answers(
    loaded: LoadedModel,
    examples: Sequence[Example],
    limit: int,
    *,
    on_done: OnDone = lambda _: None,
) -> list[Prediction]:
    """Answer examples; what is written of one with little room ends where the context does."""
    from instil.evaluate.suite import answer
    from instil.model.soundness import context_length

    longest = context_length(loaded.folder.path)[0] if loaded else 0
    room = [limit] * len(examples)
    if longest and not loaded.chat.encoder_decoder:
        left = (longest - len(loaded.chat.prompt(e.messages, tools=e.tools)) for e in examples)
        room = [
            min(limit, each) if not e.choices else limit
            for e, each in zip(examples, left, strict=True)
        ]
    made: dict[int, Prediction] = {}
    for tokens in sorted({*room}, reverse=True):
        alike = [n for n, each in enumerate(room) if each == tokens]
        asked = [examples[n] for n in alike]
        found = answer(loaded, asked, max_new_tokens=tokens, on_done=on_done)
        made |= dict(zip(alike, found, strict=True))
    return [made[n] for n in range(len(examples))]


def _fitted(asked: _Asking, examples: Sequence[Example], loaded: LoadedModel) -> list[Example]:
    """Shorten what is longer than the model's context, where the run shortens such rows."""
    if not asked.shortens:
        return [*examples]
    from instil.encode.mask import shorten
    from instil.model.soundness import context_length

    longest, _ = context_length(loaded.folder.path)
    fitted = []
    for example in examples:
        room = loaded.chat.answer_room(example, max_new_tokens=asked.task.max_new_tokens)
        over = longest and sum(room) > longest
        shorter = shorten(example, loaded.chat, max_tokens=longest - room[1]) if over else example
        fitted.append(shorter or example)
    return fitted


_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,]+\s*%?\Z)")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def _as_table(rows: Sequence[Mapping[str, object]], delimiter: str) -> str:
    """Write rows as CSV; a list or a mapping (the probabilities of choices) goes in as JSON."""
    cells = [
        {
            name: json.dumps(value, ensure_ascii=False, default=str)
            if isinstance(value, list | dict)
            else value
            for name, value in row.items()
        }
        for row in rows
    ]
    return as_csv(cells, delimiter=delimiter)


@dataclass(frozen=True, slots=True)
class _Asking:
    """What rows are asked."""

    task: Task
    template: Template
    fitted: Fitted | None
    """What was fitted on validation, asked through this template; None: nothing was."""
    shortens: bool = False
    """Whether rows that are too long are shortened (`train.too_long`)."""


def _asking(folder: Path, wanted: str) -> _Asking:
    results = {result.task: result for result in load_summary(folder).tasks}
    tasks = kept = load_tasks(folder)
    if not kept:
        used = (load_task(use.use) for use in load_recipe(folder / RECIPE).tasks)
        tasks = {task.id: task for task in used}
    name, _, template = wanted.rpartition("/")
    if not name and len(tasks) > 1:
        raise RunError(
            "this run has several tasks: say which one the rows belong to",
            allowed=", ".join(f"{task}/TEMPLATE" for task in tasks),
            fix="--template TASK/TEMPLATE",
        )
    name = name or next(iter(tasks))
    if name not in tasks:
        raise RunError(f"the run has no task {name!r}", allowed=", ".join(tasks))
    if not kept:
        asked = template_origins(tasks[name])
        require_same(folder, asked, which=asked.__contains__)
    judged = next(arm.template for arm in results[name].arms if arm.name == TUNED)
    template = template or judged
    fitted = load_probabilities(folder).get(name)
    own = fitted if fitted and fitted.template == template else None
    shortens = load_recipe(folder / RECIPE).train.too_long is TooLong.SHORTEN
    return _Asking(tasks[name], find_template(tasks[name], template), own, shortens)


def _at_least(folder: Path, asked: _Asking, max_error: float) -> float:
    """Return the probability from which on rows are answered.

    Raises:
        RunError: There is none for this error, task or template.
    """
    from instil.compare.probabilities import smallest_error, threshold

    if not 0 < max_error < 1:
        raise RunError(
            "a wanted error is a share of the answers",
            where="max_error",
            found=f"{max_error:g}",
            allowed="more than 0, less than 1: 0.05 is 5 %",
        )
    if not asked.task.choices:
        what = f"the task {asked.task.id} has no choices, so that its answers have no probabilities"
        raise RunError(what, where="max_error", fix="leave it out")
    if asked.fitted is None:
        known = load_probabilities(folder).get(asked.task.id)
        if known:
            raise RunError(
                "a wanted error is kept to only through the template that the run was judged with",
                where=str(folder),
                found=asked.template.id,
                allowed=known.template,
                fix="leave the template out",
            )
        raise RunError(
            "this run was made by an earlier version of instil, which kept no probabilities of "
            "validation rows",
            where=str(folder),
            fix="make the run anew",
        )
    found = threshold(asked.fitted, max_error=max_error)
    if found.at_least is None:
        least = smallest_error(asked.fitted)
        more = f"; or allow more: {least:g} is the least that these rows show" if least else ""
        rows = len(asked.fitted.sure)
        raise RunError(
            f"{rows:,} validation rows show no threshold that keeps the share of wrong answers "
            "to the wanted one with 95 % confidence",
            where=str(folder),
            found=f"{max_error:g}",
            fix=f"{needed_sentence(found.needed)}{more}",
        )
    return found.at_least


def _derived(asked: _Asking, columns: Mapping[str, object], *, where: str) -> Mapping[str, object]:
    """The columns of a row and the fields that can be computed from them.

    Raises:
        DataError: The text is none of them.
    """
    fields = dict(columns)
    for name, expression in asked.task.fields.items():
        try:
            fields[name] = evaluate(expression, fields, where=where)
        except OverBudgetError:
            raise
        except TaskError:
            continue  # it is computed from the label, which these rows need not have
    text = asked.task.text
    known = text in fields or text in asked.task.fields  # else what it is made of is told
    if not known and asked.template.role is not Role.INVERTED:
        raise DataError(
            f"there is no column {text!r}, which the task reads as its text",
            where=where,
            found=", ".join(columns),
            nearest=nearest(text, columns),
            fix=f"call the column {text!r}",
        )
    if fields.get(text, "") is None:
        fields[text] = ""
    word = word_of(fields.get(asked.task.target), asked.task.labels)
    return {**fields, asked.task.target: word} if word else fields


def _ask(asked: _Asking, fields: Mapping[str, object], number: int, *, where: str) -> Example:
    task, template = asked.task, asked.template
    if template.role is Role.INVERTED and task.target not in fields:
        raise DataError(
            f"the template {template.id} asks from the answer",
            where=where,
            found=", ".join(fields),
            fix=f"give the column {task.target!r}",
        )
    choices = tuple(render(choice, fields, where=where) for choice in template.choices)
    scope = {"choices": list(choices), **fields}
    turns = [Message("system", render(template.system, scope, where=where))]
    turns = turns if template.system else []
    turns = [turn for turn in turns if turn.content]
    turns += history(task, template, fields, where=where)
    prompt = prompt_turn(task, template, fields, render(template.prompt, scope, where=where))
    return Example(
        str(number),
        task.id,
        template.id,
        str(number),
        "",
        (*turns, prompt),
        "",
        choices,
        text=longest_text(task, template, fields, prompt.content),
        tools=tools(task, template, fields, where=where),
    )


def _answer_fields(
    asked: _Asking, example: Example, prediction: Prediction, *, at_least: float | None
) -> dict[str, object]:
    import numpy as np

    from instil.stats.calibration import softmax

    if not example.choices:
        return {"prediction": prediction.text, "stopped": prediction.stopped}
    task, temperature = asked.task, asked.fitted.temperature if asked.fitted else 1.0
    scores = np.array([prediction.choice_scores])
    shares = softmax(scores, temperature=temperature)[0].tolist()
    values = {word: value for value, word in task.labels.items()}
    # The place of a choice is its class, in a template that asks the task's own question.
    own = asked.template.role is Role.ANSWER and len(example.choices) == len(task.choices)
    reworded = own and (task.labels or example.choices != task.choices)
    word = task.choices[example.choices.index(prediction.text)] if reworded else ""
    why = ""
    if at_least is not None and max(shares) < at_least:
        why = f"probability {max(shares):.4f}, answered from {at_least:.4f} on"
    return {
        "prediction": "" if why else prediction.text,
        **({"prediction_value": "" if why else values.get(word, word)} if word else {}),
        **({} if at_least is None else {"unanswered": why}),
        "probabilities": {
            choice: round(share, 4) for choice, share in zip(example.choices, shares, strict=True)
        },
    }
