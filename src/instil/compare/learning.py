"""Is anything being learnt? What the looks at validation show while a model is trained.

Accuracy cannot tell: early on a slow learner is as good as always answering the commonest class,
and so is a model that is trained on shuffled labels, for ever. Three figures can, and each look has
them for nothing, since it scores every choice of every row:

- *tells apart*: of two rows of different classes, how often the one is more like its own class
  than the other, by the model's log-probabilities (the area under the ROC curve, one class against
  the others, over all classes). 0.5 is chance, however strongly the model leans to one answer.
- *level*: the log-probability of the right choice, minus that of one who knows the shares of the
  classes and nothing of the row. Below zero: the model still has to learn what answers there are.
- *trend*: how much the log-probability of the right choice has risen since the look before, paired
  by row.

A worked example, four rows, the log-odds of `good` against `bad`::

    row    right   log-odds    its rank         tells apart: of the 4 pairs (good, bad) the good
    1      good       3.0      4                one ranks higher in 3, so 0.75; that all of them
    2      good       1.2      2                are answered `good` does not matter
    3      bad        1.9      3
    4      bad        0.4      1

With shuffled labels the first stays at 0.5, the second ends at or below zero, and the third stops:
`state` calls that `NOTHING`. A slow learner tells the classes apart long before it answers better
than the commonest class, or is below the level and rising. Of free text only the trend is known,
and whether all answers are the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np

from instil.compare.pairing import by_row, compare, row_groups
from instil.compare.verdict import ALWAYS, COPY
from instil.evaluate.metrics import score
from instil.results.names import TUNED
from instil.results.tasks import Learnt
from instil.scoring.metrics import find_metric
from instil.stats.intervals import DIFFERENCE, SHARE, Floats, Interval, bootstrap_mean
from instil.types import Estimate, Example, Prediction, TaskLook

RESAMPLES = 2000
"""Bootstrap draws of an interval at a look: it warns, and is no result."""
LEAN = 1.2816 / 1.9600
"""From half of a 95 % interval to what one estimate in ten exceeds by chance."""

MUCH = 0.6
"""So well may classes be told apart on few rows or groups without being shown."""


class State(StrEnum):
    """What the looks so far show about one task."""

    SHOWN = "shown"
    """It answers better than always the same, or tells the classes apart."""
    OPEN = "open"
    """Neither is shown, but the model leans the right way, or is still learning which answers there
    are. Free text: nothing speaks against it."""
    NOTHING = "nothing"
    """Neither is shown, and nothing moves that could lead there."""
    ONE_ANSWER = "one answer"
    """Every row gets the same answer, nothing is shown, and nothing moves."""


def task_look(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    nats: Sequence[float],
    *,
    labels: Sequence[str] = (),
    counts: Mapping[str, int] | None = None,
    before: TaskLook | None = None,
) -> TaskLook:
    """Sum up a look at the validation rows of one task.

    Args:
        examples: One a row.
        predictions: Their answers, scored by the raw rule where there are choices.
        nats: Log-probability of each target, nats per token; for free text.
        labels: The task's classes, in the order of the choices; empty: it has none of its own.
        counts: Class -> training rows; None: all count as equally common.
        before: The look before, at the same rows.
    """
    groups = [example.group for example in examples]
    given = [_label(e, p.text, labels) for e, p in zip(examples, predictions, strict=True)]
    ((common, _),) = Counter(given).most_common(1)
    look = TaskLook(
        examples[0].task,
        rows=len(examples),
        answers=len(set(given)),
        wanted=len({_label(e, e.target, labels) for e in examples}),
        answer=common,
        nats=tuple(round(value, 4) for value in nats),
    )
    if all(example.choices for example in examples):
        counts = counts or {}
        above_prior, chances = [], []
        for example, row in zip(examples, _chances(predictions), strict=True):
            right = example.choices.index(example.target)
            chances.append(round(float(row[right]), 4))
            prior = float(_prior(example, labels, counts)[right])
            above_prior.append(chances[-1] - float(np.log(prior)))
        hits = [p.text == e.target for e, p in zip(examples, predictions, strict=True)]
        constant = constant_scores(examples, labels=labels, counts=counts)
        look = replace(
            look,
            nats=tuple(chances),
            right=sum(hits) / len(hits),
            always=commonest(labels, counts),
            constant=sum(constant) / len(constant),
            above=above_constant(examples, predictions, labels=labels, counts=counts),
            apart=_apart(examples, predictions),
            level=_estimate(np.array(above_prior), groups),
        )
    if before is None or len(before.nats) != len(look.nats):
        return look
    return replace(look, trend=_estimate(np.subtract(look.nats, before.nats), groups))


def state(looks: Sequence[TaskLook]) -> State:
    """Return what the looks at one task show, by the last of them.

    Args:
        looks: All so far, in order; at least one.
    """
    last = looks[-1]
    if last.apart is not None and is_shown(last):
        return State.SHOWN
    rises = last.trend is not None and last.trend.low > 0
    if has_one_answer(last) and not rises and len(looks) > 1:
        return State.ONE_ANSWER
    if last.apart is None:
        return State.OPEN
    lower = last.apart.mean - LEAN * (last.apart.mean - last.apart.low)
    leans = lower > 0.5 or last.apart.mean >= MUCH
    # A model that once knew which answers there are, and rises again, has only come back: from
    # being too sure of what it learnt by heart.
    arrived = any(look.level is not None and look.level.high >= 0 for look in looks)
    learns_answers = not arrived and (rises or len(looks) == 1)
    return State.OPEN if leans or learns_answers else State.NOTHING


def has_one_answer(look: TaskLook) -> bool:
    """Whether every row gets the same answer, though others are right for some."""
    return look.answers == 1 < look.wanted


def is_shown(look: TaskLook) -> bool:
    """Whether a look shows that something is known; also where nothing can be shown (free text)."""
    if look.above is None:
        return True
    return look.above.low > 0 or (look.apart is not None and look.apart.low > 0.5)


def sounds(looks: Sequence[TaskLook], *, step: int, of_steps: int) -> bool:
    """Whether the last look, after `step` of `of_steps`, is a reason to sound the alarm.

    Not in the first half, for learning may begin late: of headlines (sarcasm, 5e-4, 51 steps) two
    classes were told apart in 0.54 of the pairs after 24 steps, as if by chance, and in 0.71 after
    40. After the last step whatever is not shown is a reason, and so is one answer for all rows,
    though the classes be told apart.
    """
    if step == of_steps:
        return not is_shown(looks[-1]) or has_one_answer(looks[-1])
    return 2 * step >= of_steps and state(looks) in (State.NOTHING, State.ONE_ANSWER)


def commonest(labels: Sequence[str], counts: Mapping[str, int]) -> str:
    """Return the class with the most training rows, the first of equals; empty: there are none.

    >>> commonest(["good", "bad"], {"good": 3, "bad": 5}), commonest([], {})
    ('bad', '')
    """
    return max(labels, key=lambda label: counts.get(label, 0), default="")


def constant_scores(
    examples: Sequence[Example], *, labels: Sequence[str], counts: Mapping[str, int]
) -> list[float]:
    """Return what always giving the commonest class scores on each row, 0 or 1.

    Without classes of the task's own: what guessing scores on average.
    """
    always = commonest(labels, counts)
    if not always:
        return [1 / len(example.choices) for example in examples]
    return [float(_label(example, example.target, labels) == always) for example in examples]


def above_constant(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    *,
    labels: Sequence[str],
    counts: Mapping[str, int],
) -> Estimate:
    """Return the accuracy minus that of `constant_scores`, paired by row."""
    hits = np.array([p.text == e.target for e, p in zip(examples, predictions, strict=True)])
    constant = np.array(constant_scores(examples, labels=labels, counts=counts))
    return _estimate(hits - constant, [example.group for example in examples], span=DIFFERENCE)


def learnt(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    *,
    labels: Sequence[str] = (),
    counts: Mapping[str, int] | None = None,
    metric: str = "accuracy",
    seed: int = 0,
) -> Learnt:
    """Put the tuned model's answers on test beside always giving the same one.

    Free text stands beside the row's own text, given back as it is: of a text whose mistakes are to
    be mended, that is nearly right already.

    Args:
        examples: The test rows.
        predictions: Its answers.
        labels: As in `task_look`.
        counts: As in `task_look`.
        metric: The task's, for free text.
        seed: Of the bootstrap.
    """
    pairs = list(zip(examples, predictions, strict=True))
    given = Counter(_label(example, made.text, labels) for example, made in pairs)
    wanted = {_label(example, example.target, labels) for example in examples}
    ((answer, _),) = given.most_common(1)
    seen = Learnt(answer, answers=len(given), wanted=len(wanted))
    if not all(example.choices for example in examples):
        return _beside_copies(seen, pairs, metric=metric, seed=seed)
    if len(examples) < 2:
        return seen
    hits = {example.id: float(made.text == example.target) for example, made in pairs}
    constant = constant_scores(examples, labels=labels, counts=counts or {})
    scores = {e.id: value for e, value in zip(examples, constant, strict=True)}
    return replace(
        seen,
        always=commonest(labels, counts or {}),
        right=sum(hits.values()) / len(hits),
        comparison=compare(
            by_row(scores, examples),
            by_row(hits, examples),
            a=ALWAYS,
            b=TUNED,
            metric="accuracy",
            groups=row_groups(examples),
            seed=seed,
        ),
        apart=_apart(examples, predictions),
    )


def _beside_copies(
    seen: Learnt, pairs: Sequence[tuple[Example, Prediction]], *, metric: str, seed: int
) -> Learnt:
    scores: dict[str, dict[str, float]] = {COPY: {}, TUNED: {}}
    for example, made in pairs if any(example.text for example, _ in pairs) else ():
        for arm, text in ((COPY, example.text), (TUNED, made.text)):
            scored = score(example, Prediction(example.id, text), metric=metric)
            if scored.value is not None:
                scores[arm][example.id] = scored.value
    examples = [example for example, _ in pairs]
    copied, own = (by_row(scores[arm], examples) for arm in (COPY, TUNED))
    if len(copied.keys() & own) < 2 or not find_metric(metric).higher_is_better:
        return seen
    comparison = compare(
        copied, own, a=COPY, b=TUNED, metric=metric, groups=row_groups(examples), seed=seed
    )
    return replace(seen, right=float(np.mean([*own.values()])), comparison=comparison)


def _label(example: Example, text: str, labels: Sequence[str]) -> str:
    """Return the class that an answer stands for; the answer itself where it stands for none."""
    place = example.choices.index(text) if text in example.choices else len(labels)
    return labels[place] if place < len(labels) else text


def _chances(predictions: Sequence[Prediction]) -> list[Floats]:
    """Return the log-probabilities of each row's choices, normalised over these alone."""
    scores = [np.array(made.choice_scores) for made in predictions]
    return [row - np.logaddexp.reduce(row) for row in scores]


