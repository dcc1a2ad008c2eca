"""The test: every contender on the same rows, once, and the tuned one against each other.

Tests: `tests/compare/test_ladder.py`.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from instil.compare.halving import Standing, race
from instil.compare.ladder import Prompting, asking_order, standing
from instil.compare.pairing import compare_marked
from instil.data.prepare import TaskData
from instil.evaluate.baseline import ask_tfidf, tfidf_file, train_tfidf
from instil.evaluate.choices import CALIBRATED, RAW, OnDone
from instil.evaluate.metrics import macro_f1, per_class
from instil.evaluate.probe import ask_probe, probe_file, train_probe
from instil.evaluate.suite import GENERATED, Marked, answer, mark, merged
from instil.model.load import LoadedModel
from instil.results.names import PROBE, TFIDF, TUNED, TUNED_PROMPTED, ZERO_SHOT
from instil.results.prompts import TemplateScore
from instil.results.tasks import Arm, Costs, Mistake, Phrasings
from instil.types import Comparison, Row, Task, Template

MISTAKES = 20
CLASSIFIER = "classifier"
PROBE_ROWS = 5000
"""Training rows that the probe reads at most: more of them cost minutes and change little."""
# Beside the metric that decides, free-text arms are shown in these too.
FREE_TEXT_METRICS = ("exact_match", "token_f1", "rougeL", "chrf")


@dataclass(frozen=True, slots=True)
class Contender:
    """One arm on test: how it was asked, what it answered, how long that took."""

    name: str
    """tuned, prompting, zero_shot, tfidf or probe."""
    label: str
    """For people."""
    template: str
    """The template's id; empty for tfidf."""
    shots: int
    """Worked examples."""
    scoring: str
    """The scoring rule."""
    marked: Marked
    """Its answers, in the metric that decides."""
    seconds: float
    """To answer all rows."""
    making: float = 0.0
    """Seconds to train it, where that is a part of the test."""
    stored: int = 0
    """Bytes that it stores, beside the base model where that is needed."""


def ask(
    loaded: LoadedModel,
    data: TaskData,
    *,
    name: str,
    way: Prompting,
    scoring: str = "",
    rows: Sequence[Row],
    on_done: OnDone = lambda _: None,
) -> Contender:
    """Let a model answer rows in one way of asking.

    Args:
        loaded: The model.
        data: The task.
        name: Of the arm.
        way: Of asking.
        scoring: The scoring rule; empty: raw, or generated for free text.
        rows: Rows to answer.
        on_done: Called with the number of prompts finished.
    """
    scoring = scoring or (RAW if data.task.choices else GENERATED)
    examples = way.examples(data, rows)
    blank = way.blank(data, rows[0]) if scoring == CALIBRATED else None
    began = time.perf_counter()
    made = answer(
        loaded,
        examples,
        rule=scoring,
        blank=blank,
        max_new_tokens=data.task.max_new_tokens,
        on_done=on_done,
    )
    seconds = time.perf_counter() - began + way.seconds
    shots = way.shots
    rule = "" if scoring in (RAW, GENERATED) else f", {scoring}"
    prefix = {ZERO_SHOT: "base model, ", TUNED_PROMPTED: "tuned, "}.get(name, "")
    label = f"{prefix}{shots or 'zero'}-shot prompting{rule}"
    # The worked examples stand in front of the question.
    most = max(examples, key=lambda example: example.shots)
    shown = sum(len(message.content.encode()) for message in most.messages[:-1])
    return Contender(
        name,
        "tuned, zero-shot" if name == TUNED else label,
        way.template.id,
        shots,
        scoring,
        mark(examples, made, metric=data.task.metric),
        seconds,
        stored=max(shown, way.stored) if shots else 0,
    )


def ask_words(data: TaskData, template: Template, *, rows: Sequence[Row]) -> Contender:
    """Train TF-IDF and let it answer rows.

    Args:
        data: A task with choices.
        template: Its words for the choices.
        rows: Rows to answer.
    """
    examples = Prompting(template).examples(data, rows)
    began = time.perf_counter()
    classifier = train_tfidf(data.train, task=data.task)
    trained = time.perf_counter()
    made = ask_tfidf(classifier, rows, examples, task=data.task)
    return Contender(
        TFIDF,
        "TF-IDF + logistic regression",
        "",
        0,
        CLASSIFIER,
        mark(examples, made, metric=data.task.metric),
        time.perf_counter() - trained,
        making=trained - began,
        stored=len(tfidf_file(classifier)),
    )


