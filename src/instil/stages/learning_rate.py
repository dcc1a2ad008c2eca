"""Before training: the learning rate, where the recipe leaves it to us.

`rule` and a number are taken as they are. `auto` also tries some rates around the rule's for a few
steps each, judged on some of the validation rows, and goes back to the start; a training that is
too short for that keeps the rule's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from instil import format as fmt
from instil.config.methods import METHODS
from instil.config.recipe import resolve_learning_rate
from instil.config.sections import ByRule, Train
from instil.data.split import seeded_key
from instil.report.sections.sweep import rate_text, sweep_sentence
from instil.results.training import Sweep, TriedRate
from instil.stages.context import RunContext
from instil.types import Example, Step

if TYPE_CHECKING:
    from instil.encode.plan import TrainingData
    from instil.model.load import LoadedModel
    from instil.train.loop import Schedule
    from instil.train.objective import Objective
    from instil.train.room import Room
    from instil.train.sweep import Trial


def rule_rate(context: RunContext, loaded: LoadedModel, wanted: float | ByRule) -> float:
    """Return a learning rate as a recipe has it, or the rule's for this model."""
    from instil.model.load import hidden_width

    width = hidden_width(loaded.model)
    return resolve_learning_rate(wanted, method=context.recipe.method, width=width)


def schedule_of(train: Train, *, rate: float) -> Schedule:
    """Return the learning rate over the steps, `rate` at its peak."""
    from instil.train.loop import Schedule

    return Schedule(rate, train.warmup_ratio, train.lr_scheduler_type, train.max_grad_norm)


def find_rate(
    context: RunContext,
    loaded: LoadedModel,
    encoded: TrainingData,
    asked: Sequence[Sequence[Example]],
    *,
    room: Room,
    objective: Objective | None = None,
) -> Sweep | None:
    """Choose the learning rate; None where the recipe says it.

    Args:
        context: The run.
        loaded: The model, ready to train; it is left as it was.
        encoded: What it will be trained on.
        asked: The validation rows, rendered; a list holds examples of one template.
        room: How much is computed at once.
        objective: What is minimised; None: plain cross-entropy.
    """
    from instil.compare.rates import ROWS

    if context.recipe.train.learning_rate != "auto":
        return None
    seed, share = context.recipe.seed, max(1, ROWS // max(1, len(asked)))
    # Evenly over tasks and templates.
    drawn = (sorted(part, key=lambda e: seeded_key(seed, "sweep", e.id)) for part in asked)
    rows = [part[:share] for part in drawn]
    chosen = context.run.kept(
        "sweep", Sweep, lambda: _find(context, loaded, encoded, rows, room, objective)
    )
    context.say(sweep_sentence(chosen))
    return chosen


def _find(
    context: RunContext,
    loaded: LoadedModel,
    encoded: TrainingData,
    rows: Sequence[Sequence[Example]],
    room: Room,
    objective: Objective | None,
) -> Sweep:
    from instil.compare import rates
    from instil.evaluate.choices import common_prefix, target_request
    from instil.evaluate.suite import target_loss
    from instil.model.adapter import trainable
    from instil.train.loop import train_steps
    from instil.train.optim import adamw
    from instil.train.ranks import alone
    from instil.train.sweep import sweep

    recipe, wanted = context.recipe, context.recipe.train
    rule, total = rule_rate(context, loaded, "rule"), len(encoded.batches)
    if wanted.fsdp:
        why = "by the rule: others are tried by one process, and the weights are dealt out"
        return Sweep(rule, rule, why, of_steps=total)
    first = encoded.batches[: rates.LEAST_STEPS]
    step_cost = sum(len(pack.ids) for batch in first for pack in batch) / len(first)
    look_tokens = 0
    for examples in rows:
        requests = [target_request(e, loaded.chat) for e in examples]
        shared = common_prefix([r.prompt for r in requests])
        look_tokens += shared + sum(r.tokens - shared for r in requests)
    look_cost = 2 / METHODS[recipe.method].operations * look_tokens
    steps = rates.try_steps(steps=total, step_cost=step_cost, look_cost=look_cost)
    if not steps:
        enough = rates.enough_steps(step_cost=step_cost, look_cost=look_cost)
        why = (
            f"by the rule, for {fmt.plural(total, 'step')} are too few to try others on a slice of "
            f"them (from {fmt.count(enough)} on)"
        )
        return Sweep(rule, rule, why, of_steps=total)
    began, stretch = time.perf_counter(), rates.stretch(steps=steps, of_steps=total)
    groups = {e.id: f"{e.task}/{e.group}" for examples in rows for e in examples}
    most = steps * (1 + len(rates.ABOVE) + len(rates.BELOW))
    with context.stage("learning rates", most) as done, alone():
        shown = context.progress.tasks[-1].id

        def train(rate: float) -> Iterator[Step]:
            weights, peak = trainable(loaded.model), rate * stretch
            for step in train_steps(
                loaded,
                encoded.batches[:steps],
                optimizer=adamw(weights, learning_rate=peak, weight_decay=wanted.weight_decay),
                schedule=schedule_of(wanted, rate=peak),
                steps_per_epoch=steps,
                room=room,
                objective=objective,
                seed=recipe.seed,
            ):
                note = f"{rate_text(rate)}: loss {step.loss:.3f}"
                context.progress.update(shown, note=note)
                done(1)
                yield step

        trials = sweep(
            loaded,
            train,
            steps=steps,
            rule=rule,
            above=[factor * rule for factor in rates.ABOVE],
            below=[factor * rule for factor in rates.BELOW],
            look=lambda: {k: v for r in rows for k, v in target_loss(loaded, r).values.items()},
            worse=lambda a, b: rates.is_worse(rates.difference(a, b, groups=groups)),
        )
    chosen, why, tried = _choice(trials, groups, rule)
    return Sweep(
        rule,
        chosen,
        why,
        tried,
        steps=steps,
        of_steps=total,
        rows=len(groups),
        stretch=stretch,
        seconds=time.perf_counter() - began,
    )


def _choice(
    trials: Sequence[Trial], groups: dict[str, str], rule: float
) -> tuple[float, str, tuple[TriedRate, ...]]:
    """Return the rate to take, why, and what is said of each that was tried."""
    from instil.compare import rates
    from instil.train.sweep import best, mean

    leader = best(trials)
    behind = {
        trial.rate: rates.difference(trial.end, leader.end, groups=groups)
        for trial in trials
        if trial.end and leader and leader.end
    }
    tried = []
    for trial in trials:
        seen, gap = trial.end or trial.halfway, behind.get(trial.rate)
        known = gap and isfinite(gap.low)
        tried.append(
            TriedRate(
                trial.rate,
                trial.steps,
                loss=mean(seen) if seen else None,
                behind=gap.mean if gap else None,
                low=gap.low if gap and known else None,
                high=gap.high if gap and known else None,
            )
        )
    return *rates.choose(behind, rule=rule), tuple(tried)
