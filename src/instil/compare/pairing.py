"""Two arms on the same examples, paired.

A worked example: prompting answers row 7 through the template `is_it_positive`, the tuned model
through `mood`. Their example ids differ (`reviews/7/is_it_positive`, `reviews/7/mood`), so both
are first keyed by row (`by_row`: `reviews/7`), and then compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from instil.errors import RunError
from instil.evaluate.metrics import group_list
from instil.results.names import TUNED
from instil.scoring.metrics import Scale, find_metric
from instil.stats.intervals import DIFFERENCE, bootstrap_mean, mean_table, ratio, spread
from instil.stats.paired import mcnemar_midp, smallest_detectable
from instil.types import Comparison, Example

if TYPE_CHECKING:
    from instil.evaluate.suite import Marked


def compare(
    a_scores: Mapping[str, float],
    b_scores: Mapping[str, float],
    *,
    a: str,
    b: str,
    metric: str,
    groups: Mapping[str, str] | None,
    seed: int = 0,
) -> Comparison:
    """Compare arm `b` with arm `a` on the examples that both have a score for.

    Args:
        a_scores: Example id (or row key) -> score of the arm compared against.
        b_scores: The same for the arm of interest.
        a: Name of the first arm.
        b: Name of the second.
        metric: The metric of the scores.
        groups: Example id (or row key) -> group, which is resampled as a whole; None: none.
        seed: Of the bootstrap.

    Returns:
        `b` minus `a`. McNemar's p-value, `b_only` and `a_only` only where the metric and every
        score are 0 or 1 (several templates averaged a row are not).

    Raises:
        RunError: Fewer than 2 shared examples, a score that is not finite, an id in no group, or
            no such metric.
    """
    kind = find_metric(metric)
    shared = sorted(a_scores.keys() & b_scores.keys())
    if len(shared) < 2:
        raise RunError(
            f"'{a}' and '{b}' share {len(shared)} scored examples; a comparison needs 2",
            found=f"{len(a_scores)} scores of '{a}', {len(b_scores)} of '{b}'",
            fix="compare arms that were scored on the same test rows",
        )
    left = np.array([a_scores[key] for key in shared], dtype=np.float64)
    right = np.array([b_scores[key] for key in shared], dtype=np.float64)
    gaps = right - left
    if broken := [key for key, gap in zip(shared, gaps, strict=True) if not np.isfinite(gap)]:
        what = f"{len(broken)} of {len(shared)} {metric} scores are not finite numbers"
        raise RunError(what, found=", ".join(broken[:3]))
    clusters = group_list(shared, groups=groups)
    span = None if kind.scale is Scale.OPEN else DIFFERENCE
    interval = bootstrap_mean(gaps, groups=clusters, seed=seed, span=span)
    known = spread(mean_table(gaps, groups=clusters), ratio)
    binary = kind.scale is Scale.BINARY and bool(np.isin([left, right], [0, 1]).all())
    b_only = int((right > left).sum()) if binary else 0
    a_only = int((left > right).sum()) if binary else 0
    return Comparison(
        a=a,
        b=b,
        metric=metric,
        n=len(shared),
        difference=round(float(gaps.mean()), 12),
        low=interval.low,
        high=interval.high,
        p_value=mcnemar_midp(b_only, a_only) if binary else None,
        b_only=b_only,
        a_only=a_only,
        higher_is_better=kind.higher_is_better,
        smallest_detectable=smallest_detectable(gaps, groups=clusters, span=span),
        df=known.df or None,
    )


def compare_marked(a_marked: Marked, b_marked: Marked, *, a: str, b: str, seed: int) -> Comparison:
    """Compare answers to the same rows, whatever the phrasings, groups resampled whole.

    Args:
        a_marked: Of the arm compared against.
        b_marked: Of the arm of interest, in the same metric.
        a: Name of the first arm.
        b: Name of the second.
        seed: Of the bootstrap.
    """
    return compare(
        by_row(a_marked.values, a_marked.examples),
        by_row(b_marked.values, b_marked.examples),
        a=a,
        b=b,
        metric=b_marked.scores[0].metric,
        groups=row_groups([*a_marked.examples, *b_marked.examples]),
        seed=seed,
    )


def pair_key(example: Example) -> str:
    """Return what two phrasings of one row share: `task/row`."""
    return f"{example.task}/{example.row}"


def by_row(scores: Mapping[str, float], examples: Iterable[Example]) -> dict[str, float]:
    """Key scores by row rather than by example, for arms with different templates.

    Args:
        scores: Example id -> score; examples without one are passed over.
        examples: The examples that were scored.

    Returns:
        `task/row` -> score; the mean where a row was asked through several templates.

    Raises:
        RunError: A score belongs to none of the examples.
    """
    rows: dict[str, list[float]] = defaultdict(list)
    known = set()
    for example in examples:
        known.add(example.id)
        if example.id in scores:
            rows[pair_key(example)].append(scores[example.id])
    strangers = sorted(scores.keys() - known)
    if strangers:
        what = f"{len(strangers)} of {len(scores)} scores belong to no example of this run"
        raise RunError(what, found=", ".join(strangers[:3]))
    return {row: sum(values) / len(values) for row, values in rows.items()}


def row_groups(examples: Iterable[Example]) -> dict[str, str]:
    """Return row key -> group key, the groups that belong to `by_row`."""
    return {pair_key(example): f"{example.task}/{example.group}" for example in examples}


# Two runs side by side.

Lines = Sequence[Mapping[str, Any]]
MOST_CHANGED = 0.1
"""Share of the rows that two runs have in common which may have been corrected in between."""


def compare_scores(
    a_tasks: Mapping[str, Lines], b_tasks: Mapping[str, Lines], *, a: str, b: str
) -> list[Comparison]:
    """Compare the tuned arms of two runs, task by task.

    Args:
        a_tasks: Task -> lines of `scores/test-<task>.jsonl` of the run compared against.
        b_tasks: The same of the run of interest.
        a: Name of the first run.
        b: Name of the second; where there are several tasks, the task's goes before it.

    Raises:
        RunError: The runs have no task in common, judge a task by different metrics, or share
            fewer than two test rows of it; or ids are those of other rows in the other run.
    """
    shared = [task for task in a_tasks if task in b_tasks]
    if not shared:
        found = f"{', '.join(a_tasks)} and {', '.join(b_tasks)}"
        raise RunError(f"{a} and {b} have no task in common", found=found)
    comparisons = []
    for task in shared:
        left, right = _tuned(a_tasks[task]), _tuned(b_tasks[task])
        metrics = {line["metric"] for line in (*left, *right)}
        if len(metrics) > 1:
            raise RunError(f"the runs judge {task} differently", found=", ".join(metrics))
        changed = changed_rows(left, right, task=task)
        comparisons.append(
            compare(
                *(
                    {
                        line["row"]: line["value"]
                        for line in lines
                        if line["value"] is not None and line["row"] not in changed
                    }
                    for lines in (left, right)
                ),
                a=a,
                b=f"{task}: {b}" if len(shared) > 1 else b,
                metric=metrics.pop(),
                groups={line["row"]: f"{task}/{line['group']}" for line in (*left, *right)},
            )
        )
    return comparisons


def comparison_notes(
    a_tasks: Mapping[str, Lines], b_tasks: Mapping[str, Lines], *, a: str, b: str
) -> tuple[str, ...]:
    """Say what `compare_scores` of the same runs leaves out, and what else their prompts differ in.

    Args:
        a_tasks: As there.
        b_tasks: As there.
        a: Name of the first run.
        b: Name of the second.
    """
    notes = [
        f"not compared, as {run} alone has it: {', '.join(sorted(alone))}"
        for run, alone in ((a, a_tasks.keys() - b_tasks), (b, b_tasks.keys() - a_tasks))
        if alone
    ]
    for task in (task for task in a_tasks if task in b_tasks):
        left, right = _tuned(a_tasks[task]), _tuned(b_tasks[task])
        asked, other = ({line["template"] for line in lines} for lines in (left, right))
        if asked != other:
            notes.append(
                f"{task} is asked in other words: {', '.join(sorted(asked))} in {a}, "
                f"{', '.join(sorted(other))} in {b}"
            )
        rows, others = ({line["row"] for line in lines} for lines in (left, right))
        if rows != others:
            notes.append(
                f"{task}: {len(rows & others)} rows are in both tests, of {len(rows)} in {a} and "
                f"{len(others)} in {b}"
            )
        if changed := changed_rows(left, right, task=task):
            notes.append(
                f"{task}: left out are {len(changed)} rows of another text or answer in {b}; "
                "labels that were corrected among one model's mistakes flatter it"
            )
    return tuple(notes)


def _tuned(lines: Lines) -> Lines:
    return [line for line in lines if line["arm"] == TUNED]


def changed_rows(left: Lines, right: Lines, *, task: str) -> frozenset[str]:
    """Return the rows of both runs whose text or answer is another: corrected in between.

    Raises:
        RunError: They are more than `MOST_CHANGED`: ids are those of other rows. Scores of earlier
            versions do not tell.
    """
    known = {line["row"]: line.get("same_by") for line in left}
    shared = [line for line in right if known.get(line["row"]) and line.get("same_by")]
    others = [line["row"] for line in shared if line["same_by"] != known[line["row"]]]
    if len(others) > MOST_CHANGED * len(shared):
        raise RunError(
            f"{len(others)} of the {len(shared)} test rows of {task} that both runs have are rows "
            "of one id that differ in text or answer",
            found=f"row {', '.join(others[:3])}",
            fix="make both runs of the same file, or name a column with lasting ids: row_id",
        )
    return frozenset(others)
