"""The stages of a run, in the order in which `pipeline.run_recipe` tells them.

A stage takes the `Bench` (run directory and progress), does its work through the library's parts,
and keeps its result in the run directory, so that a resumed run takes it from there. torch is
imported only by the stages that need it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from instil.data.build import training_examples
from instil.data.prepare import TaskData, prepare
from instil.data.split import save_splits
from instil.data.uri import is_public
from instil.recipe import Recipe, TaskUse, resolve_learning_rate
from instil.results import Rung, TrainingSummary
from instil.run import Run, load_manifest, load_steps
from instil.tasks.task import load_task
from instil.types import Example, Part, Piece, Step

if TYPE_CHECKING:
    from rich.progress import Progress

    from instil.compare.forgetting import GuardScores, GuardTask
    from instil.encode.mask import ChatFormat
    from instil.encode.plan import TrainingData
    from instil.model.load import LoadedModel, ModelFolder
    from instil.train.fit import Fitted, Plan, Validation


VALIDATIONS = 6
"""Looks at validation in a run, where the recipe leaves it to us."""
ROBUSTNESS_ROWS = 60
"""Test rows (at most) on which every template is tried."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every stage works with: the run, and a place to show progress and note times."""

    run: Run
    """The open run directory."""
    progress: Progress
    """Where work is shown."""
    seconds: dict[str, float] = field(default_factory=dict)
    """stage -> wall time."""

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.run.recipe

    def say(self, text: str) -> None:
        """Show one line."""
        self.progress.console.print(text)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show a stage's progress and note how long it took; yields `on_done`."""
        began = time.perf_counter()
        shown = self.progress.add_task(name, total=total, note="")
        yield lambda count: self.progress.update(shown, advance=count)
        self.progress.update(shown, total=total or 1, completed=total or 1)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        self.run.note(stage_seconds={**self._noted(), **self.seconds})

    def _noted(self) -> dict[str, float]:
        return dict(load_manifest(self.run.folder).get("stage_seconds", {}))


# --- rows and model ----------------------------------------------------------------------------


def split_rows(bench: Bench) -> tuple[TaskData, ...]:
    """Load every task's rows and part them."""
    recipe = bench.recipe
    with bench.stage("rows", len(recipe.tasks)) as done:
        data = []
        for use in recipe.tasks:
            data.append(prepare_use(recipe, use))
            done(1)
    return tuple(data)


def keep_splits(bench: Bench, data: Sequence[TaskData]) -> None:
    """Save who trains, validates and tests, before anything is asked."""
    save_splits([d.split for d in data], bench.run.folder / "split.json")
    bench.run.note(data={d.task.id: data_fingerprint(d) for d in data})


def prepare_use(recipe: Recipe, use: TaskUse) -> TaskData:
    """Load and part the rows of one task of the recipe."""
    return prepare(
        load_task(use.use),
        train=use.train,
        validation=recipe.validation,
        test=recipe.test,
        seed=recipe.seed,
        near_duplicates=recipe.split.near_duplicates,
        templates=use.templates,
    )


def data_fingerprint(data: TaskData) -> Mapping[str, str]:
    """Return SHA-256 of the rows in use and of the templates."""
    rows = repr([(r.id, sorted(r.fields.items())) for part in Part for r in data.part(part)])
    templates = repr(data.templates)
    return {
        "rows": hashlib.sha256(rows.encode()).hexdigest(),
        "templates": hashlib.sha256(templates.encode()).hexdigest(),
        "licence": data.task.licence,
        "source": data.task.source.uri if is_public(data.task.source.uri) else "local",
    }


def find_model(bench: Bench) -> ModelFolder:
    """Fetch and convert the base model, if it is not on this machine yet."""
    from instil.model.load import fingerprint, folder_bytes, resolve_model

    with bench.stage("model"):
        found = resolve_model(bench.recipe.model, say=bench.say)
    facts = {
        "name": found.name,
        "licence": found.licence,
        "sha256": fingerprint(found.path),
        "bytes": folder_bytes(found.path),
    }
    bench.run.note(model=facts)
    return found


def load_base(recipe: Recipe, folder: ModelFolder, *, masters: bool = False) -> LoadedModel:
    """Load the untouched model."""
    from instil.model.load import load_model

    return load_model(folder, device=recipe.device, dtype=recipe.dtype, masters=masters)


def load_tuned(bench: Bench, folder: ModelFolder) -> LoadedModel:
    """Load what was handed over, from where it was saved: what is judged is what is shipped."""
    from instil.model.adapter import load_shipped

    recipe = bench.recipe
    return load_shipped(bench.run.model, base=folder, device=recipe.device, dtype=recipe.dtype)


# --- before training ---------------------------------------------------------------------------


def climb_ladders(
    bench: Bench, folder: ModelFolder, data: Sequence[TaskData]
) -> Mapping[str, Ladder]:
    """Climb the prompting ladder of every task, on validation."""
    return bench.run.kept("ladder", dict[str, Ladder], lambda: _climb(bench, folder, data))


