"""The cheapest arm that none is shown to beat: what to use.

Arms are taken in the order of their cost, the cheapest first. Each is compared with all others on
the same test rows, with Holm's correction over these comparisons; the first that no other is shown
to beat is the one to use. A dearer arm is looked at only when all cheaper ones were shown to be
beaten, so that an arm is wrongly passed over at most as often as the level of the test (a
fixed-sequence test: Maurer, Hothorn and Lehmacher, 1995). Where the arm with the highest mean beats
the chosen one by its own interval and not after the correction, or any may by its interval be far
above (few rows, or few groups of them), the rows do not settle it, and that is what is said.

The order of cost:

1. an arm that needs no language model is the cheapest;
2. then the one that answers faster on this machine. Up to a quarter more time than the fastest arm
   with a model counts as the same: the clock is no better than that;
3. then the one that stores less beside the base model; then the one that was made in less time.

A worked example: TF-IDF 82, the linear probe 84, the tuned model 85, and none is shown to be better
than another: TF-IDF. Where the tuned model is shown to beat TF-IDF, but not the probe, it is the
probe: half a pass through the model, and less to store.

Time to answer stands before time to make, since the one is paid with every answer and the other was
paid already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from instil import format as fmt
from instil.compare.verdict import Outcome, could_show, level, outcome, outcomes
from instil.results.names import CLASSIFIERS, TUNED, ZERO_SHOT
from instil.results.tasks import Arm, ClassRow, TaskResult
from instil.types import Comparison

LEFT_OPEN = 0.2
"""Above the chosen arm: how far the interval of another may reach for it to be settled."""
ALIKE = 1.25
"""Times the fastest answer, of the arms with a model, up to which others count as fast."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to use for a task, and why."""

    task: TaskResult
    """The task."""
    arm: Arm
    """The cheapest arm that none is shown to beat."""
    is_cheapest: bool
    """Whether no arm at all is cheaper."""
    against: Comparison | None
    """Tuned minus `arm`; None where `arm` is the tuned one."""
    highest: Comparison | None
    """The arm with the highest mean minus `arm`; None where that is `arm` or the tuned one."""
    worse: tuple[Comparison, ...]
    """Tuned minus each arm that is shown to beat it."""
    compared: int
    """Comparisons that the correction is over."""
    is_settled: bool
    """False where the highest mean beats `arm` by its own interval, but not after correction, or
    where the interval of any arm reaches further than `LEFT_OPEN` above `arm`."""


def cheapest(task: TaskResult) -> Choice | None:
    """Choose an arm; None where not all arms were compared with each other."""
    pairs = [c for c in (*task.comparisons, *task.rivals) if c.metric == task.metric]
    if len(task.arms) < 2 or len(pairs) != len(task.arms) * (len(task.arms) - 1) // 2:
        return None
    ranking = by_cost(task.arms)
    arm = next((arm for arm in ranking if not _beaten(arm.name, pairs)), None)
    if arm is None:  # scores of other rows each, where some could not be scored
        return None
    sign = 1 if pairs[0].higher_is_better else -1
    best = max(task.arms, key=lambda each: sign * each.summaries[task.metric].mean)
    rival = None if best is arm else _minus(best.name, arm.name, pairs)
    others = [_minus(each.name, arm.name, pairs) for each in task.arms if each is not arm]
    reach = max(each.high if each.higher_is_better else -each.low for each in others)
    is_settled = reach <= LEFT_OPEN and (rival is None or outcome(rival) is not Outcome.BETTER)
    return Choice(
        task,
        arm,
        is_cheapest=arm is ranking[0],
        against=None if arm.name == TUNED else _minus(TUNED, arm.name, pairs),
        highest=None if best.name == TUNED else rival,
        worse=tuple(_minus(TUNED, name, pairs) for name in _beaten(TUNED, pairs)),
        compared=len(task.arms) - 1,
        is_settled=is_settled,
    )


def _beaten(arm: str, pairs: Sequence[Comparison]) -> tuple[str, ...]:
    """Return the arms that are shown to beat one, corrected over its comparisons."""
    others = [c.a if c.b == arm else c.b for c in pairs if arm in (c.a, c.b)]
    shown = outcomes([_minus(other, arm, pairs) for other in others])
    return tuple(n for n, o in zip(others, shown, strict=True) if o is Outcome.BETTER)


def _minus(b: str, a: str, pairs: Sequence[Comparison]) -> Comparison:
    """Return arm `b` minus arm `a`, whichever way the pair was compared."""
    pair = next(c for c in pairs if {c.a, c.b} == {a, b})
    if pair.b == b:
        return pair
    return replace(pair, a=a, b=b, difference=-pair.difference, low=-pair.high, high=-pair.low)


def by_cost(arms: Sequence[Arm]) -> list[Arm]:
    """Sort arms, the cheapest first."""
    fastest = min((a.costs.milliseconds for a in arms if a.costs.needs_model), default=0.0)

    def cost(arm: Arm) -> tuple[bool, float, int, float]:
        costs = arm.costs
        slow = costs.milliseconds if costs.milliseconds > ALIKE * fastest else 0.0
        return (costs.needs_model, slow, costs.bytes_on_disk, costs.seconds)

    return sorted(arms, key=cost)


