"""Training: from what is prepared to the weights in `model/`, and how it went.

The epochs are mixed and encoded (`encoded_training`), the loop's plan is made, and `train` runs it,
validating as it goes. torch is imported only by what needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from instil import format as fmt
from instil.config.methods import METHODS
from instil.config.recipe import Recipe
from instil.config.sections import Keep, Mix, Train
from instil.data.mix import MixRules, Pool, Prompt, mixed
from instil.data.prepare import TaskData
from instil.errors import RecipeError
from instil.results.keeping import Means, TermMean
from instil.results.training import Sweep, TrainingSummary
from instil.stages.context import RunContext
from instil.stages.directory import ENCODED
from instil.stages.gating import gate_of, gated
from instil.stages.learning_rate import find_rate, rule_rate, schedule_of
from instil.stages.ledger import MODEL
from instil.stages.mirror import publish
from instil.stages.runfiles import STEPS, TRAINING, load_steps
from instil.stages.watching import Watch
from instil.types import REPLAY_LOSS, Example, Part, PerRow, Piece, Step, TaskLook, TooLong

if TYPE_CHECKING:
    from instil.encode.plan import Replay, TrainingData
    from instil.evaluate.suite import Marked
    from instil.model.load import LoadedModel, ModelFolder
    from instil.train.fit import Plan, Validation
    from instil.train.objective import Objective
    from instil.train.room import Room

MOST_EXAMPLES = 10_000_000
"""Examples of all epochs together."""
VALIDATIONS = 6
"""Looks at validation in a run, where the recipe leaves it to us."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training."""

    summary: TrainingSummary
    """How it went."""
    token_view: tuple[Piece, ...]
    """One training example, token by token."""
    base_parameters: int
    """Weights of the base model."""
    sweep: Sweep | None = None
    """How the learning rate was chosen; None where the recipe says it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training as the first process has it, for the others to take their share of."""

    recipe: Recipe
    """How is trained."""
    model: ModelFolder
    """The base model."""
    encoded: TrainingData
    """What on."""
    rate: float
    """The peak learning rate."""
    checkpoint: Path
    """Where the training's state lies."""
    run: str
    """The run's id."""
    base: int | None
    """Number of the base model that is dealt out; None: each process loads the model."""


def train(context: RunContext, encoded: TrainingData) -> Trained:
    """Fine-tune, keep the best weights by validation, and write them to `model/`."""
    from instil.encode.mask import token_view
    from instil.model.adapter import base_parameters, left_out, trainable_share
    from instil.model.export import save_model
    from instil.train.checkpoint import read_progress
    from instil.train.dealt_base import Parts
    from instil.train.fit import fit
    from instil.train.ranks import send_job
    from instil.train.room import Room

    run, recipe, room = context.run, context.recipe, Room()
    if run.finished(TRAINING):
        return run.read(TRAINING, Trained)
    kept = read_progress(run.checkpoint, run=run.id)
    loaded = adapted(context)
    missing = left_out(loaded.model) if asks_for_all(context) else ()
    for left in missing:
        context.say(fmt.without_adapter(left))
    if not kept.step and load_steps(run.folder):
        context.say("steps were taken, but there is no checkpoint of them: training begins anew")
    run.begin_steps(up_to=kept.step, digest=kept.steps)
    before = load_steps(run.folder)
    looks = next((step.looks for step in reversed(before) if step.looks), ())
    validate = gated(context, loaded, validation_of(context, loaded, before=looks))
    wanted = objective(context)
    expected = None
    if not kept.step and not context.deals_out:
        expected = expect(context, loaded, encoded, room=room, objective=wanted)
    asked = [validation_examples(d) for d in context.data]
    flat = [examples for parts in asked for examples in parts]
    sweep = find_rate(context, loaded, encoded, flat, room=room, objective=wanted)
    by_rule = rule_rate(context, loaded, "rule")
    rate = sweep.chosen if sweep else rule_rate(context, loaded, recipe.train.learning_rate)
    plan = training_plan(
        recipe.train,
        encoded,
        rate=rate,
        checkpoint=run.checkpoint,
        seed=recipe.seed,
        run=run.id,
    )
    plan = replace(plan, on_saved=partial(publish, run.folder))
    base = loaded.through.number if isinstance(loaded.through, Parts) else None
    send_job(Job(recipe, context.model, encoded, rate, run.checkpoint, run.id, base))
    watch = Watch(context, asked, encoded, rate=rate, rule=by_rule)
    context.tracker.steps(before)
    for step in before:
        watch.follow(step, aloud=False)
    with context.stage("training", len(plan.batches)) as done:
        shown = context.progress.tasks[-1].id
        done(kept.step)

        def on_step(step: Step) -> None:
            run.add_step(step)
            context.progress.update(shown, advance=1, note=_step_note(step))
            watch.follow(step)
            context.tracker.steps([step])

        fitted = fit(
            training_model(context) if context.deals_trained else loaded,
            plan,
            validate=validate,
            on_step=on_step,
            room=room,
            objective=wanted,
            asked=loaded,
        )
    steps = load_steps(run.folder)
    if expected:
        context.say(as_expected(expected, steps))
    save_model(loaded, run.model)
    count, share = trainable_share(loaded.model)
    summary = TrainingSummary(
        method=str(recipe.method),
        steps=len(steps),
        best_step=fitted.progress.best_step,
        epochs=steps[-1].epoch,
        stopped_early=fitted.stopped_early,
        learning_rate=rate,
        seconds=fitted.progress.seconds + (sweep.seconds if sweep else 0),
        tokens_per_second=sum(s.tokens for s in steps) / sum(s.seconds for s in steps),
        supervised_tokens=sum(s.supervised_tokens for s in steps),
        fates=encoded.fates,
        trainable_parameters=count,
        trainable_share=share,
        peak_memory_bytes=max(s.memory_bytes for s in steps),
        dtype=str(loaded.dtype).removeprefix("torch."),
        quantize=recipe.quantize,
        left_out=missing,
        means=means_of(recipe.keep, steps, replayed=encoded.replayed),
        alarms=tuple(watch.alarms.values()),
        gate=gate_of(context, fitted.progress.lost),
    )
    view = token_view(encoded.sample, loaded.chat)
    trained = Trained(summary, view, base_parameters(loaded.model), sweep)
    return run.keep(TRAINING, Trained, trained, files=(STEPS, MODEL))


