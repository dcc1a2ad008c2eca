from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from instil import format as fmt
from instil.compare.pairing import compare
from instil.compare.seeds import Stratum, crossed
from instil.compare.verdict import (
    Outcome,
    budget_sentence,
    check_budget,
    could_show,
    not_learnt,
    outcome,
    outcomes,
    verdict,
)
from instil.results.guard import GuardResult
from instil.results.keeping import Means, TermMean
from instil.results.tasks import Arm, Costs, Learnt, TaskResult
from instil.results.training import Alarm, TrainingSummary
from instil.types import Comparison, Estimate, Summary, TaskLook

TRAINING = TrainingSummary(
    method="lora",
    steps=100,
    best_step=80,
    epochs=2.0,
    stopped_early=False,
    learning_rate=5e-4,
    seconds=378.0,
    tokens_per_second=300.0,
    supervised_tokens=1000,
    fates={"kept": 600},
    trainable_parameters=1_900_000,
    trainable_share=0.0141,
    peak_memory_bytes=0,
    dtype="bfloat16",
)


def _comparison(
    a: str, difference: float, half: float, *, metric: str = "accuracy", detectable: float = 0.06
) -> Comparison:
    return Comparison(
        a=a,
        b="tuned",
        metric=metric,
        n=300,
        difference=difference,
        low=difference - half,
        high=difference + half,
        p_value=None,
        higher_is_better=metric != "nats_per_token",
        smallest_detectable=detectable,
    )


def _arm(name: str, mean: float, *, metric: str, label: str = "") -> Arm:
    summary = Summary(metric, mean, mean - 0.04, mean + 0.04, 300)
    costs = Costs(bytes_on_disk=9_800_000 if name == "tuned" else 0)
    return Arm(name, label or name, "x", 0, "raw", {metric: summary}, costs=costs)


def _task(
    name: str = "reviews",
    *,
    gain: float = 0.093,
    half: float = 0.042,
    over_tfidf: float = 0.071,
    metric: str = "accuracy",
) -> TaskResult:
    tuned = 0.883
    return TaskResult(
        task=name,
        kind="sentiment",
        metric=metric,
        rows={},
        groups={},
        removed={},
        skipped={},
        balance={},
        ladder=(),
        arms=(
            _arm("prompting", tuned - gain, metric=metric, label="5-shot prompting, calibrated"),
            _arm("tuned", tuned, metric=metric),
            _arm("tfidf", tuned - over_tfidf, metric=metric),
        ),
        comparisons=(
            _comparison("prompting", 0.5, 0.1, metric="macro_f1"),
            _comparison("prompting", gain, half, metric=metric),
            _comparison("tfidf", over_tfidf, 0.041, metric=metric),
        ),
        templates=(),
        mistakes=(),
    )


def _guard(
    name: str, change: float, half: float, *, metric: str = "accuracy", detectable: float = 0.05
) -> GuardResult:
    return GuardResult(
        task=name,
        kind="topic",
        before=Summary(metric, 3.98 if metric == "nats_per_token" else 0.7, 0, 1, 100),
        after=Summary(metric, (3.98 if metric == "nats_per_token" else 0.7) + change, 0, 1, 100),
        comparison=_comparison("before", change, half, metric=metric, detectable=detectable),
    )


def test_better() -> None:
    gain, forgetting, price = verdict([_task()], [], training=TRAINING)
    assert gain == (
        "On reviews, tuning beat the best prompting (5-shot prompting, calibrated): accuracy 88.3 "
        "against 79.0, +9.3 points (95 % interval +5.1 to +13.5) on 300 test rows; TF-IDF with "
        "logistic regression reached 81.2, and the tuned model is better by 7.1 points "
        "(+3.0 to +11.2)."
    )
    assert forgetting == "Forgetting was not measured."
    assert price == (
        "The price: 6.3 minutes of training, 9.8 MB to store, "
        "1.4 % of the parameters trained (LoRA)."
    )


def test_not_shown_says_what_the_rows_could_show() -> None:
    gain = verdict([_task(gain=0.02, over_tfidf=-0.01)], [], training=TRAINING)[0]
    assert gain.startswith("On reviews, tuning showed no difference from the best prompting (")
    assert "+2.0 points (95 % interval -2.2 to +6.2) on 300 test rows, which could show 6.0" in gain
    assert gain.endswith("reached 89.3, no difference from the tuned model shown (-5.1 to +3.1).")
    assert "beat" not in gain
    assert "better" not in gain


