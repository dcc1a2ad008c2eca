"""Which way to do a task, before any long training, and the chance of being wrong.

Every way is tried on the same validation rows: always the commonest label, TF-IDF, the linear
probe, the best prompt, and the model after a short try of the training. Of each, the score on other
rows is predicted as 10,000 draws: the groups of validation rows drawn with replacement, the same
draw for all ways, so that what they have in common cancels out; and of the tuned model, what the
rest of the training is going to add. That is a share of what is missing to a perfect score, drawn
from what whole trainings added after such a try (`GROWTH`, measured by `benchmarks/advice.py`).

A way is *wrong* in a draw where another one is better by more than `WORTH`. The cheapest way whose
chance of being wrong is at most `SURE` is advised; if there is none, the one with the lowest.

A worked example: 100 rows, the probe 84, the short try 82, and the rest of the training is thought
to add about 4 points. In three draws of ten the tuned model ends up more than 2 points above the
probe: a risk of 30 %. The probe is never more than 2 points above it in more than a few: 5 %, so
tuning is advised. With a probe at 90 the risk of the probe is 8 %: it is advised, being cheaper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from instil.errors import DataError
from instil.results.advice import Way
from instil.results.names import TUNED
from instil.stats.intervals import (
    LEVEL,
    SHARE,
    Floats,
    cluster_table,
    mean_table,
    ratio,
    resample_totals,
    spread,
    unanimous,
)
from instil.types import Estimate, Row, Summary, Task

WORTH = 0.02
"""A difference that matters, of 1."""
SURE = 0.20
"""The chance of being wrong up to which a way is advised for being cheap."""
DRAWS = 10_000
MAJORITY = "majority"


@dataclass(frozen=True, slots=True)
class Growth:
    """What whole trainings added after a short try, as a share of what was missing to 1."""

    mean: float
    """Over trainings."""
    deviation: float
    """Standard deviation over trainings."""


GROWTH = Growth(0.2, 0.2)
"""After a quarter of the training: of six runs of SmolLM2-135M, each counted by what was missing
(docs/advice.md)."""
UNKNOWN_GROWTH = Growth(0.0, 0.2)
"""Of free text, whose metrics do not come near 1: no run told it, so it may be either way."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A way as it was tried on validation rows."""

    name: str
    """majority, tfidf, probe, prompting or tuned."""
    label: str
    """For people."""
    summary: Summary
    """Of its scores."""
    values: Mapping[str, float]
    """Row -> score, 0 to 1."""
    tokens: float = 0.0
    """Read and written for one answer; 0: it needs no language model."""


def weigh(
    ways: Sequence[Seen],
    *,
    groups: Mapping[str, str],
    left: float,
    seed: int,
    growth: Growth = GROWTH,
) -> tuple[tuple[Way, ...], int]:
    """Return the ways, each with its risk, and the place of the advised one.

    Args:
        ways: The cheapest first.
        groups: Row -> group, which is drawn as a whole.
        left: How much of what a whole training adds after a quarter is still to come, 0 to 1.
        seed: Of the draws.
        growth: What that is.

    Raises:
        DataError: The validation rows are all of one group.
    """
    means, drawn = predict(ways, groups=groups, left=left, seed=seed, growth=growth)
    best = drawn.max(axis=1, keepdims=True)
    risks = (best - drawn > WORTH).mean(axis=0).clip(min=least_risks(ways, groups=groups))
    tail = (1 - LEVEL) / 2
    lows, highs = np.quantile(drawn, [tail, 1 - tail], axis=0)
    for n, (low, high) in _unseen(ways, groups=groups).items():
        # Where all clusters agree, draws of them say nothing of those that were not seen.
        rest = left * growth.mean if ways[n].name == TUNED else 0.0
        lows[n] = min(lows[n], low + rest * (1 - low))
        highs[n] = max(highs[n], high)
    weighed = tuple(
        Way(
            way.name,
            way.label,
            way.summary,
            Estimate(*(float(each[n]) for each in (means, lows, highs))),
            float(risks[n]),
            way.tokens,
        )
        for n, way in enumerate(ways)
    )
    sure = [n for n, way in enumerate(weighed) if way.risk <= SURE]
    return weighed, sure[0] if sure else int(risks.argmin())


