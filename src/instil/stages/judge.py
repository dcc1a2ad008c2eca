"""The last stages: the test, and everything that was found in one summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from instil.compare.average import averages
from instil.compare.cheapest import use_sentence
from instil.compare.learning import learnt
from instil.compare.verdict import budget_sentence, check_budget, not_learnt, verdict
from instil.data.build import render_example
from instil.data.prepare import TaskData
from instil.results import (
    PROBE,
    PROMPTING,
    TUNED,
    ZERO_SHOT,
    Arm,
    Costs,
    GuardResult,
    Learnt,
    Mistake,
    MixLine,
    Phrasings,
    Rung,
    RunSummary,
    TaskResult,
    TemplateScore,
    TrainingSummary,
    Turn,
)
from instil.stages.directory import SUMMED_UP, load_manifest
from instil.stages.opening import OPENED, TEST, Look, looks_sentence, open_test
from instil.stages.training import Trained
from instil.stages.untuned import ROBUSTNESS_ROWS, Bench, Ladder, load_base, load_tuned, score_files
from instil.types import Comparison, Message, Part, Row, Template

if TYPE_CHECKING:
    from instil.compare.forgetting import GuardScores, GuardTask
    from instil.model.load import LoadedModel, ModelFolder

GUARD_SCORES = "scores/guard.jsonl"


def test(
    bench: Bench,
    folder: ModelFolder,
    data: Sequence[TaskData],
    ladders: Mapping[str, Ladder],
    training: TrainingSummary,
    *,
    look: Look,
) -> tuple[TaskResult, ...]:
    """Judge every arm on the test rows: once, at the end.

    Raises:
        RunError: They have been looked at before, and another look is not asked for.
    """

    def judge() -> tuple[TaskResult, ...]:
        open_test(bench.run, look=look)
        base, tuned = load_base(bench.recipe, folder), load_tuned(bench, folder)
        return tuple(_judge_task(bench, base, tuned, d, ladders[d.task.id], training) for d in data)

    return bench.run.kept(TEST, tuple[TaskResult, ...], judge, files=score_files(data))


def _judge_task(
    bench: Bench,
    base: LoadedModel,
    tuned: LoadedModel,
    data: TaskData,
    ladder: Ladder,
    training: TrainingSummary,
) -> TaskResult:
    from instil.compare import contest
    from instil.compare.ladder import Prompting, best_rung, prompting
    from instil.evaluate.choices import RAW
    from instil.evaluate.suite import GENERATED

    seed, name = bench.recipe.seed, data.task.id
    with bench.stage(f"choosing a template for {name}") as done:
        template = contest.best_template(tuned, data, data.validation, seed=seed, on_done=done)
    way = Prompting(template)
    # Held-out phrasings are a question of their own, so they are asked on every test row.
    whole = data.held_out and not data.few_rows
    few = data.test if whole else data.test[:ROBUSTNESS_ROWS]
    scoring = RAW if data.task.choices else GENERATED
    with bench.stage(f"test {name}") as done:
        ask = partial(contest.ask, way=way, scoring=scoring, rows=data.test, on_done=done)
        best = ask(tuned, data, name=TUNED)
        rung = best_rung(ladder.rungs)
        shown = prompting(data, template=rung.template, shots=rung.shots, seed=seed)
        zero = bench.of_base(
            ZERO_SHOT,
            contest.Contender,
            partial(ask, base, data, name=ZERO_SHOT),
            inputs=(data.task, way, scoring, data.test),
        )
        others = [
            bench.of_base(
                PROMPTING,
                contest.Contender,
                partial(contest.ask_rung, base, data, rung, seed=seed, on_done=done),
                inputs=(data.task, shown, rung.scoring, data.test),
            ),
            zero,
        ]
        if data.task.choices and bench.recipe.baselines.tfidf:
            others.append(contest.ask_words(data, template))
        if data.task.choices and bench.recipe.baselines.probe:
            # Its template does not depend on the training, so that a study asks once.
            first = data.answering[0]
            others.append(
                bench.of_base(
                    PROBE,
                    contest.Contender,
                    partial(contest.ask_states, base, data, first, seed=seed, on_done=done),
                    inputs=(data.task, first, data.train, data.test),
                )
            )
    with bench.stage(f"wordings of {name}") as done:
        reword = partial(contest.over_templates, data=data, rows=few, on_done=done)
        wordings = [
            reword(tuned, asked=best),
            bench.of_base(
                "wordings",
                contest.Wordings,
                partial(reword, base, asked=zero),
                inputs=(data.task, data.answering, data.held_out, few),
            ),
        ]
    everyone = [best, *others]
    bench.run.write_scores(f"test-{name}", contest.score_lines(everyone))
    costs = arm_costs(bench, ladder, training)
    return task_result(
        data,
        ladder=ladder.rungs,
        arms=tuple(contest.to_arm(c, data, costs=costs.get(c.name, Costs())) for c in everyone),
        comparisons=tuple(contest.against(other, best, seed=seed) for other in others),
        rivals=tuple(contest.against(a, b, seed=seed) for a, b in combinations(others, 2)),
        templates=tuple(score for each in wordings for score in each.scores),
        mistakes=contest.worst_mistakes(best),
        phrasings=tuple(w.phrasings(seed=seed) for w in wordings) if data.held_out else (),
        learnt=learnt(
            best.marked.examples,
            best.marked.predictions,
            labels=data.task.choices,
            counts=data.balance.get(Part.TRAIN),
            seed=seed,
        ),
    )


def task_result(
    data: TaskData,
    *,
    ladder: tuple[Rung, ...],
    arms: tuple[Arm, ...],
    comparisons: tuple[Comparison, ...],
    templates: tuple[TemplateScore, ...],
    mistakes: tuple[Mistake, ...],
    phrasings: tuple[Phrasings, ...] = (),
    learnt: Learnt | None = None,
    rivals: tuple[Comparison, ...] = (),
) -> TaskResult:
    """Put a task's findings beside what is known of its rows."""
    parts = {str(part): data.part(part) for part in Part}
    return TaskResult(
        task=data.task.id,
        kind=data.task.kind,
        metric=data.task.metric,
        rows={part: len(rows) for part, rows in parts.items()},
        groups={part: _groups(rows) for part, rows in parts.items()},
        removed=Counter(removed.why for removed in data.split.removed),
        skipped=data.split.skipped,
        balance=data.balance,
        ladder=ladder,
        arms=arms,
        comparisons=comparisons,
        templates=templates,
        mistakes=mistakes,
        phrasings=phrasings,
        labels=data.task.labels,
        learnt=learnt,
        rivals=rivals,
    )


