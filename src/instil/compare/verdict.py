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

import math
from collections.abc import Sequence
from enum import StrEnum

from instil import format as fmt
from instil.compare.average import df_of, mean_of
from instil.config.methods import METHODS
from instil.results.guard import BudgetResult, GuardResult
from instil.results.names import CLASSIFIERS, MEAN_SCORE, PROMPTING, TEXT, TUNED, ZERO_SHOT
from instil.results.tasks import Learnt, TaskResult
from instil.results.training import TrainingSummary
from instil.scoring.metrics import NATS
from instil.stats.intervals import Interval
from instil.stats.paired import ALPHA, holm, interval_p
from instil.types import Comparison, Estimate

ALWAYS, COPY = "always", "copy"
"""Not arms: always giving the commonest class of the training rows, or a row's own text back."""


class Outcome(StrEnum):
    """What a comparison shows about arm `b`."""

    BETTER = "better"
    """The interval excludes zero, on the good side."""
    WORSE = "worse"
    """The interval excludes zero, on the bad side."""
    NOT_SHOWN = "no difference shown"
    """The interval includes zero."""


def outcome(comparison: Comparison) -> Outcome:
    """Return what one comparison shows, taken by itself."""
    return outcomes([comparison])[0]


def outcomes(comparisons: Sequence[Comparison]) -> tuple[Outcome, ...]:
    """Return what comparisons made together show: Holm's correction over all of them.

    The p-values are those that the (clustered) intervals imply, since McNemar's takes examples as
    independent and free-text metrics have none. With one comparison: does its interval exclude 0.
    """
    adjusted = holm([p_of(each) for each in comparisons])
    shown = []
    for comparison, p in zip(comparisons, adjusted, strict=True):
        low, high = comparison.low, comparison.high
        is_good = (low > 0) == comparison.higher_is_better
        # The margin keeps an interval that ends in exactly zero (p = 0.05 but for rounding) out.
        if low <= 0 <= high or p >= ALPHA - 1e-9:
            shown.append(Outcome.NOT_SHOWN)
        else:
            shown.append(Outcome.BETTER if is_good else Outcome.WORSE)
    return tuple(shown)


def p_of(comparison: Comparison) -> float:
    """Return the p-value that belongs to a comparison's interval."""
    if comparison.anytime_p is not None:
        return comparison.anytime_p
    ends = Interval(comparison.low, comparison.high)
    return interval_p(comparison.difference, ends, df=comparison.df)


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
    bars = [(task, task.against(PROMPTING) or task.against(ZERO_SHOT)) for task in tasks]
    pairs = [(task, bar) for task, bar in bars if bar is not None]
    shown = outcomes([bar for _, bar in pairs])
    gain = "Tuning was not compared with prompting, so what it bought is not known."
    if pairs and len(tasks) == 1:
        gain = _one_task(*pairs[0], shown[0])
    elif pairs:
        gain = _several_tasks(
            tasks, [(*pair, each) for pair, each in zip(pairs, shown, strict=True)]
        )
    arms = [arm for task in tasks for arm in task.arms if arm.name == TUNED]
    stored = max((arm.costs.bytes_on_disk for arm in arms), default=0)
    store = f"{fmt.stored(stored)} to store, " if stored else ""
    # Two figures that count: 0.09 %, 1.4 %, 100 %.
    share = training.trainable_share
    percent = f"{100 * share:.2g} %" if share < 0.995 else "100 %"
    price = (
        f"The price: {fmt.duration(training.seconds)} of training, {store}{percent} of the "
        f"parameters trained ({METHODS[training.method].word})."
    )
    held = training.means is not None and any(t.name == "kl" for t in training.means.terms)
    return (gain, _forgetting(guard, held=held), price)


def shows_nothing(comparison: Comparison) -> bool:
    """Whether it is of too few rows or groups: only a difference beyond all scores would show."""
    return comparison.metric != NATS.name and comparison.smallest_detectable >= 1


