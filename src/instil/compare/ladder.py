"""The prompting ladder: what the untouched model can do when it is asked well.

Every template that asks the task's own question is tried with every number of worked examples and
every scoring rule, on validation. The best rung is the bar that tuning has to clear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from instil.data.build import content_free, pick_exemplars, render_example
from instil.data.prepare import TaskData
from instil.evaluate.suite import Marked, answer_by_rule, mark
from instil.model.load import LoadedModel
from instil.results import Rung
from instil.types import Example, Row, Template


@dataclass(frozen=True, slots=True)
class Prompting:
    """A way of asking: enough to render any row of the task."""

    template: Template
    """The wording."""
    exemplars: tuple[Row, ...] = ()
    """Worked examples, from train."""

    def examples(self, data: TaskData, rows: Sequence[Row]) -> list[Example]:
        """Render rows."""
        return [
            render_example(data.task, self.template, row, exemplars=self.exemplars) for row in rows
        ]

    def blank(self, data: TaskData, row: Row) -> Example | None:
        """The same prompt with a content-free input, for calibration; None for free text."""
        if not self.template.choices:
            return None
        return content_free(data.task, self.template, row, exemplars=self.exemplars)


def prompting(data: TaskData, *, template: str, shots: int, seed: int) -> Prompting:
    """Rebuild a rung's way of asking; the same seed draws the same worked examples."""
    chosen = next(t for t in data.task.templates if t.id == template)
    exemplars = pick_exemplars(data.task, data.train, shots=shots, seed=seed) if shots else ()
    return Prompting(chosen, exemplars)


def climb(
    loaded: LoadedModel,
    data: TaskData,
    *,
    templates: Sequence[Template],
    shots: Sequence[int],
    rows: Sequence[Row],
    seed: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> tuple[Rung, ...]:
    """Try every rung on validation rows; exactly one of the result is the best.

    Ties go to fewer shots, then to the simpler scoring rule, then to the earlier template.

    Args:
        loaded: The untouched model.
        data: The task and its split; worked examples come from its train part.
        templates: To try; all of role answer.
        shots: Numbers of worked examples to try.
        rows: Validation rows.
        seed: Of the worked examples.
        on_done: Called with the number of prompts finished.
    """
    rungs: list[Rung] = []
    for template in templates:
        bare = 0.0
        for count in sorted(shots):
            way = prompting(data, template=template.id, shots=count, seed=seed)
            found = try_prompting(loaded, data, way, rows, on_done=on_done)
            tokens = _mean([p.prompt_tokens for p in next(iter(found.values())).predictions])
            if not bare:
                bare = tokens if count == 0 else _bare_tokens(loaded, data, template, rows)
            rungs += [
                Rung(template.id, count, rule, marked.summary(), tokens, max(0.0, tokens - bare))
                for rule, marked in found.items()
            ]
    best = max(range(len(rungs)), key=lambda n: (rungs[n].summary.mean, -rungs[n].shots, -n))
    return tuple(replace(rung, best=n == best) for n, rung in enumerate(rungs))


def try_prompting(
    loaded: LoadedModel,
    data: TaskData,
    way: Prompting,
    rows: Sequence[Row],
    *,
    on_done: Callable[[int], None] = lambda _: None,
) -> dict[str, Marked]:
    """Ask rows in one way: scoring rule -> marked answers."""
    examples = way.examples(data, rows)
    by_rule = answer_by_rule(
        loaded,
        examples,
        blank=way.blank(data, rows[0]),
        max_new_tokens=data.task.max_new_tokens,
        on_done=on_done,
    )
    return {rule: mark(examples, made, metric=data.task.metric) for rule, made in by_rule.items()}


def _bare_tokens(
    loaded: LoadedModel, data: TaskData, template: Template, rows: Sequence[Row]
) -> float:
    examples = Prompting(template).examples(data, rows)
    return _mean([len(loaded.chat.prompt(e.messages, tools=e.tools)) for e in examples])


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def best_rung(rungs: Sequence[Rung]) -> Rung:
    """Return the rung that sets the bar."""
    return next(rung for rung in rungs if rung.best)
