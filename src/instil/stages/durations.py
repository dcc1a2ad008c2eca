"""How long each stage of a run will take, before it starts.

The prompts that a stage asks are rendered (some of each kind) and counted in tokens through the
model's layers; this machine's speed at matrix products turns tokens into seconds. How near that
comes is in docs/001. Stages have the names under which the run notes what they took.

Tests: `tests/test_pipeline.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from instil.compare.halving import planned
from instil.compare.interpolation import SHARES
from instil.compare.rates import ROWS, SHARE, try_steps
from instil.config.methods import METHODS, Method
from instil.data.build import pick_exemplars, render_example
from instil.data.prepare import TaskData
from instil.results.names import LORA, REPLAY, TEXT
from instil.stages.context import RunContext
from instil.stages.footprint import Sizes, sizes_of
from instil.stages.judge import ROBUSTNESS_ROWS
from instil.stages.ladder import ladder_templates, search_budget
from instil.stages.replaying import OWN_TEXTS, replay_needed
from instil.stages.runfiles import load_manifest
from instil.stages.training import eval_steps, validation_examples
from instil.types import Example, Row, Template

if TYPE_CHECKING:
    from instil.encode.chat_format import ChatFormat
    from instil.encode.plan import TrainingData

SAMPLE = 20
"""Prompts of a kind that are counted."""
# Shares of the matrix-product speed that the layers' weights reached on two CPU cores, and how many
# times its operations attention takes, whose products are small (docs/001).
TRAINING_EFFICIENCY, SCORING_EFFICIENCY, ATTENTION = 0.45, 0.75, 3.7
READING_SECONDS = 5e-10
"""To read a weight, which every generated token does once for a whole batch."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a model's tokens cost on this machine, in seconds."""

    scored: float
    """A token through the layers."""
    trained: float
    """A token of training, per multiplication with a weight: two make a forward pass."""
    context: float
    """Share of a token's cost that attending to one other token adds."""
    step: float
    """Reading all weights once."""


def pace_of(sizes: Sizes, *, device: str, dtype: str) -> Pace:
    """Measure this machine."""
    operations = sizes.multiplied / matrix_speed(device=device, dtype=dtype)
    return Pace(
        2 * operations / SCORING_EFFICIENCY,
        operations / TRAINING_EFFICIENCY,
        ATTENTION * 2 * sizes.hidden * sizes.layers / sizes.multiplied,
        READING_SECONDS * sizes.parameters,
    )


@dataclass(frozen=True, slots=True)
class Prompts:
    """What one kind of prompt takes."""

    own: float
    """Tokens that a prompt does not share with the others, its choices' included; mean."""
    shared: int
    """Tokens in front that all of them share."""
    new: int = 0
    """Tokens generated at most; 0: choices or targets are scored."""


def seconds_to_ask(pace: Pace, prompts: Prompts, rows: int) -> float:
    """Return what it takes to ask so many rows."""
    from instil.evaluate.choices import PACK_TOKENS
    from instil.evaluate.generate import BATCH_TOKENS

    if not rows:
        return 0.0
    own = rows * prompts.own
    packs = 1 if prompts.new else math.ceil(own / max(1, PACK_TOKENS - prompts.shared))
    context = prompts.shared + prompts.own / 2
    tokens = own + max(1, packs) * prompts.shared + rows * prompts.new
    batches = math.ceil(rows * (prompts.own + prompts.new) / BATCH_TOKENS)
    computed = tokens * (1 + pace.context * context) * pace.scored
    return computed + batches * prompts.new * pace.step


def foretell(context: RunContext, encoded: TrainingData) -> Mapping[str, float] | None:
    """Return what each stage to come will take, and note it; None where a run was told before."""
    if "forecast_seconds" in load_manifest(context.run.folder):
        return None
    whole = stage_seconds(context, encoded)
    known = {name: took for name, took in whole.items() if name not in context.seconds}
    context.run.note(forecast_seconds=known)
    return known