def test_worse_is_said_as_plainly() -> None:
    gain = verdict([_task(gain=-0.093, over_tfidf=-0.071)], [], training=TRAINING)[0]
    assert gain.startswith("On reviews, tuning did worse than the best prompting (")
    assert "-9.3 points (95 % interval -13.5 to -5.1)" in gain
    assert "and the tuned model is worse by 7.1 points (-11.2 to -3.0)" in gain


def test_without_prompting_or_classifier() -> None:
    task = _task(metric="rougeL")
    zero = replace(task.comparisons[1], a="zero_shot")
    arms = (_arm("zero_shot", 0.79, metric="rougeL", label="zero-shot prompting"), task.arms[1])
    gain = verdict([replace(task, comparisons=(zero,), arms=arms)], [], training=TRAINING)[0]
    assert gain.startswith("On reviews, tuning beat zero-shot prompting: ROUGE-L 88.3 against 79.0")
    assert "TF-IDF" not in gain
    alone = verdict([replace(task, comparisons=())], [], training=TRAINING)[0]
    assert alone == "Tuning was not compared with prompting, so what it bought is not known."


def test_several_tasks_in_one_sentence() -> None:
    tasks = [
        _task("reviews"),
        _task("news", gain=0.01, over_tfidf=-0.02),
        _task("titles", gain=-0.2, metric="rouge1"),
        replace(_task("jokes"), comparisons=()),
    ]
    gain = verdict(tasks, [], training=TRAINING)[0]
    assert gain == (
        "Tuning beat the best prompting on 1 of 3 tasks (reviews +9.3 points accuracy, +5.1 to "
        "+13.5, 300 rows); it did worse on 1 (titles -20.0 points ROUGE-1, -24.2 to -15.8, 300 "
        "rows); no difference was shown on 1 (news +1.0 points accuracy, -3.2 to +5.2, 300 rows "
        "could show 6.0 points); not compared on 1 (jokes); TF-IDF with logistic regression was "
        "not beaten on news."
    )
    best = verdict([_task("a"), _task("b")], [], training=TRAINING)[0]
    assert best.startswith("Tuning beat the best prompting on 2 of 2 tasks (a +9.3")
    assert best.endswith("; it beat TF-IDF with logistic regression on all 2 tasks where it ran.")
    none = verdict([_task("a", gain=0.0), _task("b", gain=0.0)], [], training=TRAINING)[0]
    assert none.startswith(
        "Tuning beat the best prompting on 0 of 2 tasks; no difference was shown"
    )


def test_forgotten_tasks_are_named() -> None:
    guard = [
        _guard("news", -0.06, 0.03),
        _guard("entities", 0.01, 0.05, detectable=0.042),
        _guard("answers", -0.02, 0.04, detectable=0.07),
        _guard("general text", 0.05, 0.01, metric="nats_per_token"),
    ]
    held = Means(terms=(TermMean("kl", "Held to the base model", 0.1),))
    text = verdict([_task()], guard, training=replace(TRAINING, means=held))[1]
    assert text == (
        "Forgetting: news lost 6.0 points (-9.0 to -3.0), general text got worse by 0.050 nats per "
        "token (+0.040 to +0.060; from 3.980 to 4.030); "
        "no loss is shown on the other 2 guard tasks, "
        "corrected for 4 comparisons (the smallest loss that would have shown: 4.2 to 7.0 points)."
    )
    free = verdict([_task()], guard, training=TRAINING)[1]
    assert free == f"{text} To keep more of it, try keep.kl: 0.1 (docs/forgetting.md)."


def test_no_loss_above_a_hundred_points_is_said_to_show() -> None:
    guard = [
        _guard("news", 0.01, 0.05, detectable=0.117),
        _guard("answers", -0.02, 0.6, detectable=1.142),
    ]
    text = verdict([_task()], guard, training=TRAINING)[1]
    assert "would have shown: 11.7 points, in 1 comparison of too few rows none)" in text


def test_a_guard_task_without_a_right_answer_can_show_no_loss() -> None:
    known, void = _guard("news", 0.01, 0.05), _guard("poems", 0.0, 0.05)
    void = replace(void, before=replace(void.before, mean=0.0))
    said = "No answer was right before on poems: there no loss can show."
    assert verdict([_task()], [known, void], training=TRAINING)[1] == (
        "Forgetting: no loss is shown on news, corrected for 2 comparisons "
        f"(the smallest loss that would have shown: 5.0 points). {said}"
    )
    assert verdict([_task()], [void], training=TRAINING)[1] == f"Forgetting cannot show. {said}"
    lost = verdict([_task()], [_guard("news", -0.06, 0.03), void], training=TRAINING)[1]
    assert "no loss is shown" not in lost
    assert said in lost


