"""What every stage of a run works with: its recipe, tasks and base model, and its run directory.

`prepare` makes a `RunContext`: it reads and parts the rows, takes those out of train that anything
is judged on, finds the base model and applies the length policy to what is only asked. A run, a
check and the studies all begin so. What a stage needs of it beside (tokenizer, guard rows) is
loaded when it is first asked for, and once.

Tests: `tests/test_pipeline.py`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.progress import Progress

from instil.config.methods import METHODS, Method
from instil.config.recipe import Recipe, TaskUse
from instil.data import prepare as rows
from instil.data.audit import read_text, repeats_of
from instil.data.mix import Prompt
from instil.data.prepare import TaskData, identities, keep_apart, without_train
from instil.data.split import save_splits
from instil.files import write_whole
from instil.memory_limits import COMPUTE_LESS, READ_LESS, within_memory
from instil.stages.directory import Run
from instil.stages.fitting import fit_context
from instil.stages.footprint import memory_line, memory_terms, sizes_of
from instil.stages.ledger import Difference, input_differences, refuse
from instil.stages.lineage import LINEAGE_TYPE, lineage_of, without_learnt
from instil.stages.origins import chat_origins, data_fingerprint, origins
from instil.stages.provenance import now
from instil.stages.runfiles import LINEAGE, SPLITS, TASKS, TASKS_TYPE, load_manifest, run_ledger
from instil.stages.tracking import Tracker, open_tracker, require_tracker
from instil.tasks.task import load_task
from instil.types import Part, Removed, Row, Task, Thinking

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardTask
    from instil.encode.chat_format import ChatFormat
    from instil.encode.chat_template import ChatRules
    from instil.model.engine.packed import Build
    from instil.model.load import LoadedModel, ModelFolder

T = TypeVar("T")
Say = Callable[[str], None]
OnDone = Callable[[int], None]
ROWS, SPLIT = "rows", "split"
"""The stages that read them, and that keep who trains, validates and tests."""
OF_UNSEEN, OF_GUARD = "of a row of a task kept apart from", "of a row of the guard"
"""End the reason why a training row is taken out that repeats one of `split.apart_from`, or one
of the guard."""


def silent(_: object) -> None:
    """Show nothing."""


@dataclass
class RunContext:
    """What every stage works with."""

    recipe: Recipe
    """What is done; of one of the ways that `method: auto` tries, that way's own."""
    directory: Run | None = None
    """Where results are kept; None: nowhere, as in a check."""
    progress: Progress = field(default_factory=partial(Progress, disable=True))
    """Where work is shown."""
    say: Say = silent
    """Shows one line."""
    data: tuple[TaskData, ...] = ()
    """The recipe's tasks, split."""
    whole: tuple[TaskData, ...] = ()
    """The same before rows were fitted to the model's context."""
    model: ModelFolder = field(init=False)
    """The base model, with the rules of the chat format."""
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    """Task -> its best prompt, where the training asks by it too; empty until it is known."""
    seconds: dict[str, float] = field(default_factory=dict)
    """stage -> wall time."""
    processor: dict[str, float] = field(default_factory=dict)
    """stage -> processor time of all threads, which other work on the machine stretches less."""

    @property
    def run(self) -> Run:
        """The run directory."""
        assert self.directory is not None, "a check keeps nothing"
        return self.directory

    def part(self, recipe: Recipe, *, folder: Path | None = None) -> RunContext:
        """Return the same with another recipe for the same tasks and model, and its own times.

        Args:
            recipe: It differs in how is trained.
            folder: A run directory within this one; None: this one, and its times.
        """
        other = copy.copy(self)
        other.recipe = recipe
        if folder is not None:
            other.directory = replace(self.run, folder=folder)
            other.seconds, other.processor = {}, {}
            other.tracker = Tracker(self.say)  # a trial's steps are none of the run's
        return other

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[OnDone]:
        """Show a stage's progress and note how long it took; yields `on_done`.

        Raises:
            OutOfMemoryError: Memory ran out meanwhile.
        """
        began, worked = time.perf_counter(), time.process_time()
        shown = self.progress.add_task(name, total=total, note="")
        fix = READ_LESS if name == ROWS else COMPUTE_LESS
        try:
            with within_memory(f"in the stage {name!r}", fix=fix):
                yield lambda count: self.progress.update(shown, advance=count)
        finally:
            self._note_time(name, began=began, worked=worked)
        self.progress.update(shown, total=total or 1, completed=total or 1)

    def _note_time(self, name: str, *, began: float, worked: float) -> None:
        """Add what a stage took to what it took before, in an earlier session too."""
        if self.directory is None:
            return
        took = time.perf_counter() - began, time.process_time() - worked
        noted = load_manifest(self.run.folder)
        kept = noted.get("stage_seconds", {}), noted.get("stage_processor_seconds", {})
        for each, here, before in zip(took, (self.seconds, self.processor), kept, strict=True):
            here[name] = here.get(name, before.get(name, 0.0)) + each
        self.run.note(
            stage_seconds={**kept[0], **self.seconds},
            stage_processor_seconds={**kept[1], **self.processor},
        )

    def of_base(
        self, name: str, kind: type[T], compute: Callable[[], T], *, inputs: Sequence[object]
    ) -> T:
        """Return what the base model says: it says the same in every run of a study.

        Args:
            name: Of the result.
            kind: Its type, as pydantic takes it.
            compute: Called where no run of the study has asked the same yet.
            inputs: All that is asked, and how.
        """
        facts, recipe = load_manifest(self.run.folder), self.recipe
        model = facts["model"]["sha256"], facts["chat"], facts["chat_template"], facts["versions"]
        computed = recipe.device, recipe.dtype, *([recipe.quantize] if recipe.quantize else [])
        return self.run.shared_or(name, kind, compute, inputs=(*model, *computed, *inputs))

    # --- the base model ----------------------------------------------------------------------

    @cached_property
    def chat(self) -> ChatFormat:
        """The base model's tokenizer and chat format."""
        from instil.model.load import load_tokenizer

        return load_tokenizer(self.model)

    @property
    def memory_terms(self) -> dict[str, int]:
        """Bytes that the run is estimated to hold at most, by what they are for."""
        from instil.train.ranks import world_size
        from instil.train.terms import asks_base

        recipe = self.recipe
        return memory_terms(
            sizes_of(self.model),
            method=recipe.method,
            quantize=recipe.quantize,
            held_to_base=asks_base(recipe.keep),
            pruned=recipe.keep.prune is not None,
            micro_batch_tokens=recipe.train.micro_batch_tokens,
            processes=world_size() if recipe.train.fsdp else 1,
        )

    @cached_property
    def longest(self) -> int:
        """Tokens that the base model takes at most; 0: its config does not say."""
        from instil.model.soundness import context_length

        return context_length(self.model.path)[0]

    @property
    def deals_base(self) -> bool:
        """Whether the frozen base model is dealt out over several processes."""
        return self.deals_out and METHODS[self.recipe.method].adapter

    @property
    def deals_trained(self) -> bool:
        """Whether the weights that are trained are dealt out over several processes."""
        return self.deals_out and not METHODS[self.recipe.method].adapter

    @property
    def deals_out(self) -> bool:
        """Whether any weights are dealt out over several processes."""
        from instil.train.ranks import world_size

        return self.recipe.train.fsdp and world_size() > 1

    @property
    def _computing(self) -> dict[str, Any]:
        """How a model computes, as the loaders take it."""
        recipe = self.recipe
        return {"device": recipe.device, "dtype": recipe.dtype, "quantize": recipe.quantize}

    @cached_property
    def build(self) -> Build:
        """Which short cuts give the base model's own figures."""
        from instil.model.load import proof_of

        return proof_of(self.model, **self._computing)

    @cached_property
    def tracker(self) -> Tracker:
        """Where steps and final figures go beside the run directory."""
        return open_tracker(
            self.recipe.track,
            settings=self.recipe.model_dump(mode="json", exclude={"output"}),
            folder=self.run.folder,
            run_id=self.run.id,
            say=self.say,
        )

    def load_base(self, *, masters: bool = False) -> LoadedModel:
        """Load the base model; with `masters` in float32, to train every weight."""
        from instil.model.load import load_model

        if self.deals_base:
            from instil.train.dealt_base import deal_base

            return deal_base(self.model, **self._computing)
        return load_model(self.model, masters=masters, **self._computing)

    def load_tuned(self, path: Path | None = None) -> LoadedModel:
        """Load the exported model, from where it was saved: what is judged is what is shipped.

        Args:
            path: A folder of weights; None: the run's own.
        """
        from instil.model.adapter import load_adapter, load_shipped

        if self.deals_base:
            return load_adapter(self.load_base(), path or self.run.model)
        return load_shipped(path or self.run.model, base=self.model, **self._computing)

    # --- the guard ---------------------------------------------------------------------------

    @cached_property
    def guard_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The guard tasks to watch, and those left out as relatives of what is trained."""
        return guard_names(self.recipe, self.data)

    @cached_property
    def guard(self) -> tuple[GuardTask, ...]:
        """The guard's rows that are reported on."""
        from instil.compare.forgetting import most_rows

        return self._draw(most_rows(self.recipe.forgetting.rows))

    @cached_property
    def choosing_guard(self) -> tuple[GuardTask, ...]:
        """Guard rows to choose on, of which no group is reported on."""
        from instil.compare.forgetting import choosing_rows

        return self._draw(choosing_rows(self.recipe.forgetting.rows), apart_from=self.guard)

    def _draw(self, rows: int, apart_from: Sequence[GuardTask] = ()) -> tuple[GuardTask, ...]:
        from instil.compare.forgetting import load_guard

        wanted = self.recipe.forgetting
        return load_guard(
            self.guard_names[0],
            rows=rows,
            text=wanted.reads_text,
            chat=self.chat,
            seed=self.recipe.judging_seed,
            apart_from=apart_from,
            one_a_group=wanted.rows == "auto",
        )


