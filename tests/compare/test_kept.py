from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instil.compare.kept import (
    Claim,
    claims,
    guard_claims,
    kept_sentences,
    mean_claim,
    points_lines,
)
from instil.compare.verdict import Outcome, mean_change, outcome
from instil.results.guard import GuardResult, Margins
from instil.results.names import TEXT
from instil.stats.intervals import DIFFERENCE, Floats, bootstrap_mean
from instil.types import Comparison, Summary


def change(low: float, high: float, *, metric: str = "accuracy") -> Comparison:
    return Comparison(
        a="before",
        b="after",
        metric=metric,
        n=100,
        difference=(low + high) / 2,
        low=low,
        high=high,
        p_value=None,
        higher_is_better=metric != "nats_per_token",
    )


def line(task: str, low: float, high: float, *, metric: str = "accuracy") -> GuardResult:
    level = Summary(metric, 0.5, 0.4, 0.6, 100)
    return GuardResult(task, "qa", level, level, change(low, high, metric=metric))


@pytest.mark.parametrize(
    ("low", "high", "claim"),
    [
        (-0.05, -0.03, Claim.LOST_MORE),
        (-0.03, -0.01, Claim.LOST),
        (-0.015, -0.005, Claim.LOST_WITHIN),
        (-0.01, 0.01, Claim.KEPT),
        (0.01, 0.03, Claim.KEPT),
        (-0.04, 0.03, Claim.NOT_SHOWN),
        (-0.02, 0.02, Claim.NOT_SHOWN),  # ends in the margin: not above it
        (-0.03, 0.0, Claim.NOT_SHOWN),
    ],
)
def test_a_claim_is_read_off_the_interval(low: float, high: float, claim: Claim):
    assert claims([change(low, high)], [0.02]) == (claim,)
    nats = change(-high, -low, metric="nats_per_token")  # up is a loss
    assert claims([nats], [0.02]) == (claim,)


def test_without_a_margin_nothing_is_said():
    assert claims([change(-0.1, -0.05), change(-0.01, 0.01)], [None, 0.02]) == (None, Claim.KEPT)
    assert claims([], []) == ()
    assert guard_claims([line("q", -0.1, 0.1)], Margins()) == ("",)


def test_several_claims_are_corrected():
    barely = change(-0.0195, 0.0105)
    assert claims([barely], [0.02]) == (Claim.KEPT,)
    unclear = [change(-0.1, 0.1)] * 4
    assert claims([barely, *unclear], [0.02] * 5) == (Claim.NOT_SHOWN,) * 5
    # Lines without a margin are no tests against one.
    assert claims([barely, *unclear], [0.02, *[None] * 4])[0] is Claim.KEPT


def test_a_loss_beyond_the_margin_is_never_said_without_a_loss():
    # Against zero there are five tests, against the margin one.
    lost = change(-0.14, -0.021)
    unclear = [change(-0.1, 0.1, metric="nats_per_token")] * 8
    assert claims([lost], [0.02]) == (Claim.LOST_MORE,)
    assert claims([lost, *unclear], [0.02, *[None] * 8])[0] is Claim.NOT_SHOWN


@given(
    st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(0.001, 0.1)), min_size=1, max_size=6),
    st.floats(0.005, 0.1),
)
def test_a_claim_never_says_more_than_its_interval(parts, margin: float):
    changes = [change(middle - half, middle + half) for middle, half in parts]
    for each, claim in zip(changes, claims(changes, [margin] * len(changes)), strict=True):
        assert (claim not in {Claim.KEPT, Claim.LOST_WITHIN}) or each.low > -margin
        assert (claim is not Claim.LOST_MORE) or each.high < -margin
        assert (claim not in {Claim.LOST, Claim.LOST_WITHIN, Claim.LOST_MORE}) or each.high < 0
        alone = claims([each], [margin])[0]
        assert claim in {alone, Claim.NOT_SHOWN, Claim.LOST, Claim.KEPT}


@given(st.lists(st.tuples(st.floats(-0.5, 0.5), st.floats(0.0, 0.3)), min_size=1, max_size=6))
def test_the_mean_lies_within_its_interval_which_is_no_longer_than_the_longest(parts):
    lines = [line(f"t{n}", m - h, m + h) for n, (m, h) in enumerate(parts)]
    mean = mean_change(lines)
    assert mean.low - 1e-12 <= mean.difference <= mean.high + 1e-12
    assert mean.high - mean.low <= 2 * max(h for _, h in parts) + 1e-9
    assert mean.n == 100 * len(parts)
    assert mean_change([line(TEXT, 0.0, 0.1, metric="nats_per_token")]) is None