@dataclass(frozen=True, slots=True)
class Expected:
    """What the training should take, by its largest pack and a batch, computed beforehand."""

    seconds_per_token: float
    """Of computing."""
    tokens: tuple[int, ...]
    """Computed in each step."""
    memory_bytes: int
    """Peak."""


def expect(
    context: RunContext,
    loaded: LoadedModel,
    encoded: TrainingData,
    *,
    room: Room,
    objective: Objective,
) -> Expected:
    """Try the largest pack, and say what that lets us expect; `room` gets tighter if need be."""
    from instil.train.loop import probe

    with context.stage("largest pack"):
        probed = probe(loaded, encoded.batches, room=room, objective=objective)
    tokens, memory = probed.step_tokens, probed.memory_bytes
    per_token = probed.seconds / probed.tokens
    context.say(
        f"training: {len(tokens)} steps, about {fmt.seconds(per_token * sum(tokens))} without the "
        f"looks at validation, {fmt.size(memory)} of memory"
    )
    if room.tightened:
        context.say("memory ran out: packs are smaller than train.micro_batch_tokens allows")
    return Expected(per_token, tokens, memory)


def as_expected(expected: Expected, steps: Sequence[Step]) -> str:
    """Put what the steps took beside what was expected of as many steps."""
    took = sum(step.seconds for step in steps)
    plain = [step.memory_bytes for step in steps if step.validation_loss is None]
    wanted = expected.seconds_per_token * sum(expected.tokens[: len(steps)])
    most = max(step.memory_bytes for step in steps)
    memory = max(plain, default=most)
    looks = f", {fmt.size(most)} with the looks at validation" if most > memory else ""
    return (
        f"{len(steps)} steps took {fmt.seconds(took)} ({fmt.seconds(wanted)} expected) and "
        f"{fmt.size(memory)} ({fmt.size(expected.memory_bytes)} expected){looks}"
    )


def adapted(context: RunContext, base: LoadedModel | None = None) -> LoadedModel:
    """Return the base model, ready to train: in a fresh adapter, or with every weight trainable.

    Args:
        context: The run.
        base: The base model, for an adapter; None: it is loaded.
    """
    from instil.model.adapter import add_adapter, train_all

    recipe = context.recipe
    if not METHODS[recipe.method].adapter:
        return train_all(context.load_base(masters=True))
    return add_adapter(base or context.load_base(), recipe.adapter, seed=recipe.seed)


