"""Metrics: how right one answer is.

A metric turns an example and its prediction into a figure from 0 to 1 (sacreBLEU's 0 to 100 are
divided by 100), so that reports show all of them in points. METRICS is the table of built-ins, and
all that a new one needs (docs/extending.md).

A wrong answer scores 0, and so does one that cannot be read: a model gains nothing by rambling.
`Unscorable` is for examples that no answer could be right for, such as one without a reference.

torch is never imported here; the libraries that compute ROUGE, chrF and BLEU only when used.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from instil.errors import RunError, nearest
from instil.scoring.constraints import holds
from instil.scoring.text import match_choice, normalise, number_in, rouge_scorer, spaced, words
from instil.types import Example, Prediction

_FENCED = re.compile(r"^```\w*\n(.*?)\n```$|\.$", re.DOTALL)
_OUT_OF = re.compile(r"(?<=\d)\s*(?:/\s*|(?:out )?of\s*)\d+|\(\d+\s*[-\u2013]\s*\d+\)")


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
    points: bool = False
    """Whether its hundredths are called points by custom, not per cent."""


def accuracy(example: Example, prediction: Prediction) -> float:
    """Return 1.0 if the answer is the right choice (or, without choices, matches a reference).

    Generated text counts as a choice if it, or its first line, is that choice up to case, quotes
    and closing punctuation.
    """
    if prediction.text == example.target:
        return 1.0
    if not example.choices:
        return exact_match(example, prediction)
    return float(match_choice(prediction.text, example.choices) == target_class(example))


def exact_match(example: Example, prediction: Prediction) -> float:
    """Return 1.0 if the answer equals a reference after SQuAD's normalisation, else 0.0.

    JSON objects and lists (calls of functions) are compared as such, whatever the order of keys.
    """
    return float(any(_same(prediction.text, reference) for reference in _references(example)))


def _same(answer: str, reference: str) -> bool:
    right, made = _json_lines(reference), _json_lines(_FENCED.sub(r"\1", answer.strip()))
    # An object that is cut off, or no JSON at all, is another one; a list may be written as text.
    if right is not None and (made is not None or "{" in reference):
        return made == right
    return normalise(answer) == normalise(reference)


def _json_lines(text: str) -> list[str] | None:
    """Return the JSON objects or lists of a text, a line each, in one spelling; None: others."""
    values = []
    text = text.strip()
    for line in [text] if text.count("\n") and _json(text) is not None else text.split("\n"):
        if not isinstance(value := _json(line), dict | list):
            return None
        values.append(json.dumps(value, sort_keys=True))
    return values or None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def token_f1(example: Example, prediction: Prediction) -> float:
    """Return the best F1 of shared words over the references (Rajpurkar et al. 2016, SQuAD)."""
    answer = words(prediction.text)
    return max(_overlap_f1(answer, words(reference)) for reference in _references(example))


def within_one(example: Example, prediction: Prediction) -> float:
    """Return 1.0 if a rating is at most one step from the right one, else 0.0.

    Steps are those between the choices: by their numbers where each holds one (0, 25, 50), else in
    the order of the task (poor ... great; under 18, 18-34). Without choices a step is 1.
    """
    choices, text = example.choices, prediction.text
    alone = [_OUT_OF.sub("", choice) for choice in choices]  # 4/5 is 4, but 1/2 is no 1
    several = len({*map(number_in, alone)}) == len(choices)
    numbers = [_only_number(choice) for choice in (alone if several else choices)]
    values = [each for each in numbers if each is not None]
    place = match_choice(text, choices) if choices else None
    if choices and len(values) < len(choices):
        return float(place is not None and abs(place - target_class(example)) <= 1)
    right = values[target_class(example)] if choices else number_in(example.target)
    given = number_in(text) if place is None else values[place]
    if right is None:
        raise Unscorable("the target is not a rating")
    below = max((v for v in values if v < right), default=right if choices else right - 1)
    above = min((v for v in values if v > right), default=right if choices else right + 1)
    return float(given is not None and below <= given <= above)


def constraint(example: Example, prediction: Prediction) -> float:
    """Return 1.0 if the answer meets every condition of its row (see `scoring.constraints`)."""
    if not example.checks:
        raise Unscorable("the example has no condition to check")
    try:
        return float(all([holds(check, prediction.text) for check in example.checks]))
    except ValueError as error:
        raise Unscorable(str(error)) from error


def rouge(example: Example, prediction: Prediction, *, kind: str) -> float:
    """Return the best ROUGE F-measure over the references, with stemming (Lin 2004)."""
    scores = rouge_scorer(kind).score_multi(list(_references(example)), prediction.text)
    return float(scores[kind].fmeasure)


def chrf(example: Example, prediction: Prediction) -> float:
    """Return sentence chrF2 by sacreBLEU, 0 to 1 (Popović 2015)."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(prediction.text, list(_references(example))).score) / 100


def bleu(example: Example, prediction: Prediction) -> float:
    """Return sentence BLEU by sacreBLEU, 0 to 1: exponential smoothing, effective order.

    Of scripts without blanks between words each character is a word. Its mean over examples is not
    corpus BLEU, which cannot be paired by example.
    """
    import sacrebleu

    references = [spaced(reference) for reference in _references(example)]
    score = sacrebleu.sentence_bleu(spaced(prediction.text), references).score
    return min(1.0, float(score) / 100)  # a perfect match comes out a hair above 100


def nats_per_token(example: Example, prediction: Prediction) -> float:
    """Return the cross-entropy that was measured on the target."""
    if prediction.nll is None or not math.isfinite(prediction.nll):
        raise Unscorable("no finite cross-entropy was measured")
    return prediction.nll


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", True, Scale.BINARY, accuracy),
        Metric("exact_match", "exact match", True, Scale.BINARY, exact_match),
        Metric("token_f1", "token F1", True, Scale.SHARE, token_f1),
        Metric("rouge1", "ROUGE-1", True, Scale.SHARE, partial(rouge, kind="rouge1"), points=True),
        Metric("rouge2", "ROUGE-2", True, Scale.SHARE, partial(rouge, kind="rouge2"), points=True),
        Metric("rougeL", "ROUGE-L", True, Scale.SHARE, partial(rouge, kind="rougeL"), points=True),
        Metric("chrf", "chrF", True, Scale.SHARE, chrf, points=True),
        Metric("bleu", "sentence BLEU", True, Scale.SHARE, bleu, points=True),
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
            f"there is no metric '{name}'",
            allowed=", ".join(METRICS),
            nearest=nearest(name, METRICS),
        )
    return metric


def target_class(example: Example) -> int:
    """Return the place of the right choice among the example's choices."""
    assert example.target in example.choices, "the target of a choice task is one of its choices"
    return example.choices.index(example.target)


def _references(example: Example) -> tuple[str, ...]:
    texts = tuple(text for text in example.references or (example.target,) if text.strip())
    if not texts:
        raise Unscorable("the example has no reference text")
    return texts


def _overlap_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    shared = sum((Counter(answer) & Counter(reference)).values())
    return 2 * shared / (len(answer) + len(reference))


def _only_number(text: str) -> float | None:
    """Return the number in a choice; None where it holds none, or several (18-34)."""
    return number_in(text) if len(re.findall(r"\d+(?:[.,]\d+)?", text)) == 1 else None