def stage_seconds(context: RunContext, encoded: TrainingData) -> dict[str, float]:
    """Return stage -> seconds, in the run's order; what comes before the first prompt is left out.

    Args:
        context: What is to be done.
        encoded: The training, with what is replayed.
    """
    from instil.compare.forgetting import BATCH, TEXT_TOKENS, choosing_rows

    recipe, chat = context.recipe, context.chat
    pace = pace_of(sizes_of(context.model), device=recipe.device, dtype=recipe.dtype)
    tasks = {d.task.id: _Task(context, d, pace) for d in context.data}
    guard, first, adaptive = 0.0, 0.0, recipe.forgetting.rows == "auto"
    for item in context.guard:
        some = item.examples[:SAMPLE]
        kinds = [Prompts(TEXT_TOKENS, 0)]
        if item.id != TEXT:
            kinds = [_prompts(some, chat, new=item.max_new_tokens), _prompts(some, chat)]
        guard += sum(seconds_to_ask(pace, kind, len(item.examples)) for kind in kinds)
        asked = min(len(item.examples), BATCH) if adaptive else len(item.examples)
        first += sum(seconds_to_ask(pace, kind, asked) for kind in kinds)
    look = sum(task.look for task in tasks.values())
    auto = recipe.method is Method.AUTO
    # Guard rows to choose on are half as many as are reported, or as a first batch has.
    choosing = first if adaptive else guard / 2
    gating = choosing if recipe.forgetting.gate_checkpoints else 0.0  # at most
    training = _training(context, encoded, pace, look=look + gating)
    stages: dict[str, float] = {}
    if recipe.keep.replay.share is not None:
        if recipe.keep.replay.of == "own":
            texts = min(replay_needed(recipe.keep.replay, encoded), OWN_TEXTS)
            written = Prompts(1, 0, recipe.train.max_length)
            stages["own texts"] = seconds_to_ask(pace, written, texts)
        else:
            stages["replay"] = 1.0
    stages |= {f"prompting {name}": task.ladder for name, task in tasks.items()}
    stages |= {f"searching prompts {n}": task.search for n, task in tasks.items() if task.search}
    if guard:
        stages["guard before"] = first
    if auto:
        once = sum(training.values()) + look + choosing
        stages |= {f"trying {way}": once for way in (LORA, REPLAY)}
    else:
        stages |= training
    if auto or recipe.keep.interpolate == "auto":
        # Of most guard rows to choose on likelihoods alone are asked.
        stages["interpolating"] = (1 + len(SHARES)) * (look + choosing)
    if recipe.forgetting.at_most is not None:
        text = seconds_to_ask(pace, Prompts(TEXT_TOKENS, 0), choosing_rows(recipe.forgetting.rows))
        stages["interpolating"] = (3 + len(SHARES)) * (look + text)
    stages["distance from base"] = 2 * look
    if guard:
        stages["guard after"] = 2 * guard - first  # at most, where rows are asked until decided
    for name, task in tasks.items():
        stages[f"choosing a template for {name}"] = task.choosing
        if task.fitting is not None:
            stages[f"temperature for {name}"] = task.fitting
        stages[f"test {name}"] = task.test
        stages[f"wordings of {name}"] = task.wordings
    return stages