def _groups(rows: Sequence[Row]) -> int:
    return len({row.group for row in rows})


def arm_costs(bench: Bench, ladder: Ladder, training: TrainingSummary) -> dict[str, Costs]:
    """What choosing or training each arm took; speed and tokens are added from the test."""
    from instil.model.load import folder_bytes

    return {
        PROMPTING: Costs(seconds=ladder.seconds, peak_memory_bytes=ladder.peak_memory_bytes),
        ZERO_SHOT: Costs(peak_memory_bytes=ladder.peak_memory_bytes),
        TUNED: Costs(
            trainable_parameters=training.trainable_parameters,
            trainable_share=training.trainable_share,
            seconds=training.seconds,
            peak_memory_bytes=training.peak_memory_bytes,
            bytes_on_disk=folder_bytes(bench.run.model),
        ),
    }


def compare_guard(
    bench: Bench,
    guard: Sequence[GuardTask],
    before: Sequence[GuardScores],
    after: Sequence[GuardScores],
) -> tuple[GuardResult, ...]:
    """Pair the guard's scores before and after training; `scores/guard.jsonl` has every row."""
    from instil.compare.forgetting import guard_lines, ledger

    # A run that was finished and is gone on with writes these and the summary anew.
    bench.run.forget(SUMMED_UP)
    bench.run.write_scores("guard", guard_lines(guard, before, after))
    return ledger(guard, before, after)


def sum_up(
    bench: Bench,
    folder: ModelFolder,
    data: Sequence[TaskData],
    results: Sequence[TaskResult],
    forgotten: Sequence[GuardResult],
    trained: Trained,
    mix: Sequence[MixLine],
) -> RunSummary:
    """Gather every figure of the run."""
    from instil.model.load import folder_bytes

    manifest = load_manifest(bench.run.folder)
    budget = check_budget(forgotten, budget=bench.recipe.forgetting.budget)
    opened = manifest[OPENED]
    stored = folder_bytes(folder.path)
    bought, *rest = verdict(results, forgotten, training=trained.summary)
    use = use_sentence(results, model_bytes=stored)
    sentences = (bought, *([use] if use else []), *rest)
    if len(opened) > 1:
        sentences = (looks_sentence(len(opened)), *sentences)
    nothing = not_learnt(results, training=trained.summary)
    if nothing:
        sentences = (nothing, *sentences)
    return RunSummary(
        name=bench.run.name,
        model=folder.name,
        model_parameters=trained.base_parameters,
        model_bytes=stored,
        model_licence=folder.licence,
        tasks=tuple(results),
        training=trained.summary,
        forgetting=tuple(forgotten),
        verdict=(*sentences, budget_sentence(budget)) if budget else sentences,
        budget=budget,
        turns=tuple(turn for d in data for turn in rendered(d)),
        token_view=trained.token_view,
        stage_seconds=manifest["stage_seconds"],
        processor_seconds=manifest["stage_processor_seconds"],
        forecast_seconds=manifest["forecast_seconds"],
        test_opened=opened[-1],
        looks=len(opened),
        seed=bench.recipe.seed,
        mix=tuple(mix),
        averages=averages(results),
        sweep=trained.sweep,
    )


def rendered(data: TaskData) -> list[Turn]:
    """Render one training row through every template, for people to read."""
    templates = (*data.templates, *data.held_out)
    examples = [(t, render_example(data.task, t, data.train[0])) for t in templates]
    return [
        Turn(t.id, t.role, example.messages, example.answer.shown, _wording(t))
        for t, example in examples
    ]


def _wording(template: Template) -> tuple[Message, ...]:
    turns = (Message("system", template.system), Message("user", template.prompt))
    return tuple(turn for turn in turns if turn.content)