def test_the_mean_shows_what_no_single_task_does():
    lines = [line(f"t{n}", -0.055, 0.005) for n in range(4)]
    assert all(outcome(each.comparison) is Outcome.NOT_SHOWN for each in lines)
    mean = mean_change(lines)
    assert (mean.low, mean.high) == pytest.approx((-0.04, -0.01))
    assert mean_claim(mean, Margins()) == "lost, shown"
    assert mean_claim(mean, Margins(points=5)) == "lost, and kept within 5 points, shown"
    assert mean_claim(mean, Margins(points=0.5)) == "lost more than 0.5 points, shown"


def test_in_sentences():
    guard = [
        line("news", -0.09, -0.03),
        line("news", 0.0, 0.1, metric="nats_per_token"),
        line("trivia", -0.012, 0.008),
        line("quartz", -0.06, 0.06),
        line(TEXT, 0.001, 0.021, metric="nats_per_token"),
    ]
    assert [each.task for each in points_lines(guard)] == ["news", "trivia", "quartz"]
    assert kept_sentences(guard, Margins(points=2, text=0.05)) == (
        "On average over the 3 guard tasks: -2.1 points (95 % interval -4.3 to +0.2), not shown "
        "either way.",
        "Task by task, lost more than 2 points, shown: news; kept within 2 points, shown: trivia; "
        "not shown either way: quartz; kept within 0.05 nats per token, shown: general text "
        "(corrected for 4 comparisons).",
    )
    assert kept_sentences(guard, Margins()) == (
        "On average over the 3 guard tasks: -2.1 points (95 % interval -4.3 to +0.2), no change "
        "shown.",
    )
    assert kept_sentences(guard[2:3], Margins(points=2)) == (
        "Task by task, kept within 2 points, shown: trivia.",
    )
    assert kept_sentences((), Margins(points=2)) == ()


def drawn(rng: np.random.Generator, rows: int, *, differ: float, loss: float) -> Floats:
    """Return paired differences of 0/1 scores: `differ` of the rows, `loss` more of them lost."""
    place = rng.random(rows)
    lost = (differ + loss) / 2
    return np.where(place < lost, -1.0, np.where(place < differ, 1.0, 0.0))


def changes_of(differences: list[Floats], *, seed: int) -> list[Comparison]:
    intervals = [
        bootstrap_mean(each, span=DIFFERENCE, seed=seed, resamples=1000) for each in differences
    ]
    return [
        replace(change(i.low, i.high), difference=float(each.mean()))
        for each, i in zip(differences, intervals, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "differ", "margin"), [(100, 0.2, 0.05), (200, 0.05, 0.02)])
def test_at_the_margin_a_false_claim_is_rare(rows: int, differ: float, margin: float):
    """The true loss is the margin: neither kept within it nor lost more than it is true."""
    rng, trials = np.random.default_rng(rows), 3000
    said = {claim: 0 for claim in Claim}
    for seed in range(trials):
        changes = changes_of([drawn(rng, rows, differ=differ, loss=margin)], seed=seed)
        (claim,) = claims(changes, [margin])
        said[claim] += 1
    kept = (said[Claim.KEPT] + said[Claim.LOST_WITHIN]) / trials
    assert kept <= 0.0375, "nominal: 2.5 %; 2.9 % in 6000 trials"
    assert said[Claim.LOST_MORE] / trials <= 0.0375
    assert kept + said[Claim.LOST_MORE] / trials <= 0.055


def test_among_several_at_the_margin_any_false_claim_is_rare():
    rng, trials, any_false, mean_false = np.random.default_rng(5), 400, 0, 0
    differ = (0.06, 0.1, 0.2, 0.3)
    for seed in range(trials):
        changes = changes_of([drawn(rng, 150, differ=d, loss=0.04) for d in differ], seed=seed)
        shown = claims(changes, [0.04] * 4)
        any_false += any(c in {Claim.KEPT, Claim.LOST_WITHIN, Claim.LOST_MORE} for c in shown)
        level = Summary("accuracy", 0.5, 0.4, 0.6, 150)
        mean = mean_change([GuardResult("t", "qa", level, level, each) for each in changes])
        mean_false += mean.low > -0.04 or mean.high < -0.04
    assert any_false / trials <= 0.05 + 0.022, "two standard errors of 400 trials"
    assert mean_false / trials <= 0.05 + 0.022
