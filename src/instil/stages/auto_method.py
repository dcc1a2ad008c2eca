"""`method: auto`: one cheap way to tune after another, until one will do, and the pick among them.

LoRA with the learning rate that `train.learning_rate` finds comes first; then LoRA that replays
texts of the untouched model; then a part of the way from the untouched model to the best of those.
All are measured on validation rows and on guard rows that are not reported. What is picked becomes
the run's own training, as if the recipe had said so.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from instil.config.recipe import Method, Recipe
from instil.data.prepare import TaskData
from instil.files import write_whole
from instil.report.sections.keeping import methods_lines
from instil.results import LORA, PART, REPLAY, Interpolation, Methods, TriedMethod
from instil.stages.directory import STEPS, TRAINING
from instil.stages.keeping import settle
from instil.stages.ledger import MODEL
from instil.stages.replaying import add_replay
from instil.stages.training import train, validation_of
from instil.stages.untuned import Bench, choosing_guard, load_base, load_tuned

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardScores, GuardTask
    from instil.encode.plan import TrainingData
    from instil.model.load import LoadedModel, ModelFolder

REPLAYED = 0.05
"""Share of an epoch's examples that the second way replays."""
_FOLDERS = {LORA: "lora", REPLAY: "replay"}


class Picked(NamedTuple):
    """What the run goes on with."""

    bench: Bench
    """The run, with the recipe that was picked."""
    encoded: TrainingData
    """What it is trained on."""
    methods: Methods | None
    """What was tried; None where the recipe names its method."""


def pick_method(
    bench: Bench,
    folder: ModelFolder,
    data: Sequence[TaskData],
    guard: Sequence[GuardTask],
    encoded: TrainingData,
) -> Picked:
    """Try the ways and pick one; nothing is done where the recipe names its method.

    Args:
        bench: The run.
        folder: The base model.
        data: The recipe's tasks, split.
        guard: What is reported on; other rows of it are chosen on.
        encoded: The training without replay.
    """
    if bench.recipe.method is not Method.AUTO:
        return Picked(bench, encoded, None)
    ladder = _Ladder(bench, folder, data, tuple(guard), encoded)
    kept = bench.run.kept("methods", _Kept, ladder.climb)
    for line in methods_lines(kept.methods):
        bench.say(line)
    recipe = way_recipe(bench.recipe, kept.way, interpolate=kept.interpolated)
    taken = Bench(replace(bench.run, recipe=recipe), bench.progress, bench.seconds, bench.processor)
    bench.run.kept("adopted", str, lambda: _adopt(ladder.arm(kept.way), taken, kept.interpolated))
    return Picked(taken, add_replay(taken, folder, data, encoded), kept.methods)


def way_recipe(recipe: Recipe, way: str, *, interpolate: bool = False) -> Recipe:
    """Return the recipe that one of the ways is."""
    keep = recipe.keep
    if way == REPLAY:
        replay = keep.replay.model_copy(update={"share": REPLAYED})
        keep = keep.model_copy(update={"replay": replay})
    if interpolate:
        keep = keep.model_copy(update={"interpolate": "auto"})
    return recipe.model_copy(update={"method": Method.LORA, "keep": keep})


@dataclass(frozen=True, slots=True)
class _Kept:
    """What climbing came to."""

    methods: Methods
    way: str
    """The way whose weights are taken."""
    interpolated: bool
    """Whether a part of the way is handed over."""