def least_risks(ways: Sequence[Seen], *, groups: Mapping[str, str]) -> list[float]:
    """Return what each way's chance of being wrong cannot fall below.

    Clusters that all favour one way may do so by chance, however alike they are: .5 to their power.
    Where two ways agree on every cluster none favours either. One that differs on `WORTH` of the
    clusters, in one direction, would agree on all of these with (1 - WORTH) to their power.
    """
    rows = _answered(ways)
    names = [groups[row] for row in rows]
    table = cluster_table(
        np.array([[way.values[row] for way in ways] for row in rows]), groups=names
    )
    alike = (table[:, :, None] == table[:, None, :]).all(axis=0).sum(axis=0) > 1
    clusters = len(table)
    return [0.5 * (1 - WORTH) ** clusters if tied else 0.5**clusters for tied in alike]


def _unseen(ways: Sequence[Seen], *, groups: Mapping[str, str]) -> dict[int, tuple[float, float]]:
    """Return the interval of each way whose clusters all score alike, by its place."""
    rows, found = _answered(ways), {}
    for n, way in enumerate(ways):
        table = mean_table([way.values[row] for row in rows], groups=[groups[row] for row in rows])
        known = spread(table, ratio)
        if known.df == 0:
            ends = unanimous(known.estimate, clusters=len(table), span=SHARE)
            found[n] = ends.low, ends.high
    return found


def predict(
    ways: Sequence[Seen],
    *,
    groups: Mapping[str, str],
    left: float,
    seed: int,
    growth: Growth = GROWTH,
) -> tuple[Floats, Floats]:
    """Predict the score of each way on other rows; the arguments are those of `weigh`.

    Returns:
        What is expected, shape (ways,), and draws of it, shape (draws, ways).
    """
    rows = _answered(ways)
    scores = np.array([[*(way.values[row] for way in ways), 1.0] for row in rows])
    table = cluster_table(scores, groups=[groups[row] for row in rows])
    clusters = len(table)
    if clusters < 2:
        raise DataError(
            "the validation rows are all of one group, which says nothing of other rows",
            found=f"{len(rows)} validation rows",
            fix="more validation rows (`validation:` in the recipe), or no `group` in the task",
        )
    totals = table.sum(axis=0)
    mean = totals[:-1] / totals[-1]
    drawn = resample_totals(table, seed=seed, resamples=DRAWS)
    # The bootstrap's spread is that of a sample's own variance, which is too small by this factor.
    off = (drawn[:, :-1] / drawn[:, -1:] - mean) * (clusters / (clusters - 1)) ** 0.5
    # And with few clusters that variance is known badly: normal draws become draws of Student's t.
    unknown = np.random.default_rng((seed, 1)).chisquare(clusters - 1, size=(DRAWS, 1))
    off *= ((clusters - 1) / unknown) ** 0.5
    scores = (mean + off).clip(0.0, 1.0)
    trained = left * np.array([way.name == TUNED for way in ways])
    added = np.random.default_rng(seed).normal(growth.mean, growth.deviation, size=(DRAWS, 1))
    predicted: Floats = (scores + trained * added * (1 - scores)).clip(0.0, 1.0)
    return mean + trained * growth.mean * (1 - mean), predicted


def _answered(ways: Sequence[Seen]) -> list[str]:
    """Return the rows that every way has a score for."""
    return sorted(set.intersection(*(set(way.values) for way in ways)))


def commonest(task: Task, rows: Sequence[Row]) -> str:
    """Return the commonest label of rows; ties go to the task's first."""
    counts = Counter(str(row.fields[task.target]) for row in rows)
    return max(task.choices, key=lambda label: (counts[label], -task.choices.index(label)))


def answers_until_paid(training_tokens: float, *, prompt: float, tuned: float) -> float | None:
    """Return after how many answers a training is paid back by shorter prompts; None: never.

    Args:
        training_tokens: What the training computes, in tokens that are read.
        prompt: Tokens of one answer of the prompted model.
        tuned: Of the tuned one.

    >>> answers_until_paid(1_000_000, prompt=450, tuned=50)
    2500.0
    """
    return training_tokens / (prompt - tuned) if prompt > tuned else None
