"""The search for a prompt: what was tried, what it took, and the prompt that sets the bar."""

from __future__ import annotations

from collections.abc import Sequence

from instil import format as fmt
from instil.report.page import Block, Note, Turns, table
from instil.report.parts import capital, chosen_cell, summary_cell
from instil.results.prompts import Demonstrations, Search, Searched
from instil.results.tasks import TaskResult

SHOWN = 20
"""Ways in the table; the others are counted."""
_DRAWS = {
    "": "none",
    "random": "random",
    "balanced": "classes in turn",
    "hard": "answered wrong by the base model",
    "words": "nearest by TF-IDF",
    "states": "nearest by hidden state",
    "words_balanced": "nearest by TF-IDF, classes in turn",
    "states_balanced": "nearest by hidden state, classes in turn",
}
_ORDERS = {0: "", 1: ", the other way round"}


def search_blocks(task: TaskResult) -> tuple[Block, ...]:
    """Return what the search took, the best ways, and the bar's prompt."""
    search = task.search
    if search is None:
        return (Note("No search was made."),)
    return (
        Note(search_sentence(search)),
        Note(_effort(search)),
        Turns((search.shown,)),
        _ways(search),
        *_instructions(search),
    )


def search_sentence(search: Search) -> str:
    """Say which way of asking sets the bar."""
    shown = search.demonstrations
    with_shown = f"{fmt.plural(shown.shots, 'worked example')} ({of_draw(shown)})" if shown else ""
    way = (
        f"instruction {search.template.id}, {with_shown or 'no worked examples'}, "
        f"{search.scoring} scoring: {fmt.interval(search.summary)} on "
        f"{fmt.plural(search.summary.scored, 'validation row')}"
    )
    if not search.better:
        return f"No way that was searched for had a higher mean than the ladder's best: {way}."
    return (
        f"The bar for tuning: {way}. The best of so many tries flatters itself on the rows that it "
        "was chosen on; what it is worth stands under the arms on test. Below is its prompt for "
        "the first validation row."
    )


def of_draw(shown: Demonstrations | Searched) -> str:
    """Return in words how worked examples are chosen."""
    order = _ORDERS.get(shown.order, f", shuffled by {shown.order}")
    seed = f", seed {shown.seed}" if shown.draw in ("random", "balanced", "hard") else ""
    return f"{_DRAWS.get(shown.draw, shown.draw)}{seed}{order}"


def _effort(search: Search) -> str:
    whole = sum(way.asked_all for way in search.ways)
    left = "".join(f"; {fmt.plural(n, 'way')} not: {why}" for why, n in search.left_out.items())
    return (
        f"{fmt.plural(len(search.ways), 'way')} of asking were tried by successive halving, "
        f"{fmt.count(whole)} of them on all validation rows{left}. That took "
        f"{fmt.plural(search.prompts, 'prompt')} of {fmt.count(search.budget)} allowed and "
        f"{fmt.seconds(search.seconds)}."
    )


def _ranked(search: Search) -> Sequence[Searched]:
    sign = 1 if search.summary.higher_is_better else -1
    return sorted(search.ways, key=lambda way: (not way.asked_all, -sign * way.summary.mean))


def _ways(search: Search) -> Block:
    ranked = _ranked(search)
    rows = [
        (
            chosen_cell(way.template, ["the bar" * first], chosen=first),
            of_draw(way),
            str(way.shots),
            way.scoring,
            str(way.summary.scored + way.summary.unscored),
            summary_cell(way.summary),
            fmt.tokens(way.prompt_tokens),
        )
        for way in ranked[:SHOWN]
        for first in (search.better and way is ranked[0],)
    ]
    more = len(ranked) - len(rows)
    metric = capital(fmt.style(search.summary.metric).label)
    return table(
        "The best ways, those asked all rows first, each by its best scoring rule",
        ("Instruction", "Worked examples", "Shots", "Scoring", "Rows", metric, "Tokens a prompt"),
        rows,
        f"{fmt.plural(more, 'more way')} in summary.json." if more > 0 else "",
        words=("Worked examples", "Scoring"),
        fold=f"The best {fmt.plural(len(rows), 'way')} as a table",
    )


def _instructions(search: Search) -> tuple[Block, ...]:
    if not search.instructions:
        return ()
    rows = list(search.instructions.items())
    return (
        table(
            "Words added to the task's templates; `written` are the base model's own",
            ("Instruction", "Words"),
            rows,
            words=("Words",),
            fold=f"{fmt.plural(len(rows), 'instruction')} beside the task's own templates",
        ),
    )
