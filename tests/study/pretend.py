"""Arms that were never run: the files that a study reads, with scores that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from instil.config.recipe import to_yaml
from instil.files import write_whole
from instil.results.run import RunSummary
from instil.results.tasks import Arm, Costs, TaskResult
from instil.results.training import TrainingSummary
from instil.stages.directory import Run, save_summary
from instil.study.folder import Job, StudyFolder, Work
from instil.tasks.task import load_task
from instil.types import Summary

Score = Callable[[Job, str, int], float]
"""Job, `task/arm`, row -> its score."""
ROWS = 40


def pretend(score: Score) -> Callable[[StudyFolder, Sequence[Sequence[Job]]], None]:
    """Return what stands in for running jobs."""

    def execute(folder: StudyFolder, chains: Sequence[Sequence[Job]]) -> None:
        for job in (job for chain in chains for job in chain):
            if not folder.finished(job):
                folder.lay_out(job)
                _write(folder, job, score)

    return execute


def _write(folder: StudyFolder, job: Job, score: Score) -> None:
    run = Run(folder.arm(job.name))
    write_whole(run.folder / "recipe.yaml", to_yaml(job.recipe).encode())
    run.note(format_version=1)  # without a ledger: no run has written what follows
    results = []
    for use in job.recipe.tasks:
        task = load_task(use.use)
        tuned = ("tuned", *(["tuned_prompted"] if job.recipe.mix.few_shot == "best" else []))
        names = {Work.RUN: (*tuned, "prompting"), Work.PROMPT: ("prompting",)}
        arms = names.get(job.work, ("tuned",))
        run.write_scores(f"test-{task.id}", _lines(job, task.id, task.metric, arms, score))
        results.append(_result(task.id, task.metric, arms, use.train or 0))
    if job.work is Work.ASK:
        write_whole(run.folder / "state" / "asked.json", b"{}")
    elif job.work is Work.PROMPT:
        arms = {result.task: result.arms[0] for result in results}
        data = TypeAdapter(dict[str, Arm]).dump_json(arms)
        write_whole(run.folder / "state" / "prompted.json", data)
    else:
        run.write_scores("guard", _guard(job, score))
        save_summary(run, _summary(job, tuple(results)))
        write_whole(run.folder / "report.html", b"")
    if job.merge:
        folder.merged(job.name).mkdir()


def _lines(job: Job, task: str, metric: str, arms: Sequence[str], score: Score) -> list[dict]:
    return [
        {"arm": arm, "task": task, "row": str(n), "group": str(n // 2), "metric": metric,
         "value": score(job, f"{task}/{arm}", n)}
        for arm in arms
        for n in range(ROWS)
    ]  # fmt: skip


def _guard(job: Job, score: Score) -> list[dict]:
    asked = (("general text", "nats_per_token"), ("trivia", "token_f1"))
    return [
        {"task": task, "metric": metric, "example": f"{task}/{n}", "group": str(n),
         "before": score(job, f"{task}/before", n), "after": score(job, f"{task}/after", n)}
        for task, metric in asked
        for n in range(12)
    ]  # fmt: skip


def _result(task: str, metric: str, arms: Sequence[str], rows: int) -> TaskResult:
    blank = Summary(metric, 0.5, low=0.4, high=0.6, scored=ROWS)
    found = tuple(
        Arm(name, f"{name} arm", "t", 0, "raw", {metric: blank}, costs=costs(name)) for name in arms
    )
    return TaskResult(
        task=task, kind="k", metric=metric, rows={"train": rows, "test": ROWS}, groups={},
        removed={}, skipped={}, balance={}, ladder=(), arms=found, comparisons=(), templates=(),
        mistakes=(),
    )  # fmt: skip


def costs(name: str) -> Costs:
    if name == "tuned":
        return Costs(10, 0.1, 60.0, 2_000_000_000, 20_000_000, 50.0, 8.0)
    return Costs(seconds=5.0, predictions_per_second=4.0)


def _summary(job: Job, tasks: tuple[TaskResult, ...]) -> RunSummary:
    training = TrainingSummary(
        method="lora", steps=10, best_step=10, epochs=1, stopped_early=False, learning_rate=5e-4,
        seconds=60, tokens_per_second=1, supervised_tokens=1, fates={}, trainable_parameters=1,
        trainable_share=0.1, peak_memory_bytes=1, dtype="float32",
    )  # fmt: skip
    return RunSummary(
        name=job.name, model=job.recipe.model, model_parameters=1, model_bytes=1,
        model_licence="x", tasks=tasks, training=training, forgetting=(), verdict=(), turns=(),
        token_view=(), stage_seconds={"training": 60.0}, test_opened="", seed=job.recipe.seed,
    )  # fmt: skip


def plain_recipe(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def lifted(base: float, **gains: float) -> Score:
    """Return 0/1 scores whose mean rises with the gain of each word that the job's name holds."""

    def score(job: Job, of: str, row: int) -> float:
        level = base + sum(gain for word, gain in gains.items() if word in f"{job.name} {of}")
        noise = ((row * 37 + job.recipe.seed * 11) % ROWS) / ROWS
        return float(noise < round(level, 9))

    return score