def test_nothing_forgotten() -> None:
    guard = [
        _guard("news", 0.06, 0.03),
        _guard("entities", 0.01, 0.05),
        _guard("general text", 0.001, 0.01, metric="nats_per_token", detectable=0.014),
    ]
    assert verdict([_task()], guard, training=TRAINING)[1] == (
        "Forgetting: no loss is shown on the 2 guard tasks and general text, "
        "corrected for 3 comparisons "
        "(the smallest loss that would have shown: 5.0 points, 0.014 nats per token)."
    )
    assert verdict([_task()], guard[1:2], training=TRAINING)[1].startswith(
        "Forgetting: no loss is shown on entities"
    )


def test_a_small_loss_among_many_guard_tasks_does_not_survive_holm() -> None:
    loss = _guard("news", -0.06, 0.055)
    others = [_guard(f"task {i}", 0.0, 0.05) for i in range(5)]
    assert "news lost" in verdict([_task()], [loss], training=TRAINING)[1]
    assert "lost" not in verdict([_task()], [loss, *others], training=TRAINING)[1]
    assert outcome(loss.comparison) is Outcome.WORSE
    shown = outcomes([x.comparison for x in (loss, *others)])
    assert set(shown) == {Outcome.NOT_SHOWN}


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (_comparison("a", 0.093, 0.042), "+9.3 points (+5.1 to +13.5), better"),
        (_comparison("a", -0.093, 0.042), "-9.3 points (-13.5 to -5.1), worse"),
        (
            _comparison("a", 0.011, 0.03),
            "+1.1 points (-1.9 to +4.1), no difference shown, 300 rows could show 6.0 points",
        ),
        (
            _comparison("a", 0.3, 1.0, detectable=2.7),
            "+30.0 points (-70.0 to +130.0), no difference shown, 300 rows of too few groups to "
            "show any difference",
        ),
        (
            _comparison("a", 0.0, 0.0, detectable=0.0),
            "0.0 points (0.0 to 0.0), no difference shown",
        ),
        (
            _comparison("a", 0.09, 0.01, metric="nats_per_token"),
            "+0.090 nats per token (+0.080 to +0.100), worse",
        ),
        (_comparison("a", 0.02, 0.0197), "+2.00 points (+0.03 to +3.97), better"),
        (
            _comparison("a", -0.0004, 0.03, detectable=0),
            "0.0 points (-3.0 to +3.0), no difference shown",
        ),
    ],
)
def test_a_difference_in_words(comparison: Comparison, expected: str) -> None:
    shown = outcome(comparison)
    text = f"{fmt.plain_change(comparison)} ({fmt.plain_interval(comparison)}), {shown}"
    could = could_show(comparison, rows="rows")
    assert text + could * (shown is Outcome.NOT_SHOWN) == expected


@pytest.mark.parametrize("groups", [4, 8])
def test_with_few_groups_a_family_of_comparisons_has_5_percent_of_false_alarms(groups: int) -> None:
    rng = np.random.default_rng(0)
    keys = [f"{group}/{row}" for group in range(groups) for row in range(10)]
    alarms, trials = 0, 300
    for _ in range(trials):
        family = []
        for _ in range(8):
            apart = np.repeat(rng.normal(0, 0.05, groups), 10) + rng.normal(0, 0.02, len(keys))
            scores = dict.fromkeys(keys, 0.5), dict(zip(keys, 0.5 + apart, strict=True))
            by_group = {key: key.split("/")[0] for key in keys}
            family.append(compare(*scores, a="a", b="b", metric="token_f1", groups=by_group))
        alarms += set(outcomes(family)) != {Outcome.NOT_SHOWN}
    assert alarms / trials < 0.08  # .15 to .24 by a normal's p-values


def test_with_two_seeds_a_family_of_comparisons_has_5_percent_of_false_alarms() -> None:
    rng = np.random.default_rng(1)
    alarms, trials = 0, 200
    for _ in range(trials):
        family = []
        for _ in range(4):
            values = rng.normal(0, 0.2, (2, 1)) + rng.normal(0, 0.3, (2, 16))
            known = crossed([Stratum(values, tuple(map(str, range(16))))], span=None)
            ends = known.low, known.high
            family.append(
                Comparison("a", "b", "accuracy", 16, known.mean, *ends, None, df=known.df)
            )
        alarms += set(outcomes(family)) != {Outcome.NOT_SHOWN}
    assert alarms / trials < 0.08  # .3 to .4 by a normal's, and by max(0, seeds - both)


def test_an_interval_that_ends_in_zero_shows_nothing() -> None:
    assert outcome(replace(_comparison("a", 0.05, 0.05), low=0.0)) is Outcome.NOT_SHOWN