def could_show(comparison: Comparison, *, rows: str) -> str:
    """Say what difference the rows could have shown; empty where that is not known.

    Args:
        comparison: One that shows no difference.
        rows: How the rows are spoken of: `which` or `rows`.
    """
    size = comparison.smallest_detectable
    if size <= 0:
        return ""
    subject = ", which" if rows == "which" else f", {comparison.n} rows"
    if shows_nothing(comparison):
        are = " are" if rows == "which" else ""
        return f"{subject}{are} of too few groups to show any difference"
    return f"{subject} could show {fmt.plain_size(size, comparison.metric)}"


# Whether anything was learnt.


def not_learnt(tasks: Sequence[TaskResult], *, training: TrainingSummary) -> str:
    """Return the sentence on tasks that are not shown to be learnt; empty where all are.

    It stands before all others: whatever else is said is of a model that learnt nothing.

    Args:
        tasks: One a trained task.
        training: How the training went.
    """
    known = [(task.task, task.learnt) for task in tasks if task.learnt]
    shown = iter(outcomes([learnt.comparison for _, learnt in known if learnt.comparison]))
    parts = []
    for name, learnt in known:
        comparison, apart = learnt.comparison, learnt.apart
        beside = next(shown) if comparison else Outcome.BETTER
        if learnt.answers == 1 < learnt.wanted:
            same = f"gives every test row the same answer, “{learnt.answer}”"
            parts.append(f"on {name}, the tuned model {same}")
        elif comparison and beside is not Outcome.BETTER:
            worse = "worse than" if beside is Outcome.WORSE else "not shown to be better than"
            if comparison.a == COPY:
                parts.append(f"on {name}, the tuned model is {worse} {_copied(learnt, comparison)}")
                continue
            always = f"always answering “{learnt.always}”" if learnt.always else "guessing"
            right = learnt.right or 0.0
            text = (
                f"on {name}, the tuned model is {worse} {always}: accuracy {100 * right:.1f} "
                f"against {100 * (right - comparison.difference):.1f}, "
                f"{_with_interval(comparison)} on {comparison.n} test rows"
            )
            if apart is not None and apart.low > 0.5:
                text += f", though it tells the classes apart in {apart.mean:.2f} of the pairs"
            parts.append(text)
    if not parts:
        return ""
    text = "; ".join(parts)
    causes = "; the report says under Learning curves what to try" if training.alarms else ""
    return f"{text[:1].upper()}{text[1:]}{causes}."


def _copied(learnt: Learnt, comparison: Comparison) -> str:
    right = learnt.right or 0.0
    label, metric = fmt.style(comparison.metric).label, comparison.metric
    mine = fmt.plain_level(right, metric)
    theirs = fmt.plain_level(right - comparison.difference, metric)
    return (
        f"giving the text back as it is: {label} {mine} against {theirs}, "
        f"{_with_interval(comparison)} on {comparison.n} test rows"
    )


def needed_sentence(needed: int | None) -> str:
    """Say how many validation rows a threshold for a wanted error would take.

    >>> needed_sentence(120)
    'about 120 validation rows would do, if they are as these: validation: 120 in a new run'
    """
    if needed is None:
        return "no number of rows would do: too many of the surest are wrong already"
    return (
        f"about {needed:,} validation rows would do, if they are as these: "
        f"validation: {needed} in a new run"
    )


def _with_interval(comparison: Comparison) -> str:
    ends = fmt.plain_interval(comparison)
    return f"{fmt.plain_change(comparison)} (95 % interval {ends})"


# What tuning bought.


def level(task: TaskResult, name: str) -> str:
    """Return an arm's mean on test in the metric that decides: `83.0`."""
    arm = task.arm(name)
    assert arm is not None, "it was compared"
    return fmt.plain_level(arm.summaries[task.metric].mean, task.metric)


def _one_task(task: TaskResult, comparison: Comparison, shown: Outcome) -> str:
    did = {
        Outcome.BETTER: "tuning beat",
        Outcome.WORSE: "tuning did worse than",
        Outcome.NOT_SHOWN: "tuning showed no difference from",
    }[shown]
    bar = task.label(comparison.a)
    bar = f"the best prompting ({bar})" if comparison.a == PROMPTING else bar
    levels = f"{level(task, TUNED)} against {level(task, comparison.a)}"
    could = could_show(comparison, rows="which") if shown is Outcome.NOT_SHOWN else ""
    text = (
        f"On {task.task}, {did} {bar}: {fmt.style(task.metric).label} {levels}, "
        f"{_with_interval(comparison)} on {comparison.n} test rows{could}"
    )
    for arm, name in CLASSIFIERS.items():
        other = task.against(arm)
        if other is None:
            continue
        text += f"; {name} reached {level(task, arm)}"
        beside, ends = outcome(other), fmt.plain_interval(other)
        if beside is Outcome.NOT_SHOWN:
            text += f", no difference from the tuned model shown ({ends})"
        else:
            size = fmt.plain_change(other).lstrip("+-")
            text += f", and the tuned model is {beside} by {size} ({ends})"
    return f"{text}."


