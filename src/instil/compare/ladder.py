"""The prompting ladder: what the base model can do when it is asked well.

Every template that asks the task's own question is tried with every number of worked examples and
every scoring rule, on validation. The best rung is the bar that tuning has to clear.

All rungs are asked a first share of the rows, and fewer and fewer of them the rest (see
`compare.halving`). The best template of each number of shots is asked all rows; the bar is one of
those. Scoring rules cost nothing, so a template with its shots is dropped or kept as a whole, by
the best of its rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from instil.compare.halving import Standing, race
from instil.data.build import content_free, pick_exemplars, render_example
from instil.data.prepare import TaskData
from instil.data.split import seeded_key
from instil.evaluate.choices import OnDone
from instil.evaluate.suite import Marked, answer_by_rule, mark, merged
from instil.model.load import LoadedModel
from instil.results.prompts import Rung
from instil.tasks.sandbox import variables
from instil.types import Example, Row, Template


@dataclass(frozen=True, slots=True)
class Prompting:
    """A way of asking: enough to render any row of the task."""

    template: Template
    """The wording."""
    exemplars: tuple[Row, ...] = ()
    """Worked examples, from train; the same whatever the row."""
    by_row: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    """Row id -> the worked examples of that row, where it has its own."""
    seconds: float = field(default=0.0, compare=False, repr=False)
    """To find those of all rows."""
    stored: int = field(default=0, compare=False, repr=False)
    """Bytes of the rows that they are found among."""

    @property
    def shots(self) -> int:
        """The number of worked examples, at most."""
        return max(map(len, (self.exemplars, *self.by_row.values())))

    def examples(self, data: TaskData, rows: Sequence[Row]) -> list[Example]:
        """Render rows."""
        return [
            render_example(
                data.task,
                self.template,
                row,
                exemplars=self.by_row.get(row.id, self.exemplars),
            )
            for row in rows
        ]

    def blank(self, data: TaskData, row: Row) -> Example | None:
        """The same prompt with a content-free input, for calibration.

        None for free text, and where each row has its own worked examples or its own choices: there
        is no one prompt then whose bias could be taken out.
        """
        choices = self.template.choices
        own = any(map(variables, choices))
        if not choices or own or (self.by_row and not self.exemplars):
            return None
        return content_free(data.task, self.template, row, exemplars=self.exemplars)


def prompting(data: TaskData, *, template: str, shots: int, seed: int) -> Prompting:
    """Rebuild a rung's way of asking; the same seed draws the same worked examples."""
    chosen = next(t for t in data.task.templates if t.id == template)
    exemplars = pick_exemplars(data.task, data.train, shots=shots, seed=seed) if shots else ()
    return Prompting(chosen, exemplars, dict.fromkeys(sorted(data.crowded.get(shots, ())), ()))


def climb(
    loaded: LoadedModel,
    data: TaskData,
    *,
    templates: Sequence[Template],
    shots: Sequence[int],
    rows: Sequence[Row],
    seed: int,
    on_done: OnDone = lambda _: None,
) -> tuple[Rung, ...]:
    """Try every rung on validation rows; exactly one of the result is the best.

    A rung's summary says on how many rows it was asked; the best was asked on all. Ties go to
    fewer shots, then to the simpler scoring rule, then to the earlier template.

    Args:
        loaded: The base model.
        data: The task and its split; worked examples come from its train part.
        templates: To try; all of role answer.
        shots: Numbers of worked examples to try.
        rows: Validation rows.
        seed: Of the worked examples, and of the order in which rows are asked.
        on_done: Called with the number of prompts finished.
    """
    ways = [
        prompting(data, template=template.id, shots=count, seed=seed)
        for template in templates
        for count in sorted(shots)
    ]
    order = asking_order(rows, seed=seed)
    answers: list[dict[str, Marked]] = [{} for _ in ways]

    def ask(n: int, part: slice) -> Standing:
        # The row whose text is replaced for calibration is the same in every call.
        blank = ways[n].blank(data, rows[0])
        return ask_by_rules(
            loaded, data, ways[n], order[part], blank=blank, answers=answers[n], on_done=on_done
        )

    whole = race(ask, kinds=[len(way.exemplars) for way in ways], rows=len(rows))
    rungs = []
    for n, way in enumerate(ways):
        # Tokens of a prompt's worked examples, which are the same whatever the row.
        one = next((row for row in rows if row.id not in way.by_row), rows[0])
        prompts = [each.examples(data, [one])[0] for each in (way, Prompting(way.template))]
        shown, bare = (len(loaded.chat.prompt(e.messages, tools=e.tools)) for e in prompts)
        for rule, marked in answers[n].items():
            marked = in_order(marked, rows)
            rungs.append(
                Rung(
                    way.template.id,
                    len(way.exemplars),
                    rule,
                    marked.summary(),
                    fmean(p.prompt_tokens for p in marked.predictions),
                    max(0.0, shown - bare),
                    asked_all=n in whole,
                )
            )
    rules = list(dict.fromkeys(rung.scoring for rung in rungs))  # the simplest first

    def rank(n: int) -> tuple[float, int, int, int]:
        return rungs[n].summary.mean, -rungs[n].shots, -rules.index(rungs[n].scoring), -n

    best = max((n for n, rung in enumerate(rungs) if rung.asked_all), key=rank)
    return tuple(replace(rung, best=n == best) for n, rung in enumerate(rungs))


def ask_by_rules(
    loaded: LoadedModel,
    data: TaskData,
    way: Prompting,
    rows: Sequence[Row],
    *,
    blank: Example | None,
    answers: dict[str, Marked],
    on_done: OnDone,
) -> Standing:
    """Ask more rows in one way; return what the best of its scoring rules is worth so far.

    Args:
        loaded: The model.
        data: The task.
        way: Of asking.
        rows: To ask now.
        blank: The prompt with a content-free input, for calibration.
        answers: Rule -> the answers so far, to which these are added.
        on_done: Called with the number of prompts finished.
    """
    examples = way.examples(data, rows)
    more = answer_by_rule(
        loaded, examples, blank=blank, max_new_tokens=data.task.max_new_tokens, on_done=on_done
    )
    for rule, made in more.items():
        marked = mark(examples, made, metric=data.task.metric)
        earlier = answers.get(rule)
        answers[rule] = merged([earlier, marked]) if earlier else marked
    return max(map(standing, answers.values()), key=lambda each: each.mean)


def in_order(marked: Marked, rows: Sequence[Row]) -> Marked:
    """Put answers, one a row at most, back in the order of the rows."""
    place = {row.id: n for n, row in enumerate(rows)}
    lines = sorted(marked.lines, key=lambda line: place[line[0].row])
    return Marked(*zip(*lines, strict=True))


def asking_order(rows: Sequence[Row], *, seed: int) -> list[Row]:
    """Return rows in the order in which they are asked: a first share is a fair draw of them."""
    return sorted(rows, key=lambda row: seeded_key(seed, "asked", row.id))


def standing(marked: Marked) -> Standing:
    """Sum up what the answers so far are worth."""
    values = marked.values
    return Standing(sum(values.values()), len(values), len(marked.scores) - len(values))


def best_rung(rungs: Sequence[Rung]) -> Rung:
    """Return the rung that sets the bar."""
    return next(rung for rung in rungs if rung.best)