def test_better_never_stands_where_an_interval_includes_zero() -> None:
    checked = 0
    for step in range(-20, 21):
        comparison = _comparison("prompting", step / 100, 0.05)
        task = replace(_task(gain=step / 100), comparisons=(comparison,))
        text = verdict([task], [], training=TRAINING)[0]
        claims = bool(re.search(r"beat|did worse", text))
        assert claims == (comparison.low > 0 or comparison.high < 0)
        checked += claims
    assert checked == 30


@pytest.mark.parametrize(
    ("seconds", "share", "method", "expected"),
    [
        (1.3, 1.0, "full", "The price: 1 second of training, 9.8 MB to store, 100 % of the"),
        (42.0, 1.0, "full", "42 seconds of training, 9.8 MB to store, 100 % of the parameters"),
        (9000.0, 0.0009, "lora", "2.5 hours of training, 9.8 MB to store, 0.09 % of the"),
    ],
)
def test_price(seconds: float, share: float, method: str, expected: str) -> None:
    training = replace(TRAINING, seconds=seconds, trainable_share=share, method=method)
    assert expected in verdict([_task()], [], training=training)[2]


def _learnt(difference: float, half: float, **changes: object) -> Learnt:
    found = Learnt(
        "serious", answers=2, wanted=2, always="serious", right=0.513,
        comparison=_comparison("always", difference, half),
    )  # fmt: skip
    return replace(found, **changes)


def test_what_is_not_learnt_is_said_plainly() -> None:
    def said(*learnt: Learnt | None, **changes: object) -> str:
        tasks = [replace(_task(f"t{n}"), learnt=each) for n, each in enumerate(learnt)]
        return not_learnt(tasks, training=replace(TRAINING, **changes))

    assert said(_learnt(0.2, 0.05), None) == ""
    assert said(_learnt(-0.007, 0.057)) == (
        "On t0, the tuned model is not shown to be better than always answering “serious”: "
        "accuracy 51.3 against 52.0, -0.7 points (95 % interval -6.4 to +5.0) on 300 test rows."
    )
    assert "is worse than always answering" in said(_learnt(-0.1, 0.05))
    assert "not shown to be better than guessing" in said(_learnt(0.01, 0.05, always=""))
    lopsided = said(_learnt(0.01, 0.02, apart=Estimate(0.9, 0.85, 0.95)))
    assert lopsided.endswith("though it tells the classes apart in 0.90 of the pairs.")
    same = said(_learnt(-0.007, 0.057, answers=1), _learnt(0.2, 0.05), _learnt(0.0, 0.05))
    assert same.startswith("On t0, the tuned model gives every test row the same answer, “serious”")
    assert "; on t2, the tuned model is not shown" in same
    assert "t1" not in same
    copied = replace(_comparison("copy", 0.01, 0.05), metric="chrf")
    assert "not shown to be better than giving the text back as it is: chrF" in said(
        _learnt(0, 0, comparison=copied, right=0.61)
    )
    free = _learnt(0, 0, comparison=None, right=None, answers=1, wanted=40)
    assert "every test row the same answer" in said(free)
    alarm = Alarm(39, 78, TaskLook("t0", 9, 1, 2, "x", ()), one_answer=True, causes=())
    assert said(free, alarms=(alarm,)).endswith(
        "; the report says under Learning curves what to try."
    )


def line(difference: float, half: float, *, metric: str = "accuracy") -> GuardResult:
    level = Summary(metric, 0.5, 0.4, 0.6, 50)
    ends = (difference - half, difference + half)
    change = Comparison("before", "after", metric, 50, difference, *ends, None)
    return GuardResult("t", "qa", level, level, change)


def test_no_budget_or_no_guard_is_no_result():
    assert check_budget([line(-0.1, 0.01)], budget=None) is None
    assert check_budget([line(0.1, 0.01, metric="nats_per_token")], budget=2) is None


@pytest.mark.parametrize(
    ("difference", "half", "broken"),
    [(-0.10, 0.02, True), (-0.10, 0.20, False), (-0.01, 0.001, False), (0.10, 0.02, False)],
)
def test_it_is_broken_only_beyond_doubt(difference, half, broken):
    found = check_budget([line(difference, half), line(difference, half)], budget=2)
    assert found.broken == broken
    assert found.change == pytest.approx(100 * difference)
    assert found.high - found.change == pytest.approx(100 * half / 2**0.5)
    assert ("is broken" in budget_sentence(found)) == broken


def test_cross_entropies_are_passed_over():
    lines = [line(-0.1, 0.01), line(9.0, 0.1, metric="nats_per_token")]
    assert check_budget(lines, budget=2).change == pytest.approx(-10)
