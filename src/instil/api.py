"""instil from Python: the commands as functions, and a run as an object.

::

    import instil

    run = instil.run("reviews.recipe.yaml")
    print(*run.verdict)
    run.predict(["It broke after a week."])    # [{"prediction": "bad", "probabilities": {...}}]
    run.compare(instil.load("runs/other"))

The package offers them without importing anything until they are used.

Tests: `tests/test_pipeline.py`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from instil import format as fmt
from instil.config.recipe import load_recipe
from instil.pipeline import compare_runs, run_recipe
from instil.results.run import RunSummary
from instil.ship.export import Exported
from instil.ship.export import export as write_export
from instil.ship.formats import Format, Quantization
from instil.ship.predict import predict_rows
from instil.ship.shipped import load_run_model
from instil.ship.verify import Verified
from instil.ship.verify import verify as hold
from instil.stages.check import Forecast, check_recipe
from instil.stages.runfiles import REPORT, load_summary
from instil.types import Comparison

if TYPE_CHECKING:
    from instil.model.load import LoadedModel


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    """The run directory."""

    @cached_property
    def results(self) -> RunSummary:
        """Every figure that the report shows."""
        return load_summary(self.folder)

    @property
    def verdict(self) -> tuple[str, ...]:
        """What training bought, and at what price, in plain sentences."""
        return self.results.verdict

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.folder / REPORT

    @cached_property
    def _model(self) -> LoadedModel:
        return load_run_model(self.folder)

    def predict(
        self,
        rows: Sequence[Mapping[str, object] | str],
        *,
        template: str = "",
        max_error: float | None = None,
    ) -> list[dict[str, object]]:
        """Let the tuned model answer rows; it is loaded once.

        Args:
            rows: Mappings with the columns of the run's task, or texts alone.
            template: A template's id, or `task/template` in a run of several tasks; empty: the one
                that the run was judged with.
            max_error: Answer only rows that are sure enough for this share of wrong answers among
                those given; None: all.

        Returns:
            For each row `prediction`; with choices also `probabilities` and, where the data have
            other values than these words, `prediction_value`; with `max_error` also `unanswered`,
            the reason where a row has no answer; without choices `stopped`; `shortened`, true,
            where the text was beyond the model's context, and the run shortens such rows.

        Raises:
            InstilError: The run is not what was written, it is not clear which task is meant, a
                column is missing, or a row is longer than the model's context.
        """
        if isinstance(rows, str):
            rows = [rows]
        return predict_rows(
            self.folder, rows, template=template, max_error=max_error, loaded=self._model
        )

    def compare(self, other: Run) -> list[Comparison]:
        """Compare another run's tuned model with this one's, on the test rows that both scored.

        Returns:
            `other` minus this run, one a task and metric, with 95 % intervals.

        Raises:
            RunError: A run is not what was written, or the two share no test rows of a task.
        """
        return compare_runs(self.folder, other.folder)

    def export(self, out: Path | str, *, format: str = "hf", quantize: str = "f16") -> Exported:
        """Write the model for use without instil, as `instil export` does.

        Args:
            out: The folder to make.
            format: hf, merged, gguf, gguf-lora or ollama.
            quantize: How a GGUF file keeps matrices.

        Raises:
            RunError, ModelError: As `ship.export.export`.
        """
        return write_export(
            self.folder, out=Path(out), form=Format(format), quantize=Quantization(quantize)
        )

    def verify(self, target: Path | str, *, rows: int = 50) -> Verified:
        """Hold a model, wherever it runs, against the run's own, as `instil verify` does.

        Args:
            target: An exported folder, a GGUF file, or the address of a server.
            rows: Validation rows to ask.

        Raises:
            RunError: As `ship.verify.verify`.
        """
        return hold(str(target), run=self.folder, rows=rows)

    def _repr_html_(self) -> str:
        """Show the verdict and the contenders in a notebook."""
        parts = [f"<p>{html.escape(sentence)}</p>" for sentence in self.verdict]
        for task in self.results.tasks:
            rows = "".join(
                f"<tr><td>{html.escape(arm.label)}</td>"
                f"<td>{html.escape(fmt.interval(arm.summaries[task.metric]))}</td></tr>"
                for arm in task.arms
            )
            metric = html.escape(fmt.style(task.metric).label)
            head = f"<tr><th>{html.escape(task.task)}</th><th>{metric} (95 % interval)</th></tr>"
            parts.append(f"<table>{head}{rows}</table>")
        return "".join([*parts, f"<p>report: <code>{html.escape(str(self.report))}</code></p>"])


def run(
    recipe: str | Path,
    *,
    changes: Sequence[str] = (),
    folder: str | Path | None = None,
    again: bool = False,
) -> Run:
    """Do all that a recipe says: split, prompt, train, test, compare, report.

    Args:
        recipe: The recipe, a YAML file.
        changes: Keys to change, as `instil run --set` takes them: `["train.learning_rate=1e-4"]`.
        folder: The run directory, or its address (`s3://...`); None: `runs/NAME-OF-THE-RECIPE`.
        again: Where the directory exists: take that run, or resume it, if its recipe is the
            same; else use the next free name.

    Raises:
        InstilError: Whatever the user can mend.
    """
    from instil.cli.folders import place_run
    from instil.cli.options import place as place_at
    from instil.cli.progress import make_progress

    path = Path(recipe)
    wanted = load_recipe(path, overrides=changes)
    to = place_at(str(folder)) if folder else None
    place = place_run(path, wanted, folder=to, again=again)
    if not place.finished:
        with make_progress() as progress:
            if place.passed:
                progress.console.print(place.passed)
            run_recipe(wanted, folder=place.folder, resume=place.begun, progress=progress)
    return load(place.folder)


def check(recipe: str | Path, *, changes: Sequence[str] = ()) -> Forecast:
    """Look at everything that a run would use; fetches what is not here yet, trains nothing.

    Args:
        recipe: The recipe, a YAML file.
        changes: As in `run`.

    Raises:
        InstilError: Whatever would stop the run.
    """
    return check_recipe(load_recipe(Path(recipe), overrides=changes))


def load(folder: str | Path) -> Run:
    """Return a finished run.

    Args:
        folder: The run directory, or its address.

    Raises:
        RunError: The folder holds none.
    """
    from instil.cli.options import place

    loaded = Run(place(str(folder)))
    _ = loaded.results
    return loaded
