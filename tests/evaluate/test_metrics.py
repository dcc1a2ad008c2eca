from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from instil.errors import RunError
from instil.evaluate import metrics
from instil.evaluate.metrics import macro_f1, per_class, score, summarise
from instil.scoring.metrics import METRICS
from instil.scoring.text import match_choice, normalise, number_in
from instil.types import Example, Message, Prediction, Score


def _example(
    target: str,
    *,
    id: str = "t/1/x",
    choices: tuple[str, ...] = (),
    references: tuple[str, ...] = (),
    checks: tuple[str, ...] = (),
) -> Example:
    return Example(
        id=id,
        task="t",
        template="x",
        row="1",
        group="1",
        messages=(Message("user", "?"),),
        target=target,
        choices=choices,
        references=references,
        checks=checks,
    )


def _value(metric: str, target: str, answer: str, **parts: tuple[str, ...]) -> float | None:
    example = _example(target, **parts)
    return score(example, Prediction(example.id, text=answer), metric=metric).value


MOODS = ("positive", "negative")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("positive", 1),
        (" Positive.", 1),
        ('"positive"', 1),
        ("**Positive**", 1),
        ("Positive\n\nThe writer liked it.", 1),
        ("negative", 0),
        ("not positive", 0),
        ("positive or negative", 0),
        ("", 0),
    ],
)
def test_accuracy_of_generated_choices(answer: str, expected: float) -> None:
    assert _value("accuracy", "positive", answer, choices=MOODS) == expected


def test_accuracy_of_scored_choices_is_exact() -> None:
    example = _example("Good", choices=("Good", "good"))
    wrong = Prediction(example.id, text="good", choice_scores=(-2.0, -1.0))
    assert score(example, wrong, metric="accuracy").value == 0


def test_accuracy_without_choices_matches_any_reference() -> None:
    assert _value("accuracy", "Paris", "the paris", references=("Paris", "City of Light")) == 1
    assert _value("accuracy", "Paris", "city of light.", references=("Paris", "City of Light")) == 1


@pytest.mark.parametrize(
    ("text", "choices", "place"),
    [
        ("-1", ("1", "-1"), 1),
        ("1.", ("1", "-1"), 0),
        ("A", ("A", "B"), 0),
        ("(b)", ("A", "B"), 1),
        ("+", ("+", "-"), 0),
        ("yes", ("Yes", "YES"), None),
        ("anything", (), None),
        ("Straße", ("strasse", "weg"), 0),
    ],
)
def test_match_choice(text: str, choices: tuple[str, ...], place: int | None) -> None:
    assert match_choice(text, choices) == place


def test_the_answer_is_judged_and_not_the_thoughts_before_it() -> None:
    thoughtful = "<think>\nIt is tall.\n</think>\n\nEiffel Tower"
    for target in (thoughtful, "Eiffel Tower"):
        for answer in ("<think>Hm.</think>Eiffel Tower", "so\n</think>\nEiffel Tower"):
            assert _value("exact_match", target, answer) == 1
        assert _value("exact_match", target, "<think>Eiffel Tower") == 0
    assert _value("rougeL", "a b", "<think>a b</think> c d", references=("a b",)) == 0


def test_exact_match_by_squad_rules() -> None:
    assert _value("exact_match", "Eiffel Tower", "The Eiffel tower!") == 1
    assert _value("exact_match", "Eiffel Tower", "Eiffel") == 0
    assert _value("exact_match", "+", "-") == 0
    assert normalise("cafe\u0301") == normalise("caf\u00e9")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("-5", "5"),
        ("3.14", "314"),
        (".5", "5"),
        ("x+1", "x-1"),
        ("2*3", "23"),
        ("C++", "C#"),
        ("C++", "C"),
        ("10%", "10"),
        ("12:30", "1230"),
        ('{"name": "f", "arguments": {"x": 5}}', '{"name": "f", "arguments": {"x": -5}}'),
        ('{"name": "f", "arguments": {"x": 1.5}}', '{"name": "f", "arguments": {"x": 15}}'),
    ],
)
def test_marks_that_make_another_answer_of_it_count(right: str, wrong: str) -> None:
    assert _value("exact_match", right, right) == 1
    assert _value("exact_match", right, wrong) == 0


@pytest.mark.parametrize(
    ("right", "same"),
    [
        ("1000", "**1,000**"),
        ("Paris", "# Paris."),
        ("-5", "\u22125"),
        ("well-known", "well-known!"),
        ("10 apples", "- 10 apples"),
        ('{"name": "f", "arguments": {"x": 5}}', '{"arguments": {"x": 5}, "name": "f"}'),
        ('{"a": 1}\n{"b": 2}', '{"a":1}\n{"b":2}'),
    ],
)
def test_marks_around_an_answer_do_not(right: str, same: str) -> None:
    assert _value("exact_match", right, same) == 1