def _apart(examples: Sequence[Example], predictions: Sequence[Prediction]) -> Estimate | None:
    right = [example.choices.index(example.target) for example in examples]
    strata = [(example.template, len(example.choices)) for example in examples]
    figures = told_apart(_chances(predictions), right, strata)
    if figures is None:
        return None
    return _estimate(figures, [example.group for example in examples], span=SHARE)


def _prior(example: Example, labels: Sequence[str], counts: Mapping[str, int]) -> Floats:
    """Return the share of each choice among the training rows, none of them zero."""
    known = [counts.get(label, 0) for label in labels[: len(example.choices)]]
    if len(known) < len(example.choices) or not sum(known):
        return np.full(len(example.choices), 1 / len(example.choices))
    shares = np.array(known) + 0.5
    return np.asarray(shares / shares.sum())


def told_apart(
    chances: Sequence[Floats], right: Sequence[int], strata: Sequence[object]
) -> Floats | None:
    """Return a figure a row, whose mean is how well the classes are told apart (AUC).

    The mean over classes of the area under the ROC curve of each class against the others, a class
    with share p weighing p (1 - p). Ranks are taken among the rows of one stratum, since each
    template has a leaning of its own. A row's figure is 0.5 plus its part of the covariance between
    ranks and classes: unlike the share of pairs that it wins, its spread over rows is that of the
    mean (the area is a covariance of ranks: Hanley and McNeil 1982, Radiology 143(1)).

    Args:
        chances: Log-probabilities of a row's choices; of one length within a stratum.
        right: The place of the right choice.
        strata: What a row is compared within.

    Returns:
        Shape (rows,); None where no stratum has rows of two classes.

    >>> odds = [3.0, 1.2, 1.9, 0.4]
    >>> figures = told_apart([np.array([x, -x]) for x in odds], [0, 0, 1, 1], ["ask"] * 4)
    >>> float(figures.mean())
    0.75
    """
    from scipy.stats import rankdata

    parts = np.zeros(len(right))
    whole = 0.0
    members: dict[object, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        members[stratum].append(index)
    for rows in members.values():
        table = np.stack([chances[row] for row in rows])
        ranks = (rankdata(table, axis=0) - 0.5) / len(rows)
        classes = np.eye(table.shape[1])[[right[row] for row in rows]]
        shares = classes.mean(axis=0)
        parts[rows] = ((classes - shares) * (ranks - 0.5)).sum(axis=1)
        whole += len(rows) * float((shares * (1 - shares)).sum())
    return 0.5 + parts * len(right) / whole if whole else None


def _estimate(values: Floats, groups: Sequence[str], *, span: Interval | None = None) -> Estimate:
    values = np.asarray(values, dtype=np.float64)
    ends = bootstrap_mean(values, groups=groups, resamples=RESAMPLES, span=span)
    return Estimate(float(values.mean()), ends.low, ends.high)
