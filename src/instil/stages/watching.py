"""While training: the looks at validation are followed, and a model that learns nothing is said so.

`Watch.follow` is called with each look. It says so once a task, as soon as `compare.learning` finds
reason to, with what the run knows of the causes (`compare.causes`); in the first half of the steps
only where something is wrong with the rows or the recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from instil.compare.causes import Facts, causes, wrong
from instil.compare.learning import (
    State,
    above_constant,
    has_one_answer,
    is_shown,
    sounds,
    state,
)
from instil.data.audit import conflicting_labels
from instil.data.prepare import TaskData
from instil.report.sections.learning import alarm_text, notice_text
from instil.results.training import Alarm
from instil.stages.context import RunContext
from instil.types import Estimate, Example, Fate, LossOver, Step, TaskLook

if TYPE_CHECKING:
    from instil.encode.plan import TrainingData

COUNTED_BATCHES = 20
"""Batches, from the first, in which the tokens of answers are counted."""
CLASSIFIER_ROWS = 2000
"""Training rows (at most) that TF-IDF is asked to learn from."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Follows the looks of one training."""

    context: RunContext
    """The run."""
    asked: Sequence[Sequence[Sequence[Example]]]
    """The validation rows of each task, rendered; an innermost list has one template."""
    encoded: TrainingData
    """What is trained on."""
    rate: float
    """Peak learning rate."""
    rule: float
    """What the rule gives."""
    steps: list[Step] = field(default_factory=list)
    """All so far; those of a training that is resumed to begin with."""
    alarms: dict[str, Alarm] = field(default_factory=dict)
    """Task -> its alarm, if it has sounded."""
    noticed: set[str] = field(default_factory=set)
    """Tasks of which something was said at an early look."""

    def follow(self, step: Step, *, aloud: bool = True) -> None:
        """Take a step up, and say what its look gives reason to say.

        Args:
            step: The next one.
            aloud: Whether it is said; not of a step before training was resumed.
        """
        self.steps.append(step)
        for place, look in enumerate(step.looks):
            said = self._judge(place, look, step)
            if said and aloud:
                self.context.say(said)

    def _judge(self, place: int, look: TaskLook, step: Step) -> str:
        looks = [seen.looks[place] for seen in self.steps if seen.looks]
        total = len(self.encoded.batches)
        alarm = self.alarms.get(look.task)
        if alarm:
            # Two looks must show something learnt: a single one may by chance.
            over = all(is_shown(look) and not has_one_answer(look) for look in looks[-2:])
            if alarm.over is not None or not over:
                return ""
            self.alarms[look.task] = replace(alarm, over=step.step)
            return f"{look.task}: something is shown to be learnt after {step.step} steps"
        if sounds(looks, step=step.step, of_steps=total):
            facts = replace(self._facts(place), classifier=self._classifier(place))
            alarm = Alarm(
                step.step,
                total,
                replace(look, nats=()),
                one_answer=look.answers == 1,
                causes=causes(facts),
                classifier=facts.classifier,
            )
            self.alarms[look.task] = alarm
            return alarm_text(alarm)
        if look.task in self.noticed or state(looks) in (State.SHOWN, State.OPEN):
            return ""
        plain = wrong(self._facts(place))
        if plain:
            self.noticed.add(look.task)
            return notice_text(look, step=step.step, of_steps=total, causes=plain)
        return ""

    def _facts(self, place: int) -> Facts:
        data, train, encoded = self.context.data[place], self.context.recipe.train, self.encoded
        return Facts(
            rate=self.rate,
            rule=self.rule,
            steps=len(encoded.batches),
            epochs=encoded.epochs,
            losses=tuple(step.loss for step in self.steps),
            words=answer_words(data),
            rows=len(data.train),
            conflicts=len(conflicting_labels(data.train, data.task)),
            examples=sum(encoded.fates.values()),
            cut=encoded.fates.get(Fate.TRUNCATED, 0),
            max_length=train.max_length,
            answer_share=answer_share(train.loss_over, encoded, data),
        )

    def _classifier(self, place: int) -> Estimate | None:
        """Ask TF-IDF whether the labels can be learnt at all."""
        from instil.evaluate.baseline import ask_tfidf, train_tfidf

        data = self.context.data[place]
        examples = [example for part in self.asked[place] for example in part]
        if not data.task.choices or not all(example.choices for example in examples):
            return None
        rows = {row.id: row for row in data.validation}
        classifier = train_tfidf(data.train[:CLASSIFIER_ROWS], task=data.task)
        asked = [rows[example.row] for example in examples]
        answers = ask_tfidf(classifier, asked, examples, task=data.task)
        counts = data.balance["train"]
        return above_constant(examples, answers, labels=data.task.choices, counts=counts)


def answer_words(data: TaskData) -> tuple[str, ...]:
    """Return the answers that are the same for every row, as the templates word them."""
    words = [word for t in data.answering for word in t.choices if "{" not in word]
    return tuple(dict.fromkeys(words))


def answer_share(over: LossOver, encoded: TrainingData, data: TaskData) -> float | None:
    """Return the share of the tokens trained on that answer the task's own question.

    Counted in the first batches; None where examples count alike, or none is of the task.
    """
    from instil.train.objective import trained_tokens

    if over is LossOver.EXAMPLES:
        return None
    asking, counts = {template.id for template in data.answering}, Counter[bool]()
    batches = [encoded.batches[n] for n in range(min(COUNTED_BATCHES, len(encoded.batches)))]
    for pack in (pack for batch in batches for pack in batch):
        for segment, tokens in trained_tokens(pack).items():
            name = pack.example_ids[segment]
            if name.startswith(f"{data.task.id}/"):
                counts[name.rpartition("/")[2] in asking] += tokens
    return counts[True] / counts.total() if counts else None
