"""What was kept: the guard's changes held against a margin, one by one and in their mean.

"No loss is shown" is not "nothing was lost". Kept is a claim of its own, as non-inferiority is in
trials (Piaggio et al. 2012, JAMA 308:2594): the whole 95 % interval lies above minus the margin.
With a margin of 2 points::

    interval        -5 ... -3   lost more than 2 points, shown
                    -3 ... -1   lost, shown
                  -1.5 ... -.5  lost, and kept within 2 points, shown
                    -1 ... +1   kept within 2 points, shown
                    -4 ... +3   not shown either way

Several lines are corrected by Holm's method, once over all tests against no change (as in the
verdict) and once over all tests against a margin. The mean is one comparison, uncorrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from instil import format as fmt
from instil.compare.verdict import Outcome, mean_change, outcomes, p_of
from instil.results.guard import GuardResult, Margins
from instil.results.names import TEXT
from instil.scoring.metrics import NATS
from instil.stats.paired import ALPHA
from instil.types import Comparison


class Claim(StrEnum):
    """What is shown of a change; `{}` is the margin."""

    KEPT = "kept within {}, shown"
    """The interval lies above minus the margin."""
    LOST_WITHIN = "lost, and kept within {}, shown"
    """It lies between minus the margin and zero."""
    LOST = "lost, shown"
    """It lies below zero, and holds minus the margin."""
    LOST_MORE = "lost more than {}, shown"
    """It lies below minus the margin."""
    NOT_SHOWN = "not shown either way"
    """It holds zero and minus the margin."""


def claims(
    comparisons: Sequence[Comparison], margins: Sequence[float | None]
) -> tuple[Claim | None, ...]:
    """Return what each change shows, corrected for there being several.

    A gain that is shown is kept within any margin. A loss beyond the margin is said only where
    a loss is shown as well, so that the two corrections never contradict each other.

    Args:
        comparisons: After minus before; their directions may differ.
        margins: The loss that counts as kept, in the comparison's own scale (a share of 1, or
            nats); None: that one is held against no margin, and has no claim.
    """
    pairs = list(zip(comparisons, margins, strict=True))
    against = iter(outcomes([_moved(each, by) for each, by in pairs if by is not None]))
    shown: list[Claim | None] = []
    for (_, margin), change in zip(pairs, outcomes(comparisons), strict=True):
        if margin is None:
            shown.append(None)
            continue
        beyond = next(against)
        if change is Outcome.WORSE:
            loss = {Outcome.WORSE: Claim.LOST_MORE, Outcome.BETTER: Claim.LOST_WITHIN}
            shown.append(loss.get(beyond, Claim.LOST))
        else:
            is_kept = Outcome.BETTER in (change, beyond)
            shown.append(Claim.KEPT if is_kept else Claim.NOT_SHOWN)
    return tuple(shown)


def _moved(change: Comparison, margin: float) -> Comparison:
    """Return the change counted from a loss of just the margin."""
    by = margin if change.higher_is_better else -margin
    return replace(
        change,
        difference=change.difference + by,
        low=change.low + by,
        high=change.high + by,
        anytime_p=change.anytime_margin_p,
    )


def is_decided(change: Comparison, *, margin: float | None, tests: int) -> bool:
    """Whether a change shows something that also stands after a correction for so many tests.

    Args:
        change: After minus before.
        margin: As `claims` takes it.
        tests: Comparisons that are shown beside it, itself included (Bonferroni's bound).
    """
    held = [change] if margin is None else [change, _moved(change, margin)]
    return any(p_of(each) * tests < ALPHA for each in held)


def margin_of(change: Comparison, *, task: str, margins: Margins) -> float | None:
    """Return a guard line's margin in its own scale; None: it has none.

    A guard task's cross-entropy has none: it falls by much where answers get shorter, and the
    task's own metric is what is to be kept.
    """
    if change.metric == NATS.name:
        return margins.text if task == TEXT else None
    return None if margins.points is None else margins.points / 100


def guard_claims(guard: Sequence[GuardResult], margins: Margins) -> tuple[str, ...]:
    """Return what each guard line shows against its margin, in words; empty where it has none."""
    changes = [each.comparison for each in guard]
    limits = [margin_of(g.comparison, task=g.task, margins=margins) for g in guard]
    return tuple(
        claim_words(claim, margin, metric=change.metric) if claim and margin else ""
        for claim, margin, change in zip(claims(changes, limits), limits, changes, strict=True)
    )


def mean_claim(mean: Comparison, margins: Margins) -> str:
    """Return what the mean change shows, in words."""
    if margins.points is None:
        return {
            Outcome.BETTER: "a gain, shown",
            Outcome.WORSE: Claim.LOST.value,
            Outcome.NOT_SHOWN: "no change shown",
        }[outcomes([mean])[0]]
    margin = margins.points / 100
    (claim,) = claims([mean], [margin])
    assert claim is not None, "there is a margin"
    return claim_words(claim, margin, metric=mean.metric)


def claim_words(claim: Claim, margin: float, *, metric: str) -> str:
    """Return a claim in words.

    >>> claim_words(Claim.KEPT, 0.02, metric="accuracy")
    'kept within 2 points, shown'
    >>> claim_words(Claim.LOST_MORE, 0.05, metric="nats_per_token")
    'lost more than 0.05 nats per token, shown'
    """
    size = f"{margin:g} nats per token" if metric == NATS.name else f"{100 * margin:g} points"
    return claim.value.format(size)


def kept_sentences(guard: Sequence[GuardResult], margins: Margins) -> tuple[str, ...]:
    """Say what the mean shows (of several guard tasks), and each line against its margin."""
    sentences = []
    if several := mean_of_several(guard):
        mean, tasks = several
        sentences.append(
            f"On average over the {tasks} guard tasks: {fmt.plain_change(mean)} (95 % interval "
            f"{fmt.plain_interval(mean)}), {mean_claim(mean, margins)}."
        )
    said: dict[str, list[str]] = {}
    for each, words in zip(guard, guard_claims(guard, margins), strict=True):
        if words:
            said.setdefault(words, []).append(each.task)
    if said:
        count = sum(map(len, said.values()))
        corrected = f" (corrected for {count} comparisons)" if count > 1 else ""
        parts = "; ".join(f"{words}: {', '.join(names)}" for words, names in said.items())
        sentences.append(f"Task by task, {parts}{corrected}.")
    return tuple(sentences)


def points_lines(guard: Sequence[GuardResult]) -> tuple[GuardResult, ...]:
    """Return the guard's lines in the tasks' own metrics, which the mean is over."""
    return tuple(each for each in guard if each.comparison.metric != NATS.name)


def mean_of_several(guard: Sequence[GuardResult]) -> tuple[Comparison, int] | None:
    """Return the mean change and over how many tasks it is; None of fewer than two."""
    mean, tasks = mean_change(guard), len(points_lines(guard))
    return None if mean is None or tasks < 2 else (mean, tasks)
