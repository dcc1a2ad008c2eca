"""The test: opened once a run, every arm judged on its rows, and all figures in one summary.

Figures of the test stay honest only as long as nobody has chosen anything by them. So a run that
has seen its test is not judged again, unless that is asked for; then the manifest has the time of
every look, and the report says how many there were. A judging that was stopped half-way is resumed
by `--resume`: no report has shown any of it, and the same model is asked.

Tests: `tests/stages/test_opening.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from instil.compare.average import averages
from instil.compare.cheapest import use_sentence
from instil.compare.forgetting_law import law_sentence, limit_sentence
from instil.compare.kept import kept_sentences
from instil.compare.learning import learnt
from instil.compare.verdict import (
    budget_sentence,
    check_budget,
    mean_change,
    not_learnt,
    verdict,
)
from instil.data.build import render_example
from instil.data.prepare import TaskData
from instil.errors import RunError
from instil.results.guard import GuardResult
from instil.results.keeping import Interpolation
from instil.results.names import PROBE, PROMPTING, TUNED, TUNED_PROMPTED, ZERO_SHOT
from instil.results.probabilities import Fitted
from instil.results.prompts import Turn
from instil.results.run import RunSummary
from instil.results.tasks import Costs, TaskResult
from instil.results.training import MixLine, TrainingSummary
from instil.stages.context import RunContext
from instil.stages.directory import Run
from instil.stages.guard import margins_of
from instil.stages.ladder import Ladder
from instil.stages.provenance import now
from instil.stages.runfiles import SUMMARY, load_manifest
from instil.stages.training import Trained
from instil.tasks.task import find_template
from instil.types import Message, Part

if TYPE_CHECKING:
    from instil.model.load import LoadedModel

OPENED, MODEL, GONE_ON = "test_opened", "test_model_sha256", "test_gone_on_with"
TEST = "test"
"""The stage that opens it."""
ROBUSTNESS_ROWS = 60
"""Test rows (at most) on which every template is tried."""


class Look(StrEnum):
    """Whether the test may be opened where it has been before."""

    ONCE = "once"
    AGAIN = "again"


def prepare_look(run: Run, *, look: Look) -> None:
    """Drop the finished test of a run that is to be judged again.

    Raises:
        RunError: There has been no look yet that another could follow.
    """
    if look is Look.ONCE:
        return
    if not load_manifest(run.folder).get(OPENED):
        raise RunError(
            "the test of this run has not been opened yet: there is no look to repeat",
            where=str(run.folder),
            fix="leave --look-again out",
        )
    run.forget(TEST)


def open_test(run: Run, *, look: Look) -> None:
    """Note in the manifest that the test is opened, before any of its rows is asked.

    Raises:
        RunError: It has been opened before, by a judging that was finished or of another model, and
            another look was not asked for.
    """
    from instil.model.load import fingerprint  # torch comes with it

    manifest = load_manifest(run.folder)
    opened, model = list(manifest.get(OPENED, [])), fingerprint(run.model)
    if opened and look is Look.ONCE:
        judged = (run.folder / SUMMARY).exists()
        if judged or manifest.get(MODEL, model) != model:
            why = "this run has been judged" if judged else "the model has been changed since"
            raise RunError(
                f"the test of this run has been opened before, and {why}: it is not opened again",
                where=str(run.folder),
                found=", ".join(opened),
                fix="begin a new run; or, to look again and have the report say so: instil run "
                f"--resume {run.folder} --look-again",
            )
        run.note(**{GONE_ON: [*manifest.get(GONE_ON, []), now()]})
        return
    run.note(**{OPENED: [*opened, now()], MODEL: model})


def looks_sentence(looks: int) -> str:
    """Say what figures of a test are worth that was opened before; empty for a first look.

    >>> looks_sentence(1)
    ''
    """
    if looks < 2:
        return ""
    return (
        f"The test was opened {looks} times: its figures are no first look, and whatever was "
        "chosen after an earlier one flatters them."
    )


# --- judging -----------------------------------------------------------------------------------


def score_files(data: Sequence[TaskData]) -> list[str]:
    """Name the files of the test's scores within a run directory."""
    return [f"scores/test-{d.task.id}.jsonl" for d in data]


