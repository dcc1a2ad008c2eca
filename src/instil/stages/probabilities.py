"""The tuned model's probabilities, fitted on validation before the test is opened.

For each task with choices: the template that the test will ask through, the temperature, and how
sure the answers to the validation rows are. Kept in `model/probabilities.json`, where `predict` and
`serve` find it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from instil.files import write_whole
from instil.results.names import TUNED
from instil.results.probabilities import Fitted
from instil.stages.context import RunContext
from instil.stages.ledger import PROBABILITIES

STAGE = "probabilities"


def fit_probabilities(context: RunContext) -> Mapping[str, Fitted]:
    """Return task -> what is fitted, for tasks whose rows have choices."""
    from instil.compare import contest
    from instil.compare.ladder import Prompting
    from instil.compare.probabilities import fit

    data = [d for d in context.data if d.task.choices]
    if not data:
        return {}
    kind = dict[str, Fitted]

    def fit_all() -> dict[str, Fitted]:
        tuned, seed, fitted = context.load_tuned(), context.recipe.seed, {}
        for d in data:
            with context.stage(f"choosing a template for {d.task.id}") as done:
                template = contest.best_template(tuned, d, d.validation, seed=seed, on_done=done)
            with context.stage(f"temperature for {d.task.id}", len(d.validation)) as done:
                way = Prompting(template)
                asked = contest.ask(tuned, d, name=TUNED, way=way, rows=d.validation, on_done=done)
                fitted[d.task.id] = fit(asked.marked, template=template.id)
        write_whole(context.run.folder / PROBABILITIES, TypeAdapter(kind).dump_json(fitted))
        return fitted

    return context.run.kept(STAGE, kind, fit_all, files=[PROBABILITIES])