def ask_states(
    loaded: LoadedModel,
    data: TaskData,
    template: Template,
    *,
    rows: Sequence[Row],
    seed: int,
    on_done: OnDone = lambda _: None,
) -> Contender:
    """Train the linear probe on what the base model makes of the training rows, and let it answer.

    Args:
        loaded: The base model.
        data: A task with choices.
        template: Through which the model reads a row.
        rows: Rows to answer.
        seed: Draws the training rows, where there are more than `PROBE_ROWS`.
        on_done: Called with the number of rows that the model has read.
    """
    way, read = Prompting(template), probe_rows(data, seed=seed)
    fewer = len(read) < len(data.train)
    some = f" on {len(read)} of {len(data.train)} rows" if fewer else ""
    shown, examples = way.examples(data, read), way.examples(data, rows)
    began = time.perf_counter()
    probe = train_probe(loaded, read, shown, task=data.task, on_done=on_done)
    trained = time.perf_counter()
    made = ask_probe(loaded, probe, examples, on_done=on_done)
    return Contender(
        PROBE,
        f"linear probe{some}",
        template.id,
        0,
        CLASSIFIER,
        mark(examples, made, metric=data.task.metric),
        time.perf_counter() - trained,
        making=trained - began,
        stored=len(probe_file(probe)),
    )


def probe_rows(data: TaskData, *, seed: int) -> tuple[Row, ...]:
    """Return the training rows that the probe reads: all, or as many as `PROBE_ROWS`."""
    if len(data.train) <= PROBE_ROWS:
        return data.train
    return tuple(random.Random(seed).sample(data.train, PROBE_ROWS))


def to_arm(contender: Contender, data: TaskData, *, costs: Costs) -> Arm:
    """Sum a contender up: every metric with its interval, the classes, what it costs."""
    marked = contender.marked
    examples, predictions, labels = marked.examples, marked.predictions, data.task.choices
    summaries = {data.task.metric: marked.summary()}  # what decides comes first
    if labels:
        summaries["macro_f1"] = macro_f1(examples, predictions, labels=labels, groups=marked.groups)
    for metric in () if labels else FREE_TEXT_METRICS:
        if metric not in summaries:
            summaries[metric] = mark(examples, predictions, metric=metric).summary()
    tokens = sum(p.prompt_tokens + p.new_tokens for p in predictions) / len(predictions)
    known = [p.stopped for p in predictions if p.stopped is not None]
    return Arm(
        contender.name,
        contender.label,
        contender.template,
        contender.shots,
        contender.scoring,
        summaries,
        per_class(examples, predictions, labels=labels) if labels else (),
        replace(
            costs,
            seconds=costs.seconds + contender.making,
            bytes_on_disk=costs.bytes_on_disk + contender.stored,
            needs_model=contender.name != TFIDF,
            tokens_per_prediction=tokens,
            predictions_per_second=len(predictions) / max(1e-9, contender.seconds),
        ),
        sum(known) / len(known) if known else None,
    )


def against(a: Contender, b: Contender, *, seed: int) -> Comparison:
    """Compare arm `b` with arm `a`, row by row, groups resampled whole."""
    return compare_marked(a.marked, b.marked, a=a.name, b=b.name, seed=seed)


def best_template(
    loaded: LoadedModel,
    data: TaskData,
    rows: Sequence[Row],
    *,
    seed: int,
    on_done: OnDone = lambda _: None,
) -> Template:
    """Return the template through which a tuned model does best on validation rows.

    All of them are asked a first share of the rows, the better ones more; it ends when one is left.
    A single one is not asked at all.
    """
    order = asking_order(rows, seed=seed)
    answers: list[list[Marked]] = [[] for _ in data.answering]

    def put(n: int, part: slice) -> Standing:
        asked = ask(
            loaded,
            data,
            name=TUNED,
            way=Prompting(data.answering[n]),
            rows=order[part],
            on_done=on_done,
        )
        answers[n].append(asked.marked)
        return standing(merged(answers[n]))

    left = race(put, kinds=[0] * len(answers), rows=len(rows), alone=True)
    means = {n: standing(merged(answers[n])).mean for n in left}
    return data.answering[max(means, key=means.__getitem__)]


