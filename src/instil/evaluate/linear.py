"""A linear classifier on features of the rows: logistic regression, its settings chosen in train.

How strongly it is regularised (C), and whether classes weigh the same, is chosen by
cross-validation within train, on groups where rows share one. Nothing of validation or test is
looked at. What differs between the two classifiers (`baseline`, `probe`) is a `Kind`.

A worked example: 600 training reviews and a task with the choices (bad, good) give a classifier
that finds the test row 17_3 bad with probability .2 and good with .8. The example of that row words
its choices as (no, yes), so that the prediction's text is `yes`.

Tests: `tests/evaluate/test_probe.py`.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instil.types import Example, Prediction, Row, Task

FOLDS = 3
WEIGHTS = (None, "balanced")
MOST_TUNING_ROWS = 3000  # settings are chosen on these many; the classifier is trained on all
SEED = 0
LEAST_PROBABILITY = 1e-9  # of a class that train does not have


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between linear classifiers."""

    scale: Callable[[], Any]
    """Makes what turns items into features: scikit-learn's `fit_transform` and `transform`."""
    strengths: tuple[float, ...]
    """Values of C to choose from, the plainest first."""
    usual: float
    """The C where train has too few rows or groups to choose on."""
    solver: str
    """Scikit-learn's name for the way to fit."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What cross-validation chooses between."""

    strength: float
    """C: the larger, the less the weights are held back."""
    weights: str | None = None
    """None: rows weigh the same; balanced: classes do."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A classifier that was trained."""

    scale: Any
    """Turns items into features."""
    model: Any
    """Scikit-learn's; None where train has one class alone."""
    classes: tuple[int, ...]
    """Places of the classes of train among the task's choices."""
    choices: int
    """How many choices the task has."""


def train_classifier(
    items: Sequence[Any], rows: Sequence[Row], *, task: Task, kind: Kind
) -> Classifier:
    """Choose settings by cross-validation, and train on all rows.

    Args:
        items: A text, or a line of numbers, for each row.
        rows: Rows whose label is among the task's choices; their order does not matter.
        task: A task with choices.
        kind: The kind of classifier.
    """
    assert task.choices, "only a task with choices has a classifier"
    assert rows, "a classifier needs training rows"
    order = sorted(range(len(rows)), key=lambda n: rows[n].id)
    rows, items = [rows[n] for n in order], [items[n] for n in order]
    place = {choice: i for i, choice in enumerate(task.choices)}
    labels = np.array([place[str(row.fields[task.target])] for row in rows])
    classes = tuple(sorted(set(labels.tolist())))
    scale, model = kind.scale(), None
    with _one_thread():
        features = scale.fit_transform(items)
        if len(classes) > 1:
            model = _fit(features, labels, kind, _choose(items, rows, labels, kind))
    return Classifier(scale, model, classes, len(task.choices))


def classify(
    classifier: Classifier, items: Sequence[Any], examples: Sequence[Example]
) -> list[Prediction]:
    """Answer examples, of one template whose choices stand in the task's order.

    Args:
        classifier: What was trained.
        items: One for each example.
        examples: What to answer.

    Returns:
        One prediction an example: its text is the choice as the example words it, its
        `choice_scores` are natural logarithms of probabilities, in the order of the choices.
    """
    if not items:
        return []
    table = np.full((len(items), classifier.choices), LEAST_PROBABILITY)
    if classifier.model is None:
        table[:, classifier.classes] = 1.0
    else:
        with _one_thread():
            chances = classifier.model.predict_proba(classifier.scale.transform(items))
        table[:, classifier.classes] = np.maximum(chances, LEAST_PROBABILITY)
    made = []
    for example, scores in zip(examples, np.log(table).tolist(), strict=True):
        assert len(example.choices) == len(scores), "one choice a class"
        best = max(range(len(scores)), key=scores.__getitem__)
        made.append(Prediction(example.id, example.choices[best], choice_scores=tuple(scores)))
    return made


def to_file(classifier: Classifier, arrays: Mapping[str, Any]) -> bytes:
    """Return a classifier as a file, NumPy's .npz with all that an answer needs.

    Args:
        classifier: What was trained; one with a single class stores that.
        arrays: What turns an item into features.
    """
    kept: dict[str, Any] = {"classes": np.array(classifier.classes)}
    if classifier.model is not None:
        kept |= {"weights": classifier.model.coef_, "bias": classifier.model.intercept_, **arrays}
    file = io.BytesIO()
    np.savez(file, **kept)
    return file.getvalue()


def _one_thread() -> Any:
    """One thread: small problems run faster, and sums come out alike on every machine."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=1)


def _choose(items: Sequence[Any], rows: Sequence[Row], labels: Any, kind: Kind) -> Settings:
    """Return the settings with the best mean accuracy; the first of equals, the plainest."""
    options = [Settings(strength, weights) for weights in WEIGHTS for strength in kind.strengths]
    right: Counter[Settings] = Counter()
    for fit, held in _folds(rows, labels):
        scale = kind.scale()
        features = scale.fit_transform([items[n] for n in fit])
        others = scale.transform([items[n] for n in held])
        for settings in options:
            model = _fit(features, labels[fit], kind, settings)
            right[settings] += int((model.predict(others) == labels[held]).sum())
    return max(options, key=right.__getitem__) if right else Settings(kind.usual)


def _folds(rows: Sequence[Row], labels: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (rows to fit on, rows held out), with whole groups and the shares of the classes."""
    from sklearn.model_selection import StratifiedGroupKFold

    picked = np.random.default_rng(SEED).permutation(len(rows))[:MOST_TUNING_ROWS]
    picked.sort()
    groups = np.array([rows[i].group for i in picked])
    commonest = max(Counter(labels[picked].tolist()).values())
    folds = min(FOLDS, commonest, len(set(groups.tolist())))
    if folds < 2:
        return
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=SEED)
    with warnings.catch_warnings():
        # A class of fewer rows than folds is in some of them alone; the others choose all the same.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parted = list(splitter.split(picked, labels[picked], groups))
    for fit, held in parted:
        if len(held) and len(set(labels[picked[fit]].tolist())) > 1:
            yield picked[fit], picked[held]


def _fit(features: Any, labels: Any, kind: Kind, settings: Settings) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=settings.strength,
        class_weight=settings.weights,
        solver=kind.solver,
        max_iter=200,
        random_state=SEED,
    )
    with warnings.catch_warnings():
        # A fit that stops at the last step is a usable baseline all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)
