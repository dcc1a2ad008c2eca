"""A search for the prompt that sets the bar: instruction x worked examples x scoring rule.

The ladder (`compare.ladder`) is a fixed list. The search goes on from its best rung, on the same
validation rows, in three races by successive halving (`compare.halving`: with half of the ways left
the rows double), each as large as its share of the budget of prompts allows:

1. instructions: the ladder's templates with words added, and ones that the base model writes
   (`compare.instructions`), each without and with the ladder's worked examples;
2. worked examples: the best few instructions of the ladder and of race 1, times draws
   (`compare.demonstrations`), times how many are shown;
3. the order of the best ones' worked examples.

Scoring rules cost nothing: a way is raced by the best of its rules. The bar is the best way that
was asked all rows; the ladder's best rung, which was too, stays the bar unless one has a higher
mean. That choice among many is optimistic on validation; the test judges it once.

A worked example: 150 validation rows and a budget of 60 prompts a row. 9,000 prompts pay for 250
prompts of preparing (rows that the model answers wrong, hidden states), about 20 instructions on 16
to 150 rows, and about 150 ways of race 2.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from instil.compare import demonstrations as demos
from instil.compare.demonstrations import Neighbours
from instil.compare.halving import Standing, affordable, doubling, race
from instil.compare.instructions import by_id, described, written
from instil.compare.ladder import (
    Prompting,
    ask_by_rules,
    asking_order,
    best_rung,
    in_order,
    standing,
)
from instil.data.build import render_example
from instil.data.prepare import TaskData
from instil.evaluate.choices import OnDone
from instil.evaluate.suite import Marked, answer, mark
from instil.model.load import LoadedModel
from instil.results.prompts import Demonstrations, Rung, Search, Searched, Turn
from instil.types import Row, Template

NO_BUDGET = "the budget of prompts did not reach"
TOO_FEW = "too few training rows to draw from"
TOO_LONG = "longer than the model's context"
MOST_SHORTENED = 0.1
"""Share of the rows, at most, whose prompts leave worked examples out to fit the context."""
FEWEST_HARD = 20
"""Training rows to ask, at least, for the hard ones among them."""
BLANK = 1
"""Content-free prompts that a look takes of a way, for calibration."""
MOST_POOL = 2000
"""Training rows to look for near ones among, at most."""
MOST_HARD = 200
"""Training rows to ask for hard ones among them, at most."""
TURN_BYTES = 64
"""For the marks around a turn, generously: prompts that fit by far are not tokenized to see it."""
WRONG = 0.5
"""A training row that scores less is a hard one."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is tried."""

    prompts_a_row: int
    """The budget, by validation row."""
    written: int
    """Instructions that the model is asked for."""
    bases: int
    """Templates of the task that words are added to, the ladder's best first."""
    instructions: int
    """Instructions that go on to worked examples."""
    draws: tuple[tuple[str, int], ...]
    """Draws of worked examples: name, and which seed."""
    counts: tuple[int, ...]
    """Numbers of worked examples, beside those of the ladder."""
    orders: int
    """Orders tried of the best worked examples, beside their own."""


EXTENTS = {
    "quick": Extent(
        prompts_a_row=16,
        written=2,
        bases=1,
        instructions=2,
        draws=((demos.BALANCED, 1), (demos.RANDOM, 0), (demos.WORDS, 0), (demos.HARD, 0)),
        counts=(3,),
        orders=1,
    ),
    "full": Extent(
        prompts_a_row=60,
        written=6,
        bases=2,
        instructions=3,
        draws=(
            (demos.WORDS, 0),
            (demos.STATES, 0),
            (demos.WORDS_BALANCED, 0),
            (demos.STATES_BALANCED, 0),
            *((demos.BALANCED, n) for n in range(4)),
            *((demos.RANDOM, n) for n in range(6)),
            *((demos.HARD, n) for n in range(3)),
        ),
        counts=(3, 8),
        orders=3,
    ),
}


@dataclass(frozen=True, slots=True)
class Way:
    """A candidate: an instruction, and which worked examples go with it."""

    template: Template
    """The instruction."""
    demonstrations: Demonstrations | None = None
    """None: none are shown."""

    @property
    def shots(self) -> int:
        """How many worked examples."""
        return self.demonstrations.shots if self.demonstrations else 0


@dataclass
class Budget:
    """Prompts that may be asked, and those that were."""

    prompts: int
    """At most."""
    asked: int = 0
    """So far."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> ways that were not tried."""

    @property
    def left(self) -> int:
        """Prompts that may still be asked."""
        return self.prompts - self.asked

    def spend(self, prompts: int) -> None:
        """Note prompts that are about to be asked."""
        self.asked += prompts
        assert self.asked <= self.prompts, "more prompts than the budget has"