def test_token_f1_by_hand() -> None:
    # 2 of 4 answered words right, 2 of 2 found: p = 1/2, r = 1, F1 = 2/3
    assert _value("token_f1", "north France", "in north of France") == pytest.approx(2 / 3)
    # a repeated word counts as often as the reference has it: p = 1/3, r = 1
    assert _value("token_f1", "france", "france france france") == pytest.approx(1 / 2)
    assert _value("token_f1", "x", "north France", references=("x", "North France")) == 1
    assert _value("token_f1", "x", "") == 0


def test_rouge_by_hand() -> None:
    # Lin 2004: police killed the gunman / police kill the gunman (stems equal) / word order
    assert _value("rouge1", "police killed the gunman", "police kill the gunman") == 1
    assert _value("rougeL", "police killed the gunman", "the gunman kill police") == 0.5
    assert _value("rouge2", "police killed the gunman", "the gunman killed police") == (
        pytest.approx(1 / 3)
    )
    assert _value("rouge1", "x y", "a b c d", references=("x y", "a b")) == pytest.approx(2 / 3)


def test_rouge_reads_other_scripts() -> None:
    assert _value(
        "rouge1", "\u043c\u0438\u0440 \u0442\u0440\u0443\u0434", "\u043c\u0438\u0440"
    ) == (pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("right", "wrong"), [("\u0915\u0940", "\u0915\u093e"), ("\u0995\u09bf", "\u0995\u09be")]
)
def test_rouge_tells_words_apart_by_their_marks(right: str, wrong: str) -> None:
    assert _value("rouge1", right, right) == 1
    assert _value("rouge1", right, wrong) == 0
    assert _value("rouge1", "caf\u00e9", "cafe\u0301") == 1


@pytest.mark.parametrize(
    ("right", "given", "expected"),
    [
        ("Action|Comedy|Drama", "Action|Comedy", 0.8),
        ("billing;refund", "refund;billing", 1),
        ('["billing","lost card"]', '["lost card", "billing"]', 1),
        ("fig, plum", "plum,fig", 1),
        ("1,000", "1000", 1),
    ],
)
def test_token_f1_parts_lists(right: str, given: str, expected: float) -> None:
    assert _value("token_f1", right, given) == pytest.approx(expected)


def test_scripts_without_blanks_are_compared_by_character() -> None:
    right, near, far = "我爱北京天安门", "我爱北京", "他恨上海的雨"
    for metric in ("rouge1", "rouge2", "rougeL", "token_f1", "bleu"):
        assert _value(metric, right, right) == pytest.approx(1)
        assert 0.1 < _value(metric, right, near) < 1, metric
        assert _value(metric, right, far) < 0.1, metric
    assert _value("rouge1", right, near) == pytest.approx(2 * 4 / (4 + 7))
    assert (
        _value("rouge1", "\u0e01\u0e34\u0e19", "\u0e01\u0e32\u0e19") < 1
    )  # Thai: a vowel sign apart


def test_bleu_of_chinese_is_that_of_sacrebleu_s_own_tokenizer() -> None:
    import sacrebleu

    right, given = "他在2019年去了北京\uff0c看见了很多人。", "他2019年在北京看见很多人。"
    expected = sacrebleu.sentence_bleu(given, [right], tokenize="zh").score / 100
    assert _value("bleu", right, given) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("right", "given"),
    [
        ("北京", "“北京”。"),
        ("Paris", "«Paris»…"),
        ("it's", "it\u2019s"),
        ("2019-2021", "2019\u20132021"),
        ("50%", "\uff15\uff10\uff05"),
    ],
)
def test_punctuation_beyond_ascii_is_set_aside(right: str, given: str) -> None:
    assert _value("exact_match", right, given) == 1
    assert _value("exact_match", "5", "\u22125") == 0


@pytest.mark.parametrize(
    ("right", "given"),
    [
        ("35", "3、5"),
        ("35天", "3\uff5e5天"),
        ("35", "3,5"),
        ("53", "5\uff1b3"),
        ("314", "3.14"),
        ("\u0663\u0661\u0664", "\u0663\u066b\u0661\u0664"),
        ("10", "10\u066a"),
        ("5", "5\u2030"),
        ("35", "3\u00b75"),
    ],
)
def test_marks_between_numbers_part_them(right: str, given: str) -> None:
    assert _value("exact_match", right, given) == 0
    assert _value("exact_match", given, given) == 1