def prepare(
    recipe: Recipe,
    *,
    run: Run | None = None,
    progress: Progress | None = None,
    say: Say = silent,
) -> RunContext:
    """Load and part the rows of every task, and find the base model, whose context they then fit.

    How turns are written is settled here, and noted: the day too, for all that goes on with the run
    or uses it later.

    Args:
        recipe: What is to be done.
        run: The open run directory; None: nothing is noted.
        progress: Where work is shown; None: nowhere.
        say: Shows one line.

    Raises:
        DataError: Rows cannot be read, or none is left to train on.
        TaskError: A task or its templates cannot be used.
        ModelError: There is no such model, or it cannot be loaded.
    """
    from instil.model.load import fingerprint, folder_bytes, require_loadable, resolve_model

    require_tracker(recipe.track)
    context = RunContext(recipe, run, progress or Progress(disable=True), say)
    with context.stage(ROWS, len(recipe.tasks)) as done:
        context.data = prepare_rows(recipe, on_done=done)
    day = ""
    if run and (noted := load_manifest(run.folder).get("chat")):
        day = str(noted["date"])
    elif run and run.shared:  # of a study, the day that its first run began
        path = run.shared / "begun.txt"
        if not path.is_file():
            write_whole(path, now().encode())
        day = path.read_text(encoding="utf-8")
    rules = chat_rules(recipe, context.data, date=day)
    with context.stage("model"):
        model = replace(resolve_model(recipe.model, say=say), chat=rules)
        require_loadable(model, say=say)
        context.model = model
        if run:
            say(memory_line(context.memory_terms, device=recipe.device))
            computed = str(context.build)
    if run:
        facts = {
            "name": model.name,
            "licence": model.licence,
            "sha256": fingerprint(model.path),
            "bytes": folder_bytes(model.path),
            "computed": computed,
        }
        # A template's name and digest, but not where the file lies: manifests are passed on.
        chat = {**asdict(rules), "template": Path(rules.template).name}
        # Of a run that is resumed they stay, until its stages are seen to be of the same inputs.
        if SPLIT not in run_ledger(run.folder).stages:
            run.note(model=facts, chat=chat, chat_template=chat_origins(model))
    context.whole = context.data
    context.data = fit_rows(recipe, context.data, chat=context.chat, longest=context.longest)
    return context


