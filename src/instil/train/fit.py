"""From packs to the best weights: validation, early stopping and checkpoints around the loop.

Tests: `tests/train/test_checkpoint.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from instil.errors import TrainError
from instil.model.adapter import restore, snapshot, trainable
from instil.model.load import LoadedModel
from instil.results.training import Lost
from instil.signals import CTRL_C, ENDING, on_signals
from instil.stages.runfiles import steps_digest
from instil.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from instil.train.loop import Schedule, train_steps
from instil.train.objective import Objective
from instil.train.optim import adamw
from instil.train.peak import forget_peak, peak_memory
from instil.train.ranks import from_first, is_first, total, world_size
from instil.train.room import Room
from instil.train.sharded import hand_over, trains_parts
from instil.types import Pack, Step, TaskLook


@dataclass(frozen=True, slots=True)
class Validation:
    """What a look at the validation rows says."""

    loss: float
    """Nats per target token, teacher-forced."""
    score: float
    """The task metric, of choices scored or text generated; higher is better."""
    looks: tuple[TaskLook, ...] = ()
    """What it shows of each task."""
    shown: bool = True
    """Whether every task is shown to be learnt; patience waits until one look has shown it."""
    lost: Lost | None = None
    """What it has forgotten; None: that decides nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train on and how."""

    batches: Sequence[Sequence[Pack]]
    """All batches of all epochs, in order."""
    epochs: float
    """How many epochs they make."""
    schedule: Schedule
    """Learning rate and clipping."""
    weight_decay: float
    """AdamW's, on matrices."""
    eval_steps: int
    """Validate every so many steps, and after the last."""
    patience: int
    """Stop after so many validations with neither metric nor loss at its best; 0: never. None
    counts before the warm-up is over, or before every task was shown to be learnt."""
    checkpoint: Path | None
    """Where to keep the state for a resume; None: nowhere."""
    run: str = ""
    """The id of the run, so that its checkpoint is not taken for another's."""
    seed: int = 0
    """Of what is random in a step (dropout)."""
    on_saved: Callable[[], None] = lambda: None
    """Called when a checkpoint has been written."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """How it went; the model holds the best weights."""

    progress: Progress
    """The final counters."""
    stopped_early: bool
    """Whether patience ended it."""


def fit(
    loaded: LoadedModel,
    plan: Plan,
    *,
    validate: Callable[[], Validation],
    on_step: Callable[[Step], None],
    room: Room | None = None,
    objective: Objective | None = None,
    asked: LoadedModel | None = None,
    serve: Callable[[Any], None] | None = None,
) -> Fitted:
    """Train, keep the weights with the best validation metric, and leave them in the model.

    Ties in the metric go to the lower validation loss. Where a look says what was forgotten,
    weights within the limits come first, then what forgot the least. A checkpoint is written after
    every validation; if there is one at `plan.checkpoint`, training goes on from it, bit for bit.
    After Ctrl-C the step under way is finished and saved, then `KeyboardInterrupt` is raised.

    Of several processes (`train.ranks`) all call this; the first one validates and writes. Where
    the weights that are trained are dealt out (`train.sharded`), it has a model beside them,
    `asked`, into which they are copied before every look, and at the end. Where it is the frozen
    base (`train.dealt_base`), the others `serve` it while it validates.
    """
    model = loaded.model
    in_parts = trains_parts(model)
    optimizer = adamw(
        trainable(model),
        learning_rate=plan.schedule.learning_rate,
        weight_decay=plan.weight_decay,
    )
    data = data_fingerprint(plan.batches)
    if total(from_first(lambda: data) != data):
        raise TrainError("the processes do not see the same training examples")
    state, best = Progress(data=data, run=plan.run), snapshot(model)
    if plan.checkpoint is not None:
        kept = load_checkpoint(
            plan.checkpoint, model=model, optimizer=optimizer, data=data, run=plan.run
        )
        if kept is not None:
            state, best = kept
    began = time.perf_counter() - state.seconds

    steps = train_steps(
        loaded,
        plan.batches,
        optimizer=optimizer,
        schedule=plan.schedule,
        steps_per_epoch=len(plan.batches) / plan.epochs,
        start=state.step,
        room=room,
        objective=objective,
        seed=plan.seed,
    )
    with hold_interrupt() as interrupted:
        while not out_of_patience(state, plan) and (step := next(steps, None)) is not None:
            state = replace(state, step=step.step, seconds=time.perf_counter() - began)
            if step.step % plan.eval_steps == 0 or step.step == len(plan.batches):
                if in_parts:
                    hand_over(model, whole=asked.model if asked else None)
                seen = from_first(validate, serve=serve)
                step = replace(
                    step,
                    validation_loss=seen.loss,
                    validation_score=seen.score,
                    looks=seen.looks,
                    memory_bytes=peak_memory(loaded.device),
                )
                better = is_better(seen, state)
                best = snapshot(model) if better else best
                warm = step.step > plan.schedule.warmup_ratio * len(plan.batches)
                state = judged(state, seen, better=better, warm=warm)
            on_step(step)
            state = replace(state, steps=steps_digest(state.steps, step))
            stop = from_first(interrupted)
            saves = step.validation_loss is not None or stop
            if saves and plan.checkpoint is not None and (is_first() or in_parts):
                save_checkpoint(
                    plan.checkpoint,
                    model=model,
                    optimizer=optimizer,
                    best=best,
                    progress=replace(state, seconds=time.perf_counter() - began),
                )
                if is_first():
                    plan.on_saved()
            if stop:
                raise KeyboardInterrupt
            if step.validation_loss is not None:
                forget_peak(loaded.device)  # the next steps' memory is their own
    restore(model, best)
    if in_parts:
        hand_over(model, whole=asked.model if asked else None)
    stopped = state.step < len(plan.batches)
    return Fitted(replace(state, seconds=time.perf_counter() - began), stopped)


def is_better(seen: Validation, state: Progress) -> bool:
    """Whether a validation beats the best so far: by the metric, ties by the loss.

    Where what was forgotten is measured, being less far beyond the limits comes first; all that is
    within them is alike in that.
    """
    if state.best_score is None or state.best_loss is None:
        return True
    beyond = seen.lost.beyond if seen.lost else 0.0
    best = (-state.best_beyond, state.best_score, -state.best_loss)
    return (-beyond, seen.score, -seen.loss) > best


def judged(state: Progress, seen: Validation, *, better: bool, warm: bool) -> Progress:
    """Move the counters on after a validation.

    Patience runs out only while neither the metric nor the loss gets better: on few rows the metric
    is noisy, and a loss that still falls says that there is more to learn. Nor does it run out
    before anything is shown to be learnt: the metric of a slow learner stays at the commonest
    class's, and its loss wobbles about that of the classes' shares, until learning begins.

    Args:
        state: The counters before.
        seen: What the validation says.
        better: Whether it beats the best so far.
        warm: Whether the rate has risen to its peak.
    """
    falls = state.lowest_loss is None or seen.loss < state.lowest_loss
    shown = state.shown or seen.shown
    waits = better or falls or not warm or not shown
    state = replace(
        state,
        lowest_loss=seen.loss if falls else state.lowest_loss,
        worse_in_a_row=0 if waits else state.worse_in_a_row + 1,
        shown=shown,
    )
    if seen.lost is not None:
        lost = replace(seen.lost, step=state.step, score=seen.score)
        state = replace(state, lost=(*state.lost, lost))
    if not better:
        return state
    return replace(
        state,
        best_step=state.step,
        best_score=seen.score,
        best_loss=seen.loss,
        best_beyond=seen.lost.beyond if seen.lost else 0.0,
    )


def out_of_patience(state: Progress, plan: Plan) -> bool:
    """Whether the last validations were all worse."""
    return plan.patience > 0 and state.worse_in_a_row >= plan.patience


def data_fingerprint(batches: Iterable[Sequence[Pack]]) -> str:
    """SHA-256 over ids and masks of all batches, in order."""
    digest = hashlib.sha256()
    for packs in batches:
        for pack in packs:
            digest.update(torch.tensor([pack.ids, pack.mask]).numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def hold_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C only sets a flag; a second one interrupts at once.

    SIGTERM (a scheduler's) and SIGHUP (a terminal that was closed) are the same as Ctrl-C.

    An interrupt inside an optimizer step would leave half of the weights updated. Of several
    processes each is told twice, by the terminal and by torchrun: there only the flag is set, and
    the first process's counts. Outside the main thread Python delivers no signals, and nothing is
    changed.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed and world_size() == 1:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread() or not is_first():
        yield lambda: False
        return
    with on_signals(note, CTRL_C, *ENDING):
        yield lambda: pressed
