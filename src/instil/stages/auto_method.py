"""`method: auto`: one cheap way to tune after another, until one will do, and the pick among them.

LoRA with the learning rate that `train.learning_rate` finds comes first; then LoRA that replays
texts of the base model; then interpolation between the base model and the best of those.
All are measured on validation rows and on guard rows that are not reported. What is picked becomes
the run's own training, as if the recipe had said so.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from instil.config.methods import Method
from instil.files import write_whole
from instil.results.keeping import Methods, TriedMethod
from instil.results.names import LORA, PART, REPLAY
from instil.stages.context import RunContext
from instil.stages.keeping import settle
from instil.stages.ledger import MODEL
from instil.stages.mirror import ARMS
from instil.stages.replaying import add_replay
from instil.stages.runfiles import STEPS, TRAINING
from instil.stages.training import train, validation_of

if TYPE_CHECKING:
    from instil.encode.plan import TrainingData

REPLAYED = 0.05
"""Share of an epoch's examples that the second way replays."""
_FOLDERS = {LORA: "lora", REPLAY: "replay"}


class Picked(NamedTuple):
    """What the run goes on with."""

    context: RunContext
    """The run, with the recipe that was picked."""
    encoded: TrainingData
    """What it is trained on."""
    methods: Methods | None
    """What was tried; None where the recipe names its method."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """What climbing came to."""

    methods: Methods
    way: str
    """The way whose weights are taken."""
    interpolated: bool
    """Whether the exported model is interpolated."""


def pick_method(context: RunContext, encoded: TrainingData) -> Picked:
    """Try the ways and pick one; nothing is done where the recipe names its method.

    Args:
        context: The run; guard rows that are not reported on are chosen on.
        encoded: The training without replay.
    """
    if context.recipe.method is not Method.AUTO:
        return Picked(context, encoded, None)
    kept = context.run.kept("methods", _Kept, lambda: _climb(context, encoded))
    taken = _part(context, kept.way, interpolate=kept.interpolated)
    adopt = partial(_adopt, _arm(context, kept.way), taken, kept.interpolated)
    context.run.kept("adopted", str, adopt)
    return Picked(taken, add_replay(taken, encoded), kept.methods)


def _part(
    context: RunContext, way: str, *, interpolate: bool = False, folder: Path | None = None
) -> RunContext:
    """Return the run with the recipe that one of the ways is."""
    keep = context.recipe.keep
    if way == REPLAY:
        replay = keep.replay.model_copy(update={"share": REPLAYED})
        keep = keep.model_copy(update={"replay": replay})
    if interpolate:
        keep = keep.model_copy(update={"interpolate": "auto"})
    recipe = context.recipe.model_copy(update={"method": Method.LORA, "keep": keep})
    return context.part(recipe, folder=folder)


def _arm(context: RunContext, way: str, *, interpolate: bool = False) -> RunContext:
    """Return a run directory of its own for a way, within the run's."""
    folder = context.run.folder / ARMS / _FOLDERS[way]
    folder.mkdir(parents=True, exist_ok=True)
    return _part(context, way, interpolate=interpolate, folder=folder)


def _climb(context: RunContext, encoded: TrainingData) -> _Kept:
    """Try one way after another."""
    from instil.compare.interpolation import enough, pick

    budget, chosen_on = context.recipe.forgetting.budget, context.choosing_guard
    # Where nothing tells what was forgotten there is nothing to choose by.
    ways = (LORA, REPLAY) if chosen_on else (LORA,)
    tried: list[TriedMethod] = []
    for way in ways:
        context.say(f"trying {way}")
        arm = _arm(context, way)
        tried.append(arm.run.kept("tried", TriedMethod, partial(_try, context, arm, way, encoded)))
        if enough(tried, budget=budget):
            break
    best, why = pick(tried, budget=budget)
    way, interpolated = ways[best], False
    if chosen_on and not enough(tried, budget=budget):
        began = time.perf_counter()
        settled = settle(_arm(context, way, interpolate=True))
        assert settled is not None, "the recipe of this arm interpolates"
        # The best interpolation weight stands for all of them.
        part = next(trial for trial in settled.tried if trial.share == settled.chosen)
        name, took = f"{way} + {PART} ({100 * settled.chosen:g} %)", time.perf_counter() - began
        tried.append(TriedMethod(name, part.score, part.loss, part.points, part.nats, took))
        best, why = pick(tried, budget=budget)
        interpolated = best == len(ways)
        way = way if interpolated else ways[best]
    rows = {item.id: len(item.examples) for item in chosen_on}
    return _Kept(Methods(best, why, tuple(tried), rows), way, interpolated)


def _try(context: RunContext, arm: RunContext, way: str, encoded: TrainingData) -> TriedMethod:
    """Train one way, and measure it on validation and on guard rows to choose on."""
    from instil.compare.forgetting import GuardScores, mean_changes, measure_to_choose

    began, budget = time.perf_counter(), context.recipe.forgetting.budget
    ask = partial(measure_to_choose, guard=context.choosing_guard, budget=budget)
    with context.stage(f"trying {way}"):
        if way != LORA:  # the learning rate is looked for once
            _copy_states(_arm(context, LORA), arm, ["sweep"])
        train(arm, add_replay(arm, encoded))
        before = context.run.kept(
            "choosing-before", tuple[GuardScores, ...], lambda: ask(context.load_base())
        )
        tuned = arm.load_tuned()
        points, nats = mean_changes(before, ask(tuned))
        seen = validation_of(arm, tuned)()
    return TriedMethod(way, seen.score, seen.loss, points, nats, time.perf_counter() - began)


def _adopt(arm: RunContext, into: RunContext, interpolated: bool) -> str:
    """Take an arm's training over into the run, as if it had been made there."""
    states = ["sweep", "replay-own", TRAINING, *(["interpolation"] if interpolated else [])]
    for state in states:
        into.run.forget(state)
    source, target = arm.run.folder, into.run.folder
    scratch = target / ".model.part"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source / MODEL, scratch)
    shutil.rmtree(target / MODEL, ignore_errors=True)
    os.replace(scratch, target / MODEL)
    shutil.copy2(source / STEPS, target / STEPS)
    if not interpolated:
        from instil.model.interpolate import scale_adapter

        # Interpolation may have been tried, and given to the arm.
        scale_adapter(target / MODEL, lora_alpha=into.recipe.lora.lora_alpha)
    _copy_states(arm, into, states)
    return source.name


def _copy_states(source: RunContext, target: RunContext, names: Sequence[str]) -> None:
    """Copy finished stages into another run directory, as if they had been made there."""
    for name in names:
        file = f"state/{name}.json"
        if source.run.finished(name):
            write_whole(target.run.folder / file, (source.run.folder / file).read_bytes())
            files = [STEPS, MODEL] if name == TRAINING else []
            target.run.record(name, [file, *files])
