"""The stages of a run but for training and judging, in the order of `pipeline.run_recipe`.

A stage takes the `Bench` (run directory and progress), does its work through the library's parts,
and keeps its result in the run directory, so that a resumed run takes it from there. torch is
imported only by the stages that need it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from instil.config.recipe import Method, Recipe, TaskUse
from instil.data.audit import read_text, repeats_of
from instil.data.prepare import TaskData, keep_apart, prepare, without_train
from instil.data.sources.uri import is_public
from instil.data.split import save_splits
from instil.files import write_whole
from instil.memory_limits import COMPUTE_LESS, READ_LESS, within_memory
from instil.results import Rung
from instil.stages.directory import SPLITS, Run, load_manifest, now
from instil.stages.footprint import memory_line, memory_needed, sizes_of
from instil.stages.origins import chat_origins, guard_origins, origins
from instil.tasks.task import load_task
from instil.types import Part, Removed, Row, Task, Template, Thinking

if TYPE_CHECKING:
    from rich.progress import Progress

    from instil.compare.forgetting import GuardScores, GuardTask
    from instil.encode.chat_template import ChatRules
    from instil.model.engine.packed import Build
    from instil.model.load import LoadedModel, ModelFolder

T = TypeVar("T")
SPLIT = "split"
"""The first stage."""
ROWS = "rows"
"""The stage that reads them."""
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
    processor: dict[str, float] = field(default_factory=dict)
    """stage -> processor time of all threads, which other work on the machine stretches less."""

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.run.recipe

    def say(self, text: str) -> None:
        """Show one line."""
        self.progress.console.print(text)

    def of_base(
        self, name: str, kind: Any, compute: Callable[[], T], *, inputs: Sequence[object]
    ) -> T:
        """Return what the untouched model says: it says the same in every run of a study.

        Args:
            name: Of the result.
            kind: Its type, as pydantic takes it.
            compute: Called where no run of the study has asked the same yet.
            inputs: All that is asked, and how.
        """
        facts = load_manifest(self.run.folder)
        recipe = self.recipe
        computed = (recipe.device, recipe.dtype, *([recipe.quantize] if recipe.quantize else []))
        model = (
            facts["model"]["sha256"],
            facts["chat"],
            facts["chat_template"],
            facts["versions"],
            *computed,
        )
        return self.run.shared_or(name, kind, compute, inputs=(*model, *inputs))

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show a stage's progress and note how long it took; yields `on_done`.

        Raises:
            OutOfMemoryError: Memory ran out meanwhile.
        """
        began, worked = time.perf_counter(), time.process_time()
        shown = self.progress.add_task(name, total=total, note="")
        fix = READ_LESS if name == ROWS else COMPUTE_LESS
        with within_memory(f"in the stage {name!r}", fix=fix):
            yield lambda count: self.progress.update(shown, advance=count)
        self.progress.update(shown, total=total or 1, completed=total or 1)
        took = time.perf_counter() - began, time.process_time() - worked
        for each, here in zip(took, (self.seconds, self.processor), strict=True):
            here[name] = here.get(name, 0.0) + each
        noted = load_manifest(self.run.folder)
        self.run.note(
            stage_seconds={**noted.get("stage_seconds", {}), **self.seconds},
            stage_processor_seconds={**noted.get("stage_processor_seconds", {}), **self.processor},
        )


# --- rows and model ----------------------------------------------------------------------------


def split_rows(bench: Bench) -> tuple[TaskData, ...]:
    """Load every task's rows and part them."""
    with bench.stage(ROWS, len(bench.recipe.tasks)) as done:
        return prepare_all(bench.recipe, on_done=done)


def prepare_all(
    recipe: Recipe, *, on_done: Callable[[int], None] = lambda count: None
) -> tuple[TaskData, ...]:
    """Load and part the rows of every task; none is trained on that any task is judged on.

    Args:
        recipe: Names the tasks.
        on_done: Told of each task that is loaded.

    Raises:
        DataError: Rows cannot be had, or none is left to train on.
        TaskError: A task or its templates cannot be used.
    """
    data = []
    for use in recipe.tasks:
        data.append(prepare_use(recipe, use))
        on_done(1)
    return apart_from_guard(recipe, keep_apart(data))


