"""All of it together: the contents of `summary.json`, from which every report is made.

`RunSummary` holds one `TaskResult` a trained task and one `GuardResult` a task that the model
should not forget.

Tests: `tests/compare/test_verdict.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instil.results.advice import Advice
from instil.results.guard import BudgetResult, GuardResult, Margins
from instil.results.keeping import Interpolation, Methods, Moved, Pruning
from instil.results.prompts import Turn
from instil.results.tasks import Average, TaskResult
from instil.results.training import MixLine, Sweep, TrainingSummary
from instil.types import Comparison, Piece


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Every figure that the report shows: `summary.json`."""

    name: str
    """The run's name."""
    model: str
    """The base model, as named in the recipe."""
    model_parameters: int
    """Parameters of the base model."""
    model_bytes: int
    """Bytes of the base model on disk."""
    model_licence: str
    """As stated by its publisher."""
    tasks: tuple[TaskResult, ...]
    """One a trained task."""
    training: TrainingSummary
    """How the training went."""
    forgetting: tuple[GuardResult, ...]
    """Guard tasks, then general text."""
    verdict: tuple[str, ...]
    """Two or three plain sentences."""
    turns: tuple[Turn, ...]
    """One rendered example a template."""
    token_view: tuple[Piece, ...]
    """One training example, token by token."""
    stage_seconds: Mapping[str, float]
    """stage -> seconds of wall time."""
    test_opened: str
    """When the test split was scored, ISO 8601."""
    seed: int
    """The run's seed."""
    format_version: int = 2
    """Of this file; 2: the loss' terms by name."""
    budget: BudgetResult | None = None
    """None where the recipe sets no forgetting budget."""
    mean_change: Comparison | None = None
    """Mean change over the guard tasks, each in its own metric, of 1; None: no guard task."""
    margins: Margins = field(default_factory=Margins)
    """As the recipe sets them."""
    mix: tuple[MixLine, ...] = ()
    """What an epoch of training held, a line a task."""
    averages: tuple[Average, ...] = ()
    """Over all tasks, and over those of one metric; empty with one task."""
    moved: Moved | None = None
    """None in runs of an earlier version."""
    interpolation: Interpolation | None = None
    """None where the tuned model is exported as it is."""
    pruning: Pruning | None = None
    """None where all of the tuning is exported."""
    looks: int = 1
    """How often the test was opened; more than once only where that was asked for."""
    sweep: Sweep | None = None
    """None where the recipe says the learning rate."""
    methods: Methods | None = None
    """None unless the recipe's method is auto."""
    processor_seconds: Mapping[str, float] = field(default_factory=dict)
    """stage -> processor time of all threads; empty in runs of an earlier version."""
    forecast_seconds: Mapping[str, float] = field(default_factory=dict)
    """stage -> seconds of wall time forecast before the run; without what came before that."""
    advice: tuple[Advice, ...] = ()
    """One a task; empty unless the run began with `instil advise`."""
