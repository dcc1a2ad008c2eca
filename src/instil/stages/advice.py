"""What to do with a task, before any long training: its ways tried on validation rows.

The run's own ladder gives the best prompt. TF-IDF and the linear probe are trained as for the test,
and a quarter of the training is done on a copy of the model. No test row is read, and nothing here
changes what the run does when it goes on.

Tests: `tests/stages/test_advice.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from statistics import fmean
from typing import TYPE_CHECKING

from instil import format as fmt
from instil.config.methods import METHODS, Method
from instil.data.prepare import TaskData
from instil.data.split import seeded_key
from instil.errors import DataError
from instil.results.advice import Advice, Way
from instil.results.names import PROBE, PROMPTING, TEXT, TUNED
from instil.scoring.metrics import Scale, find_metric
from instil.stages.context import RunContext
from instil.stages.directory import Run
from instil.stages.durations import computed_tokens
from instil.stages.ladder import Ladder
from instil.stages.mirror import ARMS
from instil.stages.preflight import preflight
from instil.stages.replaying import add_replay
from instil.stages.training import train
from instil.types import Comparison, Prediction

if TYPE_CHECKING:
    from instil.compare.advice import Seen
    from instil.compare.contest import Contender
    from instil.encode.plan import TrainingData
    from instil.evaluate.suite import Marked
    from instil.model.load import LoadedModel

STAGE = "advice"
PART = 0.25
"""Share of the training that is tried."""
LEAST_STEPS = 12
"""Of a try; a training that has no more is tried whole."""


def require_groups(context: RunContext) -> None:
    """See that the validation rows can say something of others, before anything is tried.

    Raises:
        DataError: Those of a task are all of one group, or it has one alone.
    """
    for d in context.data:
        if len({row.group for row in d.validation}) < 2:
            raise DataError(
                f"the validation rows of {d.task.id} are all of one group, which says nothing of "
                "other rows",
                found=fmt.plural(len(d.validation), "validation row"),
                fix="more validation rows (`validation:` in the recipe), or no `group` in the task",
            )


def advise(
    context: RunContext, encoded: TrainingData, ladders: Mapping[str, Ladder]
) -> tuple[Advice, ...]:
    """Try every way to do each task, and say which to take.

    Args:
        context: The run.
        encoded: Its training, with what is replayed.
        ladders: Task -> its prompting ladder.

    Raises:
        DataError: The validation rows of a task are all of one group.
    """
    from instil.compare import contest

    def compute() -> tuple[Advice, ...]:
        base = context.load_base()
        untrained = [_untrained(context, d, base, ladders[d.task.id]) for d in context.data]
        halves = [
            _twice_the_rows(context, d, base, asked)
            for d, asked in zip(context.data, untrained, strict=True)
        ]
        part, share = _short_try(context, encoded)
        tuned = part.load_tuned()
        text = _text(context, base, tuned)
        passes = METHODS[_method(context)].operations / 2
        advices = []
        for d, asked, half in zip(context.data, untrained, halves, strict=True):
            ways = [*([_majority(d)] if d.task.choices else []), *map(_seen, asked)]
            weighed, chosen = _weighed(context, d, [*ways, _tuned(context, d, tuned)], share=share)
            advices.append(
                Advice(
                    d.task.id,
                    d.task.metric,
                    weighed,
                    chosen,
                    rows=len(d.validation),
                    tried=share,
                    training_tokens=computed_tokens(context, encoded) * passes,
                    twice_the_rows=half,
                    text=text,
                    groups=len({row.group for row in d.validation}),
                    probed=len(contest.probe_rows(d, seed=context.recipe.seed)),
                )
            )
        return tuple(advices)

    return context.run.kept(STAGE, tuple[Advice, ...], compute)


def advised(run: Run) -> tuple[Advice, ...]:
    """Return the advice that a run began with; empty where there was none."""
    return run.read(STAGE, tuple[Advice, ...]) if run.finished(STAGE) else ()


def _weighed(
    context: RunContext, data: TaskData, ways: Sequence[Seen], *, share: float
) -> tuple[tuple[Way, ...], int]:
    from instil.compare.advice import GROWTH, UNKNOWN_GROWTH, weigh

    left = 1.0 if share <= PART else (1 - share) / (1 - PART)
    groups = {row.id: row.group for row in data.validation}
    binary = find_metric(data.task.metric).scale is Scale.BINARY
    growth = GROWTH if binary else UNKNOWN_GROWTH
    return weigh(ways, groups=groups, left=left, seed=context.recipe.seed, growth=growth)


def _tuned(context: RunContext, data: TaskData, tuned: LoadedModel) -> Seen:
    from instil.compare import contest
    from instil.compare.ladder import Prompting

    seed, rows = context.recipe.seed, data.validation
    with context.stage(f"short try of {data.task.id}", len(rows)) as done:
        way = Prompting(contest.best_template(tuned, data, rows, seed=seed))
        asked = contest.ask(tuned, data, name=TUNED, way=way, rows=rows, on_done=done)
    return replace(_seen(asked), label=f"tuned ({_method(context)}), zero-shot")


def _method(context: RunContext) -> Method:
    """Return the method that is tried: of `auto`, what it begins with."""
    method = context.recipe.method
    return Method.LORA if method is Method.AUTO else method


def _untrained(
    context: RunContext, data: TaskData, base: LoadedModel, ladder: Ladder
) -> list[Contender]:
    """Try the ways that leave the model as it is, the cheapest first."""
    from instil.compare import contest

    seed, task, rows, first = context.recipe.seed, data.task, data.validation, data.answering[0]
    wanted, ways = context.recipe.baselines, []
    way, rule = ladder.bar(base, data, rows, seed=seed, longest=context.longest)
    with context.stage(f"baselines of {task.id}") as done:
        if task.choices and wanted.tfidf:
            ways.append(contest.ask_words(data, first, rows=rows))
        if task.choices and wanted.probe:
            ask = partial(contest.ask_states, base, data, first, rows=rows, seed=seed)
            ways.append(ask(on_done=done))
        asked = contest.ask(
            base, data, name=PROMPTING, way=way, scoring=rule, rows=rows, on_done=done
        )
    return [*ways, asked]


def _majority(data: TaskData) -> Seen:
    from instil.compare.advice import MAJORITY, Seen, commonest
    from instil.compare.ladder import Prompting
    from instil.evaluate.suite import mark

    label = commonest(data.task, data.train)
    examples = Prompting(data.answering[0]).examples(data, data.validation)
    place = data.task.choices.index(label)
    made = [Prediction(e.id, e.choices[place]) for e in examples]
    marked = mark(examples, made, metric=data.task.metric)
    return Seen(MAJORITY, f"always {label!r}", marked.summary(), _by_row(marked))


def _seen(asked: Contender) -> Seen:
    from instil.compare.advice import Seen

    marked = asked.marked
    tokens = fmean(p.prompt_tokens + p.new_tokens for p in marked.predictions)
    return Seen(asked.name, asked.label, marked.summary(), _by_row(marked), tokens)


def _by_row(marked: Marked) -> dict[str, float]:
    return {e.row: score.value for e, _, score in marked.lines if score.value is not None}


def _twice_the_rows(
    context: RunContext, data: TaskData, base: LoadedModel, asked: Sequence[Contender]
) -> Comparison | None:
    """Compare the probe on all training rows with the probe on half of them; None: no probe."""
    from instil.compare import contest

    seed, first = context.recipe.seed, data.answering[0]
    probe = next((each for each in asked if each.name == PROBE), None)
    if probe is None:
        return None
    read = contest.probe_rows(data, seed=seed)
    # Whole groups, since new rows will be of new groups.
    groups = sorted({row.group for row in read}, key=lambda group: seeded_key(seed, "half", group))
    sizes = Counter(row.group for row in read)
    most = bisect_left([*accumulate(sizes[group] for group in groups)], len(read) / 2) + 1
    kept = frozenset(groups[:most])
    half = replace(data, train=tuple(row for row in read if row.group in kept))
    if len(half.train) == len(read):  # of one group
        return None
    labels = {str(row.fields[data.task.target]) for row in half.train}
    if labels != {str(row.fields[data.task.target]) for row in data.train}:
        return None
    with context.stage(f"half of the rows of {data.task.id}") as done:
        rows = data.validation
        less = contest.ask_states(base, half, first, rows=rows, seed=seed, on_done=done)
    return contest.against(less, probe, seed=seed)


def _short_try(context: RunContext, encoded: TrainingData) -> tuple[RunContext, float]:
    """Train a little, beside the run; return that run and the share of the training it took.

    The learning rate is the rule's where the recipe looks for one, and rises and falls within the
    try.
    """
    recipe, steps = context.recipe, len(encoded.batches)
    share = min(1.0, max(PART, LEAST_STEPS / steps))
    train_as = recipe.train.model_copy(
        update={
            "num_train_epochs": share * encoded.epochs,
            "learning_rate": "rule"
            if recipe.train.learning_rate == "auto"
            else recipe.train.learning_rate,
            "eval_steps": steps,
            "early_stopping_patience": None,
        }
    )
    keep = recipe.keep.model_copy(update={"interpolate": None})
    tried = recipe.model_copy(update={"method": _method(context), "train": train_as, "keep": keep})
    folder = context.run.folder / ARMS / STAGE
    folder.mkdir(parents=True, exist_ok=True)
    part = context.part(tried, folder=folder)
    train(part, add_replay(part, preflight(part)))
    return part, share


def _text(context: RunContext, base: LoadedModel, tuned: LoadedModel) -> Comparison | None:
    """Return what the short try did to general text that is not reported on."""
    from instil.compare.forgetting import ledger, measure

    text = [item for item in context.choosing_guard if item.id == TEXT]
    if not text:
        return None
    with context.stage("general text"):
        return ledger(text, measure(base, text), measure(tuned, text))[0].comparison
