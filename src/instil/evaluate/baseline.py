"""Do you need a language model at all? Words and a linear classifier, trained on the same rows.

TF-IDF over single words and pairs of words, then logistic regression (`linear`). 600 training
reviews give about 9000 words and pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from instil.evaluate.linear import Classifier, Kind, classify, to_file, train_classifier
from instil.scoring.text import spaced
from instil.types import Example, Prediction, Row, Task

MOST_TERMS = 50_000  # the most frequent words and pairs; more of them cost time and accuracy


def train_tfidf(rows: Sequence[Row], *, task: Task) -> Classifier:
    """Train the classifier on rows whose label is among the task's choices."""
    return train_classifier(_texts(rows, task), rows, task=task, kind=KIND)


def ask_tfidf(
    classifier: Classifier, rows: Sequence[Row], examples: Sequence[Example], *, task: Task
) -> list[Prediction]:
    """Answer rows; see `linear.classify`.

    Args:
        classifier: From `train_tfidf`.
        rows: Rows to answer.
        examples: One for each row, of one template whose choices stand in the task's order.
        task: The task trained on.
    """
    return classify(classifier, _texts(rows, task), examples)


def tfidf_file(classifier: Classifier) -> bytes:
    """Return what must be stored: weights, the words and pairs, and how rare each is."""
    places = classifier.scale.vocabulary_
    words = "\n".join(sorted(places, key=places.__getitem__)).encode()
    arrays = {"words": np.frombuffer(words, np.uint8), "rareness": classifier.scale.idf_}
    return to_file(classifier, arrays)


def _texts(rows: Iterable[Row], task: Task) -> list[str]:
    return [str(row.fields[task.text]) for row in rows]


def vectorizer() -> Any:
    """Return a scikit-learn vectorizer of words, signs and pairs of them, not fitted yet."""
    import regex
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=MOST_TERMS,
        preprocessor=lambda text: spaced(text.lower()),  # Chinese: a word a character
        # Runs of signs are words too: `!!!` says something, and no text is without features.
        # Vowel signs of Indic scripts stay with their letters, and what joins emoji with those.
        tokenizer=regex.compile(r"[\p{L}\p{N}_][\w\p{N}\u200c\u200d]*|[^\p{L}\p{N}_\s]+").findall,
        token_pattern=None,
    )


# On sparse text newton-cg is some ten times faster than the default, lbfgs.
KIND = Kind(vectorizer, strengths=(0.3, 1.0, 3.0, 10.0, 30.0), usual=1.0, solver="newton-cg")
