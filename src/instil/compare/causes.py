"""Why nothing is learnt: what a run's own facts point to, and what to try, as keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from instil.results.training import Cause
from instil.types import Estimate

FAR = 3
"""A learning rate so many times the rule's, or so many times less, is a likely cause."""
ENOUGH_STEPS = 150
"""Fewer steps than what `auto` epochs make are a likely cause."""
FEW_ANSWERS = 0.2
"""Share of the tokens trained on below which the answers hardly count in the loss."""
SHARE = 0.02
"""Share of rows, or of examples, above which a fault in them counts."""
LITTLE = 0.05
"""So much above always giving the same answer a classifier may be by chance."""
RATE = "train.learning_rate:"
READ = "read some rows with their labels: instil preview RECIPE -n 5"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run knows that may be why nothing is learnt."""

    rate: float
    """Peak learning rate."""
    rule: float
    """What the rule gives."""
    steps: int
    """Of the whole training."""
    epochs: float
    """Of the whole training."""
    losses: tuple[float, ...] = ()
    """Of the steps so far, nats per token."""
    words: tuple[str, ...] = ()
    """The answers as templates word them; empty: free text."""
    rows: int = 0
    """Training rows."""
    conflicts: int = 0
    """Training rows with the text of an earlier one and another label."""
    examples: int = 0
    """Training examples."""
    cut: int = 0
    """Those that were shortened to `train.max_length`."""
    max_length: int = 0
    """Longest example, in tokens."""
    answer_share: float | None = None
    """Share of the tokens trained on that answer the task's question; None: examples count alike in
    the loss, or it is not known."""
    classifier: Estimate | None = None
    """How far TF-IDF with logistic regression, trained on the same rows, is above always giving the
    commonest class, on the validation rows; None: it was not asked."""


def wrong(facts: Facts) -> tuple[Cause, ...]:
    """Return what is wrong whatever the model does: worth saying at the first look."""
    causes = []
    if say_nothing(facts.words):
        shown = ", ".join(facts.words[:4])
        pairs = ", ".join(f"{word}: WORD" for word in facts.words[:4])
        what = f"answers that say nothing of what they mean, unless the prompt does: {shown}"
        causes.append(_known(what, f"labels: {{{pairs}}} in the task file"))
    if facts.conflicts > SHARE * facts.rows:
        what = (
            f"{facts.conflicts} of {facts.rows} training rows have the text of another row and "
            "another label"
        )
        causes.append(_known(what, "one label for each; instil check RECIPE lists them"))
    if facts.cut > SHARE * facts.examples:
        what = (
            f"{facts.cut} of {facts.examples} training examples are cut to {facts.max_length} "
            "tokens, perhaps before what decides"
        )
        causes.append(_known(what, f"train.max_length: {2 * facts.max_length}"))
    quarter = len(facts.losses) // 4
    if quarter >= 3 and sum(facts.losses[-quarter:]) > sum(facts.losses[:quarter]):
        what = f"the training loss rises, with a learning rate of {facts.rate:.2g}"
        causes.append(_known(what, f"{RATE} {facts.rate / FAR:.2g}"))
    return tuple(causes)


def causes(facts: Facts) -> tuple[Cause, ...]:
    """Return what the facts point to, then what is left to think of."""
    known, classifier = [*wrong(facts)], facts.classifier
    if classifier and classifier.low <= 0 and classifier.mean < LITTLE:
        what = (
            "labels that do not follow from the texts: TF-IDF with logistic regression, trained on "
            f"the same rows, is no better either ({100 * classifier.mean:+.1f} points)"
        )
        known.append(_known(what, READ))
    far = FAR * (1 - 1e-9)
    if facts.rate * far <= facts.rule or facts.rate >= far * facts.rule:
        low_high = "low" if facts.rate < facts.rule else "high"
        what = f"a learning rate too {low_high}: {facts.rate:.2g}, where the rule gives"
        known.append(_known(f"{what} {facts.rule:.2g}", f"{RATE} {facts.rule:.2g}"))
    if facts.answer_share is not None and facts.answer_share < FEW_ANSWERS:
        what = f"{100 * facts.answer_share:.0f} % of the tokens trained on are answers"
        known.append(_known(what, "train.loss_over: examples"))
    epochs = "train.num_train_epochs:"
    if facts.steps < ENOUGH_STEPS:
        enough = math.ceil(ENOUGH_STEPS / facts.steps * facts.epochs)
        known.append(_known(f"few steps: {facts.steps}", f"{epochs} {enough}"))
    others = []
    if classifier is None or classifier.low <= 0:
        what = "labels that do not follow from the texts, or contradict one another"
        others.append(Cause(what, READ))
    rates = f"{FAR * facts.rate:.2g}, or {facts.rate / FAR:.2g}"
    others.append(Cause("a learning rate too low or too high", f"{RATE} {rates}"))
    others.append(Cause("too few steps", f"{epochs} {math.ceil(2 * facts.epochs)}"))
    keys = {cause.fix.partition(":")[0] for cause in known}
    return (*known, *(cause for cause in others if cause.fix.partition(":")[0] not in keys))


def _known(what: str, fix: str) -> Cause:
    return Cause(what, fix, known=True)


def say_nothing(words: Sequence[str]) -> bool:
    """Whether answers are numbers, or words that stand for such, and no rating.

    >>> say_nothing(["0", "1"]), say_nothing(["LABEL_1", "LABEL_2", "LABEL_3"])
    (True, True)
    >>> say_nothing(["1", "2", "3", "4", "5"]), say_nothing(["0", "yes"]), say_nothing([])
    (False, False, False)
    """
    rating = 3 <= len(words) <= 10 and set(words) == {str(n + 1) for n in range(len(words))}
    bare = [word.lower().removeprefix("label_").removeprefix("class_") for word in words]
    numbers = [word.lstrip("+-").replace(".", "", 1).isdigit() for word in bare]
    return bool(words) and all(numbers) and not rating