def apart_from_guard(recipe: Recipe, data: Sequence[TaskData]) -> tuple[TaskData, ...]:
    """Take rows out of train that repeat a guard's: learned by heart, they would hide forgetting.

    Raises:
        DataError: A guard task's rows cannot be had, or no training row is left.
    """
    from instil.compare.forgetting import choosing_rows, guard_rows

    names, _ = guard_names(recipe, data)
    if not names:
        return tuple(data)
    rows = recipe.forgetting.rows
    if recipe.keep.interpolate == "auto" or recipe.method is Method.AUTO:
        rows += choosing_rows(rows)
    asked = guard_rows(names, rows=rows, seed=recipe.judging_seed)
    threshold = recipe.split.near_duplicates
    fix = "name other guard tasks: forgetting.tasks"
    return tuple(without_train(d, list(_in_guard(d, asked, threshold)), fix=fix) for d in data)


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


def reported_guard(
    recipe: Recipe, folder: ModelFolder, data: Sequence[TaskData]
) -> tuple[GuardTask, ...]:
    """Draw the guard's rows that are reported on."""
    return _drawn_guard(recipe, folder, data, rows=recipe.forgetting.rows)


def choosing_guard(
    recipe: Recipe,
    folder: ModelFolder,
    data: Sequence[TaskData],
    reported: Sequence[GuardTask],
) -> tuple[GuardTask, ...]:
    """Draw guard rows to choose on, of which no group is reported on."""
    from instil.compare.forgetting import choosing_rows

    rows = choosing_rows(recipe.forgetting.rows)
    return _drawn_guard(recipe, folder, data, rows=rows, apart_from=reported)


def _drawn_guard(
    recipe: Recipe,
    folder: ModelFolder,
    data: Sequence[TaskData],
    *,
    rows: int,
    apart_from: Sequence[GuardTask] = (),
) -> tuple[GuardTask, ...]:
    from instil.compare.forgetting import load_guard
    from instil.model.load import load_tokenizer

    wanted = recipe.forgetting
    names, _ = guard_names(recipe, data)
    return load_guard(
        names,
        rows=rows,
        text=wanted.text and wanted.tasks != "none",
        chat=load_tokenizer(folder),
        seed=recipe.judging_seed,
        apart_from=apart_from,
    )


def _in_guard(
    data: TaskData, asked: Sequence[tuple[Task, Row]], threshold: float
) -> Iterator[Removed]:
    """Yield the training rows that a guard asks about: of the same text, or the same record."""
    texts = {f"{task.id}/{row.id}": read_text(task, row.fields) for task, row in asked}
    places = {(task.source.uri, row.place): f"{task.id}/{row.id}" for task, row in asked}
    alike = repeats_of(data.train, texts, task=data.task, threshold=threshold)
    yield from (replace(entry, why=f"{entry.why} of a row of the guard") for entry in alike)
    known = {entry.row for entry in alike}
    for row in data.train:
        same = places.get((data.task.source.uri, row.place))
        if same and row.id not in known:
            yield Removed(row.id, Part.TRAIN, "asked about by the guard", same, similarity=1.0)


def keep_splits(bench: Bench, folder: ModelFolder, data: Sequence[TaskData]) -> None:
    """Save who trains, validates and tests, before anything is asked; with all that is used.

    Raises:
        RefusedError: The run goes on, and something is not what it was when it began.
    """
    inputs = origins(bench.recipe, folder, data)
    if bench.run.finished(SPLIT, inputs=inputs):
        return
    save_splits([d.split for d in data], bench.run.folder / SPLITS)
    bench.run.note(data={d.task.id: data_fingerprint(d) for d in data})
    bench.run.record(SPLIT, [SPLITS], inputs=inputs)


def score_files(data: Sequence[TaskData]) -> list[str]:
    """Name the files of the test's scores within a run directory."""
    return [f"scores/test-{d.task.id}.jsonl" for d in data]