@pytest.mark.parametrize(
    ("right", "given"), [("1000", "1,000"), ("1000", "1'000"), ("7", "7."), ("150000", "1,50,000")]
)
def test_marks_of_thousands_and_ends_go(right: str, given: str) -> None:
    assert _value("exact_match", right, given) == 1


@pytest.mark.parametrize(
    "broken", ['{"a": ["x", "y"]', "{a: [x, y]}", "a: x, y", '{"a": "x", "y"}', '{"a": ["x", "Y"]}']
)
def test_an_answer_that_is_no_json_is_not_the_json_asked_for(broken: str) -> None:
    assert _value("exact_match", '{"a": ["x", "y"]}', broken) == 0
    assert _value("exact_match", '{"a": ["x", "y"]}', '{ "a":["x","y"] }') == 1


@pytest.mark.parametrize("given", ['{"a": 1}.', '```json\n{"a": 1}\n```', ' {"a":1}\n'])
def test_what_stands_around_json_is_set_aside(given: str) -> None:
    assert _value("exact_match", '{"a": 1}', given) == 1


@pytest.mark.parametrize(
    ("right", "given"), [("[1]", "[1]."), ('["Paris"]', "Paris"), ("[1, 2]", "1, 2")]
)
def test_a_list_may_be_written_as_text(right: str, given: str) -> None:
    assert _value("exact_match", right, given) == 1


@pytest.mark.parametrize("right", ["[]", ",", ";"])
def test_nothing_said_is_not_right_where_the_answer_is_a_sign(right: str) -> None:
    assert _value("token_f1", right, "") == 0
    assert _value("token_f1", right, right) == 1


def test_long_dashes_part_words_and_are_no_sign() -> None:
    assert _value("exact_match", "1547 the year", "1547\u2014the year") == 1
    assert _value("exact_match", "1914-1918", "1914\u20141918") == 1
    assert number_in("Rating: \u20144") == 4


@pytest.mark.parametrize("mark", ["\u200f", "\u200b", "\ufeff"])
def test_what_nobody_sees_counts_for_nothing(mark: str) -> None:
    word = "\u05e9\u05dc\u05d5\u05dd"
    hidden = mark + word[:1] + mark + word[1:]
    for metric in ("exact_match", "token_f1", "rouge1"):
        assert _value(metric, word, hidden) == pytest.approx(1), metric
    assert match_choice(hidden, [word, "x"]) == 0


def test_an_emoji_s_selector_is_no_part_of_the_next_word() -> None:
    assert _value("rouge1", "you", "\u2764\ufe0fyou") == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("我给4分", 4),
        ("별점4점", 4),
        ("\u043e\u0446\u0435\u043d\u043a\u04304", 4),
        ("\u22122", -2),
        ("4,5 Sterne", 4.5),
        ("v4", None),
    ],
)
def test_numbers_in_other_scripts(text: str, number: float | None) -> None:
    assert number_in(text) == number


@pytest.mark.parametrize(
    "given", ["正面。", "正面\uff61", "\u3008正面\u3009", "「正面」", "正面\uff01", "“正面”、"]
)
def test_a_choice_in_other_signs(given: str) -> None:
    assert match_choice(given, ["正面", "负面"]) == 0


def test_rouge_of_plain_text_is_that_of_the_library() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    one, two = "The cats were running, 3 of them!", "A cat runs with them_all; 3 more."
    expected = RougeScorer(["rougeL"], use_stemmer=True).score(one, two)["rougeL"].fmeasure
    assert 0 < expected < 1
    assert _value("rougeL", one, two) == pytest.approx(expected)


