"""What the scores of a set of predictions come to: means, F1 and classes, with their intervals.

Classes: a template may reword its task's choices (`good` for `positive`), in the same order. The
class of an answer is its place among the example's choices, named by the task's own choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from instil.encode.chat_turns import without_thoughts
from instil.errors import RunError
from instil.results.tasks import ClassRow
from instil.scoring.metrics import Scale, Unscorable, find_metric, target_class
from instil.scoring.text import match_choice
from instil.stats.intervals import (
    SHARE,
    Floats,
    Interval,
    bootstrap_mean,
    cluster_table,
    jackknife,
    wilson,
)
from instil.types import Example, Prediction, Score, Summary


def score(example: Example, prediction: Prediction, *, metric: str) -> Score:
    """Score one prediction; where that is impossible the value is None and `why` says so.

    A reasoning model's thoughts are left out: what is judged is the answer behind them.

    Raises:
        RunError: There is no such metric.
    """
    assert example.id == prediction.example_id, "a prediction is scored on its own example"
    example = replace(
        example,
        target=without_thoughts(example.target),
        references=tuple(map(without_thoughts, example.references)),
    )
    prediction = replace(prediction, text=without_thoughts(prediction.text))
    try:
        value = find_metric(metric).score(example, prediction)
    except Unscorable as reason:
        return Score(example.id, metric=metric, value=None, why=str(reason))
    return Score(example.id, metric=metric, value=value)


def summarise(
    scores: Sequence[Score],
    *,
    groups: Mapping[str, str] | None = None,
    metric: str,
) -> Summary:
    """Return the mean with its 95 % interval.

    Wilson's interval for right or wrong without groups, else the (cluster) bootstrap.

    Args:
        scores: One an example.
        groups: Example id -> group; None: every example by itself.
        metric: The metric of the scores.

    Raises:
        RunError: Not one example has a score, or one is in no group.
    """
    kind = find_metric(metric)
    scored = [(s.example_id, s.value) for s in scores if s.value is not None]
    if not scored:
        reasons = Counter(s.why for s in scores).most_common(3)
        told = ", ".join(f"{why} ({count})" for why, count in reasons)
        what = f"none of {len(scores)} predictions has a {metric} score"
        raise RunError(what, found=told)
    values = np.array([value for _, value in scored])
    clusters = group_list([example_id for example_id, _ in scored], groups=groups)
    interval: Interval
    if kind.scale is Scale.BINARY and clusters is None:
        interval = wilson(float(values.sum()), len(values))
    else:
        span = None if kind.scale is Scale.OPEN else SHARE
        interval = bootstrap_mean(values, groups=clusters, span=span)
        if values.min() >= 0:  # nats, too, have no mean below 0
            interval = Interval(max(0.0, interval.low), interval.high)
    return Summary(
        metric=metric,
        mean=float(values.mean()),
        low=interval.low,
        high=interval.high,
        scored=len(scored),
        unscored=len(scores) - len(scored),
        higher_is_better=kind.higher_is_better,
    )


def group_list(ids: Iterable[str], *, groups: Mapping[str, str] | None) -> list[str] | None:
    """Return the group of each id, in order; None where nothing is grouped.

    None, too, where every id has a group of its own, so that such rows count as independent.

    Raises:
        RunError: An id is in no group.
    """
    if groups is None:
        return None
    names = list(ids)
    missing = [name for name in names if name not in groups]
    if missing:
        what = f"{len(missing)} of {len(names)} scored examples are in no group"
        raise RunError(what, found=", ".join(missing[:3]))
    listed = [groups[name] for name in names]
    return listed if len(set(listed)) < len(listed) else None


def macro_f1(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    *,
    labels: Sequence[str],
    groups: Mapping[str, str] | None = None,
) -> Summary:
    """Return the mean F1 over the classes that occur, with its (cluster) jackknife interval.

    A class that is neither right nor answered anywhere has no F1 and is left out of the mean.

    Args:
        examples: Examples with as many choices as there are labels.
        predictions: One for each example, in any order.
        labels: The task's choices.
        groups: Example id -> group; None: every example by itself.

    Raises:
        RunError: An example has no prediction, or is in no group.
    """
    pairs = _classes(examples, predictions, labels=labels)
    clusters = group_list([example.id for example in examples], groups=groups)
    table = cluster_table(_confusions(pairs, classes=len(labels)), groups=clusters)
    interval = jackknife(table, _mean_f1, span=SHARE)
    mean = float(_mean_f1(table.sum(axis=0, keepdims=True))[0])
    return Summary("macro_f1", mean, interval.low, interval.high, scored=len(pairs))


def per_class(
    examples: Sequence[Example], predictions: Sequence[Prediction], *, labels: Sequence[str]
) -> tuple[ClassRow, ...]:
    """Return precision, recall and F1 of each class, in the order of `labels`; 0 where undefined.

    Raises:
        RunError: An example has no prediction.
    """
    pairs = _classes(examples, predictions, labels=labels)
    right, answered, missed = (
        _confusions(pairs, classes=len(labels)).sum(axis=0).reshape(3, len(labels))
    )
    answered, actual = right + answered, right + missed
    return tuple(
        ClassRow(
            label=label,
            precision=_share(right[i], answered[i]),
            recall=_share(right[i], actual[i]),
            f1=_share(2 * right[i], answered[i] + actual[i]),
            n=int(actual[i]),
        )
        for i, label in enumerate(labels)
    )


def _classes(
    examples: Sequence[Example], predictions: Sequence[Prediction], *, labels: Sequence[str]
) -> list[tuple[int, int | None]]:
    """Pair the right class with the answered one, by example id; None: it is none of them."""
    by_id = {prediction.example_id: prediction for prediction in predictions}
    missing = [example.id for example in examples if example.id not in by_id]
    if missing or not examples:
        what = f"{len(missing)} of {len(examples)} examples have no prediction"
        raise RunError(what, found=", ".join(missing[:3]))
    assert all(len(example.choices) == len(labels) for example in examples), "one choice a label"
    return [(target_class(x), match_choice(by_id[x.id].text, x.choices)) for x in examples]


def _confusions(pairs: Sequence[tuple[int, int | None]], *, classes: int) -> Floats:
    """One line an example, (examples, 3 * classes): right, wrongly answered, missed."""
    counts = np.zeros((len(pairs), 3, classes))
    for line, (right, given) in enumerate(pairs):
        if given == right:
            counts[line, 0, right] = 1
            continue
        counts[line, 2, right] = 1
        if given is not None:
            counts[line, 1, given] = 1
    return counts.reshape(len(pairs), 3 * classes)


def _mean_f1(totals: Floats) -> Floats:
    right, answered, missed = np.split(totals, 3, axis=1)
    size = 2 * right + answered + missed
    each = np.divide(2 * right, size, out=np.zeros_like(size), where=size > 0)
    mean: Floats = each.sum(axis=1) / np.maximum(1, (size > 0).sum(axis=1))
    return mean


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