class _Task:
    """What the stages of one task take, in seconds."""

    def __init__(self, context: RunContext, data: TaskData, pace: Pace) -> None:
        recipe, wanted, test = context.recipe, context.recipe.baselines, len(data.test)

        def count(template: Template, rows: Sequence[Row], shots: int = 0) -> Prompts:
            pick = partial(pick_exemplars, data.task, data.train, seed=recipe.seed)
            shown = pick(shots=shots) if shots else ()
            some = [render_example(data.task, template, r, exemplars=shown) for r in rows[:SAMPLE]]
            return _prompts(some, context.chat, new=data.task.max_new_tokens)

        templates, shots = ladder_templates(wanted, data), wanted.shots
        rows = len(data.validation[: wanted.validation_rows])
        ways = [count(t, data.validation, n) for t in templates for n in shots]
        self.ladder = sum(
            asked / len(ways) * sum(seconds_to_ask(pace, way, more) for way in ways)
            for asked, more in planned(shots * len(templates), rows=rows)
        )
        # Of the search most prompts show worked examples, which few others share.
        long = count(templates[0], data.validation, max(shots))
        alone = replace(long, own=long.own + long.shared, shared=0)
        self.search = seconds_to_ask(pace, alone, search_budget(wanted, rows=rows))
        plain = {t.id: count(t, data.test) for t in (*data.answering, *data.held_out)}
        first = plain[data.answering[0].id]
        self.look = sum(
            seconds_to_ask(pace, plain[part[0].template], len(part))
            for part in validation_examples(data)
        )
        self.choosing = sum(
            asked * seconds_to_ask(pace, first, more)
            for asked, more in planned([0] * len(data.answering), rows=len(data.validation))
            if asked > 1
        )
        fitted = seconds_to_ask(pace, first, len(data.validation))
        self.fitting = fitted if data.task.choices else None
        self.test = 2 * seconds_to_ask(pace, first, test)
        self.test += sum(seconds_to_ask(pace, way, test) for way in ways) / len(ways)
        if data.task.choices and wanted.probe:
            from instil.compare.contest import PROBE_ROWS

            read = min(len(data.train), PROBE_ROWS) + test
            self.test += seconds_to_ask(pace, first, read) / 2  # half of the layers
        whole = data.held_out and not data.few_rows
        few = test if whole else min(ROBUSTNESS_ROWS, test)
        # The template of the test is not asked again.
        share = (len(plain) - 1) / len(plain)
        self.wordings = 2 * share * sum(seconds_to_ask(pace, each, few) for each in plain.values())


def _prompts(examples: Sequence[Example], chat: ChatFormat, *, new: int = 0) -> Prompts:
    from instil.evaluate.choices import choice_request, common_prefix, target_request

    choices = bool(examples[0].choices)
    if choices or not new:
        requests = [
            choice_request(e, chat) if choices else target_request(e, chat) for e in examples
        ]
        prompts = [request.prompt for request in requests]
        tokens = [request.tokens for request in requests]
    else:
        prompts = [tuple(chat.prompt(e.messages, tools=e.tools)) for e in examples]
        tokens = [len(prompt) for prompt in prompts]
    shared = common_prefix(prompts) if len(prompts) > 1 else 0
    return Prompts(sum(tokens) / len(tokens) - shared, shared, 0 if choices else new)


def computed_tokens(context: RunContext, encoded: TrainingData) -> int:
    """Return how many tokens the training computes; shared prefixes count once where they do."""
    packs = [pack for batch in encoded.batches for pack in batch]
    return sum(len(pack.ids) if context.build.prefix else pack.tokens for pack in packs)


def _training(
    context: RunContext, encoded: TrainingData, pace: Pace, *, look: float
) -> dict[str, float]:
    from instil.train.terms import base_passes

    recipe, steps = context.recipe, len(encoded.batches)
    tokens = computed_tokens(context, encoded)
    method = METHODS[recipe.method]
    operations = method.operations + 2 * base_passes(recipe.keep)
    computed = tokens * operations * pace.trained
    looks = steps // eval_steps(recipe.train.eval_steps, steps=steps)
    stages = {"largest pack": 2 * computed / steps}
    if recipe.train.learning_rate == "auto":
        looking = 2 / method.operations
        examples = encoded.epochs * sum(line.examples for line in encoded.mix)
        look_cost = looking * ROWS * tokens / examples
        if try_steps(steps=steps, step_cost=tokens / steps, look_cost=look_cost) > 0:
            stages["learning rates"] = SHARE * computed  # at most
    return {**stages, "training": computed + looks * look}


def matrix_speed(*, device: str, dtype: str) -> float:
    """Measure this machine's matrix products in the compute type, operations a second."""
    import torch

    from instil.model.load import pick_device, pick_dtype

    where = pick_device(device)
    size = 4096 if where.type == "cuda" else 1024
    a = torch.rand(size, size, device=where, dtype=pick_dtype(dtype, where))
    speeds = []
    for _ in range(5):
        began = time.perf_counter()
        (a @ a).sum().item()
        speeds.append(2 * size**3 / (time.perf_counter() - began))
    return max(speeds)
