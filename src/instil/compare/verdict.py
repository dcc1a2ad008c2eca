"""The verdict: two or three plain sentences on what training bought, and at what price.

A worked example::

    On reviews, tuning beat the best prompting (5-shot prompting, calibrated): accuracy 88.3
    against 79.0, +9.3 points (95 % interval +5.1 to +13.5) on 300 test rows; TF-IDF with logistic
    regression reached 81.2, and the tuned model is better by 7.1 points (+3.0 to +11.2).
    Forgetting: news lost 6.0 points (-10.1 to -1.9); the other 3 guard tasks and general text show
    no loss (the smallest loss that would have shown: 4.2 to 7.0 points, 0.031 nats per token).
    The price: 6.3 minutes of training, 9.8 MB to store, 1.4 % of the parameters trained (LoRA).

Words are chosen by rule: *better* or *worse* stands only where the paired interval excludes zero;
with several comparisons at once (tasks, guard tasks) also after Holm's correction. Otherwise it is
*no difference shown*, with what the rows could have shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from instil.evaluate.metrics import METRICS, NATS
from instil.results import (
    CLASSIFIERS,
    PROMPTING,
    TEXT,
    TUNED,
    ZERO_SHOT,
    Arm,
    GuardResult,
    Learnt,
    TaskResult,
    TrainingSummary,
)
from instil.stats.intervals import Interval
from instil.stats.paired import ALPHA, holm, interval_p
from instil.types import Comparison

ALWAYS = "always"
"""Not an arm: always giving the commonest class of the training rows."""


class Outcome(StrEnum):
    """What a comparison shows about arm `b`."""

    BETTER = "better"
    """The interval excludes zero, on the good side."""
    WORSE = "worse"
    """The interval excludes zero, on the bad side."""
    NOT_SHOWN = "no difference shown"
    """The interval includes zero."""


@dataclass(frozen=True, slots=True)
class _Duel:
    """A task's tuned arm against its bar."""

    task: TaskResult
    comparison: Comparison
    outcome: Outcome


def verdict(
    tasks: Sequence[TaskResult],
    guard: Sequence[GuardResult],
    *,
    training: TrainingSummary,
) -> tuple[str, ...]:
    """Return the verdict: what tuning bought, what was forgotten, at what price.

    Args:
        tasks: One a trained task, with arms `tuned`, `prompting`, `tfidf`, `probe` as far as they
            ran.
        guard: The guard tasks and general text; empty if forgetting was not measured.
        training: How the training went.
    """
    return (
        _gain(tasks),
        _forgetting(guard),
        _price(tasks, training),
    )


def outcome(comparison: Comparison) -> Outcome:
    """Return what one comparison shows, taken by itself."""
    return outcomes([comparison])[0]


def outcomes(comparisons: Sequence[Comparison]) -> tuple[Outcome, ...]:
    """Return what comparisons made together show: Holm's correction over all of them.

    The p-values are those that the (clustered) intervals imply, since McNemar's takes examples as
    independent and free-text metrics have none. With one comparison: does its interval exclude 0.
    """
    adjusted = holm([interval_p(c.difference, Interval(c.low, c.high)) for c in comparisons])
    return tuple(_outcome(c, p=p) for c, p in zip(comparisons, adjusted, strict=True))


def _outcome(comparison: Comparison, *, p: float) -> Outcome:
    # The margin keeps an interval that ends in exactly zero (p = 0.05 but for rounding) out.
    if comparison.low <= 0 <= comparison.high or p >= ALPHA - 1e-9:
        return Outcome.NOT_SHOWN
    good = (comparison.low > 0) == comparison.higher_is_better
    return Outcome.BETTER if good else Outcome.WORSE


# Whether anything was learnt.


