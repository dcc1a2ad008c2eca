"""Do you need a language model at all? Words and a linear classifier, trained on the same rows.

TF-IDF over single words and pairs of words, then logistic regression. How strongly it is
regularised (C), and whether classes weigh the same, is chosen by cross-validation within train,
on groups where rows share one. Nothing of validation or test is looked at.

A worked example: 600 training reviews give about 9000 words and pairs; the classifier gives the
test row 17_3 the probabilities .2 and .8 for its task's choices (bad, good). The example of that
row words its choices as (no, yes), so that the prediction's text is `yes`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instil.types import Example, Prediction, Row, Task

FOLDS = 3
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
WEIGHTS = (None, "balanced")
MOST_TUNING_ROWS = 3000  # settings are chosen on these many; the classifier is trained on all
MOST_TERMS = 50_000  # the most frequent words and pairs; more of them cost time and accuracy
SEED = 0
LEAST_PROBABILITY = 1e-9  # of a class that train does not have


@dataclass(frozen=True, slots=True)
class _Settings:
    """What cross-validation chooses between."""

    strength: float = 1.0
    weights: str | None = None


def tfidf_predictions(
    train_rows: Sequence[Row],
    test_rows: Sequence[Row],
    *,
    task: Task,
    examples: Sequence[Example],
) -> list[Prediction]:
    """Train the classifier and let it answer the test examples.

    Args:
        train_rows: Rows whose label is among the task's choices; their order does not matter.
        test_rows: Rows to answer.
        task: A task with choices.
        examples: One for each test row, of one template whose choices stand in the task's order.

    Returns:
        One prediction for each test row, in their order: its text is the choice as the example
        words it, its `choice_scores` are natural logarithms of probabilities, in the same order.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    assert task.choices, "only a task with choices has a classifier"
    assert train_rows, "a classifier needs training rows"
    by_row = {example.row: example for example in examples}
    train = sorted(train_rows, key=lambda row: row.id)
    # One thread: small sparse problems run faster, and sums come out alike on every machine.
    with threadpool_limits(limits=1):
        scores = _log_probabilities(train, test_rows, task=task) if test_rows else []
    return [_prediction(by_row[row.id], line) for row, line in zip(test_rows, scores, strict=True)]


def _prediction(example: Example, scores: Sequence[float]) -> Prediction:
    assert len(example.choices) == len(scores), "one choice a class"
    best = max(range(len(scores)), key=lambda i: scores[i])
    return Prediction(example.id, text=example.choices[best], choice_scores=tuple(scores))


def _log_probabilities(
    train: Sequence[Row], test: Sequence[Row], *, task: Task
) -> list[list[float]]:
    """Return a line a test row and a column a choice: natural logarithms of probabilities."""
    labels = _labels(train, task)
    table = np.full((len(test), len(task.choices)), LEAST_PROBABILITY)
    classes = sorted(set(labels.tolist()))
    if len(classes) == 1:
        table[:, classes] = 1.0
    else:
        settings = _choose(train, labels, task=task)
        vectorizer = _vectorizer()
        features = _features(vectorizer.fit_transform, train, task)
        model = _fit(features, labels, settings=settings)
        found = model.predict_proba(_features(vectorizer.transform, test, task))
        table[:, model.classes_] = np.maximum(found, LEAST_PROBABILITY)
    lines: list[list[float]] = np.log(table).tolist()
    return lines


def _labels(rows: Iterable[Row], task: Task) -> Any:
    place = {choice: i for i, choice in enumerate(task.choices)}
    return np.array([place[str(row.fields[task.target])] for row in rows])


def _choose(train: Sequence[Row], labels: Any, *, task: Task) -> _Settings:
    """Return the settings with the best mean accuracy; the first of equals, the plainest."""
    options = [_Settings(strength, weights) for weights in WEIGHTS for strength in STRENGTHS]
    right: Counter[_Settings] = Counter()
    for fit, held in _folds(train, labels):
        vectorizer = _vectorizer()
        features = _features(vectorizer.fit_transform, [train[i] for i in fit], task)
        others = _features(vectorizer.transform, [train[i] for i in held], task)
        for settings in options:
            model = _fit(features, labels[fit], settings=settings)
            right[settings] += int((model.predict(others) == labels[held]).sum())
    return max(options, key=lambda settings: right[settings]) if right else _Settings()


def _folds(train: Sequence[Row], labels: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (rows to fit on, rows held out), with whole groups and the shares of the classes."""
    from sklearn.model_selection import StratifiedGroupKFold

    picked = np.random.default_rng(SEED).permutation(len(train))[:MOST_TUNING_ROWS]
    picked.sort()
    groups = np.array([train[i].group for i in picked])
    rarest = min(Counter(labels[picked].tolist()).values())
    folds = min(FOLDS, rarest, len(set(groups.tolist())))
    if folds < 2:
        return
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=SEED)
    for fit, held in splitter.split(picked, labels[picked], groups):
        if len(held) and len(set(labels[picked[fit]].tolist())) > 1:
            yield picked[fit], picked[held]


def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=MOST_TERMS,
        # Runs of signs are words too: `!!!` says something, and no text is without features.
        token_pattern=r"\w+|[^\w\s]+",
    )


def _features(step: Any, rows: Iterable[Row], task: Task) -> Any:
    return step([str(row.fields[task.text]) for row in rows])


def _fit(features: Any, labels: Any, *, settings: _Settings) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=settings.strength,
        class_weight=settings.weights,
        solver="newton-cg",  # on sparse text some ten times faster than the default, lbfgs
        max_iter=200,
        random_state=SEED,
    )
    with warnings.catch_warnings():
        # A fit that stops at the last step is a usable baseline all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)