def fit_rows(
    recipe: Recipe, data: Sequence[TaskData], *, chat: ChatFormat, longest: int
) -> tuple[TaskData, ...]:
    """Apply the recipe's length policy to validation and test rows; see `fit_context`."""
    return fit_context(
        data,
        chat=chat,
        longest=longest,
        too_long=recipe.train.too_long,
        shots=recipe.baselines.shots,
        seed=recipe.seed,
    )


def chat_rules(recipe: Recipe, data: Sequence[TaskData], *, date: str = "") -> ChatRules:
    """Settle what a recipe decides about the chat format.

    Args:
        recipe: The recipe.
        data: Its tasks: a model thinks, unless the recipe says otherwise, where answers have
            thoughts.
        date: The day that a chat template writes, ISO 8601; empty: today.
    """
    from instil.encode.chat_template import ChatRules
    from instil.encode.chat_turns import has_thoughts

    thinking = recipe.thinking
    if thinking is Thinking.AUTO:
        thoughtful = any(has_thoughts(row, d.task) for d in data for row in d.train)
        thinking = Thinking.ON if thoughtful else Thinking.OFF
    return ChatRules(recipe.chat_template or "", recipe.system, thinking, date or now())


# --- rows ------------------------------------------------------------------------------------


def prepare_rows(recipe: Recipe, *, on_done: OnDone = silent) -> tuple[TaskData, ...]:
    """Load and part the rows of every task; none is trained on that any task is judged on.

    Args:
        recipe: Names the tasks.
        on_done: Called with 1 after each task.

    Raises:
        DataError: Rows cannot be read, or none is left to train on.
        TaskError: A task or its templates cannot be used.
    """
    data = []
    for use in recipe.tasks:
        data.append(prepare_use(recipe, use))
        on_done(1)
    apart = apart_from_guard(recipe, apart_from_unseen(recipe, keep_apart(data)))
    known = lineage_of(recipe.model)
    return tuple(without_learnt(d, known) for d in apart) if known.trained else apart


