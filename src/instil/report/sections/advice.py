"""What is advised before a training, and what came of it on test.

Tests: `tests/stages/test_advice.py`.
"""

from __future__ import annotations

from instil import format as fmt
from instil.compare.advice import GROWTH, MAJORITY, SURE, WORTH, answers_until_paid
from instil.compare.verdict import could_show
from instil.report.page import Block, Note, Table, table
from instil.report.parts import chosen_cell
from instil.results.advice import Advice, Way
from instil.results.names import PROMPTING, TUNED
from instil.results.run import RunSummary
from instil.types import Summary

TITLES = ("Way", "Validation", "Expected", "Chance it is wrong", "Tokens an answer")


def advice_blocks(summary: RunSummary) -> tuple[Block, ...]:
    """Return the advice of each task beside what became of it on test."""
    blocks: list[Block] = []
    results = {task.task: task for task in summary.tasks}
    for advice in summary.advice:
        lines = advice_lines(advice)
        arms = {way.name: results[advice.task].arm(way.name) for way in advice.ways}
        tested = {
            name: arm.summaries[advice.metric] for name, arm in arms.items() if arm is not None
        }
        blocks += [Note(lines[0]), advice_table(advice, tested=tested), *map(Note, lines[1:])]
    return tuple(blocks)


def advice_table(advice: Advice, *, tested: dict[str, Summary] | None = None) -> Table:
    """Return the ways, the cheapest first; with `tested` (way -> score) also what came of them."""
    rows = []
    for n, way in enumerate(advice.ways):
        chosen = n == advice.chosen
        cells = [
            chosen_cell(way.label, ["advised"] * chosen, chosen=chosen),
            fmt.interval(way.seen),
            _expected(way, advice.metric),
            fmt.percent(way.risk),
            fmt.tokens(way.tokens) if way.tokens else fmt.MISSING,
        ]
        if tested is not None:
            cells.insert(3, fmt.interval(tested[way.name]) if way.name in tested else fmt.MISSING)
        rows.append(cells)
    titles = list(TITLES)
    if tested is not None:
        titles.insert(3, "Test")
    note = (
        f"Wrong: another way is better by more than {_points(WORTH)}. The cheapest way that is "
        f"wrong with a chance of at most {fmt.percent(SURE)} is advised."
    )
    return table(f"Ways to do {advice.task}", titles, rows, note)


def advice_lines(advice: Advice) -> list[str]:
    """Return what to do, what that rests on, and what it costs, in sentences."""
    way = advice.way
    chance = fmt.percent(way.risk) if way.risk >= 0.005 else "below 1 %"
    rows = fmt.plural(advice.rows, "validation row")
    if 0 < advice.groups < advice.rows:
        rows += f" of {fmt.plural(advice.groups, 'group')}"
    lines = [
        f"{advice.task}: {_do(way)}. The chance that another way is better by more than "
        f"{_points(WORTH)} is {chance}, by {rows}."
    ]
    if way.risk > SURE:
        lines.append(
            f"These rows do not settle it: no way is wrong with a chance of {fmt.percent(SURE)} or "
            "less. More validation rows tell more; a whole run, with its test, tells most."
        )
    if advice.tried < 1:
        lines.append(
            f"The short try took {fmt.percent(advice.tried)} of the training. What the rest adds "
            f"is reckoned as {fmt.percent(GROWTH.mean)} of what is missing to a perfect score, "
            f"give or take {fmt.percent(GROWTH.deviation)}, as whole trainings did."
        )
    if (pair := advice.twice_the_rows) is not None:
        probed = fmt.count(advice.probed) if advice.probed else "all"
        lines.append(
            f"Training rows: the linear probe on {probed} of them is {fmt.plain_change(pair)} "
            f"({fmt.plain_interval(pair)}) against half of them{could_show(pair, rows='rows')}. "
            "Twice as many rows seldom add more than the last doubling did."
        )
    lines.append(_paid_back(advice))
    if (pair := advice.text) is not None:
        lines.append(
            "What the model forgets: prompting, TF-IDF and the probe leave it as it is. The short "
            f"try changed general text by {fmt.plain_change(pair)} ({fmt.plain_interval(pair)}); a "
            "whole training changes more. If that matters to you: `keep.replay.share`, and a "
            "`forgetting.budget` or `forgetting.margin` to hold it to."
        )
    return [line for line in lines if line]


def _do(way: Way) -> str:
    if way.name == MAJORITY:
        return (
            "more rows, or better labels, come first: nothing that was tried is expected to beat "
            f"{way.label}"
        )
    return f"tune: {way.label}" if way.name == TUNED else f"do not tune: {way.label} will do"


def _paid_back(advice: Advice) -> str:
    """Say after how many answers a training is paid back by shorter prompts."""
    read = {way.name: way.tokens for way in advice.ways}
    prompt, tuned = read[PROMPTING], read[TUNED]
    answers = answers_until_paid(advice.training_tokens, prompt=prompt, tuned=tuned)
    costs = f"Training computes as much as reading {fmt.count(advice.training_tokens)} tokens"
    if answers is None:
        return f"{costs}; the tuned model's prompts are no shorter than the best prompt."
    return (
        f"{costs}. The tuned model reads {fmt.count(tuned)} tokens an answer, the best prompt "
        f"{fmt.count(prompt)}: paid back after {fmt.count(answers)} answers, if what prompts begin "
        "with is not kept from one to the next."
    )


def _expected(way: Way, metric: str) -> str:
    found = way.expected
    return fmt.interval(Summary(metric, found.mean, found.low, found.high, scored=0))


def _points(share: float) -> str:
    return fmt.plural(round(100 * share), "point")