def not_learnt(tasks: Sequence[TaskResult], *, training: TrainingSummary) -> str:
    """Return the sentence on tasks that are not shown to be learnt; empty where all are.

    It stands before all others: whatever else is said is of a model that learnt nothing.

    Args:
        tasks: One a trained task.
        training: How the training went.
    """
    known = [(task.task, task.learnt) for task in tasks if task.learnt]
    compared = [learnt.comparison for _, learnt in known if learnt.comparison]
    shown = iter(outcomes(compared))
    parts = []
    for name, learnt in known:
        against_same = next(shown) if learnt.comparison else Outcome.BETTER
        if learnt.answers == 1 < learnt.wanted:
            parts.append(
                f"on {name}, the tuned model gives every test row the same answer, "
                f"“{learnt.answer}”"
            )
        elif learnt.comparison and against_same is not Outcome.BETTER:
            parts.append(f"on {name}, {_no_better(learnt, learnt.comparison, against_same)}")
    if not parts:
        return ""
    text = "; ".join(parts)
    causes = "; the report says under Learning curves what to try" if training.alarms else ""
    return f"{text[:1].upper()}{text[1:]}{causes}."


def _no_better(learnt: Learnt, comparison: Comparison, shown: Outcome) -> str:
    worse = "worse than" if shown is Outcome.WORSE else "not shown to be better than"
    always = f"always answering “{learnt.always}”" if learnt.always else "guessing"
    right = learnt.right or 0.0
    text = (
        f"the tuned model is {worse} {always}: accuracy {100 * right:.1f} against "
        f"{100 * (right - comparison.difference):.1f}, {signed(comparison)} (95 % interval "
        f"{ends(comparison)}) on {comparison.n} test rows"
    )
    if learnt.apart is None or learnt.apart.low <= 0.5:
        return text
    return f"{text}, though it tells the classes apart in {learnt.apart.mean:.2f} of the pairs"


# What tuning bought.


def _gain(tasks: Sequence[TaskResult]) -> str:
    found = [(task, _bar(task)) for task in tasks]
    pairs = [(task, bar) for task, bar in found if bar is not None]
    if not pairs:
        return "Tuning was not compared with prompting, so what it bought is not known."
    shown = outcomes([bar for _, bar in pairs])
    duels = [_Duel(task, bar, o) for (task, bar), o in zip(pairs, shown, strict=True)]
    if len(tasks) == 1:
        others = "".join(_one_classifier(tasks[0], arm) for arm in CLASSIFIERS)
        return f"{_one_task(duels[0])}{others}."
    others = "".join(_several_classifiers(tasks, arm) for arm in CLASSIFIERS)
    return f"{_several_tasks(duels)}{_not_compared(found)}{others}."


def _one_task(duel: _Duel) -> str:
    task, comparison = duel.task, duel.comparison
    bar, tuned = _arm(task, comparison.a), _arm(task, TUNED)
    did = {
        Outcome.BETTER: "tuning beat",
        Outcome.WORSE: "tuning did worse than",
        Outcome.NOT_SHOWN: "tuning showed no difference from",
    }[duel.outcome]
    figures = (
        f"{metric_name(task.metric)} {level(tuned, task.metric)} against {level(bar, task.metric)}"
    )
    difference = f"{signed(comparison)} (95 % interval {ends(comparison)})"
    on = f" on {comparison.n} test rows"
    if duel.outcome is Outcome.NOT_SHOWN:
        on += could_show(comparison, rows="which")
    return f"On {task.task}, {did} {_bar_name(bar)}: {figures}, {difference}{on}"


def _several_tasks(duels: Sequence[_Duel]) -> str:
    phrases = {
        Outcome.BETTER: "Tuning beat the best prompting on",
        Outcome.WORSE: "it did worse on",
        Outcome.NOT_SHOWN: "no difference was shown on",
    }
    parts: list[str] = []
    for kind, phrase in phrases.items():
        of_kind = [duel for duel in duels if duel.outcome is kind]
        if of_kind or kind is Outcome.BETTER:
            count = f"{len(of_kind)} of {len(duels)} tasks" if not parts else f"{len(of_kind)}"
            named = ", ".join(_in_brief(duel) for duel in of_kind)
            parts.append(f"{phrase} {count}" + (f" ({named})" if named else ""))
    return "; ".join(parts)


def _in_brief(duel: _Duel) -> str:
    task, comparison = duel.task, duel.comparison
    metric = "" if task.metric == NATS.name else f" {metric_name(task.metric)}"
    text = f"{task.task} {signed(comparison)}{metric}, {ends(comparison)}"
    if duel.outcome is Outcome.NOT_SHOWN:
        return f"{text}{could_show(comparison, rows='rows')}"
    return f"{text}, {comparison.n} rows"