def prepare_use(recipe: Recipe, use: TaskUse) -> TaskData:
    """Load and part the rows of one task of the recipe."""
    return rows.prepare(
        load_task(use.use),
        train=use.train,
        validation=recipe.validation,
        test=recipe.test,
        seed=recipe.judging_seed,
        train_seed=recipe.seed,
        near_duplicates=recipe.split.near_duplicates,
        templates="all" if use.templates == "auto" and len(recipe.tasks) > 1 else use.templates,
        held_out=use.held_out_templates,
        weight=use.weight,
    )


def apart_from_unseen(recipe: Recipe, data: Sequence[TaskData]) -> tuple[TaskData, ...]:
    """Take rows out of train that repeat a judged row of a task of `split.apart_from`.

    Those are of the same or nearly the same text, the same record or the same group of it.

    Raises:
        DataError: Such a task's rows cannot be read, or no training row is left.
    """
    unseen = [prepare_use(recipe, TaskUse(use=name)) for name in recipe.split.apart_from or ()]
    judged = [(d.task, row) for d in unseen for row in (*d.validation, *d.test)]
    fix = "take the task out of split.apart_from, or add rows with other texts"
    return _apart_from(judged, recipe, data, of=OF_UNSEEN, fix=fix)


def apart_from_guard(recipe: Recipe, data: Sequence[TaskData]) -> tuple[TaskData, ...]:
    """Take rows out of train that repeat a guard's: learned by heart, they would hide forgetting.

    Those are of the same or nearly the same text as a row of the guard, the same record or the same
    group of it; so too of the articles that are read as general text.

    Raises:
        DataError: A guard task's rows cannot be read, or no training row is left.
    """
    from instil.compare.forgetting import choosing_rows, guard_rows, most_rows

    names, _ = guard_names(recipe, data)
    wanted = recipe.forgetting
    count = most_rows(wanted.rows)
    steered = wanted.at_most is not None or wanted.gate_checkpoints
    if recipe.keep.interpolate == "auto" or recipe.method is Method.AUTO or steered:
        count += choosing_rows(wanted.rows)
    asked = guard_rows(
        names,
        rows=count,
        text=wanted.reads_text,
        seed=recipe.judging_seed,
        one_a_group=wanted.rows == "auto",
    )
    fix = "name other guard tasks: forgetting.tasks; or leave general text out: forgetting.text"
    return _apart_from(asked, recipe, data, of=OF_GUARD, fix=fix)


