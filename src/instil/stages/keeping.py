"""Between training and judging: how much of the tuning is handed over, and how far it moved.

`settle` puts the model that is handed over between base and tuned, where the recipe wants that;
`how_far` measures what was handed over. Both look at validation and at guard rows that are not
reported on, never at test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from instil.config.recipe import Method
from instil.data.prepare import TaskData
from instil.results import Interpolation, Moved, Tried
from instil.stages.ledger import MODEL
from instil.stages.training import validation_examples, validation_of
from instil.stages.untuned import Bench, choosing_guard, load_base, load_tuned
from instil.types import Example, Score, Summary

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardScores, GuardTask
    from instil.model.engine.divergence import States
    from instil.model.load import ModelFolder

_ADAPTER = f"{MODEL}/adapter_config.json"


# --- how much of the tuning is handed over -------------------------------------------------------


def settle(
    bench: Bench, folder: ModelFolder, data: Sequence[TaskData], guard: Sequence[GuardTask]
) -> Interpolation | None:
    """Choose how far to go from base to tuned, and hand that model over; None: all the way."""
    wanted = bench.recipe.keep.interpolate
    if wanted is None:
        return None

    def choice() -> Interpolation:
        if isinstance(wanted, float):
            return Interpolation(wanted, "as the recipe says")
        return _choose(bench, folder, data, guard)

    found = bench.run.kept("interpolation", Interpolation, choice)
    if found.chosen != 1:
        _hand_over(bench, folder, found.chosen)
    return found


def _choose(
    bench: Bench, folder: ModelFolder, data: Sequence[TaskData], reported: Sequence[GuardTask]
) -> Interpolation:
    from instil.compare.forgetting import mean_changes, measure_to_choose
    from instil.compare.interpolation import SHARES, choose
    from instil.model.interpolate import blend

    budget = bench.recipe.forgetting.budget
    guard = choosing_guard(bench.recipe, folder, data, reported)
    tuned = load_tuned(bench, folder)
    put = blend(tuned, base=None if _has_adapter(bench) else load_base(bench.recipe, folder))
    validate = validation_of(bench.recipe, tuned, data)
    tried: list[Tried] = []
    measured: list[tuple[GuardScores, ...]] = []
    shares = (0.0, *SHARES)
    with bench.stage("interpolating", len(shares)) as done:
        for share in shares:
            put(share)
            measured.append(measure_to_choose(tuned, guard, budget=budget))
            points, nats = mean_changes(measured[0], measured[-1])
            seen = validate()
            tried.append(Tried(share, seen.score, seen.loss, points, nats))
            done(1)
    found = choose(tried, budget=budget)
    rows = {item.id: 0 for item in reported} | {item.id: len(item.examples) for item in guard}
    return replace(found, tried=tuple(tried), guard_rows=rows)


def _hand_over(bench: Bench, folder: ModelFolder, share: float) -> None:
    """Put the model at a share of the way into `model/`; doing it again after a stop is no harm."""
    if _has_adapter(bench):
        bench.run.kept("handed-over", float, lambda: _scale(bench, share), files=[_ADAPTER])
        return
    bench.run.kept("handed-over", float, lambda: _mix_weights(bench, folder, share), files=[MODEL])
    shutil.rmtree(_aside(bench), ignore_errors=True)


def _scale(bench: Bench, share: float) -> float:
    """Scale the adapter, counted from the recipe's scale."""
    from instil.model.interpolate import scale_adapter

    bench.run.release(_ADAPTER)
    scale_adapter(bench.run.model, lora_alpha=share * bench.recipe.lora.lora_alpha)
    return share


def _mix_weights(bench: Bench, folder: ModelFolder, share: float) -> float:
    """Replace the tuned weights in `model/`; until that is done they lie aside."""
    from instil.model.adapter import load_shipped
    from instil.model.export import save_model
    from instil.model.interpolate import blend

    recipe, aside = bench.recipe, _aside(bench)
    bench.run.release(MODEL)
    if not aside.exists():
        os.replace(bench.run.model, aside)
    tuned = load_shipped(aside, base=folder, device=recipe.device, dtype=recipe.dtype)
    blend(tuned, base=load_base(recipe, folder))(share)
    save_model(tuned, bench.run.model)
    return share


def _aside(bench: Bench) -> Path:
    return bench.run.folder / "checkpoints" / "tuned"


def _has_adapter(bench: Bench) -> bool:
    return bench.recipe.method is Method.LORA


# --- how far it moved ----------------------------------------------------------------------------


def how_far(bench: Bench, folder: ModelFolder, data: Sequence[TaskData]) -> Moved:
    """Measure KL(base || handed over) on the validation inputs of every task."""
    return bench.run.kept("moved", Moved, lambda: _how_far(bench, folder, data))


def _how_far(bench: Bench, folder: ModelFolder, data: Sequence[TaskData]) -> Moved:
    from instil.evaluate.drift import base_states, drift

    asked = [examples for d in data for examples in validation_examples(d)]
    with bench.stage("distance from base", sum(map(len, asked))) as done:
        kept = [] if _has_adapter(bench) else _untouched(bench, folder, asked)
        tuned = load_tuned(bench, folder)
        scores: list[Score] = []
        for n, examples in enumerate(asked):
            base = kept[n] if kept else base_states(tuned, examples)  # the adapter switched off
            scores += drift(tuned, examples, base=base)
            done(len(examples))
    everyone = [example for examples in asked for example in examples]
    tasks = {d.task.id: [e for e in everyone if e.task == d.task.id] for d in data}
    by_id = {score.example_id: score for score in scores}
    return Moved(
        _summary(everyone, by_id),
        {name: _summary(examples, by_id) for name, examples in tasks.items()},
    )


def _untouched(
    bench: Bench, folder: ModelFolder, asked: Sequence[Sequence[Example]]
) -> list[Iterable[States]]:
    """Return the base model's states, and let go of the model but for its head.

    A build that only its own forward pass is right for has logits in place of states, rows x
    vocabulary of them: then it is the model that is kept, and asked pack by pack.
    """
    from instil.evaluate.drift import base_states

    base = load_base(bench.recipe, folder)
    if base.build.own_head:
        return [list(base_states(base, examples)) for examples in asked]
    return [base_states(base, examples) for examples in asked]


def _summary(examples: Sequence[Example], scores: Mapping[str, Score]) -> Summary:
    from instil.evaluate.metrics import summarise
    from instil.scoring.metrics import NATS

    groups = {e.id: f"{e.task}/{e.group}" for e in examples}
    return summarise([scores[e.id] for e in examples], groups=groups, metric=NATS.name)
