"""The test: every contender on the same rows, once, and the tuned one against each other."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from instil.compare.halving import Standing, race
from instil.compare.ladder import Prompting, asking_order, prompting, standing
from instil.compare.pairing import by_row, compare, row_groups
from instil.data.prepare import TaskData
from instil.evaluate.baseline import ask_tfidf, tfidf_file, train_tfidf
from instil.evaluate.choices import CALIBRATED, RAW
from instil.evaluate.metrics import macro_f1, per_class, summarise
from instil.evaluate.probe import ask_probe, probe_file, train_probe
from instil.evaluate.suite import GENERATED, Marked, answer, mark, merged
from instil.model.load import LoadedModel
from instil.results import (
    PROBE,
    PROMPTING,
    TFIDF,
    TUNED,
    ZERO_SHOT,
    Arm,
    Costs,
    Mistake,
    Phrasings,
    Rung,
    TemplateScore,
)
from instil.types import Comparison, Example, Prediction, Row, Summary, Template

MISTAKES = 20
CLASSIFIER = "classifier"
PROBE_ROWS = 5000
"""Training rows that the probe reads at most: more of them cost minutes and change little."""
# Beside the metric that decides, free-text arms are shown in these too.
FREE_TEXT_METRICS = ("exact_match", "token_f1", "rougeL", "chrf")
OnDone = Callable[[int], None]


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
    scoring: str,
    rows: Sequence[Row],
    on_done: OnDone = lambda _: None,
) -> Contender:
    """Let a model answer rows in one way of asking."""
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
    return Contender(
        name,
        _label(name, len(way.exemplars), scoring),
        way.template.id,
        len(way.exemplars),
        scoring,
        mark(examples, made, metric=data.task.metric),
        time.perf_counter() - began,
        stored=_shown_bytes(examples[0]) if way.exemplars else 0,
    )


def _shown_bytes(example: Example) -> int:
    """Return the size of the worked examples in front of a question, as text."""
    return sum(len(message.content.encode()) for message in example.messages[:-1])


def _label(name: str, shots: int, scoring: str) -> str:
    if name == TUNED:
        return "tuned, zero-shot"
    rule = "" if scoring in (RAW, GENERATED) else f", {scoring}"
    prefix = "untouched model, " if name == ZERO_SHOT else ""
    return f"{prefix}{'zero' if shots == 0 else shots}-shot prompting{rule}"


def ask_rung(
    loaded: LoadedModel, data: TaskData, rung: Rung, *, seed: int, on_done: OnDone
) -> Contender:
    """Let the untouched model answer the test rows as the best rung of the ladder does."""
    way = prompting(data, template=rung.template, shots=rung.shots, seed=seed)
    return ask(
        loaded,
        data,
        name=PROMPTING,
        way=way,
        scoring=rung.scoring,
        rows=data.test,
        on_done=on_done,
    )


def ask_words(data: TaskData, template: Template) -> Contender:
    """Train TF-IDF and let it answer the test rows.

    Args:
        data: A task with choices.
        template: Its words for the choices.
    """
    examples = Prompting(template).examples(data, data.test)
    began = time.perf_counter()
    classifier = train_tfidf(data.train, task=data.task)
    trained = time.perf_counter()
    made = ask_tfidf(classifier, data.test, examples, task=data.task)
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
    seed: int,
    on_done: OnDone = lambda _: None,
) -> Contender:
    """Train the linear probe on what the base model makes of the training rows, and let it answer.

    Args:
        loaded: The base model.
        data: A task with choices.
        template: Through which the model reads a row.
        seed: Draws the training rows, where there are more than `PROBE_ROWS`.
        on_done: Called with the number of rows that the model has read.
    """
    way, rows = Prompting(template), data.train
    if len(rows) > PROBE_ROWS:
        rows = tuple(random.Random(seed).sample(rows, PROBE_ROWS))
    some = f" on {len(rows)} of {len(data.train)} rows" if len(rows) < len(data.train) else ""
    shown, examples = way.examples(data, rows), way.examples(data, data.test)
    began = time.perf_counter()
    probe = train_probe(loaded, rows, shown, task=data.task, on_done=on_done)
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


def to_arm(contender: Contender, data: TaskData, *, costs: Costs) -> Arm:
    """Sum a contender up: every metric with its interval, the classes, what it costs."""
    predictions = contender.marked.predictions
    tokens = sum(p.prompt_tokens + p.new_tokens for p in predictions) / len(predictions)
    known = [p.stopped for p in predictions if p.stopped is not None]
    labels = data.task.choices
    return Arm(
        contender.name,
        contender.label,
        contender.template,
        contender.shots,
        contender.scoring,
        summaries(contender.marked, data),
        per_class(contender.marked.examples, predictions, labels=labels) if labels else (),
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


def summaries(marked: Marked, data: TaskData) -> Mapping[str, Summary]:
    """Metric -> mean with interval; the metric that decides comes first."""
    found = {data.task.metric: marked.summary()}
    if data.task.choices:
        found["macro_f1"] = macro_f1(
            marked.examples, marked.predictions, labels=data.task.choices, groups=marked.groups
        )
        return found
    for metric in FREE_TEXT_METRICS:
        if metric not in found:
            again = mark(marked.examples, marked.predictions, metric=metric)
            found[metric] = again.summary()
    return found


def against(a: Contender, b: Contender, *, seed: int) -> Comparison:
    """Compare arm `b` with arm `a`, row by row, groups resampled whole."""
    return compare(
        by_row(a.marked.values, a.marked.examples),
        by_row(b.marked.values, b.marked.examples),
        a=a.name,
        b=b.name,
        metric=b.marked.scores[0].metric,
        groups=row_groups([*a.marked.examples, *b.marked.examples]),
        seed=seed,
    )


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
        answers[n].append(
            ask(
                loaded,
                data,
                name=TUNED,
                way=Prompting(data.answering[n]),
                scoring=RAW,
                rows=order[part],
                on_done=on_done,
            ).marked
        )
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
        return Phrasings(
            self.arm,
            summarise(seen.scores, groups=seen.groups, metric=seen.scores[0].metric),
            summarise(unseen.scores, groups=unseen.groups, metric=unseen.scores[0].metric),
            compare(
                by_row(seen.values, seen.examples),
                by_row(unseen.values, unseen.examples),
                a="seen phrasings",
                b="unseen phrasings",
                metric=seen.scores[0].metric,
                groups=row_groups(seen.examples),
                seed=seed,
            ),
        )


def worst_mistakes(tuned: Contender) -> tuple[Mistake, ...]:
    """Return the wrong answers, the surest (or, for free text, the lowest scored) first."""
    found = []
    marked = tuned.marked
    for example, made, score in zip(
        marked.examples, marked.predictions, marked.scores, strict=True
    ):
        if score.value is None or score.value >= 1:
            continue
        margin = 0.0
        if example.choices:
            right = made.choice_scores[example.choices.index(example.target)]
            margin = max(made.choice_scores) - right
        prompt = example.messages[-1].content
        found.append(
            (
                score.value,
                -margin,
                Mistake(example.id, prompt, example.answer.shown, made.text, margin),
            )
        )
    found.sort(key=lambda item: item[:2])
    return tuple(mistake for _, _, mistake in found[:MISTAKES])


def score_lines(contenders: Sequence[Contender]) -> list[dict[str, object]]:
    """One line an example and arm, for `scores/test.jsonl`."""
    return [
        _line(contender, n) for contender in contenders for n in range(len(contender.marked.scores))
    ]


def _line(contender: Contender, n: int) -> dict[str, object]:
    example = contender.marked.examples[n]
    made: Prediction = contender.marked.predictions[n]
    score = contender.marked.scores[n]
    return {
        "arm": contender.name,
        "example": example.id,
        "task": example.task,
        "row": example.row,
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