@dataclass(frozen=True, slots=True)
class Ladder:
    """A climbed ladder and what it cost."""

    rungs: tuple[Rung, ...]
    """Every rung."""
    seconds: float
    """To climb it."""
    peak_memory_bytes: int
    """Of the process until then."""


def _climb(bench: Bench, folder: ModelFolder, data: Sequence[TaskData]) -> dict[str, Ladder]:
    from instil.compare.ladder import climb
    from instil.train.loop import peak_memory

    recipe = bench.recipe
    base = load_base(bench.recipe, folder)
    ladders = {}
    for d in data:
        wanted = recipe.baselines.templates
        templates = [t for t in d.answering if wanted == "all" or t.id in wanted] or d.answering
        rows = d.validation[: recipe.baselines.validation_rows]
        total = len(templates) * len(recipe.baselines.shots) * len(rows)
        began = time.perf_counter()
        with bench.stage(f"prompting {d.task.id}", total) as done:
            rungs = climb(
                base,
                d,
                templates=templates,
                shots=recipe.baselines.shots,
                rows=rows,
                seed=recipe.seed,
                on_done=done,
            )
        seconds = time.perf_counter() - began
        ladders[d.task.id] = Ladder(rungs, seconds, peak_memory(base.device))
    return ladders


def guard_before(
    bench: Bench, folder: ModelFolder, data: Sequence[TaskData]
) -> tuple[tuple[GuardTask, ...], tuple[GuardScores, ...]]:
    """Draw the guard's rows, and score the untouched model on them."""
    from instil.compare.forgetting import GuardScores, choose_guard, load_guard
    from instil.model.load import load_tokenizer

    recipe = bench.recipe
    names, related = choose_guard(
        recipe.forgetting.tasks,
        clusters=[d.task.cluster for d in data],
        trained=[d.task.id for d in data],
    )
    bench.run.note(guard={"watched": list(names), "left_out_as_related": list(related)})
    wanted = recipe.forgetting
    guard = load_guard(
        names,
        rows=wanted.rows,
        text=wanted.text and wanted.tasks != "none",
        chat=load_tokenizer(folder),
        seed=recipe.seed,
    )

    def score() -> tuple[GuardScores, ...]:
        return (
            _measure(bench, load_base(bench.recipe, folder), guard, "guard before") if guard else ()
        )

    return guard, bench.run.kept("guard-before", tuple[GuardScores, ...], score)


def _measure(
    bench: Bench, loaded: LoadedModel, guard: Sequence[GuardTask], name: str
) -> tuple[GuardScores, ...]:
    from instil.compare.forgetting import measure

    with bench.stage(name, sum(len(item.examples) for item in guard)) as done:
        return measure(loaded, guard, on_done=done)


# --- training ----------------------------------------------------------------------------------