def training_model(context: RunContext, base: LoadedModel | None = None) -> LoadedModel:
    """Load the model as this process trains it: whole, or its part. All processes call this."""
    from instil.train.sharded import deal_out

    loaded = adapted(context, base)
    return deal_out(loaded) if context.deals_trained else loaded


def asks_for_all(context: RunContext) -> bool:
    """Whether every linear layer is to have an adapter."""
    recipe = context.recipe
    return METHODS[recipe.method].adapter and recipe.adapter.target_modules == "all-linear"


def objective(context: RunContext) -> Objective:
    """Turn the recipe's `keep` section into what is minimised.

    With full fine-tuning and a distance from the base model, a second, frozen copy of it is loaded.
    """
    from instil.train.objective import Objective
    from instil.train.terms import asks_base, terms_of

    recipe = context.recipe
    apart = asks_base(recipe.keep) and not METHODS[recipe.method].adapter
    return Objective(
        over_what=recipe.train.loss_over,
        terms=terms_of(recipe.keep),
        base=context.load_base() if apart else None,
        seed=recipe.seed,
    )


def encoded_training(context: RunContext, *, replay: Replay | None = None) -> TrainingData:
    """Render, encode and pack every epoch of the mix of all tasks, and of what is replayed."""
    from instil.encode.plan import plan_training
    from instil.encode.processes import encoded_shards
    from instil.encode.shard import Encoder

    recipe, wanted = context.recipe, context.recipe.train
    pools = mix_pools(context.data, context.prompts)
    rules = mix_rules(
        recipe.mix,
        per_row=wanted.templates_per_row,
        seed=recipe.seed,
        known=bool(context.prompts),
    )
    epochs = None if wanted.num_train_epochs == "auto" else wanted.num_train_epochs
    each = rules.examples or sum(pool.size(rules.per_row) for pool in pools)
    # A plan that is not done being made within hours is refused before it is begun. The number is
    # compared first, since one of any size may be too large for a float.
    planned = each * (epochs or 1.0) if each < 2 * MOST_EXAMPLES else math.inf
    if planned > MOST_EXAMPLES:
        raise RecipeError(
            "the plan is too large: to encode it alone would take hours or years",
            where="mix.examples" if rules.examples else "train.num_train_epochs",
            found=f"{each:,} examples an epoch, {epochs or 1:g} epochs",
            allowed=f"{MOST_EXAMPLES:,} examples in all",
            fix="fewer epochs, or fewer examples: mix.cap, mix.examples, or `train:` of a task",
        )
    folder = encoded_folder(context)
    encoder = Encoder(context.chat, wanted.max_length, TooLong(wanted.too_long))
    return plan_training(
        lambda epoch: encoded_shards(mixed(pools, rules, epoch=epoch), encoder, folder=folder),
        epochs=epochs,
        tokens_per_batch=wanted.tokens_per_batch,
        micro_batch_tokens=wanted.micro_batch_tokens,
        seed=recipe.seed,
        replay=replay,
        folder=folder,
    )


def encoded_folder(context: RunContext) -> Path | None:
    """Return where shards of encoded examples are kept until the run is done; None: nowhere."""
    return context.run.folder / ENCODED if context.directory else None


def mix_pools(data: Sequence[TaskData], prompts: Mapping[str, Prompt]) -> list[Pool]:
    """Return what each task brings to the mix; its best prompt too, where that is known."""
    return [Pool(d.task, d.train, d.templates, d.weight, prompts.get(d.task.id)) for d in data]


def mix_rules(mix: Mix, *, per_row: PerRow, seed: int, known: bool = False) -> MixRules:
    """Turn the recipe's `mix` section, and what else bears on it, into the mixer's terms.

    Args:
        mix: The section.
        per_row: Templates a row and pass.
        seed: Of every draw.
        known: Whether the best prompts are known. Before that, under `few_shot: best`, examples
            show nothing.
    """
    wanted = mix.model_dump()
    if mix.few_shot == "best":
        wanted |= {"few_shot": 0} if known else {"few_shot": 0, "few_shot_share": 0.0}
    return MixRules(per_row=per_row, seed=seed, **wanted)