def test_chrf_and_bleu_run_from_zero_to_one() -> None:
    same = "the cat sat on the mat today"
    for metric in ("chrf", "bleu"):
        assert _value(metric, same, same) == pytest.approx(1.0)
        assert _value(metric, same, "") == pytest.approx(0.0)
        assert 0 < (_value(metric, same, "the cat sat on a mat") or 0) < 1
    # unigrams 5/6, bigrams 3/5, trigrams 2/4, 4-grams 1/3; brevity exp(1 - 7/6)
    by_hand = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25 * math.exp(1 - 7 / 6)
    assert _value("bleu", same, "the cat sat on a mat") == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("target", "answer", "choices", "expected"),
    [
        ("4", "5", ("1", "2", "3", "4", "5"), 1),
        ("4", "2", ("1", "2", "3", "4", "5"), 0),
        ("4", "I give it 3 stars", ("1", "2", "3", "4", "5"), 1),
        ("4", "great", ("1", "2", "3", "4", "5"), 0),
        ("good", "Great!", ("poor", "fair", "good", "great"), 1),
        ("great", "poor", ("poor", "fair", "good", "great"), 0),
        ("great", "3", ("poor", "fair", "good", "great"), 0),
        ("18-34", "35-54", ("under 18", "18-34", "35-54", "55+"), 1),
        ("18-34", "55+", ("under 18", "18-34", "35-54", "55+"), 0),
        ("25", "50", ("0", "25", "50", "75", "100"), 1),
        ("25", "75", ("100", "75", "50", "25", "0"), 0),
        ("2", "3", ("0.5", "1", "1.5", "2", "2.5", "3"), 0),
        ("4/5", "4", ("1/5", "2/5", "3/5", "4/5", "5/5"), 1),
        ("1/2", "1/4", ("1/4", "1/3", "1/2"), 0),
        ("4 out of 5", "I say 3", tuple(f"{n} out of 5" for n in range(1, 6)), 1),
        ("4 (1-5)", "1", tuple(f"{n} (1-5)" for n in range(1, 6)), 0),
        ("4 stars", "I say 5", ("1 star", "2 stars", "3 stars", "4 stars", "5 stars"), 1),
        ("3.5", "4.5", (), 1),
        ("-1", "1", (), 0),
    ],
)
def test_within_one(target: str, answer: str, choices: tuple[str, ...], expected: float) -> None:
    assert _value("within_one", target, answer, choices=choices) == expected


def test_number_in() -> None:
    assert number_in("none") is None
    assert number_in("-2.5!") == -2.5


def test_what_cannot_be_scored_says_why() -> None:
    example = _example("", references=())
    found = score(example, Prediction(example.id, text="x"), metric="rouge1")
    assert found.value is None
    assert "no reference" in found.why
    assert _value("within_one", "very good", "4") is None
    nan = Prediction(example.id, text="", nll=float("nan"))
    assert score(example, nan, metric="nats_per_token").value is None
    assert (
        score(example, Prediction(example.id, text="", nll=3.5), metric="nats_per_token").value
        == 3.5
    )


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(RunError, match="rougeL"):
        score(_example("x"), Prediction("t/1/x", text="x"), metric="rouge_L")


def test_table_of_metrics() -> None:
    assert len(METRICS) == 10
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.higher_is_better
        text = "4 of 5 bright stars"
        assert _value(name, text, text, checks=("words = 5",)) == pytest.approx(1.0)


def _scores(values: list[float | None], metric: str = "accuracy") -> list[Score]:
    return [
        Score(str(i), metric=metric, value=value, why="" if value is not None else "no reference")
        for i, value in enumerate(values)
    ]


