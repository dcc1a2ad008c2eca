"""What to use: the cheapest arm that none is shown to beat."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from instil.compare.cheapest import by_cost, cheapest, use_sentence
from instil.results.tasks import Arm, ClassRow, Costs, TaskResult
from instil.types import Comparison, Summary

BASE = 270_000_000
LABELS = {
    "tuned": "tuned, zero-shot",
    "prompting": "5-shot prompting, calibrated",
    "zero_shot": "base model, zero-shot prompting",
    "tfidf": "TF-IDF + logistic regression",
    "probe": "linear probe",
}
COSTS = {
    "tuned": Costs(seconds=246, bytes_on_disk=9_800_000, predictions_per_second=32),
    "prompting": Costs(seconds=171, bytes_on_disk=2140, predictions_per_second=5),
    "zero_shot": Costs(predictions_per_second=36),
    "tfidf": Costs(
        seconds=0.4, bytes_on_disk=210_000, predictions_per_second=8000, needs_model=False
    ),
    "probe": Costs(seconds=22.3, bytes_on_disk=14_300, predictions_per_second=40),
}


def make_task(name: str = "reviews", *, half: float = 0.05, **means: float) -> TaskResult:
    """Arms with these means; a difference is shown where it is well above `half`."""
    arms = tuple(
        Arm(n, LABELS[n], "", 0, "", {"accuracy": Summary("accuracy", m, 0, 1, 300)}, (), COSTS[n])
        for n, m in means.items()
    )

    def compare(a: str, b: str) -> Comparison:
        by = means[b] - means[a]
        return Comparison(a, b, "accuracy", 300, by, by - half, by + half, None)

    others = [n for n in means if n != "tuned"]
    return TaskResult(
        task=name,
        kind="sentiment",
        metric="accuracy",
        rows={},
        groups={},
        removed={},
        skipped={},
        balance={},
        ladder=(),
        arms=arms,
        comparisons=tuple(compare(n, "tuned") for n in others),
        rivals=tuple(compare(a, b) for a, b in combinations(others, 2)),
        templates=(),
        mistakes=(),
    )


def say(task: TaskResult) -> str:
    return use_sentence([task], model_bytes=BASE)


def test_the_tuned_model_where_it_beats_all() -> None:
    task = make_task(tuned=0.91, prompting=0.66, zero_shot=0.63, tfidf=0.75, probe=0.8)
    assert say(task) == (
        "Use the tuned model: no arm is shown to beat it on reviews (accuracy 91.0, corrected for "
        "4 comparisons), and each cheaper one is shown to be beaten. It took 4.1 minutes to make, "
        "stores 9.8 MB beside the base model's 270 MB and answers in 31 ms."
    )


def test_words_where_no_difference_is_shown() -> None:
    task = make_task(tuned=0.84, prompting=0.66, zero_shot=0.63, tfidf=0.83, probe=0.83)
    assert say(task) == (
        "Use TF-IDF with logistic regression: no arm is shown to beat it on reviews (accuracy "
        "83.0, corrected for 4 comparisons), and none is cheaper. It took 0.4 seconds to make, "
        "stores 210 KB, needs no language model and answers in 0.12 ms; the tuned model (+1.0 "
        "points, -4.0 to +6.0: no difference shown) took 4.1 minutes to make, stores 9.8 MB "
        "beside the base model's 270 MB and answers in 31 ms."
    )


def test_a_probe_that_beats_the_tuned_model_is_said_plainly() -> None:
    task = make_task(tuned=0.51, prompting=0.5, zero_shot=0.5, tfidf=0.6, probe=0.8)
    text = say(task)
    assert text.startswith("Use the linear probe: no arm is shown to beat it on reviews (accuracy ")
    assert "each cheaper one is shown to be beaten. It took 22 seconds to make, stores 14 KB " in (
        text
    )
    assert (
        "the tuned model (shown to be worse than TF-IDF with logistic regression: -9.0 points, "
        "-14.0 to -4.0; shown to be worse than the linear probe: -29.0 points, -34.0 to -24.0) "
        "took 4.1 minutes" in text
    )


def test_prompting_where_it_is_enough() -> None:
    task = make_task(tuned=0.8, prompting=0.82, zero_shot=0.8, tfidf=0.5, probe=0.6)
    assert say(task).startswith("Use the base model, zero-shot: no arm is shown to beat it")
    assert "It stores nothing beside the base model's 270 MB and answers in 28 ms" in say(task)
    shots = make_task(tuned=0.5, prompting=0.9, zero_shot=0.5, tfidf=0.5, probe=0.5)
    assert say(shots).startswith("Use 5-shot prompting, calibrated: no arm is shown to beat it")


def test_free_text_has_no_classifiers() -> None:
    text = say(make_task(tuned=0.9, prompting=0.6, zero_shot=0.5))
    assert text.startswith("Use the tuned model: ")
    assert "corrected for 2 comparisons" in text


def test_what_does_not_survive_the_correction_is_not_kept_back() -> None:
    task = make_task(tuned=0.845, prompting=0.66, zero_shot=0.63, tfidf=0.79, probe=0.83)
    assert task.comparisons[2].low > 0
    choice = cheapest(task)
    assert choice is not None
    assert choice.arm.name == "tfidf"
    assert "(+5.5 points, +0.5 to +10.5: not enough after correction)" in say(task)
    assert not choice.is_settled
    assert say(task).startswith("The test rows do not settle which arm to use: ")
    assert "until then, use TF-IDF with logistic regression: no arm is shown to beat it" in say(
        task
    )


def test_a_dearer_arm_answers_for_its_own_comparisons_alone() -> None:
    """p = 0.012 of one pair: enough among 4 comparisons, not among all 10 pairs of five arms."""
    task = make_task(tuned=0.815, prompting=0.66, zero_shot=0.63, tfidf=0.75, probe=0.752)
    choice = cheapest(task)
    assert choice is not None
    assert (choice.arm.name, choice.compared) == ("tuned", 4)


def test_few_rows_say_what_they_could_have_shown() -> None:
    task = make_task(half=0.3, tuned=0.88, zero_shot=0.69, probe=0.9)
    wide = tuple(replace(c, smallest_detectable=0.261) for c in task.comparisons)
    text = say(replace(task, comparisons=wide))
    assert text.startswith(
        "The test rows do not settle which arm to use: another may be far better "
    )
    assert "until then, use the base model, zero-shot: no arm is shown to beat it" in text
    assert (
        "the tuned model (+19.0 points, -11.0 to +49.0: no difference shown, 300 rows could show "
        "26.1 points) took" in text
    )
    assert text.endswith(
        "; the highest mean is that of the linear probe (+21.0 points, -9.0 to +51.0: no "
        "difference shown)."
    )


def test_an_arm_that_a_lower_mean_may_beat_by_far_is_not_settled() -> None:
    task = make_task(half=0.5, tuned=0.62, zero_shot=0.3, tfidf=0.75)
    choice = cheapest(task)
    assert choice is not None
    assert (choice.arm.name, choice.is_settled) == ("tfidf", False)
    assert "until then, use TF-IDF" in say(task)


def test_the_highest_mean_is_told_whichever_way_the_pair_was_compared() -> None:
    task = make_task(tuned=0.8, prompting=0.86, zero_shot=0.78, tfidf=0.83, probe=0.8)
    assert [(c.a, c.b) for c in task.rivals][1] == ("prompting", "tfidf")
    assert say(task).endswith(
        "; the highest mean is that of 5-shot prompting, calibrated (+3.0 points, -2.0 to +8.0: "
        "no difference shown)."
    )


def test_an_arm_may_be_beaten_by_one_that_is_not_the_tuned_one() -> None:
    task = make_task(tuned=0.78, prompting=0.5, zero_shot=0.5, tfidf=0.72, probe=0.82)
    assert "the tuned model" in say(task)
    choice = cheapest(task)
    assert choice is not None
    assert (choice.arm.name, choice.is_cheapest) == ("probe", False)


def test_an_arm_that_finds_one_class_alone_is_not_recommended_without_a_word() -> None:
    task = make_task(tuned=0.99, zero_shot=0.5, tfidf=0.98)
    classes = (ClassRow("ok", 0.98, 1.0, 0.99, 392), ClassRow("fraud", 0.0, 0.0, 0.0, 8))
    arms = {arm.name: arm for arm in task.arms}
    f1 = {
        name: Summary("macro_f1", mean, 0, 1, 400)
        for name, mean in (("tfidf", 0.495), ("tuned", 0.87))
    }
    for name, mean in f1.items():
        arms[name] = replace(arms[name], summaries={**arms[name].summaries, "macro_f1": mean})
    arms["tfidf"] = replace(arms["tfidf"], per_class=classes)
    task = replace(task, arms=tuple(arms.values()))
    text = say(task)
    assert text.startswith("Use TF-IDF")
    assert "it finds “ok” alone, and none of the 8 rows of other classes (macro-F1 49.5" in text
    assert "the tuned model 87.0)" in text
    both = use_sentence([task, make_task("other", tuned=0.9, zero_shot=0.5)], model_bytes=BASE)
    assert "finds “ok” alone" in both


def test_several_tasks_in_one_sentence() -> None:
    tasks = [
        make_task("reviews", tuned=0.91, prompting=0.66, tfidf=0.75, probe=0.8),
        make_task("news", tuned=0.84, prompting=0.3, tfidf=0.83, probe=0.85),
        make_task("titles", tuned=0.9, prompting=0.3),
        make_task("jokes", tuned=0.5, prompting=0.3, tfidf=0.73, probe=0.7),
    ]
    assert use_sentence(tasks, model_bytes=BASE) == (
        "Use the cheapest arm that none is shown to beat (corrected over its comparisons): "
        "the tuned model on reviews (91.0), titles (90.0); TF-IDF with logistic regression on "
        "news (83.0; tuned +1.0 points, -4.0 to +6.0: no difference shown), jokes (73.0; tuned "
        "shown to be worse than TF-IDF with logistic regression: -23.0 points, -28.0 to -18.0; "
        "shown to be worse than the linear probe: -20.0 points, -25.0 to -15.0)."
    )


def test_nothing_is_said_where_not_every_pair_was_compared() -> None:
    task = make_task(tuned=0.9, prompting=0.6, tfidf=0.7)
    assert say(replace(task, rivals=())) == "", "a run of an earlier version"
    assert say(make_task(tuned=0.9)) == ""


@pytest.mark.parametrize(
    ("rates", "order"),
    [
        ({"tuned": 40, "probe": 33, "zero_shot": 35}, ["zero_shot", "probe", "tuned"]),
        ({"tuned": 40, "probe": 20, "zero_shot": 10}, ["tuned", "probe", "zero_shot"]),
    ],
)
def test_time_decides_only_where_it_is_another_kind_of_work(rates, order) -> None:
    arms = [
        replace(arm, costs=replace(arm.costs, predictions_per_second=rates[arm.name]))
        for arm in make_task(tuned=0.9, probe=0.8, zero_shot=0.7).arms
    ]
    assert [arm.name for arm in by_cost(arms)] == order