def test(
    context: RunContext,
    ladders: Mapping[str, Ladder],
    training: TrainingSummary,
    fitted: Mapping[str, Fitted],
    *,
    look: Look,
) -> tuple[TaskResult, ...]:
    """Judge every arm on the test rows: once, at the end.

    Args:
        context: The run.
        ladders: Task -> its prompting ladder.
        training: How the training went.
        fitted: Task with choices -> what was fitted on validation.
        look: Whether another look at the test rows is asked for.

    Raises:
        RunError: They have been looked at before, and another look is not asked for.
    """

    def judge() -> tuple[TaskResult, ...]:
        open_test(context.run, look=look)
        base, tuned = context.load_base(), context.load_tuned()
        return tuple(
            _judge_task(
                context, d, base, tuned, ladders[d.task.id], training, fitted.get(d.task.id)
            )
            for d in context.data
        )

    files = score_files(context.data)
    return context.run.kept(TEST, tuple[TaskResult, ...], judge, files=files)


def _judge_task(
    context: RunContext,
    data: TaskData,
    base: LoadedModel,
    tuned: LoadedModel,
    ladder: Ladder,
    training: TrainingSummary,
    fitted: Fitted | None,
) -> TaskResult:
    from instil.compare import contest
    from instil.compare.ladder import Prompting
    from instil.compare.probabilities import judge_probabilities
    from instil.model.load import folder_bytes

    seed, task, baselines = context.recipe.seed, data.task, context.recipe.baselines

    def of_base(
        name: str, ask: Callable[[], contest.Contender], *inputs: object
    ) -> contest.Contender:
        return context.of_base(name, contest.Contender, ask, inputs=(task, *inputs))

    if fitted:
        template = find_template(task, fitted.template)
    else:
        with context.stage(f"choosing a template for {task.id}") as done:
            template = contest.best_template(tuned, data, data.validation, seed=seed, on_done=done)
    way = Prompting(template)
    with context.stage(f"test {task.id}") as done:
        ask = partial(contest.ask, data=data, rows=data.test, on_done=done)
        best = ask(tuned, name=TUNED, way=way)
        shown, rule = ladder.bar(base, data, data.test, seed=seed, longest=context.longest)
        ask_zero = partial(ask, base, name=ZERO_SHOT, way=way)
        zero = of_base(ZERO_SHOT, ask_zero, way, best.scoring, data.test)
        ask_rung = partial(ask, base, name=PROMPTING, way=shown, scoring=rule)
        others = [of_base(PROMPTING, ask_rung, shown, rule, data.test), zero]
        if context.recipe.mix.few_shot == "best":
            others.append(ask(tuned, name=TUNED_PROMPTED, way=shown, scoring=rule))
        if task.choices and baselines.tfidf:
            others.append(contest.ask_words(data, template, rows=data.test))
        if task.choices and baselines.probe:
            # Its template does not depend on the training, so that a study asks once.
            first = data.answering[0]
            probe = partial(
                contest.ask_states, base, data, first, rows=data.test, seed=seed, on_done=done
            )
            others.append(of_base(PROBE, probe, first, data.train, data.test))
    # Held-out phrasings are a question of their own, so they are asked on every test row.
    whole = data.held_out and not data.few_rows
    few = data.test if whole else data.test[:ROBUSTNESS_ROWS]
    with context.stage(f"wordings of {task.id}") as done:
        reword = partial(contest.over_templates, data=data, rows=few, on_done=done)
        of_tuned, inputs = reword(tuned, asked=best), (task, data.answering, data.held_out, few)
        ask_base = partial(reword, base, asked=zero)
        of_untouched = context.of_base("wordings", contest.Wordings, ask_base, inputs=inputs)
    everyone, wordings = [best, *others], (of_tuned, of_untouched)
    context.run.write_scores(f"test-{task.id}", contest.score_lines(everyone, data))
    # What choosing or training each arm took; speed and tokens are added from the test.
    costs = {
        PROMPTING: ladder.costs,
        ZERO_SHOT: replace(ladder.costs, seconds=0.0),
        TUNED: Costs(
            trainable_parameters=training.trainable_parameters,
            trainable_share=training.trainable_share,
            seconds=training.seconds,
            peak_memory_bytes=training.peak_memory_bytes,
            bytes_on_disk=folder_bytes(context.run.model),
        ),
    }
    costs[TUNED_PROMPTED] = replace(costs[TUNED], seconds=training.seconds + ladder.costs.seconds)
    parts = {str(part): data.part(part) for part in Part}
    return TaskResult(
        task=task.id,
        kind=task.kind,
        metric=task.metric,
        rows={part: len(rows) for part, rows in parts.items()},
        groups={part: len({row.group for row in rows}) for part, rows in parts.items()},
        removed=Counter(removed.why for removed in data.split.removed),
        skipped=data.split.skipped,
        balance=data.balance,
        ladder=ladder.rungs,
        arms=tuple(contest.to_arm(c, data, costs=costs.get(c.name, Costs())) for c in everyone),
        comparisons=tuple(contest.against(other, best, seed=seed) for other in others),
        templates=tuple(score for each in wordings for score in each.scores),
        mistakes=contest.worst_mistakes(best),
        phrasings=tuple(w.phrasings(seed=seed) for w in wordings) if data.held_out else (),
        labels=task.labels,
        learnt=learnt(
            best.marked.examples,
            best.marked.predictions,
            labels=task.choices,
            counts=data.balance.get(Part.TRAIN),
            metric=task.metric,
            seed=seed,
        ),
        rivals=tuple(contest.against(a, b, seed=seed) for a, b in combinations(others, 2)),
        probabilities=judge_probabilities(everyone, fitted, seed=seed) if fitted else None,
        search=ladder.search,
        max_new_tokens=task.max_new_tokens,
    )