def use_sentence(tasks: Sequence[TaskResult], *, model_bytes: int) -> str:
    """Say which arm to use, and what it and the tuned one cost; empty where that is not known.

    Args:
        tasks: What was found.
        model_bytes: What the base model stores.
    """
    choices = [choice for choice in map(cheapest, tasks) if choice is not None]
    if len(choices) == len(tasks) == 1:
        return _for_one(choices[0], model_bytes)
    named: dict[str, list[str]] = {}
    for choice in choices:
        figure = level(choice.task, choice.arm.name)
        if one := only_class(choice.arm):
            figure += f"; finds “{one.label}” alone"
        if choice.against is not None:
            figure += f"; tuned {_standing(choice)}"
        if not choice.is_settled:
            figure += "; not settled by these rows"
        named.setdefault(_name(choice.arm), []).append(f"{choice.task.task} ({figure})")
    parts = [f"{name} on {', '.join(places)}" for name, places in named.items()]
    rule = "Use the cheapest arm that none is shown to beat (corrected over its comparisons)"
    return f"{rule}: {'; '.join(parts)}." if parts else ""


def _for_one(choice: Choice, model_bytes: int) -> str:
    task, arm = choice.task, choice.arm
    rest = "none is cheaper" if choice.is_cheapest else "each cheaper one is shown to be beaten"
    figure = f"{fmt.style(task.metric).label} {level(task, arm.name)}"
    corrected = f", corrected for {choice.compared} comparisons" if choice.compared > 1 else ""
    beside = f" beside the base model's {fmt.stored(model_bytes)}"
    use = "Use"
    if not choice.is_settled:
        use = (
            "The test rows do not settle which arm to use: another may be far better than the "
            "cheapest arm that none is shown to beat. More test rows would tell; until then, use"
        )
    text = (
        f"{use} {_name(arm)}: no arm is shown to beat it on {task.task} ({figure}{corrected}), and "
        f"{rest}. It {_costs(arm, beside)}"
    )
    tuned = task.arm(TUNED)
    if choice.against is not None and tuned is not None:
        text += f"; the tuned model ({_standing(choice)}) {_costs(tuned, beside)}"
        if choice.highest is not None:
            best = task.arm(choice.highest.b)
            assert best is not None, "it was compared"
            text += f"; the highest mean is that of {_name(best)} ({_not_shown(choice.highest)})"
    if one := only_class(arm):
        others = sum(row.n for row in arm.per_class) - one.n
        means = (a.summaries.get("macro_f1") for a in (arm, tuned or arm))
        ours, theirs = (fmt.plain_level(mean.mean, "macro_f1") if mean else "" for mean in means)
        beside = f"macro-F1 {ours}" + (f", the tuned model {theirs}" if tuned and theirs else "")
        text += (
            f". But it finds “{one.label}” alone, and none of the {fmt.plural(others, 'row')} of "
            f"other classes ({beside}): where those matter, accuracy is the wrong measure"
        )
    return f"{text}."


def only_class(arm: Arm) -> ClassRow | None:
    """Return the one class that an arm ever finds; None where it finds several, or none is left."""
    found = [row for row in arm.per_class if row.f1 > 0]
    several = sum(row.n > 0 for row in arm.per_class) > 1
    return found[0] if several and len(found) == 1 else None


def _standing(choice: Choice) -> str:
    """Say what the tuned model is shown to be beside the chosen arm, and beside others."""
    parts = []
    if choice.against is not None and choice.against not in choice.worse:
        parts.append(_not_shown(choice.against))
    for comparison in choice.worse:
        other = choice.task.arm(comparison.a)
        assert other is not None, "it was compared"
        parts.append(f"shown to be worse than {_name(other)}: {_difference(comparison)}")
    return "; ".join(parts)


def _not_shown(comparison: Comparison) -> str:
    """Write a difference that the pairs, taken together, do not show, and what they could show."""
    if outcome(comparison) is not Outcome.NOT_SHOWN:
        return f"{_difference(comparison)}: not enough after correction"
    return f"{_difference(comparison)}: no difference shown{could_show(comparison, rows='rows')}"


def _difference(comparison: Comparison) -> str:
    return f"{fmt.plain_change(comparison)}, {fmt.plain_interval(comparison)}"


def _name(arm: Arm) -> str:
    known = {**CLASSIFIERS, TUNED: "the tuned model", ZERO_SHOT: "the base model, zero-shot"}
    return known.get(arm.name, arm.label)


def _costs(arm: Arm, beside: str) -> str:
    """Say what an arm takes: `took 4.1 minutes to make, stores 9.8 MB ..., answers in 31 ms`."""
    costs = arm.costs
    made = f"{costs.seconds:.1f} seconds" if costs.seconds < 10 else fmt.duration(costs.seconds)
    parts = [f"took {made} to make"] if costs.seconds else []
    stored = fmt.stored(costs.bytes_on_disk) if costs.bytes_on_disk else "nothing"
    parts.append(f"stores {stored}{beside if costs.needs_model else ''}")
    if not costs.needs_model:
        parts.append("needs no language model")
    return f"{', '.join(parts)} and answers in {fmt.milliseconds(costs.milliseconds)} ms"