def _several_tasks(
    tasks: Sequence[TaskResult], duels: Sequence[tuple[TaskResult, Comparison, Outcome]]
) -> str:
    phrases = {
        Outcome.BETTER: "Tuning beat the best prompting on",
        Outcome.WORSE: "it did worse on",
        Outcome.NOT_SHOWN: "no difference was shown on",
    }
    parts: list[str] = []
    for kind, phrase in phrases.items():
        named = []
        for task, comparison, shown in duels:
            if shown is kind:
                metric = fmt.style(task.metric).label
                rows = f", {comparison.n} rows"
                named.append(
                    f"{task.task} {fmt.plain_change(comparison)} {metric}, "
                    f"{fmt.plain_interval(comparison)}"
                    + (could_show(comparison, rows="rows") if shown is Outcome.NOT_SHOWN else rows)
                )
        if named or kind is Outcome.BETTER:
            count = f"{len(named)}" if parts else f"{len(named)} of {len(duels)} tasks"
            parts.append(f"{phrase} {count}" + (f" ({', '.join(named)})" if named else ""))
    compared = {task.task for task, _, _ in duels}
    if rest := [task.task for task in tasks if task.task not in compared]:
        parts.append(f"not compared on {len(rest)} ({', '.join(rest)})")
    for arm, name in CLASSIFIERS.items():
        known = {task.task: pair for task in tasks if (pair := task.against(arm)) is not None}
        beside = zip(known, outcomes([*known.values()]), strict=True)
        if left := [task for task, each in beside if each is not Outcome.BETTER]:
            parts.append(f"{name} was not beaten on {', '.join(left)}")
        elif known:
            where = "the one task" if len(known) == 1 else f"all {len(known)} tasks"
            parts.append(f"it beat {name} on {where} where it ran")
    return f"{'; '.join(parts)}."


# What was forgotten.


def _forgetting(guard: Sequence[GuardResult], *, held: bool) -> str:
    """Say what was lost; unless training was `held` to the base model, what may keep more of it."""
    if not guard:
        return "Forgetting was not measured."
    shown = outcomes([result.comparison for result in guard])
    lost = [result for result, each in zip(guard, shown, strict=True) if each is Outcome.WORSE]
    named = {result.task for result in lost}
    kept = [result for result in guard if result.task not in named]
    empty = {result.task for result in kept} - {r.task for r in kept if _can_lose(r)}
    kept = [result for result in kept if result.task not in empty]
    unable = (
        f" No answer was right before on {', '.join(sorted(empty))}: there no loss can show."
        if empty
        else ""
    )
    corrected = f", corrected for {len(guard)} comparisons" if len(guard) > 1 else ""
    if not lost and not kept:
        return f"Forgetting cannot show.{unable}"
    if not lost:
        said = f"Forgetting: no loss is shown on {_who(kept)}{corrected}{_sharpness(kept)}."
        return said + unable
    losses = []
    for result in lost:
        size = fmt.plain_change(result.comparison).lstrip("+-")
        ends = fmt.plain_interval(result.comparison)
        if result.comparison.higher_is_better:
            losses.append(f"{result.task} lost {size} ({ends})")
        else:
            levels = f"from {result.before.mean:.3f} to {result.after.mean:.3f}"
            losses.append(f"{result.task} got worse by {size} ({ends}; {levels})")
    rest = f"; no loss is shown on {_who(kept, other='other ')}" if kept else ""
    said = f"Forgetting: {', '.join(losses)}{rest}{corrected}{_sharpness(kept)}.{unable}"
    return said if held else f"{said} To keep more of it, try keep.kl: 0.1 (docs/forgetting.md)."


