"""Metrics: how right one prediction is, and what a set of them comes to.

A metric turns an example and its prediction into a figure from 0 to 1 (sacreBLEU's 0 to 100 are
divided by 100), so that reports show all of them in points. METRICS is the table of built-ins.

A wrong answer scores 0, and so does one that cannot be read: a model gains nothing by rambling.
`Unscorable` is for examples that no answer could be right for, such as one without a reference.

Classes: a template may reword its task's choices (`good` for `positive`), in the same order. The
class of an answer is its place among the example's choices, named by the task's own choices.

torch is never imported here; the libraries that compute ROUGE, chrF and BLEU only when used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from instil.encode.chat_turns import without_thoughts
from instil.errors import Problem, RunError, nearest
from instil.evaluate.constraints import holds
from instil.evaluate.text import match_choice, normalise, number_in, rouge_scorer, words
from instil.results import ClassRow
from instil.stats.intervals import (
    SHARE,
    Floats,
    Interval,
    bootstrap,
    bootstrap_mean,
    cluster_table,
    wilson,
)
from instil.types import Example, Prediction, Score, Summary


class Scale(StrEnum):
    """What values a metric takes."""

    BINARY = "0 or 1"
    """Right or wrong."""
    SHARE = "0 to 1"
    """Anything between."""
    OPEN = "open"
    """Without bounds, such as nats per token."""


class Unscorable(Exception):
    """No answer to this example could be scored; the text says why."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to score a prediction."""

    name: str
    """As tasks and recipes name it."""
    label: str
    """As people read it."""
    higher_is_better: bool
    """The direction."""
    scale: Scale
    """The values it takes."""
    score: Callable[[Example, Prediction], float]
    """The figure for one prediction; raises `Unscorable`."""


def accuracy(example: Example, prediction: Prediction) -> float:
    """Return 1.0 if the answer is the right choice (or, without choices, matches a reference).

    Generated text counts as a choice if it, or its first line, is that choice up to case, quotes
    and closing punctuation.
    """
    if prediction.text == example.target:
        return 1.0
    if not example.choices:
        return exact_match(example, prediction)
    return float(match_choice(prediction.text, example.choices) == _target_class(example))


def exact_match(example: Example, prediction: Prediction) -> float:
    """Return 1.0 if the answer equals a reference after SQuAD's normalisation, else 0.0."""
    answer = normalise(prediction.text)
    return float(any(answer == normalise(reference) for reference in _references(example)))


def token_f1(example: Example, prediction: Prediction) -> float:
    """Return the best F1 of shared words over the references (Rajpurkar et al. 2016, SQuAD)."""
    answer = words(prediction.text)
    return max(_overlap_f1(answer, words(reference)) for reference in _references(example))


def within_one(example: Example, prediction: Prediction) -> float:
    """Return 1.0 if a rating is at most one step from the right one, else 0.0.

    A rating is the number that the answer gives, or, where the choices are words (poor ... great),
    the place of the chosen one.
    """
    right, given = _rating(example.target, example), _rating(prediction.text, example)
    if right is None:
        raise Unscorable("the target is not a rating")
    return float(given is not None and abs(given - right) <= 1)


def constraint(example: Example, prediction: Prediction) -> float:
    """Return 1.0 if the answer meets every condition of its row (see `evaluate.constraints`)."""
    if not example.checks:
        raise Unscorable("the example has no condition to check")
    try:
        return float(all(holds(check, prediction.text) for check in example.checks))
    except ValueError as error:
        raise Unscorable(str(error)) from error


def rouge(example: Example, prediction: Prediction, *, kind: str) -> float:
    """Return the best ROUGE F-measure over the references, with stemming (Lin 2004)."""
    found = rouge_scorer(kind).score_multi(list(_references(example)), prediction.text)
    return float(found[kind].fmeasure)