def _not_compared(found: Sequence[tuple[TaskResult, Comparison | None]]) -> str:
    names = [task.task for task, bar in found if bar is None]
    return f"; not compared on {len(names)} ({', '.join(names)})" if names else ""


def _one_classifier(task: TaskResult, arm: str) -> str:
    comparison = _against(task, arm)
    if comparison is None:
        return ""
    reached = f"; {CLASSIFIERS[arm]} reached {level(_arm(task, arm), task.metric)}"
    shown = outcome(comparison)
    if shown is Outcome.NOT_SHOWN:
        return f"{reached}, no difference from the tuned model shown ({ends(comparison)})"
    size = signed(comparison).lstrip("+-")
    return f"{reached}, and the tuned model is {shown} by {size} ({ends(comparison)})"


def _several_classifiers(tasks: Sequence[TaskResult], arm: str) -> str:
    found = [(task.task, _against(task, arm)) for task in tasks]
    pairs = [(name, comparison) for name, comparison in found if comparison is not None]
    if not pairs:
        return ""
    shown = outcomes([comparison for _, comparison in pairs])
    left = [name for (name, _), o in zip(pairs, shown, strict=True) if o is not Outcome.BETTER]
    if not left:
        return f"; it beat {CLASSIFIERS[arm]} on {_all(len(pairs))}"
    return f"; {CLASSIFIERS[arm]} was not beaten on {', '.join(left)}"


# What was forgotten.


def _forgetting(guard: Sequence[GuardResult]) -> str:
    if not guard:
        return "Forgetting was not measured."
    shown = outcomes([result.comparison for result in guard])
    pairs = list(zip(guard, shown, strict=True))
    lost = [result for result, o in pairs if o is Outcome.WORSE]
    named = {result.task for result in lost}
    kept = [result for result in guard if result.task not in named]
    corrected = f", corrected for {len(guard)} comparisons" if len(guard) > 1 else ""
    if not lost:
        return f"Forgetting: no loss is shown on {_who(kept)}{corrected}{_sharpness(kept)}."
    losses = ", ".join(_loss(result) for result in lost)
    rest = f"; no loss is shown on {_who(kept, other='other ')}" if kept else ""
    return f"Forgetting: {losses}{rest}{corrected}{_sharpness(kept)}."


def _loss(result: GuardResult) -> str:
    comparison = result.comparison
    size = signed(comparison).lstrip("+-")
    if comparison.higher_is_better:
        return f"{result.task} lost {size} ({ends(comparison)})"
    levels = f"from {result.before.mean:.3f} to {result.after.mean:.3f}"
    return f"{result.task} got worse by {size} ({ends(comparison)}; {levels})"


def _who(results: Sequence[GuardResult], *, other: str = "") -> str:
    """Name the subjects once each, though a guard task stands there with two metrics."""
    tasks = list(dict.fromkeys(result.task for result in results if result.task != TEXT))
    names = tasks if len(tasks) == 1 else [f"the {other}{len(tasks)} guard tasks"] * bool(tasks)
    texts = [TEXT] * any(result.task == TEXT for result in results)
    return " and ".join(names + texts)


def _sharpness(results: Sequence[GuardResult]) -> str:
    # "No loss" is worth only as much as the smallest loss that would have been seen.
    small = [c for c in (result.comparison for result in results) if c.smallest_detectable > 0]
    points = [100 * c.smallest_detectable for c in small if c.metric != NATS.name]
    nats = [c.smallest_detectable for c in small if c.metric == NATS.name]
    parts = [f"{_range(points, digits=1)} points"] if points else []
    parts += [f"{_range(nats, digits=3)} nats per token"] if nats else []
    return f" (the smallest loss that would have shown: {', '.join(parts)})" if parts else ""


def _range(values: Sequence[float], *, digits: int) -> str:
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


# At what price.


def _price(tasks: Sequence[TaskResult], training: TrainingSummary) -> str:
    stored = max(
        (arm.costs.bytes_on_disk for task in tasks for arm in task.arms if arm.name == TUNED),
        default=0,
    )
    parts = [f"{duration(training.seconds)} of training"]
    if stored:
        parts.append(f"{size_text(stored)} to store")
    method = {"lora": "LoRA", "full": "full fine-tuning"}.get(training.method, training.method)
    parts.append(f"{_percent(training.trainable_share)} of the parameters trained ({method})")
    return f"The price: {', '.join(parts)}."