def _can_lose(result: GuardResult) -> bool:
    """Whether there was anything to lose: an accuracy of 0 cannot fall."""
    return not result.comparison.higher_is_better or result.before.mean > 0


def _who(results: Sequence[GuardResult], *, other: str = "") -> str:
    """Name the subjects once each, though a guard task stands there with two metrics."""
    tasks = list(dict.fromkeys(result.task for result in results if result.task != TEXT))
    names = tasks if len(tasks) == 1 else [f"the {other}{len(tasks)} guard tasks"] * bool(tasks)
    texts = [TEXT] * any(result.task == TEXT for result in results)
    return " and ".join(names + texts)


def _sharpness(results: Sequence[GuardResult]) -> str:
    # "No loss" is worth only as much as the smallest loss that would have been seen.
    known = [c for c in (result.comparison for result in results) if c.smallest_detectable > 0]
    small = [c for c in known if not shows_nothing(c)]
    parts = []
    for unit, digits, scale in (("points", 1, 100), ("nats per token", 3, 1)):
        sizes = [
            scale * c.smallest_detectable
            for c in small
            if (c.metric == NATS.name) == (unit != "points")
        ]
        if sizes:
            low, high = f"{min(sizes):.{digits}f}", f"{max(sizes):.{digits}f}"
            parts.append(f"{low if low == high else f'{low} to {high}'} {unit}")
    if few := len(known) - len(small):
        parts.append(f"in {fmt.plural(few, 'comparison')} of too few rows none")
    return f" (the smallest loss that would have shown: {', '.join(parts)})" if parts else ""


# Whether more was forgotten than the recipe allows.


def mean_change(guard: Sequence[GuardResult]) -> Comparison | None:
    """Return the mean change over the guard tasks, each in its own metric; None without any.

    Every task counts the same. Tasks share no rows, so they are strata: their paired, clustered
    intervals are put together as those of any average are (`compare/average.py`).

    Args:
        guard: Before and after, a line a task and metric; cross-entropies are passed over.

    Returns:
        In shares of 1, `n` the rows of all tasks.
    """
    lines = [g.comparison for g in guard if g.comparison.metric != NATS.name]
    if not lines:
        return None
    mean = mean_of([Estimate(line.difference, line.low, line.high) for line in lines])
    return Comparison(
        a=lines[0].a,
        b=lines[0].b,
        metric=MEAN_SCORE,
        n=sum(line.n for line in lines),
        difference=mean.mean,
        low=mean.low,
        high=mean.high,
        p_value=None,
        df=df_of(lines),
        smallest_detectable=math.hypot(*(line.smallest_detectable for line in lines)) / len(lines),
    )


def check_budget(guard: Sequence[GuardResult], *, budget: float | None) -> BudgetResult | None:
    """Hold the guard's losses against the forgetting budget.

    The loss is that of `mean_change`. The budget is broken only beyond doubt: when the whole 95 %
    interval of the mean change lies beyond it.

    Args:
        guard: Before and after, a line a task and metric; cross-entropies are passed over.
        budget: Points of 100 that may be lost on average; None: there is no budget.

    Returns:
        None where there is no budget, or no guard task to hold against it.
    """
    mean = mean_change(guard)
    if budget is None or mean is None:
        return None
    change, low, high = (100 * value for value in (mean.difference, mean.low, mean.high))
    return BudgetResult(budget, change, low, high, high < -budget)


def points(value: float) -> str:
    """Return points of 100 with their sign, for plain text; none for zero.

    >>> points(-5.0), points(-0.04)
    ('-5.0', '0.0')
    """
    return fmt.plain(fmt.signed(value, 1))


def budget_sentence(result: BudgetResult) -> str:
    """Say how the budget came out.

    >>> budget_sentence(BudgetResult(2.0, -5.0, -7.0, -3.0, True))
    'The forgetting budget of 2 points is broken: -5.0 points on average (-7.0 to -3.0).'
    """
    kept = "is broken" if result.broken else "is not shown to be broken"
    return (
        f"The forgetting budget of {result.budget:g} points {kept}: {points(result.change)} points "
        f"on average ({points(result.low)} to {points(result.high)})."
    )