@dataclass(frozen=True, slots=True)
class _Ladder:
    """What all ways are tried with."""

    bench: Bench
    folder: ModelFolder
    data: Sequence[TaskData]
    guard: tuple[GuardTask, ...]
    encoded: TrainingData

    def arm(self, way: str, *, interpolate: bool = False) -> Bench:
        """Return a run directory of its own for a way, within the run's."""
        place = self.bench.run.folder / "arms" / _FOLDERS[way]
        place.mkdir(parents=True, exist_ok=True)
        recipe = way_recipe(self.bench.recipe, way, interpolate=interpolate)
        return Bench(replace(self.bench.run, folder=place, recipe=recipe), self.bench.progress)

    def climb(self) -> _Kept:
        """Try one way after another."""
        from instil.compare.interpolation import enough, pick

        budget = self.bench.recipe.forgetting.budget
        chosen_on = choosing_guard(self.bench.recipe, self.folder, self.data, self.guard)
        # Where nothing tells what was forgotten there is nothing to choose by.
        ways = (LORA, REPLAY) if chosen_on else (LORA,)
        tried: list[TriedMethod] = []
        for way in ways:
            tried.append(self._trained(way, chosen_on))
            if enough(tried, budget=budget):
                break
        best, why = pick(tried, budget=budget)
        trained = best
        if chosen_on and not enough(tried, budget=budget):
            tried.append(self._part(ways[best]))
            best, why = pick(tried, budget=budget)
        rows = {item.id: len(item.examples) for item in chosen_on}
        interpolated = best == len(ways)
        way = ways[trained if interpolated else best]
        return _Kept(Methods(best, why, tuple(tried), rows), way, interpolated)

    def _trained(self, way: str, chosen_on: Sequence[GuardTask]) -> TriedMethod:
        arm = self.arm(way)
        self.bench.say(f"trying {way}")
        began = time.perf_counter()

        def measured() -> TriedMethod:
            with self.bench.stage(f"trying {way}"):
                if way != LORA:  # the learning rate is looked for once
                    _copy_states(self.arm(LORA), arm, ["sweep"])
                    _enter(arm, ["sweep"])
                train(arm, self.folder, self.data, self._material(arm))
                return self._measure(arm, way, chosen_on, began)

        return arm.run.kept("tried", TriedMethod, measured)

    def _material(self, arm: Bench) -> TrainingData:
        return add_replay(arm, self.folder, self.data, self.encoded)

    def _measure(
        self, arm: Bench, way: str, chosen_on: Sequence[GuardTask], began: float
    ) -> TriedMethod:
        from instil.compare.forgetting import mean_changes

        before = self._before(chosen_on)
        tuned = load_tuned(arm, self.folder)
        points, nats = mean_changes(before, self._ask(tuned, chosen_on))
        seen = validation_of(arm.recipe, tuned, self.data)()
        return TriedMethod(way, seen.score, seen.loss, points, nats, time.perf_counter() - began)

    def _before(self, chosen_on: Sequence[GuardTask]) -> tuple[GuardScores, ...]:
        from instil.compare.forgetting import GuardScores

        def ask() -> tuple[GuardScores, ...]:
            return self._ask(load_base(self.bench.recipe, self.folder), chosen_on)

        return self.bench.run.kept("choosing-before", tuple[GuardScores, ...], ask)

    def _ask(self, loaded: LoadedModel, chosen_on: Sequence[GuardTask]) -> tuple[GuardScores, ...]:
        from instil.compare.forgetting import measure_to_choose

        return measure_to_choose(loaded, chosen_on, budget=self.bench.recipe.forgetting.budget)

    def _part(self, way: str) -> TriedMethod:
        """Try a part of the way to a trained model; the best part speaks for all of them."""
        arm = self.arm(way, interpolate=True)
        began = time.perf_counter()
        found = settle(arm, self.folder, self.data, self.guard)
        assert isinstance(found, Interpolation), "the recipe of this arm interpolates"
        taken = next(each for each in found.tried if each.share == found.chosen)
        return TriedMethod(
            f"{way} + {PART} ({100 * found.chosen:g} %)",
            taken.score,
            taken.loss,
            taken.points,
            taken.nats,
            time.perf_counter() - began,
        )


def _adopt(arm: Bench, into: Bench, interpolated: bool) -> str:
    """Take an arm's training over into the run, as if it had been made there."""
    states = ["sweep", "replay-own", TRAINING, *(["interpolation"] if interpolated else [])]
    for state in states:
        into.run.forget(state)
    source, target = arm.run.folder, into.run.folder
    _copy(source / "model", target / "model")
    _copy_states(arm, into, states)
    shutil.copy2(source / "steps.jsonl", target / "steps.jsonl")
    if not interpolated:
        from instil.model.interpolate import scale_adapter

        # A part of the way may have been tried, and handed over to the arm.
        scale_adapter(target / "model", lora_alpha=into.recipe.lora.lora_alpha)
    _enter(into, states)
    return str(source.name)


def _copy_states(source: Bench, target: Bench, names: Sequence[str]) -> None:
    """Copy finished stages from one run directory to another, as far as there are any."""
    for name in names:
        file = Path("state") / f"{name}.json"
        if source.run.finished(name):
            write_whole(target.run.folder / file, (source.run.folder / file).read_bytes())


def _enter(bench: Bench, names: Sequence[str]) -> None:
    """Enter stages that were copied into the ledger, as if they had been made there."""
    for name in names:
        file = f"state/{name}.json"
        if (bench.run.folder / file).exists():
            bench.run.record(name, [file, *([STEPS, MODEL] if name == TRAINING else [])])


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; what is there is whole."""
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(scratch, target)