def over_templates(
    loaded: LoadedModel,
    data: TaskData,
    *,
    asked: Contender,
    rows: Sequence[Row],
    on_done: OnDone = lambda _: None,
) -> Wordings:
    """Ask an arm zero-shot through every answering template, held-out ones last.

    Args:
        loaded: The arm's model.
        data: The task.
        asked: The arm on all test rows, zero-shot through one template: its answers are taken.
        rows: Test rows.
        on_done: Called with the number of prompts finished.
    """
    known = {p.example_id: p for p in asked.marked.predictions}
    templates = (*data.answering, *data.held_out)
    made: list[Marked] = []
    for template in templates:
        examples = Prompting(template).examples(data, rows)
        predictions = [known[e.id] for e in examples if e.id in known] or answer(
            loaded, examples, max_new_tokens=data.task.max_new_tokens, on_done=on_done
        )
        made.append(mark(examples, predictions, metric=data.task.metric))
    return Wordings(asked.name, templates, tuple(made), seen=len(data.answering))


@dataclass(frozen=True, slots=True)
class Wordings:
    """An arm's answers through several phrasings: its robustness to wording."""

    arm: str
    """The arm's name."""
    templates: tuple[Template, ...]
    """Those that training used, then those held out."""
    marked: tuple[Marked, ...]
    """The answers through each."""
    seen: int
    """How many of them training used."""

    @property
    def scores(self) -> tuple[TemplateScore, ...]:
        """One summary a template."""
        return tuple(
            TemplateScore(self.arm, template.id, marked.summary(), held_out=n >= self.seen)
            for n, (template, marked) in enumerate(zip(self.templates, self.marked, strict=True))
        )

    def phrasings(self, *, seed: int) -> Phrasings:
        """Sum up seen against unseen phrasings; there must be both.

        A row comes once a phrasing, so rows are resampled with all of these (by group).
        """
        seen, unseen = merged(self.marked[: self.seen]), merged(self.marked[self.seen :])
        apart = compare_marked(seen, unseen, a="seen phrasings", b="unseen phrasings", seed=seed)
        return Phrasings(self.arm, seen.summary(), unseen.summary(), apart)


def worst_mistakes(tuned: Contender) -> tuple[Mistake, ...]:
    """Return the wrong answers, the surest (or, for free text, the lowest scored) first."""
    mistakes: list[tuple[float, Mistake]] = []
    for example, made, score in tuned.marked.lines:
        if score.value is None or score.value >= 1:
            continue
        margin = 0.0
        if example.choices:
            right = made.choice_scores[example.choices.index(example.target)]
            margin = max(made.choice_scores) - right
        prompt, target = example.messages[-1].content, example.answer.shown
        mistakes.append((score.value, Mistake(example.id, prompt, target, made.text, margin)))
    mistakes.sort(key=lambda pair: (pair[0], -pair[1].margin))
    return tuple(mistake for _, mistake in mistakes[:MISTAKES])


def score_lines(contenders: Sequence[Contender], data: TaskData) -> list[dict[str, object]]:
    """One line an example and arm, for `scores/test.jsonl`."""
    known = {row.id: same_by(data.task, row) for row in data.test}
    return [
        {
            "arm": contender.name,
            "example": example.id,
            "task": example.task,
            "row": example.row,
            "same_by": known[example.row],
            "group": example.group,
            "template": example.template,
            "target": example.answer.shown,
            "prediction": made.text,
            "choice_scores": list(made.choice_scores),
            "stopped": made.stopped,
            "metric": score.metric,
            "value": score.value,
            "why": score.why,
        }
        for contender in contenders
        for example, made, score in contender.marked.lines
    ]


def same_by(task: Task, row: Row) -> str:
    """Return a digest that a row of this id has in every run: of its answer, and its text's start.

    The text may be shortened for one model and not for another.
    """
    told = str(row.fields[task.text]).strip()[:64], str(row.fields[task.target])
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