def train(
    bench: Bench, folder: ModelFolder, data: Sequence[TaskData], encoded: TrainingData
) -> Trained:
    """Fine-tune, keep the best weights by validation, and write them to `model/`."""
    return bench.run.kept("training", Trained, lambda: _train(bench, folder, data, encoded))


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training."""

    summary: TrainingSummary
    """How it went."""
    token_view: tuple[Piece, ...]
    """One training example, token by token."""
    base_parameters: int
    """Weights of the base model."""


def _train(
    bench: Bench, folder: ModelFolder, data: Sequence[TaskData], encoded: TrainingData
) -> Trained:
    from instil.encode.mask import token_view
    from instil.model.adapter import base_parameters
    from instil.model.export import save_model
    from instil.train.checkpoint import steps_done
    from instil.train.fit import fit

    loaded = adapted(bench.recipe, folder)
    plan = training_plan(bench, loaded, encoded)
    validate = validation_of(bench.recipe, loaded, data)
    already = steps_done(bench.run.checkpoint)
    bench.run.begin_steps(up_to=already)
    with bench.stage("training", len(plan.batches)) as done:
        shown = bench.progress.tasks[-1].id
        done(already)

        def on_step(step: Step) -> None:
            bench.run.add_step(step)
            bench.progress.update(shown, note=_step_note(step))
            done(1)

        fitted = fit(loaded, plan, validate=validate, on_step=on_step)
    save_model(loaded, bench.run.model)
    summary = training_summary(bench, loaded, encoded, fitted, rate=plan.schedule.learning_rate)
    view = token_view(encoded.sample, loaded.chat)
    return Trained(summary, view, base_parameters(loaded.model))


def adapted(recipe: Recipe, folder: ModelFolder) -> LoadedModel:
    """Load the base model, ready to train: in a fresh adapter, or with every weight trainable."""
    from instil.model.adapter import add_lora, train_all

    if recipe.method == "full":
        return train_all(load_base(recipe, folder, masters=True))
    lora = recipe.lora
    modules = lora.target_modules
    return add_lora(
        load_base(recipe, folder),
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        seed=recipe.seed,
    )


def encoded_training(recipe: Recipe, data: Sequence[TaskData], chat: ChatFormat) -> TrainingData:
    """Render, encode and pack every epoch of the mix of all tasks."""
    from instil.encode.plan import plan_training

    def examples_of(epoch: int) -> list[Example]:
        return [
            example
            for d in data
            for example in training_examples(
                d.task,
                d.train,
                d.templates,
                per_row=recipe.train.templates_per_row,
                seed=recipe.seed,
                epoch=epoch,
            )
        ]

    return plan_training(
        examples_of,
        chat,
        epochs=recipe.train.num_train_epochs,
        max_length=recipe.train.max_length,
        too_long=recipe.train.too_long,
        tokens_per_batch=recipe.train.tokens_per_batch,
        micro_batch_tokens=recipe.train.micro_batch_tokens,
        seed=recipe.seed,
    )


def training_plan(bench: Bench, loaded: LoadedModel, encoded: TrainingData) -> Plan:
    """Turn the recipe's `train` section into the loop's own terms."""
    from instil.model.load import parameter_count
    from instil.train.fit import Plan
    from instil.train.loop import Schedule

    wanted = bench.recipe.train
    rate = resolve_learning_rate(
        wanted.learning_rate,
        method=bench.recipe.method,
        parameters=parameter_count(loaded.model),
    )
    steps = len(encoded.batches)
    return Plan(
        batches=encoded.batches,
        epochs=wanted.num_train_epochs,
        schedule=Schedule(
            rate, wanted.warmup_ratio, wanted.lr_scheduler_type, wanted.max_grad_norm
        ),
        weight_decay=wanted.weight_decay,
        eval_steps=eval_steps(wanted.eval_steps, steps=steps),
        patience=wanted.early_stopping_patience or 0,
        checkpoint=bench.run.checkpoint,
    )


def eval_steps(wanted: int | str, *, steps: int) -> int:
    """Steps between validations; `auto`: about six in a run.

    >>> eval_steps("auto", steps=80), eval_steps("auto", steps=3), eval_steps(7, steps=80)
    (13, 1, 7)
    """
    return max(1, round(steps / VALIDATIONS)) if isinstance(wanted, str) else wanted


def validation_of(
    recipe: Recipe, loaded: LoadedModel, data: Sequence[TaskData]
) -> Callable[[], Validation]:
    """Return what looks at the validation rows: their loss, and the metric on real answers.

    Each row is asked through one of its task's answering templates, the same one every time.
    The score is the mean over tasks.
    """
    from instil.data.build import render_example
    from instil.evaluate.suite import look, mark
    from instil.train.fit import Validation

    # By template: prompts of one template share their prefix, which is then computed once.
    asked = {
        d.task.id: [
            [render_example(d.task, template, row) for row in d.validation[n :: len(d.answering)]]
            for n, template in enumerate(d.answering)
        ]
        for d in data
    }

    def validate() -> Validation:
        means, nats, tokens = [], 0.0, 0
        for d in data:
            values: list[float] = []
            for examples in filter(None, asked[d.task.id]):
                seen = look(loaded, examples, max_new_tokens=d.task.max_new_tokens)
                marked = mark(examples, seen.predictions, metric=d.task.metric)
                values += marked.values.values()
                nats, tokens = nats + seen.nats, tokens + seen.tokens
            means.append(sum(values) / max(1, len(values)))
        return Validation(nats / tokens, sum(means) / len(means))

    return validate


def training_summary(
    bench: Bench, loaded: LoadedModel, encoded: TrainingData, fitted: Fitted, *, rate: float
) -> TrainingSummary:
    """Sum the training up from its steps."""
    from instil.model.adapter import trainable_share
    from instil.train.loop import peak_memory

    steps = load_steps(bench.run.folder)
    count, share = trainable_share(loaded.model)
    return TrainingSummary(
        method=str(bench.recipe.method),
        steps=len(steps),
        best_step=fitted.progress.best_step,
        epochs=steps[-1].epoch,
        stopped_early=fitted.stopped_early,
        learning_rate=rate,
        seconds=fitted.progress.seconds,
        tokens_per_second=sum(s.tokens for s in steps) / sum(s.seconds for s in steps),
        supervised_tokens=sum(s.supervised_tokens for s in steps),
        fates=encoded.fates,
        trainable_parameters=count,
        trainable_share=share,
        peak_memory_bytes=peak_memory(loaded.device),
        dtype=str(loaded.dtype).removeprefix("torch."),
    )


def _step_note(step: Step) -> str:
    speed = step.tokens / step.seconds
    note = f"loss {step.loss:.3f}, {speed:,.0f} tokens/s"
    if step.validation_score is not None:
        note += f", validation {100 * step.validation_score:.1f} (loss {step.validation_loss:.3f})"
    return note


# --- after training ----------------------------------------------------------------------------


def guard_after(
    bench: Bench, folder: ModelFolder, guard: Sequence[GuardTask]
) -> tuple[GuardScores, ...]:
    """Score the tuned model on the guard's rows."""
    from instil.compare.forgetting import GuardScores

    def score() -> tuple[GuardScores, ...]:
        return _measure(bench, load_tuned(bench, folder), guard, "guard after") if guard else ()

    return bench.run.kept("guard-after", tuple[GuardScores, ...], score)