def chrf(example: Example, prediction: Prediction) -> float:
    """Return sentence chrF2 by sacreBLEU, 0 to 1 (Popović 2015)."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(prediction.text, list(_references(example))).score) / 100


def bleu(example: Example, prediction: Prediction) -> float:
    """Return sentence BLEU by sacreBLEU, 0 to 1: exponential smoothing, effective order.

    Its mean over examples is not corpus BLEU, which cannot be paired by example.
    """
    import sacrebleu

    score = sacrebleu.sentence_bleu(prediction.text, list(_references(example))).score
    return min(1.0, float(score) / 100)  # a perfect match comes out a hair above 100


def nats_per_token(example: Example, prediction: Prediction) -> float:
    """Return the cross-entropy that was measured on the target."""
    if prediction.nll is None or not math.isfinite(prediction.nll):
        raise Unscorable("no finite cross-entropy was measured")
    return prediction.nll


def _rouge(kind: str) -> Callable[[Example, Prediction], float]:
    return lambda example, prediction: rouge(example, prediction, kind=kind)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", True, Scale.BINARY, accuracy),
        Metric("exact_match", "exact match", True, Scale.BINARY, exact_match),
        Metric("token_f1", "token F1", True, Scale.SHARE, token_f1),
        Metric("rouge1", "ROUGE-1", True, Scale.SHARE, _rouge("rouge1")),
        Metric("rouge2", "ROUGE-2", True, Scale.SHARE, _rouge("rouge2")),
        Metric("rougeL", "ROUGE-L", True, Scale.SHARE, _rouge("rougeL")),
        Metric("chrf", "chrF", True, Scale.SHARE, chrf),
        Metric("bleu", "sentence BLEU", True, Scale.SHARE, bleu),
        Metric("within_one", "within one step", True, Scale.BINARY, within_one),
        Metric("constraint", "conditions met", True, Scale.BINARY, constraint),
    )
}
"""The metrics that a task may name."""

NATS = Metric("nats_per_token", "nats per token", False, Scale.OPEN, nats_per_token)
"""Cross-entropy on text: no task is judged by it, the forgetting guard is."""


def find_metric(name: str) -> Metric:
    """Return the metric of that name, `nats_per_token` included.

    Raises:
        RunError: There is none.
    """
    metric = NATS if name == NATS.name else METRICS.get(name)
    if metric is None:
        raise RunError(
            Problem(
                f"there is no metric '{name}'",
                allowed=", ".join(METRICS),
                nearest=nearest(name, METRICS),
            )
        )
    return metric


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
    seed: int = 0,
) -> Summary:
    """Return the mean with its 95 % interval.

    Wilson's interval for right or wrong without groups, else the (cluster) bootstrap.

    Args:
        scores: One an example.
        groups: Example id -> group; None: every example by itself.
        metric: The metric of the scores.
        seed: Of the bootstrap.

    Raises:
        RunError: Not one example has a score, or one is in no group.
    """
    kind = find_metric(metric)
    scored = [(s.example_id, s.value) for s in scores if s.value is not None]
    if not scored:
        reasons = Counter(s.why for s in scores).most_common(3)
        told = ", ".join(f"{why} ({count})" for why, count in reasons)
        what = f"none of {len(scores)} predictions has a {metric} score"
        raise RunError(Problem(what, found=told))
    values = np.array([value for _, value in scored])
    clusters = group_list([example_id for example_id, _ in scored], groups=groups)
    interval: Interval
    if kind.scale is Scale.BINARY and clusters is None:
        interval = wilson(float(values.sum()), len(values))
    else:
        span = None if kind.scale is Scale.OPEN else SHARE
        interval = bootstrap_mean(values, groups=clusters, seed=seed, span=span)
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
        raise RunError(Problem(what, found=", ".join(missing[:3])))
    found = [groups[name] for name in names]
    return found if len(set(found)) < len(found) else None


def macro_f1(
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    *,
    labels: Sequence[str],
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Summary:
    """Return the mean F1 over the classes that occur, with its (cluster) bootstrap interval.

    A class that is neither right nor answered anywhere has no F1 and is left out of the mean.

    Args:
        examples: Examples with as many choices as there are labels.
        predictions: One for each example, in any order.
        labels: The task's choices.
        groups: Example id -> group; None: every example by itself.
        seed: Of the bootstrap.

    Raises:
        RunError: An example has no prediction, or is in no group.
    """
    pairs = _classes(examples, predictions, labels=labels)
    clusters = group_list([example.id for example in examples], groups=groups)
    table = cluster_table(_confusions(pairs, classes=len(labels)), groups=clusters)
    interval = bootstrap(table, _mean_f1, seed=seed, span=SHARE)
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


def answer_class(example: Example, prediction: Prediction) -> int | None:
    """Return the place of the answer among the example's choices; None if it is none of them."""
    return match_choice(prediction.text, example.choices)


def _classes(
    examples: Sequence[Example], predictions: Sequence[Prediction], *, labels: Sequence[str]
) -> list[tuple[int, int | None]]:
    """Pair the right class with the answered one, by example id."""
    by_id = {prediction.example_id: prediction for prediction in predictions}
    missing = [example.id for example in examples if example.id not in by_id]
    if missing or not examples:
        what = f"{len(missing)} of {len(examples)} examples have no prediction"
        raise RunError(Problem(what, found=", ".join(missing[:3])))
    assert all(len(example.choices) == len(labels) for example in examples), "one choice a label"
    return [(_target_class(x), answer_class(x, by_id[x.id])) for x in examples]


def _target_class(example: Example) -> int:
    assert example.target in example.choices, "the target of a choice task is one of its choices"
    return example.choices.index(example.target)


def _confusions(pairs: Sequence[tuple[int, int | None]], *, classes: int) -> Floats:
    # One line an example, shape (examples, 3 * classes): right, wrongly answered, missed.
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


def _references(example: Example) -> tuple[str, ...]:
    found = tuple(text for text in example.references or (example.target,) if text.strip())
    if not found:
        raise Unscorable("the example has no reference text")
    return found


def _overlap_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    shared = sum((Counter(answer) & Counter(reference)).values())
    return 2 * shared / (len(answer) + len(reference))


def _rating(text: str, example: Example) -> float | None:
    place = match_choice(text, example.choices)
    steps = [number_in(choice) for choice in example.choices]
    if None in steps:
        return None if place is None else float(place)
    return number_in(text) if place is None else steps[place]
