"""`instil gate`: may this run's model go out? Decided on the run's own intervals, for CI.

`--min` and `--beats` pass where the whole interval says so: what is not shown does not pass.
`--forgets` and `--against` fail where the whole interval lies on the wrong side: as with a recipe's
budget, a model is kept back for a loss that is shown.

    --min accuracy=0.85   the tuned model's lower end of the 95 % interval is 0.85 or more
    --beats prompting     tuned minus that arm lies above 0 as a whole
    --forgets 2           the mean change over the guard tasks does not lie below -2 as a whole
    --against OTHER       tuned minus the other run's tuned model does not lie below 0 as a whole,
                          for each of its tasks, on half of its test rows or more

Tests: `tests/ship/test_gate.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from instil import format as fmt
from instil.compare.verdict import Outcome, check_budget, outcome, points
from instil.config.recipe import load_recipe
from instil.errors import RunError, nearest
from instil.pipeline import compare_runs, comparison_notes
from instil.results.names import TUNED
from instil.ship.shipped import proven_manifest
from instil.stages.directory import has_fingerprint
from instil.stages.runfiles import load_summary, require_whole
from instil.types import Comparison, Part

LEAST_SHARED = 0.5
"""Share of the other run's test rows that must be in both, for a loss to be seen."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked of a run."""

    asked: str
    """As on the command line."""
    task: str
    """Of which task; empty: of all."""
    passed: bool
    """Whether it may go out, as far as this goes."""
    low: float
    """Lower end of the 95 % interval of what was found, in the metric's own unit or in points."""
    value: float
    """What was found."""
    high: float
    """Upper end."""
    said: str
    """The same in words."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate says of a run."""

    run: str
    """The run's id."""
    recipe_sha256: str
    """The fingerprint of the recipe that made it."""
    test_opened: tuple[str, ...]
    """When its test was opened."""
    checks: tuple[Check, ...]
    """In the order they were asked for."""

    @property
    def passed(self) -> bool:
        """Whether all are."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {"passed": self.passed, **asdict(self)}


def gate(
    run: Path,
    *,
    least: Mapping[str, float] | None = None,
    beats: Sequence[str] = (),
    forgets: float | None = None,
    against: Path | None = None,
    recipe: Path | None = None,
) -> Gate:
    """Hold a run against what is asked of a model that goes out.

    Args:
        run: A finished run.
        least: Metric -> what the tuned model must reach, in the metric's own unit.
        beats: Arms that it must be shown to beat.
        forgets: Points of 100 that the guard tasks may lose on average.
        against: Another run of the same test rows, which it must not be shown to be worse than.
        recipe: A recipe that the run must be made from.

    Raises:
        RunError: Nothing is asked, the run is not finished or not what was written, it is not of
            this recipe, or it has no such metric, arm or guard.
    """
    least = least or {}
    if not (least or beats or forgets is not None or against):
        raise RunError(
            "nothing is asked of the run",
            where=str(run),
            fix="--min METRIC=VALUE, --beats ARM, --forgets POINTS or --against RUN",
        )
    require_whole(run)
    summary, manifest = load_summary(run), proven_manifest(run)
    if recipe is not None and not has_fingerprint(load_recipe(recipe), manifest["recipe_sha256"]):
        raise RunError(
            "the run was not made from this recipe",
            where=str(recipe),
            found=f"{run} has the recipe {manifest['recipe_sha256'][:12]}...",
            fix="make the run anew, or name the recipe.yaml of the run",
        )
    checks: list[Check] = []
    tuned = [(task, arm.summaries) for task in summary.tasks if (arm := task.arm(TUNED))]
    for metric, wanted in least.items():
        figures = [(task, means[metric]) for task, means in tuned if metric in means]
        if not figures:
            known = {name for task in summary.tasks for arm in task.arms for name in arm.summaries}
            raise RunError(
                f"the run has no metric {metric!r}",
                where="--min",
                allowed=", ".join(sorted(known)),
                nearest=nearest(metric, known),
            )
        if wanted > 1 and fmt.scale(fmt.style(metric).unit) == 100:
            raise RunError(
                f"{metric} is 1 at most, and {wanted:g} is asked",
                where="--min",
                fix=f"as a share of 1: --min {metric}={wanted / 100:g}",
            )
        for task, figure in figures:
            low, high = figure.low, figure.high
            passed = low >= wanted if figure.higher_is_better else high <= wanted
            said = f"{fmt.style(metric).label} {fmt.interval(figure)}"
            asked = f"--min {metric}={wanted:g}"
            checks.append(Check(asked, task.task, passed, low, figure.mean, high, said))
    for name, task in product(beats, summary.tasks):
        pair = task.against(name)
        if pair is None:
            others = [other.name for other in task.arms if other.name != TUNED]
            raise RunError(
                f"{task.task} has no arm {name!r}",
                where="--beats",
                allowed=", ".join(others),
                nearest=nearest(name, others),
            )
        passed = outcome(pair) is Outcome.BETTER
        checks.append(_paired(f"--beats {name}", task.task, pair, passed=passed))
    if forgets is not None:
        kept = check_budget(summary.forgetting, budget=forgets)
        if kept is None:
            raise RunError(
                "the run watched no guard task",
                where="--forgets",
                fix="name some in the recipe: forgetting.tasks",
            )
        said = (
            f"{points(kept.change)} points over the guard tasks ({points(kept.low)} to "
            f"{points(kept.high)})"
        )
        asked = f"--forgets {forgets:g}"
        checks.append(Check(asked, "", not kept.broken, kept.low, kept.change, kept.high, said))
    if against is not None:
        checks += _against(against, run, pairs=compare_runs(against, run))
    return Gate(
        manifest["run_id"], manifest["recipe_sha256"], tuple(manifest["test_opened"]), tuple(checks)
    )


def _against(other: Path, run: Path, *, pairs: Sequence[Comparison]) -> Iterator[Check]:
    """Check a run task by task; a task that it no longer has, or hardly any common row, fails."""
    asked, mine = f"--against {other.name}", {task.task for task in load_summary(run).tasks}
    before = load_summary(other).tasks
    shared = [task for task in before if task.task in mine]
    notes = comparison_notes(other, run)
    for task, pair in zip(shared, pairs, strict=True):
        check = _paired(asked, task.task, pair, passed=outcome(pair) is not Outcome.WORSE)
        told = [note for note in notes if note.startswith((f"{task.task}:", f"{task.task} is"))]
        check = replace(check, said="; ".join([check.said, *told]))
        rows = task.rows.get(Part.TEST, 0)
        if pair.n < LEAST_SHARED * rows:
            said = f"{check.said}; only {pair.n} of its {rows} test rows are in both"
            check = replace(check, passed=False, said=said)
        yield check
    for task in before:
        if task.task not in mine:
            yield Check(asked, task.task, False, 0.0, 0.0, 0.0, "this run does not have the task")


def _paired(asked: str, task: str, pair: Comparison, *, passed: bool) -> Check:
    said = f"{fmt.style(pair.metric).label} {fmt.change_with_interval(pair)}"
    return Check(asked, task, passed, pair.low, pair.difference, pair.high, said)