def test_summarise_right_or_wrong_is_wilson() -> None:
    summary = summarise(_scores([1.0] * 8 + [0.0] * 2 + [None]), metric="accuracy")
    assert (summary.mean, summary.scored, summary.unscored) == (0.8, 10, 1)
    assert (summary.low, summary.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_summarise_counts_a_group_once() -> None:
    values: list[float | None] = [1.0, 1.0, 1.0, 0.0] * 30
    alone = summarise(_scores(sorted(values, key=float)), metric="accuracy")
    groups = {str(i): str(i // 6) for i in range(120)}
    grouped = summarise(_scores(sorted(values, key=float)), groups=groups, metric="accuracy")
    assert grouped.mean == alone.mean
    assert grouped.high - grouped.low > 1.8 * (alone.high - alone.low)
    single = summarise(_scores(values), groups={k: k for k in groups}, metric="accuracy")
    assert single == summarise(_scores(values), metric="accuracy")


def test_summarise_text_in_nats_is_lower_is_better() -> None:
    summary = summarise(_scores([3.0, 4.0, 3.5], "nats_per_token"), metric="nats_per_token")
    assert not summary.higher_is_better
    assert summary.low < 3.5 < summary.high


def test_summarise_refuses_what_it_cannot_do() -> None:
    with pytest.raises(RunError, match=r"none of 2 .*\n.*no reference \(2\)"):
        summarise(_scores([None, None]), metric="rouge1")
    with pytest.raises(RunError, match="in no group"):
        summarise(_scores([1.0, 0.0]), groups={"0": "a"}, metric="accuracy")


def _answers(
    right: list[int], given: list[int | None], wordings: tuple[str, ...]
) -> tuple[list[Example], list[Prediction]]:
    examples = [
        _example(wordings[place], id=str(i), choices=wordings) for i, place in enumerate(right)
    ]
    texts = ["nonsense" if place is None else wordings[place] for place in given]
    return examples, [Prediction(str(i), text=text) for i, text in enumerate(texts)][::-1]


def test_macro_f1_and_per_class_equal_sklearn() -> None:
    generator = np.random.default_rng(0)
    right = [int(x) for x in generator.integers(0, 3, size=200)]
    given = [r if generator.random() < 0.6 else int(generator.integers(0, 3)) for r in right]
    examples, predictions = _answers(right, list(given), ("good", "bad", "mixed"))
    labels = ("positive", "negative", "neutral")
    summary = macro_f1(examples, predictions, labels=labels)
    assert summary.metric == "macro_f1"
    assert summary.mean == pytest.approx(f1_score(right, given, average="macro"))
    assert summary.low < summary.mean < summary.high
    rows = per_class(examples, predictions, labels=labels)
    expected = np.array(precision_recall_fscore_support(right, given)).T
    assert [row.label for row in rows] == list(labels)
    found = [(row.precision, row.recall, row.f1, row.n) for row in rows]
    assert np.array(found) == pytest.approx(expected)


def test_macro_f1_interval_is_as_wide_as_repeated_sampling_says() -> None:
    generator = np.random.default_rng(1)

    def draw() -> tuple[list[Example], list[Prediction]]:
        right = [int(x) for x in generator.random(150) < 0.3]
        given: list[int | None] = [r if generator.random() < 0.8 else 1 - r for r in right]
        return _answers(right, given, MOODS)

    means = [metrics._mean_f1(_totals(*draw()))[0] for _ in range(400)]
    one = macro_f1(*draw(), labels=MOODS)
    assert one.high - one.low == pytest.approx(2 * 1.96 * np.std(means), rel=0.2)


@pytest.mark.parametrize(("classes", "each"), [(150, 2), (77, 4), (20, 15)])
def test_macro_f1_interval_of_many_classes_holds_the_truth(classes: int, each: int) -> None:
    generator, labels = np.random.default_rng(2), [f"c{i}" for i in range(classes)]
    right, held = np.repeat(np.arange(classes), each), 0
    for _ in range(60):
        wrong = generator.random(len(right)) < 0.3
        given = (right + wrong * generator.integers(1, classes, len(right))) % classes
        found = macro_f1(*_answers(list(right), list(given), labels), labels=labels)
        assert found.low < found.mean < found.high
        # F1 of each class is .7 where every class is found at .7 and mistaken for at .3.
        held += found.low <= 0.7 <= found.high
    assert held >= 53


def _totals(examples: list[Example], predictions: list[Prediction]) -> np.ndarray:
    pairs = metrics._classes(examples, predictions, labels=MOODS)
    return metrics._confusions(pairs, classes=2).sum(axis=0, keepdims=True)


def test_an_answer_that_is_no_choice_counts_as_missed() -> None:
    examples, predictions = _answers([0, 0, 1, 1], [0, None, 1, None], MOODS)
    first, second = per_class(examples, predictions, labels=MOODS)
    assert (first.precision, first.recall, first.n) == (1.0, 0.5, 2)
    assert (second.precision, second.recall, second.n) == (1.0, 0.5, 2)


def test_a_class_that_never_occurs_is_left_out_of_macro_f1() -> None:
    examples, predictions = _answers([0, 1] * 20, [0, 1] * 20, ("a", "b", "c"))
    summary = macro_f1(examples, predictions, labels=("a", "b", "c"))
    assert summary.mean == 1.0
    assert summary.low < 1.0  # forty right answers are not certainty
    assert per_class(examples, predictions, labels=("a", "b", "c"))[2].f1 == 0.0


def test_a_missing_prediction_is_an_error() -> None:
    examples, predictions = _answers([0, 1], [0, 1], MOODS)
    with pytest.raises(RunError, match="1 of 2 examples have no prediction"):
        macro_f1(examples, predictions[:1], labels=MOODS)


def test_metrics_load_neither_torch_nor_the_text_libraries() -> None:
    code = (
        "import sys, instil.compare.verdict, instil.compare.pairing, instil.evaluate.metrics\n"
        "slow = {'torch', 'transformers', 'sacrebleu', 'rouge_score', 'sklearn', 'scipy.stats'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nats_have_no_mean_below_zero():
    values = [0.1, 0.2, 4.0, 0.3, 0.2, 5.0]
    found = summarise(
        [Score(f"{n}", "nats_per_token", v) for n, v in enumerate(values)], metric="nats_per_token"
    )
    assert found.low == 0.0
    assert found.high > found.mean