def _apart_from(
    judged: Sequence[tuple[Task, Row]],
    recipe: Recipe,
    data: Sequence[TaskData],
    *,
    of: str,
    fix: str,
) -> tuple[TaskData, ...]:
    """Take rows out of train that are judged rows' text, or nearly, their record or their group."""
    if not judged:
        return tuple(data)
    texts = {f"{task.id}/{row.id}": read_text(task, row.fields) for task, row in judged}
    known = {key: f"{task.id}/{row.id}" for task, row in judged for key in identities(task, row)}
    kept = []
    for d in data:
        alike = repeats_of(d.train, texts, task=d.task, threshold=recipe.split.near_duplicates)
        removed = {each.row: replace(each, why=f"{each.why} {of}") for each in alike}
        for row in d.train:
            same = next((known[key] for key in identities(d.task, row) if key in known), "")
            if same and row.id not in removed:
                why = f"the record or group {of}"
                removed[row.id] = Removed(row.id, Part.TRAIN, why, same, similarity=1.0)
        kept.append(without_train(d, [*removed.values()], fix=fix))
    return tuple(kept)


def guard_names(
    recipe: Recipe, data: Sequence[TaskData]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the guard tasks to watch, and those left out as relatives of what is trained."""
    from instil.compare.forgetting import choose_guard

    return choose_guard(
        recipe.forgetting.tasks,
        clusters=[d.task.cluster for d in data],
        trained=[d.task.id for d in data],
    )


# --- what is kept of it ------------------------------------------------------------------------


def keep_splits(context: RunContext) -> None:
    """Save who trains, validates and tests, before anything is asked; with all that is used.

    Raises:
        RefusedError: The run is resumed, and something is not what it was when it began.
    """
    run, recipe = context.run, context.recipe
    inputs = origins(context.data, context.model, device=recipe.device, dtype=recipe.dtype)
    if not run.finished(SPLIT, inputs=inputs):
        save_splits([d.split for d in context.data], run.folder / SPLITS)
        tasks = {d.task.id: d.task for d in context.data}
        write_whole(run.folder / TASKS, TASKS_TYPE.dump_json(tasks, indent=1))
        learnt = lineage_of(recipe.model, aside=True).with_rows(context.whole)
        write_whole(run.folder / LINEAGE, LINEAGE_TYPE.dump_json(learnt))
        run.note(data={d.task.id: data_fingerprint(d) for d in context.data})
        run.record(SPLIT, [SPLITS, TASKS, LINEAGE], inputs=inputs)


def changed_inputs(recipe: Recipe, folder: Path) -> list[Difference]:
    """Return what a run is made from and is not as it was when it began.

    Args:
        recipe: The run's.
        folder: The run directory.

    Raises:
        InstilError: What it is made from is not to be had.
    """
    split = run_ledger(folder).stages.get(SPLIT)
    if split is None:
        return []
    context = prepare(recipe)
    now = origins(context.data, context.model, device=recipe.device, dtype=recipe.dtype)
    return input_differences(SPLIT, split.inputs, now)


def require_same_inputs(recipe: Recipe, folder: Path, *, before: str) -> None:
    """See that a run's first stages are of the same inputs, before later ones are dropped.

    Args:
        recipe: The run's.
        folder: The run directory.
        before: The stage that is to be done anew, with all later ones.

    Raises:
        RefusedError: Something is not what it was when the run began.
        InstilError: What it is made from is not to be had.
    """
    names = [*run_ledger(folder).stages]
    anew = names[: names.index(SPLIT) + 1] if SPLIT in names else names
    if before not in anew:
        refuse(folder, changed_inputs(recipe, folder), stages=names)


def note_chat(context: RunContext) -> None:
    """Show and note what becomes of turns, which answers are cut, and which classes are lost."""
    from instil.data.findings import lost_classes
    from instil.encode.chat_findings import chat_findings, cut_answers

    notes = {}
    for d in context.data:
        findings = [*chat_findings(d, context.chat), *cut_answers(d, context.chat)]
        findings += lost_classes(d)
        if told := [finding.what for finding in findings]:
            notes[d.task.id] = told
            context.say("\n".join(f"{d.task.id}: {what}" for what in told))
    if notes:
        context.run.note(chat_findings=notes)
