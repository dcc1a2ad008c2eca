"""Seen and held-out phrasings: what a run shows of words that training never used."""

from __future__ import annotations

from instil import format as fmt
from instil.compare.verdict import outcomes
from instil.report.page import Align, Block, Cell, Column, Table
from instil.report.parts import TONES, summary_cell, verdict_word
from instil.results import Phrasings, TaskResult, TemplateScore


def phrasing_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return seen against held-out phrasings, an arm a line; nothing where none was held out."""
    if not task.phrasings:
        return ()
    columns = (
        Column("Arm", Align.TEXT),
        Column("Seen phrasings"),
        Column("Held-out phrasings"),
        Column("Held out minus seen"),
        Column("Worst held out"),
        Column("Spread, seen"),
        Column("Spread, held out"),
    )
    shown = outcomes([found.comparison for found in task.phrasings])
    rows = []
    for found, outcome in zip(task.phrasings, shown, strict=True):
        change = fmt.change_with_interval(found.comparison)
        word = verdict_word(outcome, subject="held out is")
        rows.append(
            (
                Cell(_label(task, found.arm)),
                summary_cell(found.seen),
                summary_cell(found.unseen),
                Cell(change, word, TONES[outcome]),
                _worst(task, found.arm),
                Cell(_spread(_of(task, found.arm, held_out=False))),
                Cell(_spread(_of(task, found.arm, held_out=True))),
            )
        )
    count = max(each.summary.scored + each.summary.unscored for each in task.templates)
    note = (
        f"Held out of training: {', '.join(_names(task))}. {count} test rows went through every "
        "phrasing; the difference is paired by row, and its interval takes groups as a whole. It "
        "is about these phrasings: others may do otherwise."
    )
    return (Table("Phrasings that training never saw", columns, tuple(rows), note),)


def phrasing_sentence(task: TaskResult, found: Phrasings) -> str:
    """Say one arm's figures over seen and held-out phrasings in a line."""
    worst = _worst(task, found.arm)
    return (
        f"{_label(task, found.arm)}: seen phrasings {fmt.interval(found.seen)}, held out "
        f"{fmt.interval(found.unseen)}, {fmt.change(found.comparison)} "
        f"({fmt.change_interval(found.comparison)}); worst held out {worst.text} ({worst.detail})"
    )


def _names(task: TaskResult) -> tuple[str, ...]:
    return tuple(dict.fromkeys(score.template for score in task.templates if score.held_out))


def _of(task: TaskResult, arm: str, *, held_out: bool) -> list[TemplateScore]:
    return [s for s in task.templates if s.arm == arm and s.held_out is held_out]


def _worst(task: TaskResult, arm: str) -> Cell:
    worst = min(_of(task, arm, held_out=True), key=lambda score: score.summary.mean)
    return Cell(fmt.figure(worst.summary.mean, worst.summary.metric), worst.template)


def _spread(scores: list[TemplateScore]) -> str:
    means = [score.summary.mean for score in scores]
    return fmt.size_of_change(max(means) - min(means), scores[0].summary.metric)


def _label(task: TaskResult, name: str) -> str:
    found = next((arm.label for arm in task.arms if arm.name == name), "")
    return found or name.replace("_", " ")
