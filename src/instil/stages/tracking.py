"""`track:` in the recipe: steps, looks at validation and final figures go to a tracker too.

The run directory stays what counts: a tracker is told what is written there, and one that fails is
let go of with a line, never the run. Each is a few lines over its own client, an extra to install::

    tensorboard   files in RUN/tensorboard           pip install tensorboard
    mlflow        MLFLOW_TRACKING_URI, or RUN/mlflow.db  pip install mlflow-skinny sqlalchemy
    wandb         its own login, or WANDB_MODE=offline   pip install wandb
    trackio       its own folder                     pip install trackio

Tests: `tests/stages/test_tracking.py`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from instil.config.recipe import Track
from instil.errors import RunError
from instil.results.names import TUNED
from instil.results.run import RunSummary
from instil.types import Step

Figures = Mapping[str, float]
Log = Callable[[Figures, int], None]
"""Called with figures by name and the step they belong to."""
Close = Callable[[], None]
Settings = dict[str, Any]


@dataclass
class Tracker:
    """Tells a tracker what the run directory holds."""

    say: Callable[[str], None]
    """Shows one line."""
    log: Log | None = None
    """None: nothing is tracked, or the tracker failed."""
    end: Close = lambda: None
    """Called at the end."""
    told: int = 0
    """The last step that was told."""

    def steps(self, steps: Sequence[Step]) -> None:
        """Tell steps that have not been told yet."""
        for step in steps:
            if step.step > self.told:
                self._tell(step_figures(step), step.step)
                self.told = step.step

    def finish(self, summary: RunSummary) -> None:
        """Tell the final figures, and end."""
        self._tell(final_figures(summary), summary.training.steps, last=True)

    def _tell(self, figures: Figures, step: int, *, last: bool = False) -> None:
        if self.log is None:
            return
        try:
            self.log(figures, step)
            if last:
                self.end()
        except Exception as error:
            self.log = None
            self.say(f"tracking has ended: {type(error).__name__}; the run goes on")


def step_figures(step: Step) -> dict[str, float]:
    """Return a step's figures, in Hugging Face's names: `train/...` and `eval/...`."""
    figures = {}
    of_fields = {field.name: getattr(step, field.name) for field in fields(step)}
    for name, value in {**of_fields, **step.terms}.items():
        if isinstance(value, int | float) and name != "step" and math.isfinite(value):
            evaluated = name.startswith("validation_")
            part = "eval" if evaluated else "train"
            figures[f"{part}/{name.removeprefix('validation_')}"] = float(value)
    return figures


def final_figures(summary: RunSummary) -> dict[str, float]:
    """Return the test's figures of every arm, and what the guard lost."""
    figures = {}
    for task in summary.tasks:
        for arm in task.arms:
            for metric, figure in arm.summaries.items():
                name = f"test/{task.task}/{arm.name}/{metric}"
                figures[name] = figure.mean
                if arm.name == TUNED:
                    figures[f"{name}/low"], figures[f"{name}/high"] = figure.low, figure.high
    for guard in summary.forgetting:
        change = guard.comparison
        figures[f"forgetting/{guard.task}/{change.metric}"] = change.difference
    if (mean := summary.mean_change) is not None:
        figures[f"forgetting/mean/{mean.metric}"] = mean.difference
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def require_tracker(track: Track | None) -> None:
    """Refuse a tracker that is not installed, before anything is computed.

    Raises:
        RunError: Its package is not installed.
    """
    if track is None:
        return
    if find_spec(track) is None:
        raise RunError(
            f"track: {track} needs a package that is not installed",
            where="track",
            fix=f"pip install {track}, or take the line out of the recipe",
        )


def open_tracker(
    track: Track | None,
    *,
    settings: Mapping[str, Any],
    folder: Path,
    run_id: str,
    say: Callable[[str], None],
) -> Tracker:
    """Open what the recipe asks for; a run that goes on goes on there too.

    Args:
        track: Which one; None: none.
        settings: The recipe; of paths in it only the files' names are told.
        folder: The run directory.
        run_id: The run's id, by which a tracker finds it again.
        say: Shows one line.
    """
    tracker = Tracker(say)
    if track is None:
        return tracker
    try:
        tracker.log, tracker.end = TRACKERS[track](_without_paths(settings), folder, run_id)
    except Exception as error:
        say(f"tracking cannot begin: {type(error).__name__}; the run goes on")
    return tracker


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_paths(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    # `Path.exists` raises for a text that is too long for a name.
    return Path(value).name if isinstance(value, str) and os.path.exists(value) else value


def _tensorboard(settings: Settings, folder: Path, run_id: str) -> tuple[Log, Close]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def log(figures: Figures, step: int) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log, writer.close


def _mlflow(settings: Settings, folder: Path, run_id: str) -> tuple[Log, Close]:
    import mlflow

    where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(where)
    experiment = client.get_experiment_by_name("instil")
    number = experiment.experiment_id if experiment else client.create_experiment("instil")
    known = client.search_runs([number], f"tags.`instil.run` = '{run_id}'")
    run = known[0] if known else client.create_run(number, tags={"instil.run": run_id})
    place = run.info.run_id
    if not known:
        for name, value in settings.items():
            client.log_param(place, name, str(value)[:500])

    def log(figures: Figures, step: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [mlflow.entities.Metric(n, v, now, step) for n, v in figures.items()]
        client.log_batch(place, metrics=metrics)

    return log, lambda: client.set_terminated(place)


def _wandb(settings: Settings, folder: Path, run_id: str) -> tuple[Log, Close]:
    import wandb

    run = wandb.init(
        project="instil",
        id=run_id,
        name=folder.name,
        resume="allow",
        dir=str(folder),
        config=settings,
    )
    return lambda figures, step: run.log(dict(figures), step=step), run.finish


def _trackio(settings: Settings, folder: Path, run_id: str) -> tuple[Log, Close]:
    import trackio

    name = f"{folder.name}-{run_id[:8]}"
    trackio.init(project="instil", name=name, resume="allow", config=settings)
    return lambda figures, step: trackio.log(dict(figures), step=step), trackio.finish


TRACKERS: Mapping[Track, Callable[[Settings, Path, str], tuple[Log, Close]]] = {
    Track.TENSORBOARD: _tensorboard,
    Track.MLFLOW: _mlflow,
    Track.WANDB: _wandb,
    Track.TRACKIO: _trackio,
}
