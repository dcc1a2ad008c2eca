"""Before training: the learning rate, where the recipe leaves it to us.

`rule` and a number are taken as they are. `auto` also tries some rates around the rule's for a few
steps each, judged on some of the validation rows, and goes back to the start; a training that is
too short for that keeps the rule's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from instil import format as fmt
from instil.config.recipe import Method, resolve_learning_rate
from instil.data.split import seeded_key
from instil.report.sections.sweep import rate_text, sweep_sentence
from instil.results import Sweep, TriedRate
from instil.stages.untuned import Bench
from instil.types import Example, Step

if TYPE_CHECKING:
    from instil.encode.plan import TrainingData
    from instil.model.load import LoadedModel
    from instil.train.objective import Objective
    from instil.train.room import Room
    from instil.train.sweep import Nats, Slice, Trial

LOOKING = {Method.LORA: 1 / 2, Method.FULL: 1 / 3}
"""What a token costs without a backward pass: of 4 products a weight, or of 6, it takes 2."""


def find_rate(
    bench: Bench,
    loaded: LoadedModel,
    encoded: TrainingData,
    asked: Sequence[Sequence[Example]],
    *,
    room: Room,
    objective: Objective | None = None,
) -> Sweep | None:
    """Choose the learning rate; None where the recipe says it.

    Args:
        bench: The run.
        loaded: The model, ready to train; it is left as it was.
        encoded: What it will be trained on.
        asked: The validation rows, rendered; a list holds examples of one template.
        room: How much is computed at once.
        objective: What is minimised; None: plain cross-entropy.
    """
    if bench.recipe.train.learning_rate != "auto":
        return None
    work = _Work(loaded, encoded, some_rows(asked, seed=bench.recipe.seed), room, objective)
    found = bench.run.kept("sweep", Sweep, lambda: _find(bench, work))
    bench.say(sweep_sentence(found))
    return found


@dataclass(frozen=True, slots=True)
class _Work:
    """What is trained on and looked at."""

    loaded: LoadedModel
    encoded: TrainingData
    rows: Sequence[Sequence[Example]]
    room: Room
    objective: Objective | None

    @property
    def groups(self) -> dict[str, str]:
        return {e.id: f"{e.task}/{e.group}" for examples in self.rows for e in examples}

    def look(self) -> Nats:
        from instil.evaluate.suite import target_loss

        found: dict[str, float] = {}
        for examples in self.rows:
            found |= target_loss(self.loaded, examples).values
        return found

    @property
    def look_tokens(self) -> int:
        from instil.evaluate.choices import common_prefix, target_request

        total = 0
        for examples in self.rows:
            requests = [target_request(e, self.loaded.chat) for e in examples]
            shared = common_prefix([r.prompt for r in requests])
            total += shared + sum(r.tokens - shared for r in requests)
        return total

    @property
    def step_tokens(self) -> float:
        """Computed in a step, over the first ones."""
        from instil.compare.rates import LEAST_STEPS

        first = self.encoded.batches[:LEAST_STEPS]
        return sum(len(pack.ids) for batch in first for pack in batch) / len(first)


def rule_rate(bench: Bench, loaded: LoadedModel) -> float:
    """Return the recipe's learning rate, or the rule's."""
    from instil.model.load import hidden_width

    return resolve_learning_rate(
        bench.recipe.train.learning_rate,
        method=bench.recipe.method,
        width=hidden_width(loaded.model),
    )


def _find(bench: Bench, work: _Work) -> Sweep:
    from instil.compare import rates

    rule, total = rule_rate(bench, work.loaded), len(work.encoded.batches)
    look_cost = LOOKING[bench.recipe.method] * work.look_tokens
    steps = rates.try_steps(steps=total, step_cost=work.step_tokens, look_cost=look_cost)
    if not steps:
        enough = rates.enough_steps(step_cost=work.step_tokens, look_cost=look_cost)
        why = (
            f"by the rule, for {fmt.plural(total, 'step')} are too few to try others on a slice of "
            f"them (from {fmt.count(enough)} on)"
        )
        return Sweep(rule, rule, why, of_steps=total)
    return _tried(bench, work, _Try(rule, steps, total))


@dataclass(frozen=True, slots=True)
class _Try:
    rule: float
    steps: int
    of_steps: int


def _tried(bench: Bench, work: _Work, plan: _Try) -> Sweep:
    from instil.compare import rates
    from instil.train.ranks import alone
    from instil.train.sweep import sweep

    groups, part = work.groups, _slice(bench, work, plan)
    began = time.perf_counter()
    most = plan.steps * (1 + len(rates.ABOVE) + len(rates.BELOW))
    with bench.stage("learning rates", most) as done, alone():
        shown = bench.progress.tasks[-1].id

        def on_step(rate: float, step: Step) -> None:
            bench.progress.update(shown, note=f"{rate_text(rate)}: loss {step.loss:.3f}")
            done(1)

        trials = sweep(
            work.loaded,
            part,
            rule=plan.rule,
            above=[factor * plan.rule for factor in rates.ABOVE],
            below=[factor * plan.rule for factor in rates.BELOW],
            look=work.look,
            worse=lambda a, b: rates.is_worse(rates.difference(a, b, groups=groups)),
            on_step=on_step,
            room=work.room,
        )
    return _summed_up(trials, groups, plan, stretch=part.stretch, began=began)


def _slice(bench: Bench, work: _Work, plan: _Try) -> Slice:
    from instil.compare.rates import stretch
    from instil.train.loop import Schedule
    from instil.train.sweep import Slice

    wanted = bench.recipe.train
    return Slice(
        batches=work.encoded.batches[: plan.steps],
        schedule=Schedule(
            plan.rule, wanted.warmup_ratio, wanted.lr_scheduler_type, wanted.max_grad_norm
        ),
        stretch=stretch(steps=plan.steps, of_steps=plan.of_steps),
        weight_decay=wanted.weight_decay,
        seed=bench.recipe.seed,
        objective=work.objective,
    )


def _summed_up(
    trials: Sequence[Trial], groups: dict[str, str], plan: _Try, *, stretch: float, began: float
) -> Sweep:
    from instil.compare import rates
    from instil.train.sweep import best, mean

    leader = best(trials)
    behind = {
        trial.rate: rates.difference(trial.end, leader.end, groups=groups)
        for trial in trials
        if trial.end and leader and leader.end
    }
    chosen, why = rates.choose(behind, rule=plan.rule)
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
    return Sweep(
        plan.rule,
        chosen,
        why,
        tuple(tried),
        steps=plan.steps,
        of_steps=plan.of_steps,
        rows=len(groups),
        stretch=stretch,
        seconds=time.perf_counter() - began,
    )


def some_rows(asked: Sequence[Sequence[Example]], *, seed: int) -> list[list[Example]]:
    """Draw about `ROWS` of the rendered validation rows, evenly over tasks and templates."""
    from instil.compare.rates import ROWS

    each = max(1, ROWS // max(1, len(asked)))
    drawn = [sorted(part, key=lambda e: seeded_key(seed, "sweep", e.id)) for part in asked]
    return [part[:each] for part in drawn]
