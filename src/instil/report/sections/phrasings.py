"""Robustness to wording: every phrasing by itself, and those held out of training together."""

from __future__ import annotations

from collections.abc import Sequence

from instil import format as fmt
from instil.compare.verdict import outcomes
from instil.report.page import Block, Cell, Note, Plot, Plots, table
from instil.report.parts import (
    capital,
    difference_cell,
    ordered,
    row_mark,
    score_axis,
    summary_cell,
)
from instil.results.names import PROBE, PROMPTING, TFIDF, TUNED, TUNED_PROMPTED, ZERO_SHOT
from instil.results.prompts import TemplateScore
from instil.results.tasks import Phrasings, TaskResult

ARMS = (TUNED, TUNED_PROMPTED, PROMPTING, ZERO_SHOT, TFIDF, PROBE)
"""In the order in which tables and legends have them."""


def wording_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return how far each arm depends on the wording of the template."""
    if not task.templates:
        return (Note("Only one template was scored on test."),)
    rows = tuple(dict.fromkeys(score.template for score in task.templates))
    arms = ordered((score.arm for score in task.templates), ARMS)
    labels = tuple(map(task.label, arms))
    metric = task.templates[0].summary.metric
    count, whole = _asked(task), task.rows.get("test", 0)
    asked = "the test rows" if count >= whole else f"the first {count} of {whole} test rows"
    plot = Plot(
        f"{capital(fmt.style(metric).label)} on test by template",
        f"{len(rows)} templates, each scored on {asked} with {' and '.join(labels)}. The "
        "table gives the figures.",
        score_axis(metric, (score.summary for score in task.templates)),
        rows=rows,
        series=labels,
        marks=tuple(row_mark(s.template, task.label(s.arm), s.summary) for s in task.templates),
    )
    figures = []
    for arm in arms:
        scores = _scores(task, arm)
        low, high = scores[0].summary, scores[-1].summary
        mean = sum(score.summary.mean for score in scores) / len(scores)
        figures.append(
            (
                task.label(arm),
                str(len(scores)),
                fmt.figure(mean, low.metric),
                Cell(fmt.figure(high.mean, low.metric), scores[-1].template),
                Cell(fmt.figure(low.mean, low.metric), scores[0].template),
                _spread(scores),
            )
        )
    titles = ("Arm", "Templates", "Mean over templates", "Highest", "Lowest", "Spread")
    note = f"Spread: highest minus lowest. Asked: {asked}."
    drawn = table("How far the wording matters", titles, figures, note)
    return (Plots((plot,)), drawn, *phrasing_blocks(task))


def phrasing_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return seen against held-out phrasings, an arm a line; nothing where none was held out."""
    if not task.phrasings:
        return ()
    shown = outcomes([of_arm.comparison for of_arm in task.phrasings])
    rows = [
        (
            task.label(phrasings.arm),
            summary_cell(phrasings.seen),
            summary_cell(phrasings.unseen),
            difference_cell(phrasings.comparison, outcome, words="held out is"),
            _worst(task, phrasings.arm),
            _spread(_scores(task, phrasings.arm, held_out=False)),
            _spread(_scores(task, phrasings.arm, held_out=True)),
        )
        for phrasings, outcome in zip(task.phrasings, shown, strict=True)
    ]
    names = dict.fromkeys(score.template for score in task.templates if score.held_out)
    count = _asked(task)
    note = (
        f"Held out of training: {', '.join(names)}. {count} test rows went through every "
        "phrasing; the difference is paired by row, and its interval takes groups as a whole. It "
        "is about these phrasings: others may do otherwise."
    )
    titles = (
        "Arm",
        "Seen phrasings",
        "Held-out phrasings",
        "Held out minus seen",
        "Worst held out",
        "Spread, seen",
        "Spread, held out",
    )
    return (table("Phrasings that training never saw", titles, rows, note),)


def _asked(task: TaskResult) -> int:
    """Count the test rows that went through every template."""
    return max(each.summary.scored + each.summary.unscored for each in task.templates)


def phrasing_sentence(task: TaskResult, phrasings: Phrasings) -> str:
    """Say one arm's figures over seen and held-out phrasings in a line."""
    seen, unseen = fmt.interval(phrasings.seen), fmt.interval(phrasings.unseen)
    worst = _worst(task, phrasings.arm)
    return (
        f"{task.label(phrasings.arm)}: seen phrasings {seen}, held out {unseen}, "
        f"{fmt.change_with_interval(phrasings.comparison)}; worst held out {worst.text} "
        f"({worst.detail})"
    )


def _scores(task: TaskResult, arm: str, *, held_out: bool | None = None) -> list[TemplateScore]:
    """Return an arm's scores, the lowest first; of held-out phrasings alone, or of seen ones."""
    own = [s for s in task.templates if s.arm == arm and held_out in (None, s.held_out)]
    return sorted(own, key=lambda score: score.summary.mean)


def _worst(task: TaskResult, arm: str) -> Cell:
    worst = _scores(task, arm, held_out=True)[0]
    return Cell(fmt.figure(worst.summary.mean, worst.summary.metric), worst.template)


def _spread(scores: Sequence[TemplateScore]) -> str:
    low, high = scores[0].summary, scores[-1].summary
    return fmt.size_of_change(high.mean - low.mean, low.metric)