def duration(seconds: float) -> str:
    """Write a time in words, to the second: `42 seconds`, `6.3 minutes`."""
    if seconds < 60:
        shown = f"{seconds:.0f}"
        return f"{shown} second" if shown == "1" else f"{shown} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def size_text(count: int) -> str:
    """Write a number of bytes: `210 KB`, `9.8 MB`."""
    if count < 1e6:
        return f"{max(1, round(count / 1e3))} KB" if count else "0 KB"
    megabytes = count / 1e6
    return f"{megabytes:.1f} MB" if megabytes < 100 else f"{megabytes:.0f} MB"


def _percent(share: float) -> str:
    # Two figures that count: 0.09 %, 1.4 %, 100 %.
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


# Figures in words.


def signed(comparison: Comparison) -> str:
    """Write a difference with its sign and unit: `+9.3 points`."""
    unit = _unit(comparison)
    return f"{_number(comparison.difference, comparison)} {unit}"


def ends(comparison: Comparison) -> str:
    """Write a difference's interval: `+5.1 to +13.5`."""
    return f"{_number(comparison.low, comparison)} to {_number(comparison.high, comparison)}"


def could_show(comparison: Comparison, *, rows: str = "") -> str:
    """Say what difference the rows could have shown; empty where that is not known.

    Args:
        comparison: One that shows no difference.
        rows: How the rows are spoken of: `which`, `rows`; empty: in brackets.
    """
    if comparison.smallest_detectable <= 0:
        return ""
    size = _number(comparison.smallest_detectable, comparison).lstrip("+")
    shows = f"could show {size} {_unit(comparison)}"
    if comparison.metric != NATS.name and comparison.smallest_detectable >= 1:
        verb = "are " if rows == "which" else ""
        shows = f"{verb}of too few groups to show any difference"
    subject = {"": f" ({comparison.n} rows", "which": ", which", "rows": f", {comparison.n} rows"}
    text = f"{subject[rows]} {shows}"
    return f"{text})" if rows == "" else text


def _unit(comparison: Comparison) -> str:
    return "nats per token" if comparison.metric == NATS.name else "points"


def _number(value: float, comparison: Comparison) -> str:
    """Write a difference with a sign, in as many digits as tell its interval from zero."""
    nats = comparison.metric == NATS.name
    scaled, nearest_end = value, min(abs(comparison.low), abs(comparison.high))
    if not nats:
        scaled, nearest_end = 100 * value, 100 * nearest_end
    digits = 3 if nats else 1
    apart = not comparison.low <= 0 <= comparison.high
    while apart and nearest_end > 1e-9 and round(nearest_end, digits) == 0:
        digits += 1
    rounded = round(scaled, digits) + 0.0
    return f"{rounded:+.{digits}f}" if rounded else f"{rounded:.{digits}f}"


def level(arm: Arm, metric: str) -> str:
    """Write an arm's mean on test, in hundredths or in nats: `83.0`."""
    mean = arm.summaries[metric].mean
    return f"{mean:.3f}" if metric == NATS.name else f"{100 * mean:.1f}"


def metric_name(metric: str) -> str:
    """Return a metric's name for people."""
    return METRICS[metric].label if metric in METRICS else metric.replace("_", " ")


def _all(count: int) -> str:
    return "the one task where it ran" if count == 1 else f"all {count} tasks where it ran"


# Finding arms and comparisons.


def _bar(task: TaskResult) -> Comparison | None:
    return _against(task, PROMPTING) or _against(task, ZERO_SHOT)


def _bar_name(arm: Arm) -> str:
    return f"the best prompting ({arm.label})" if arm.name == PROMPTING else arm.label


def _against(task: TaskResult, arm: str) -> Comparison | None:
    for comparison in task.comparisons:
        if (comparison.a, comparison.b, comparison.metric) == (arm, TUNED, task.metric):
            return comparison
    return None


def _arm(task: TaskResult, name: str) -> Arm:
    return next(arm for arm in task.arms if arm.name == name)