def sum_up(
    context: RunContext,
    trained: Trained,
    results: Sequence[TaskResult],
    forgotten: Sequence[GuardResult],
    mix: Sequence[MixLine],
    *,
    interpolation: Interpolation | None,
) -> RunSummary:
    """Gather every figure of the run."""
    from instil.model.load import folder_bytes

    manifest = load_manifest(context.run.folder)
    budget = check_budget(forgotten, budget=context.recipe.forgetting.budget)
    margins = margins_of(context.recipe)
    opened, stored = manifest[OPENED], folder_bytes(context.model.path)
    bought, forgetting, price = verdict(results, forgotten, training=trained.summary)
    limited: tuple[str, ...] = ()
    if interpolation is not None and (law := interpolation.law):
        limited = (law_sentence(law), limit_sentence(law, exported=interpolation.chosen))
    sentences = (
        not_learnt(results, training=trained.summary),
        looks_sentence(len(opened)),
        bought,
        use_sentence(results, model_bytes=stored),
        forgetting,
        *kept_sentences(forgotten, margins),
        price,
        budget_sentence(budget) if budget else "",
        *limited,
    )
    # One training row of each task through every template, for people to read.
    turns = []
    for d in context.data:
        for t in (*d.templates, *d.held_out):
            example = render_example(d.task, t, d.train[0])
            parts = (Message("system", t.system), Message("user", t.prompt))
            wording = tuple(part for part in parts if part.content)
            shown, used = example.answer.shown, t in d.templates
            turn = Turn(t.id, t.role, example.messages, shown, wording, used, d.task.id)
            turns.append(turn)
    return RunSummary(
        name=context.run.name,
        model=context.model.name,
        model_parameters=trained.base_parameters,
        model_bytes=stored,
        model_licence=context.model.licence,
        tasks=tuple(results),
        training=trained.summary,
        forgetting=tuple(forgotten),
        verdict=tuple(sentence for sentence in sentences if sentence),
        budget=budget,
        mean_change=mean_change(forgotten),
        margins=margins,
        turns=tuple(turns),
        token_view=trained.token_view,
        stage_seconds=manifest["stage_seconds"],
        processor_seconds=manifest["stage_processor_seconds"],
        forecast_seconds=manifest["forecast_seconds"],
        test_opened=opened[-1],
        looks=len(opened),
        seed=context.recipe.seed,
        mix=tuple(mix),
        averages=averages(results),
        sweep=trained.sweep,
    )
