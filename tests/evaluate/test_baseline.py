from __future__ import annotations

import io
import itertools
import math
import re
import time
from collections import Counter

import numpy as np
import pytest

from instil.data.build import render_example
from instil.evaluate import linear
from instil.evaluate.baseline import ask_tfidf, tfidf_file, train_tfidf
from instil.types import Row
from reviews import TASK, TEMPLATE, make_rows


def predict(train: list[Row], test: list[Row]):
    examples = [render_example(TASK, TEMPLATE, row) for row in test]
    return examples, ask_tfidf(train_tfidf(train, task=TASK), test, examples, task=TASK)


def test_it_learns_and_answers_in_the_words_of_the_template():
    test = make_rows(100, seed=2)
    examples, predictions = predict(make_rows(200, seed=1), test)
    assert [p.example_id for p in predictions] == [example.id for example in examples]
    pairs = zip(examples, predictions, strict=True)
    assert sum(example.target == p.text for example, p in pairs) > 90


def test_scores_are_log_probabilities_in_the_order_of_the_choices():
    _, predictions = predict(make_rows(100, seed=1), make_rows(10, seed=2))
    for prediction in predictions:
        assert len(prediction.choice_scores) == 3
        assert sum(map(math.exp, prediction.choice_scores)) == pytest.approx(1, abs=1e-6)
        best = prediction.choice_scores.index(max(prediction.choice_scores))
        assert prediction.text == TEMPLATE.choices[best]
        assert prediction.choice_scores[1] == min(prediction.choice_scores)  # no row is fair


def test_the_order_of_rows_does_not_matter():
    train, test = make_rows(120, seed=1), make_rows(20, seed=2)
    examples, predictions = predict(train, test)
    again = ask_tfidf(train_tfidf(train[::-1], task=TASK), test, examples, task=TASK)
    assert again == predictions


def test_one_class_in_train_is_always_answered():
    _, predictions = predict(make_rows(10, seed=1, share_good=1), make_rows(5, seed=2))
    assert [prediction.text for prediction in predictions] == ["yes"] * 5


def test_a_class_with_a_single_row_still_trains():
    train = [*make_rows(20, seed=1, share_good=1), *make_rows(1, seed=3, share_good=0)]
    _, predictions = predict(train, make_rows(20, seed=2))
    assert set(Counter(p.text for p in predictions)) <= {"no", "yes"}


def test_a_class_with_a_single_row_takes_no_tuning_from_the_others(monkeypatch):
    tried = []
    fit = linear._fit
    monkeypatch.setattr(linear, "_fit", lambda *a: tried.append(a[-1].strength) or fit(*a))
    fair = Row("reviews", "fair", "fair", {"text": "so so", "label": "fair"})
    train_tfidf([*make_rows(60, seed=1), fair], task=TASK)
    assert len(set(tried)) > 1


def test_texts_without_words_are_answered():
    rows = [Row("reviews", f"x{i}", f"x{i}", {"text": "?!", "label": "bad"}) for i in range(4)]
    _, predictions = predict([*rows, *make_rows(10, seed=1)], rows)
    assert len(predictions) == 4


def test_no_test_rows():
    assert predict(make_rows(10, seed=1), [])[1] == []


def test_six_hundred_rows_take_seconds():
    train, test = make_rows(600, seed=1), make_rows(300, seed=2)
    start = time.process_time()
    predict(train, test)
    assert time.process_time() - start < 20


def test_the_file_that_is_counted_answers_alike():
    """From the stored arrays alone: idf (1 + log tf), normalised, then the logistic function."""
    test = make_rows(20, seed=2)
    classifier = train_tfidf(make_rows(120, seed=1), task=TASK)
    stored = np.load(io.BytesIO(tfidf_file(classifier)))
    place = {w: n for n, w in enumerate(stored["words"].tobytes().decode().split("\n"))}
    examples = [render_example(TASK, TEMPLATE, row) for row in test]
    for row, answer in zip(test, ask_tfidf(classifier, test, examples, task=TASK), strict=True):
        words = re.findall(r"\w+|[^\w\s]+", row.fields["text"])
        terms = Counter([*words, *map(" ".join, itertools.pairwise(words))])
        line = np.zeros(len(place))
        for term, count in terms.items():
            if term in place:
                line[place[term]] = (1 + math.log(count)) * stored["rareness"][place[term]]
        logit = (stored["weights"] @ (line / np.linalg.norm(line)) + stored["bias"]).item()
        assert stored["classes"].tolist() == [0, 2]
        assert math.exp(answer.choice_scores[2]) == pytest.approx(1 / (1 + math.exp(-logit)))


def test_one_class_stores_next_to_nothing():
    assert len(tfidf_file(train_tfidf(make_rows(10, seed=1, share_good=1), task=TASK))) < 500


@pytest.mark.parametrize(
    ("good", "bad", "around"),
    [
        ("很好", "很坏", "这个电影我昨天看了觉得{}还会再看"),
        ("ดีมาก", "แย่มาก", "หนังเรื่องนี้{}จริงๆ"),
        ("अच्छी", "बुरी", "यह फ़िल्म {} है"),
    ],
)
def test_other_scripts_are_parted_into_words(good: str, bad: str, around: str) -> None:
    def rows(part: str) -> list[Row]:
        said = [(good, "good") if i % 2 else (bad, "bad") for i in range(40)]
        texts = [f"{part}{i}{around.format(word)}{i}" for i, (word, _) in enumerate(said)]
        return [
            Row("reviews", text, text, {"text": text, "label": label})
            for text, (_, label) in zip(texts, said, strict=True)
        ]

    examples, predictions = predict(rows("train"), rows("test"))
    assert sum(e.target == p.text for e, p in zip(examples, predictions, strict=True)) >= 38


def test_vowel_signs_stay_with_their_letters() -> None:
    from instil.evaluate.baseline import vectorizer

    terms = vectorizer().fit(["हिन्दी किताब", "我爱"]).get_feature_names_out()
    assert sorted(terms) == sorted(["हिन्दी", "किताब", "हिन्दी किताब", "我", "爱", "我 爱"])
    analyse = vectorizer().build_analyzer()
    assert analyse("\u2764\ufe0fyou") == ["\u2764\ufe0f", "you", "\u2764\ufe0f you"]
    assert analyse("\U0001f468\u200d\U0001f469") == ["\U0001f468\u200d\U0001f469"]