def training_plan(
    train: Train, encoded: TrainingData, *, rate: float, checkpoint: Path, seed: int, run: str = ""
) -> Plan:
    """Turn the recipe's `train` section into the loop's own terms; `rate` is the peak."""
    from instil.train.fit import Plan

    return Plan(
        batches=encoded.batches,
        epochs=encoded.epochs,
        schedule=schedule_of(train, rate=rate),
        weight_decay=train.weight_decay,
        eval_steps=eval_steps(train.eval_steps, steps=len(encoded.batches)),
        patience=train.early_stopping_patience or 0,
        checkpoint=checkpoint,
        run=run,
        seed=seed,
    )


def eval_steps(wanted: int | str, *, steps: int) -> int:
    """Steps between validations; `auto`: at most six in a run, the third half way or just after.

    >>> eval_steps("auto", steps=80), eval_steps("auto", steps=3), eval_steps(7, steps=80)
    (14, 1, 7)
    """
    return math.ceil(steps / VALIDATIONS) if isinstance(wanted, str) else wanted


def validation_of(
    context: RunContext, loaded: LoadedModel, *, before: Sequence[TaskLook] = ()
) -> Callable[[], Validation]:
    """Return what looks at the validation rows: their loss, and the metric on real answers.

    Each row is asked through one of its task's answering templates, the same one every time.
    The score is the mean over tasks.

    Args:
        context: The run.
        loaded: The model.
        before: What the last look before these showed, one a task; empty: there was none.
    """
    from instil.compare.learning import is_shown, task_look
    from instil.evaluate.suite import look, mark
    from instil.train.fit import Validation

    asked = {d.task.id: validation_examples(d) for d in context.data}
    known = {seen.task: seen for seen in before}

    def validate() -> Validation:
        means, nats, tokens = [], 0.0, 0
        for d in context.data:
            marked: list[Marked] = []
            likely: list[float] = []
            for examples in asked[d.task.id]:
                seen = look(loaded, examples, max_new_tokens=d.task.max_new_tokens)
                marked.append(mark(examples, seen.predictions, metric=d.task.metric))
                likely += [target.nats / target.tokens for target in seen.targets]
                nats, tokens = nats + seen.nats, tokens + seen.tokens
            values = [value for part in marked for value in part.values.values()]
            means.append(sum(values) / max(1, len(values)))
            known[d.task.id] = task_look(
                [example for part in marked for example in part.examples],
                [answer for part in marked for answer in part.predictions],
                likely,
                labels=d.task.choices,
                counts=d.balance.get(Part.TRAIN),
                before=known.get(d.task.id),
            )
        looks = tuple(known[d.task.id] for d in context.data)
        shown = all(is_shown(seen) for seen in looks)
        return Validation(nats / tokens, sum(means) / len(means), looks, shown)

    return validate


def validation_examples(data: TaskData) -> list[list[Example]]:
    """Render every validation row through one of the answering templates, the rows dealt out.

    A list a template: prompts of one template share their prefix, which is then computed once.
    """
    from instil.data.build import render_example

    dealt = [
        [
            render_example(data.task, template, row)
            for row in data.validation[n :: len(data.answering)]
        ]
        for n, template in enumerate(data.answering)
    ]
    return [examples for examples in dealt if examples]


def means_of(keep: Keep, steps: Sequence[Step], *, replayed: Sequence[str]) -> Means | None:
    """Sum up what was done to keep what the model knew; None: nothing was.

    Args:
        keep: What was asked for.
        steps: Of the training.
        replayed: Ids of the tasks of which rows were replayed.
    """
    from instil.train.terms import terms_of

    terms = terms_of(keep)
    if keep.replay.share is None and not terms:
        return None

    def mean(name: str) -> float | None:
        values = [step.terms[name] for step in steps if name in step.terms]
        return sum(values) / len(values) if values else None

    of = keep.replay.of
    return Means(
        replay_share=keep.replay.share,
        replay_of="" if keep.replay.share is None else of if isinstance(of, str) else "tasks",
        replayed=tuple(replayed),
        replay_loss=mean(REPLAY_LOSS),
        terms=tuple(
            TermMean(term.name, term.sentence(found), found)
            for term, found in ((term, mean(term.name)) for term in terms)
        ),
    )


def _step_note(step: Step) -> str:
    speed = step.tokens / step.seconds
    beside = "".join(f", {name} {value:.3f}" for name, value in step.terms.items())
    note = f"loss {step.loss:.3f}{beside}, {speed:,.0f} tokens/s"
    if step.validation_score is not None:
        note += f", validation {100 * step.validation_score:.1f} (loss {step.validation_loss:.3f})"
    return note