def search(
    loaded: LoadedModel,
    data: TaskData,
    *,
    rungs: Sequence[Rung],
    extent: Extent,
    rows: Sequence[Row],
    budget: int,
    longest: int,
    seed: int,
    on_done: OnDone = lambda _: None,
) -> Search:
    """Search for the best way of asking, on validation rows.

    Args:
        loaded: The base model.
        data: The task and its split; worked examples come from its train part.
        rungs: The climbed ladder, on the same rows.
        extent: How much is tried.
        rows: Validation rows.
        budget: Prompts that may be asked.
        longest: Tokens that the model takes at most; 0: not known.
        seed: Of all draws, and of the order in which rows are asked.
        on_done: Called with the number of prompts finished.
    """
    began = time.perf_counter()
    searcher = _Searcher(loaded, data, rows, Budget(budget), longest, seed, on_done)
    best, known = best_rung(rungs), {t.id: t for t in data.task.templates}
    start = best.template
    ranked = _templates_by_rung(rungs)

    # 1. Instructions.
    bases = [known[name] for name in ranked[: extent.bases]]
    instructions = [each for base in bases for each in described(data, base)]
    count = min(extent.written, searcher.budget.left // 10)
    if count:
        searcher.budget.spend(count)
        instructions += written(loaded, data, known[start], count=count, seed=seed, on_done=on_done)
    shots = [0, best.shots or max(rung.shots for rung in rungs)]
    draw = [searcher.demonstrations(demos.BALANCED, shots=n, seed=seed) for n in shots if n]
    searcher.race(
        [Way(each.template, shown) for shown in (None, *draw) for each in instructions],
        share=1 / 3,
    )

    # 2. Worked examples.
    means = {name: _best_mean(rungs, name) for name in ranked}
    for each in searcher.finished:
        name = each.way.template.id
        means[name] = max(means.get(name, 0.0), each.mean)
    templates = {**known, **{each.template.id: each.template for each in instructions}}
    top = sorted(means, key=lambda name: -means[name])[: extent.instructions]
    counts = sorted({*(rung.shots for rung in rungs), *extent.counts} - {0})
    searcher.prepare(known[start], [name for name, _ in extent.draws])
    # Where the budget does not reach all, every draw is tried with some number of worked examples.
    drawn = [
        shown
        for turn in range(len(counts))
        for place, (name, n) in enumerate(extent.draws)
        for count in (counts[(place + turn) % len(counts)],)
        if (name, n, count) != (demos.BALANCED, 0, best.shots)  # a rung of the ladder
        and (shown := searcher.demonstrations(name, shots=count, seed=seed + n))
    ]
    searcher.race([Way(templates[name], shown) for shown in drawn for name in top], share=0.9)

    # 3. The order of the best ones' worked examples.
    few = [each.way for each in searcher.finished if each.way.demonstrations][:2]
    searcher.race(
        [
            Way(way.template, replace(way.demonstrations, order=order))
            for order in range(1, extent.orders + 1)
            for way in few
            if way.demonstrations and way.shots > 1
        ],
        share=1,
    )
    return searcher.result(
        best, ladder=known[start], instructions=by_id(instructions), seconds=began
    )


@dataclass
class _Tried:
    """A way and its answers so far."""

    way: Way
    prompting: Prompting
    answers: dict[str, Marked] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """The scoring rule that does best; the simplest of equals."""
        return max(self.answers, key=lambda rule: standing(self.answers[rule]).mean)

    @property
    def mean(self) -> float:
        return standing(self.answers[self.rule]).mean


class _Searcher:
    """What the three races share: rows, budget, what is near, and what was tried."""

    def __init__(
        self,
        loaded: LoadedModel,
        data: TaskData,
        rows: Sequence[Row],
        budget: Budget,
        longest: int,
        seed: int,
        on_done: OnDone,
    ) -> None:
        self.loaded, self.data, self.budget, self.longest = loaded, data, budget, longest
        self.rows, self.seed, self.on_done = rows, seed, on_done
        self.order = asking_order(rows, seed=seed)
        self.tried: list[_Tried] = []
        self.whole: list[_Tried] = []
        self.near: dict[str, Neighbours] = {}
        self.hard: tuple[Row, ...] = ()
        self.pool: tuple[Row, ...] = ()

    @property
    def finished(self) -> list[_Tried]:
        """The ways that were asked all rows, the best first."""
        return sorted(self.whole, key=lambda each: -each.mean)

    def prepare(self, template: Template, draws: Sequence[str]) -> None:
        """Find the rows that draws need: the hard ones, and how near rows are."""
        data, share = self.data, self.budget.prompts // 10
        self.pool = demos.pool_rows(data, most=MOST_POOL, seed=self.seed)
        if {*draws} & {*demos.BY_WORDS}:
            words = demos.word_neighbours(data.task, self.pool, self.rows)
            self.near |= dict.fromkeys(demos.BY_WORDS, words)
        most = min(share, self.budget.left // 3) - len(self.rows)
        if {*draws} & {*demos.BY_STATES} and most >= FEWEST_HARD:
            near = self.pool[:most]
            self.budget.spend(len(near) + len(self.rows))
            states = demos.state_neighbours(
                self.loaded, data.task, data.answering[0], near, self.rows, on_done=self.on_done
            )
            self.near |= dict.fromkeys(demos.BY_STATES, states)
        asked = self.pool[: min(MOST_HARD, share, self.budget.left // 3)]
        if demos.HARD in draws and len(asked) >= min(FEWEST_HARD, len(self.pool)):
            self.budget.spend(len(asked))
            self.hard = wrong_rows(self.loaded, data, template, asked, on_done=self.on_done)

    def demonstrations(self, draw: str, *, shots: int, seed: int) -> Demonstrations | None:
        """Draw worked examples; None, and counted, where there are too few rows for it."""
        if draw in demos.PER_ROW:
            near = self.near.get(draw)
            if near is None or len(near.pool) < 2 * shots:
                self.budget.left_out[TOO_FEW] += 1
                return None
            pool = tuple(row.id for row in near.pool)
            return Demonstrations(draw, shots, pool=pool)
        rows = {demos.HARD: self.hard, demos.BALANCED: self.data.train}.get(draw, self.pool)
        if len(rows) < shots:
            self.budget.left_out[TOO_FEW] += 1
            return None
        shown = demos.drawn(self.data, rows, draw, shots=shots, seed=seed)
        return Demonstrations(draw, shots, seed, rows=tuple(row.id for row in shown))

    def race(self, ways: Sequence[Way], *, share: float) -> None:
        """Race as many ways as a share of what is left of the budget allows, the first of them."""
        rows, at = len(self.rows), doubling(len(self.rows))
        most = int(share * self.budget.left)
        count = affordable(len(ways), rows=rows, budget=most, beside=BLANK)
        self.budget.left_out[NO_BUDGET] += len(ways) - count
        tried = []
        for way in ways[:count]:
            prompting = self.prompting(way)
            shortened = sum(
                len(prompting.by_row.get(row.id, prompting.exemplars)) < way.shots
                for row in self.rows
            )
            if shortened > MOST_SHORTENED * rows:
                self.budget.left_out[TOO_LONG] += 1
            else:
                tried.append(_Tried(way, prompting))

        def ask(n: int, part: slice) -> Standing:
            each, asked = tried[n], self.order[part]
            blank = each.prompting.blank(self.data, self.rows[0])
            self.budget.spend(len(asked) + (BLANK if blank else 0))
            return ask_by_rules(
                self.loaded,
                self.data,
                each.prompting,
                asked,
                blank=blank,
                answers=each.answers,
                on_done=self.on_done,
            )

        if tried:
            whole = race(ask, kinds=[0] * len(tried), rows=rows, at=at)
            self.tried += tried
            self.whole += [tried[n] for n in whole]

    def prompting(self, way: Way) -> Prompting:
        """Return what renders the validation rows."""
        return asked_by(
            self.loaded,
            self.data,
            way,
            self.rows,
            near=self.near.get(way.demonstrations.draw) if way.demonstrations else None,
            longest=self.longest,
        )

    def result(
        self, rung: Rung, *, ladder: Template, instructions: Mapping[str, str], seconds: float
    ) -> Search:
        """Return all that was tried, and the bar."""
        whole = {id(each) for each in self.whole}

        def summed(each: _Tried) -> Searched:
            marked, shown = each.answers[each.rule], each.way.demonstrations
            return Searched(
                each.way.template.id,
                shown.draw if shown else "",
                each.way.shots,
                shown.seed if shown else 0,
                shown.order if shown else 0,
                each.rule,
                in_order(marked, self.rows).summary(),
                fmean(p.prompt_tokens for p in marked.predictions),
                asked_all=id(each) in whole,
            )

        finished = self.finished
        better = bool(finished) and finished[0].mean > rung.summary.mean
        way = Way(ladder, self.demonstrations(demos.BALANCED, shots=rung.shots, seed=self.seed))
        rule, summary = rung.scoring, rung.summary
        if not rung.shots:
            way = Way(ladder)
        if better:
            way, rule = finished[0].way, finished[0].rule
            summary = summed(finished[0]).summary
        (example,) = self.prompting(way).examples(self.data, self.rows[:1])
        return Search(
            tuple(map(summed, self.tried)),
            way.template,
            way.demonstrations,
            rule,
            summary,
            better,
            instructions,
            self.budget.prompts,
            self.budget.asked,
            time.perf_counter() - seconds,
            +self.budget.left_out,
            Turn(
                way.template.id,
                way.template.role,
                example.messages,
                example.answer.shown,
                trained=None,
            ),
        )


def asked_by(
    loaded: LoadedModel,
    data: TaskData,
    way: Way,
    rows: Sequence[Row],
    *,
    near: Neighbours | None,
    longest: int,
) -> Prompting:
    """Return what renders rows in a way of asking.

    Where a prompt is longer than the model's context, worked examples are left out of it, the first
    ones first: of the nearest those that are farthest off.

    Args:
        loaded: The model; its tokenizer counts.
        data: The task.
        way: Of asking.
        rows: Rows asked.
        near: For a draw per row: how near training rows are to these.
        longest: Tokens that the model takes at most; 0: not known.
    """
    shown = way.demonstrations
    if shown is None:
        return Prompting(way.template)
    by_row = dict(demos.chosen(data, shown, rows, neighbours=near))
    same = () if shown.draw in demos.PER_ROW else next(iter(by_row.values()))
    for row in rows if longest else ():
        while by_row[row.id]:
            example = render_example(data.task, way.template, row, exemplars=by_row[row.id])
            said = sum(len(turn.content.encode()) + TURN_BYTES for turn in example.messages)
            answers = max(map(len, (*example.choices, example.target)))
            if said + max(4 * answers, data.task.max_new_tokens) <= longest:
                break  # no tokenizer makes more tokens than bytes
            room = loaded.chat.answer_room(example, max_new_tokens=data.task.max_new_tokens)
            if sum(room) <= longest:
                break
            by_row[row.id] = by_row[row.id][1:]
    if shown.draw not in demos.PER_ROW:
        by_row = {name: rows for name, rows in by_row.items() if rows != same}
    return Prompting(way.template, same, by_row)


def prompting_of(
    loaded: LoadedModel, data: TaskData, bar: Search, rows: Sequence[Row], *, longest: int
) -> Prompting:
    """Rebuild the bar's way of asking for rows; what is nearest to each is found again."""
    way = Way(bar.template, bar.demonstrations)
    began = time.perf_counter()
    near = demos.neighbours_of(loaded, data, bar.demonstrations, rows)
    asked = asked_by(loaded, data, way, rows, near=near, longest=longest)
    if near is None:
        return asked
    # The pool is read once, whatever is asked.
    seconds = (time.perf_counter() - began) * len(rows) / (len(rows) + len(near.pool))
    kept = sum(len(str(row.fields[data.task.text]).encode()) for row in near.pool)
    return replace(asked, seconds=seconds, stored=kept)


def wrong_rows(
    loaded: LoadedModel,
    data: TaskData,
    template: Template,
    rows: Sequence[Row],
    *,
    on_done: OnDone = lambda _: None,
) -> tuple[Row, ...]:
    """Return the training rows that the model answers wrong without worked examples."""
    examples = Prompting(template).examples(data, rows)
    made = answer(loaded, examples, max_new_tokens=data.task.max_new_tokens, on_done=on_done)
    values = mark(examples, made, metric=data.task.metric).values
    return tuple(
        row
        for row, example in zip(rows, examples, strict=True)
        if values.get(example.id, 1) < WRONG
    )


def _best_mean(rungs: Sequence[Rung], template: str) -> float:
    return max(rung.summary.mean for rung in rungs if rung.template == template)


def _templates_by_rung(rungs: Sequence[Rung]) -> list[str]:
    """The ladder's templates, the best first; those asked all rows before others."""
    best = best_rung(rungs).template
    names = dict.fromkeys(rung.template for rung in rungs)
    whole = {rung.template for rung in rungs if rung.asked_all}
    return sorted(
        names, key=lambda name: (name != best, name not in whole, -_best_mean(rungs, name))
    )