def prepare_use(recipe: Recipe, use: TaskUse) -> TaskData:
    """Load and part the rows of one task of the recipe."""
    return prepare(
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


def find_model(bench: Bench, rows: Sequence[TaskData]) -> ModelFolder:
    """Fetch and convert the base model, if it is not on this machine yet.

    How turns are written is settled here, and noted: the day too, for all that goes on with the run
    or uses it later.

    Args:
        bench: The run.
        rows: Its tasks: whether their answers have thoughts.
    """
    from instil.model.load import fingerprint, folder_bytes

    rules = chat_rules(bench.recipe, rows, date=_day(bench.run))
    with bench.stage("model"):
        found = find_base(bench.recipe, rules, say=bench.say)
        bench.say(
            memory_line(memory_needed(bench.recipe, sizes_of(found)), device=bench.recipe.device)
        )
        build = base_proof(bench.recipe, found)
    facts = {
        "name": found.name,
        "licence": found.licence,
        "sha256": fingerprint(found.path),
        "bytes": folder_bytes(found.path),
        "computed": str(build),
    }
    # A template's name and digest, but not where the file lies: manifests are passed on.
    chat = {**asdict(rules), "template": Path(rules.template).name}
    bench.run.note(model=facts, chat=chat, chat_template=chat_origins(found))
    return found


def find_base(recipe: Recipe, rules: ChatRules, *, say: Callable[[str], None]) -> ModelFolder:
    """Find the base model, and make sure that it can be loaded.

    Raises:
        ModelError: There is none, or it cannot be loaded.
    """
    from instil.model.load import require_loadable, resolve_model

    folder = replace(resolve_model(recipe.model, say=say), chat=rules)
    require_loadable(folder, say=say)
    return folder


def note_chat(bench: Bench, folder: ModelFolder, data: Sequence[TaskData]) -> None:
    """Show and note what the chat format does to the rows: turns left out or joined."""
    from instil.encode.chat_findings import chat_findings
    from instil.model.load import load_tokenizer

    chat = load_tokenizer(folder)
    found = {d.task.id: [f.what for f in chat_findings(d, chat)] for d in data}
    found = {task: told for task, told in found.items() if told}
    for task, told in found.items():
        bench.say("".join(f"{task}: {what}\n" for what in told).rstrip())
    if found:
        bench.run.note(chat_findings=found)


def chat_rules(recipe: Recipe, rows: Sequence[TaskData], *, date: str = "") -> ChatRules:
    """Settle what a recipe decides about the chat format.

    Args:
        recipe: The recipe.
        rows: Its tasks: a model thinks, unless the recipe says otherwise, where answers have
            thoughts.
        date: The day that a chat template writes, ISO 8601; empty: today.
    """
    from instil.encode.chat_template import ChatRules
    from instil.encode.chat_turns import has_thoughts

    thinking = recipe.thinking
    if thinking is Thinking.AUTO:
        thoughtful = any(has_thoughts(row, d.task) for d in rows for row in d.train)
        thinking = Thinking.ON if thoughtful else Thinking.OFF
    return ChatRules(recipe.chat_template or "", recipe.system, thinking, date or now())


def _day(run: Run) -> str:
    """The day that a run began, ISO 8601; of a study, the day that its first run began."""
    known = load_manifest(run.folder).get("chat")
    if known:
        return str(known["date"])
    if run.shared is None:
        return now()
    path = run.shared / "begun.txt"
    if not path.is_file():
        write_whole(path, now().encode())
    return path.read_text(encoding="utf-8")


def base_proof(recipe: Recipe, folder: ModelFolder) -> Build:
    """Return which short cuts give the base model's own figures."""
    from instil.model.load import proof_of

    return proof_of(folder, device=recipe.device, dtype=recipe.dtype, quantize=recipe.quantize)


def load_base(recipe: Recipe, folder: ModelFolder, *, masters: bool = False) -> LoadedModel:
    """Load the untouched model."""
    from instil.model.load import load_model

    return load_model(
        folder,
        device=recipe.device,
        dtype=recipe.dtype,
        quantize=recipe.quantize,
        masters=masters,
    )


def load_tuned(bench: Bench, folder: ModelFolder) -> LoadedModel:
    """Load what was handed over, from where it was saved: what is judged is what is shipped."""
    from instil.model.adapter import load_shipped

    recipe = bench.recipe
    return load_shipped(
        bench.run.model,
        base=folder,
        device=recipe.device,
        dtype=recipe.dtype,
        quantize=recipe.quantize,
    )


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
    """Of the process meanwhile."""


def _climb(bench: Bench, folder: ModelFolder, data: Sequence[TaskData]) -> dict[str, Ladder]:
    from instil.compare.ladder import prompting

    recipe, ladders = bench.recipe, {}
    base = lru_cache(maxsize=1)(lambda: load_base(recipe, folder))
    for d in data:
        templates = ladder_templates(recipe, d)
        rows = d.validation[: recipe.baselines.validation_rows]
        shots = recipe.baselines.shots
        shown = [
            prompting(d, template=templates[0].id, shots=count, seed=recipe.seed).exemplars
            for count in shots
        ]
        ladders[d.task.id] = bench.of_base(
            "ladder",
            Ladder,
            partial(_climb_one, bench, base, d, templates, rows),
            inputs=(d.task, templates, shots, shown, rows),
        )
    return ladders


def ladder_templates(recipe: Recipe, data: TaskData) -> tuple[Template, ...]:
    """Return the templates that a task's ladder is climbed with."""
    wanted, asking = recipe.baselines.templates, (*data.answering, *data.held_out)
    return tuple(t for t in asking if wanted == "all" or t.id in wanted) or asking


def _climb_one(
    bench: Bench,
    base: Callable[[], LoadedModel],
    data: TaskData,
    templates: Sequence[Template],
    rows: Sequence[Row],
) -> Ladder:
    from instil.compare.halving import planned
    from instil.compare.ladder import climb
    from instil.train.peak import forget_peak, peak_memory

    shots, loaded = bench.recipe.baselines.shots, base()
    forget_peak(loaded.device)
    began = time.perf_counter()
    total = sum(ways * more for ways, more in planned(shots * len(templates), rows=len(rows)))
    with bench.stage(f"prompting {data.task.id}", total) as done:
        rungs = climb(
            loaded,
            data,
            templates=templates,
            shots=shots,
            rows=rows,
            seed=bench.recipe.seed,
            on_done=done,
        )
    return Ladder(rungs, time.perf_counter() - began, peak_memory(loaded.device))


def guard_before(
    bench: Bench, folder: ModelFolder, data: Sequence[TaskData]
) -> tuple[tuple[GuardTask, ...], tuple[GuardScores, ...]]:
    """Draw the guard's rows, and score the untouched model on them."""
    from instil.compare.forgetting import GuardScores

    names, related = guard_names(bench.recipe, data)
    told = {"watched": names, "left_out_as_related": related}
    bench.run.note(guard={what: [Path(name).name for name in each] for what, each in told.items()})
    guard = reported_guard(bench.recipe, folder, data)

    def score() -> tuple[GuardScores, ...]:
        return _measure(bench, load_base(bench.recipe, folder), guard, "guard before")

    def once() -> tuple[GuardScores, ...]:
        return bench.of_base("guard", kind, score, inputs=guard) if guard else ()

    kind = tuple[GuardScores, ...]
    return guard, bench.run.kept("guard-before", kind, once, inputs=guard_origins(guard))


def _measure(
    bench: Bench, loaded: LoadedModel, guard: Sequence[GuardTask], name: str
) -> tuple[GuardScores, ...]:
    from instil.compare.forgetting import measure

    with bench.stage(name, sum(len(item.examples) for item in guard)) as done:
        return measure(loaded, guard, on_done=done)


# --- after training ----------------------------------------------------------------------------


def guard_after(
    bench: Bench, folder: ModelFolder, guard: Sequence[GuardTask]
) -> tuple[GuardScores, ...]:
    """Score the tuned model on the guard's rows."""
    from instil.compare.forgetting import GuardScores

    def score() -> tuple[GuardScores, ...]:
        return _measure(bench, load_tuned(bench, folder), guard, "guard after") if guard else ()

    kind = tuple[GuardScores, ...]
    return bench.run.kept("guard-after", kind, score, inputs=guard_origins(guard))
