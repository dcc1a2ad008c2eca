"""Between training and judging: the interpolation weight of what is exported, and how far it moved.

`settle` puts the exported model between base and tuned, where the recipe wants that, `cut_back`
takes most of its changes back, and `how_far` measures the exported model. They look at validation
and at guard rows that are not reported on, never at test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from instil.config.methods import METHODS
from instil.results.guard import GuardResult
from instil.results.keeping import ForgettingLaw, Interpolation, Moved, Pruning, TextLoss, Tried
from instil.results.names import TEXT
from instil.stages.context import RunContext
from instil.stages.gating import texts_to_read
from instil.stages.ledger import MODEL
from instil.stages.training import validation_examples, validation_of
from instil.types import Estimate, Score, Summary

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardScores
    from instil.model.engine.divergence import States
    from instil.model.load import LoadedModel
    from instil.train.fit import Validation

_ADAPTER = f"{MODEL}/adapter_config.json"


# --- the interpolation weight of the exported model ----------------------------------------------


def settle(context: RunContext) -> Interpolation | None:
    """Choose how far to go from base to tuned, and export that model; None: all the way."""
    recipe = context.recipe
    if recipe.keep.interpolate is None and recipe.forgetting.at_most is None:
        return None
    settled = context.run.kept("interpolation", Interpolation, partial(_choose, context))
    # The scale of LoRA stands in its config; of all else the weights are written anew.
    scales = METHODS[context.recipe.method].section == "lora"
    run, file = context.run, _ADAPTER if scales else MODEL
    aside = run.folder / "checkpoints" / "tuned"

    def hand_over() -> float:
        from instil.model.export import save_model
        from instil.model.interpolate import blend, scale_adapter

        run.release(file)
        if file == _ADAPTER:  # counted from the recipe's scale: done twice it is the same
            scale_adapter(run.model, lora_alpha=settled.chosen * context.recipe.lora.lora_alpha)
            return settled.chosen
        # Until the tuned weights in `model/` are replaced they lie aside.
        if not aside.exists():
            os.replace(run.model, aside)
        tuned = context.load_tuned(aside)
        blend(tuned, base=_base_apart(context))(settled.chosen)
        save_model(tuned, run.model)
        return settled.chosen

    if settled.chosen != 1:
        run.kept("handed-over", float, hand_over, files=[file])
        shutil.rmtree(aside, ignore_errors=True)
    return settled


def _choose(context: RunContext) -> Interpolation:
    from instil.compare.forgetting import mean_changes, measure_to_choose
    from instil.compare.interpolation import SHARES, choose
    from instil.model.interpolate import blend

    wanted = context.recipe.keep.interpolate
    if context.recipe.forgetting.at_most is not None:
        return _steer(context, at_most=context.recipe.forgetting.at_most)
    if isinstance(wanted, float):
        return Interpolation(wanted, "as the recipe says")
    budget, guard = context.recipe.forgetting.budget, context.choosing_guard
    tuned = context.load_tuned()
    put = blend(tuned, base=_base_apart(context))
    validate = validation_of(context, tuned)
    tried: list[Tried] = []
    measured: list[tuple[GuardScores, ...]] = []
    shares = (0.0, *SHARES)
    with context.stage("interpolating", len(shares)) as done:
        for share in shares:
            put(share)
            measured.append(measure_to_choose(tuned, guard, budget=budget))
            points, nats = mean_changes(measured[0], measured[-1])
            seen = validate()
            tried.append(Tried(share, seen.score, seen.loss, points, nats))
            done(1)
    rows = {item.id: 0 for item in context.guard} | {item.id: len(item.examples) for item in guard}
    return replace(choose(tried, budget=budget), tried=tuple(tried), guard_rows=rows)


def _steer(context: RunContext, *, at_most: float) -> Interpolation:
    """Choose the largest weight that loses no more than so much on general text.

    That is read on texts that are not reported, at the weights that `keep.interpolate: auto` tries
    and a few between them.
    """
    from instil.compare.forgetting import TEXT_TOKENS, first_batch
    from instil.compare.forgetting_law import MOST_LOOKS, band, steer
    from instil.compare.interpolation import SHARES
    from instil.evaluate.suite import text_loss
    from instil.model.interpolate import blend

    whole, adaptive = context.guard, context.recipe.forgetting.rows == "auto"
    texts = texts_to_read(context)
    groups = [example.group for example in texts]
    # With `rows: auto` asking may end after the first batch.
    asked = first_batch(whole) if adaptive else whole
    reported = next((item.examples for item in asked if item.id == TEXT), ())
    tuned = context.load_tuned()
    put, validate = blend(tuned, base=_base_apart(context)), validation_of(context, tuned)
    scores: dict[float, Validation] = {}

    def look(weight: float) -> list[float]:
        put(weight)
        marked = text_loss(tuned, texts, max_tokens=TEXT_TOKENS)
        scores[weight] = validate()
        done(1)
        return [marked.values[example.id] for example in texts]

    with context.stage("interpolating", 1 + len(SHARES) + MOST_LOOKS) as done:
        steered = steer(look, weights=SHARES, at_most=at_most)
    curve, losses = steered.curve, steered.losses
    predicted = band(losses[steered.weight], groups=groups, reported=len(reported))
    points = tuple(
        TextLoss(weight, float(losses[weight].mean()), scores[weight].score)
        for weight in sorted(losses)
    )
    law = ForgettingLaw(
        at_most=at_most,
        slope=curve.slope,
        curvature=curve.curvature,
        misfit=curve.misfit,
        predicted=predicted.mean,
        low=predicted.low,
        high=predicted.high,
        texts=len(texts),
        points=points,
        fitted_to=curve.fitted_to,
    )
    tried = tuple(
        Tried(each.weight, each.score, scores[each.weight].loss, None, max(0.0, each.nats))
        for each in points
    )
    why = f"the largest weight read to lose at most {at_most:g} nats per token of general text"
    return Interpolation(steered.weight, why, tried, {TEXT: len(texts)}, law)


def hold_against(
    settled: Interpolation | None, forgotten: Sequence[GuardResult]
) -> Interpolation | None:
    """Put what the reported texts lost beside what was predicted."""
    if settled is None or settled.law is None:
        return settled
    text = next(line.comparison for line in forgotten if line.task == TEXT)
    came_out = Estimate(text.difference, text.low, text.high)
    return replace(settled, law=replace(settled.law, came_out=came_out))


def _base_apart(context: RunContext) -> LoadedModel | None:
    """Load the base model beside the tuned one; None: it lies under the adapter."""
    return None if METHODS[context.recipe.method].adapter else context.load_base()


# --- pruning -------------------------------------------------------------------------------------


def cut_back(context: RunContext) -> Pruning | None:
    """Export the tuned model with some of its changes taken back; None: with all of them."""
    share, run = context.recipe.keep.prune, context.run
    if share is None:
        return None
    aside = run.folder / "checkpoints" / "tuned"

    def hand_over() -> Pruning:
        from instil.model.adapter import merged
        from instil.model.export import save_model
        from instil.model.prune import prune

        run.release(MODEL)
        # Until the whole weights are in `model/` those of the training lie aside.
        if not aside.exists():
            os.replace(run.model, aside)
        with context.stage("pruning"):
            tuned = merged(context.load_tuned(aside))
            pruned = prune(tuned, base=context.load_base(), share=share)
            save_model(tuned, run.model)
        return pruned

    pruned = run.kept("pruned", Pruning, hand_over, files=[MODEL])
    shutil.rmtree(aside, ignore_errors=True)
    return pruned


# --- how far it moved ----------------------------------------------------------------------------


def how_far(context: RunContext) -> Moved:
    """Measure KL(base || exported) on the validation inputs of every task."""
    from instil.evaluate.drift import base_states, drift
    from instil.evaluate.metrics import summarise
    from instil.scoring.metrics import NATS

    if context.run.finished("moved"):
        return context.run.read("moved", Moved)
    asked = [examples for d in context.data for examples in validation_examples(d)]
    with context.stage("distance from base", sum(map(len, asked))) as done:
        kept: list[Iterable[States]] = []
        if not context.recipe.exports_adapter:
            # The base model's states are kept, and of the model its head alone. A build that only
            # its own forward pass is right for has logits in place of states, rows x vocabulary of
            # them: then it is the model that is kept, and asked pack by pack.
            base = context.load_base()
            whole = base.build.own_head
            states = [base_states(base, examples) for examples in asked]
            kept = [list(each) if whole else each for each in states]
            del base, states
        tuned = context.load_tuned()
        scores: list[Score] = []
        for n, examples in enumerate(asked):
            before = kept[n] if kept else base_states(tuned, examples)  # the adapter switched off
            scores += drift(tuned, examples, base=before)
            done(len(examples))
    everyone = [example for examples in asked for example in examples]
    groups = {e.id: f"{e.task}/{e.group}" for e in everyone}
    tasks = {e.id: e.task for e in everyone}

    def summary(of: Sequence[Score]) -> Summary:
        return summarise(of, groups=groups, metric=NATS.name)

    by_task = {
        d.task.id: summary([s for s in scores if tasks[s.example_id] == d.task.id])
        for d in context.data
    }
    return context.run.keep("moved", Moved, Moved(summary(scores), by_task))
