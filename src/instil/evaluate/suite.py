"""From examples to predictions and scores, whatever the kind of task.

Examples with choices are answered by likelihood, others by greedy generation. Both give
`Prediction`s, and `mark` gives every prediction its `Score` in a metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from instil.evaluate.choices import (
    RAW,
    Likelihood,
    OnDone,
    Request,
    choice_request,
    choice_scores,
    likelihoods,
    one_begins_another,
    prediction,
    target_request,
    without_stop,
)
from instil.evaluate.generate import generate
from instil.evaluate.metrics import score, summarise
from instil.model.load import LoadedModel
from instil.scoring.metrics import NATS
from instil.types import Example, Prediction, Score, Summary

GENERATED = "generated"


@dataclass(frozen=True, slots=True)
class Marked:
    """Examples with the answers they got and what those are worth; three tuples of one length."""

    examples: tuple[Example, ...]
    """What was asked."""
    predictions: tuple[Prediction, ...]
    """What was answered."""
    scores: tuple[Score, ...]
    """In one metric."""

    @property
    def values(self) -> dict[str, float]:
        """Example id -> score, of those that could be scored."""
        return {s.example_id: s.value for s in self.scores if s.value is not None}

    @property
    def groups(self) -> dict[str, str]:
        """Example id -> group."""
        return {e.id: f"{e.task}/{e.group}" for e in self.examples}

    @property
    def lines(self) -> Iterator[tuple[Example, Prediction, Score]]:
        """The three of each example."""
        return zip(self.examples, self.predictions, self.scores, strict=True)

    def summary(self) -> Summary:
        """The mean with its interval, groups taken as they are."""
        return summarise(self.scores, groups=self.groups, metric=self.scores[0].metric)


def merged(parts: Sequence[Marked]) -> Marked:
    """Put several sets of answers together."""
    return Marked(
        tuple(example for part in parts for example in part.examples),
        tuple(prediction for part in parts for prediction in part.predictions),
        tuple(score for part in parts for score in part.scores),
    )


def mark(examples: Sequence[Example], predictions: Sequence[Prediction], *, metric: str) -> Marked:
    """Score each prediction."""
    scores = [score(e, p, metric=metric) for e, p in zip(examples, predictions, strict=True)]
    return Marked(tuple(examples), tuple(predictions), tuple(scores))


def answer_by_rule(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    blank: Example | None = None,
    max_new_tokens: int = 0,
    on_done: OnDone = lambda _: None,
) -> Mapping[str, list[Prediction]]:
    """Answer every example, by every rule that applies: rule -> predictions.

    Args:
        loaded: The model.
        examples: All with choices, or all without.
        blank: The same prompt with a content-free input; gives the rule `calibrated`.
        max_new_tokens: For generated answers.
        on_done: Called with the number of examples finished.
    """
    if not examples[0].choices:
        made = generate(loaded, examples, max_new_tokens=max_new_tokens, on_done=on_done)
        return {GENERATED: made}
    requests = [choice_request(e, loaded.chat) for e in examples]
    free = None
    if blank is not None:
        free = likelihoods(loaded, [choice_request(blank, loaded.chat)])[0]
    scored = likelihoods(loaded, requests, on_done=on_done)
    by_rule: dict[str, list[Prediction]] = {}
    for example, request, choices in zip(examples, requests, scored, strict=True):
        for rule, scores in choice_scores(choices, content_free=free).items():
            taken = prediction(example, scores, prompt_tokens=len(request.prompt))
            by_rule.setdefault(rule, []).append(taken)
    return by_rule


def answer(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    rule: str = RAW,
    blank: Example | None = None,
    max_new_tokens: int = 0,
    on_done: OnDone = lambda _: None,
) -> list[Prediction]:
    """Answer every example by one rule (free text: by generation, whatever the rule)."""
    by_rule = answer_by_rule(
        loaded, examples, blank=blank, max_new_tokens=max_new_tokens, on_done=on_done
    )
    return by_rule.get(GENERATED) or by_rule[rule]


@dataclass(frozen=True, slots=True)
class Look:
    """Answers, and how likely the right ones were."""

    predictions: tuple[Prediction, ...]
    """One an example."""
    targets: tuple[Likelihood, ...]
    """Of each target with its stop token."""

    @property
    def nats(self) -> float:
        """Cross-entropy of all targets, summed."""
        return -sum(target.nats for target in self.targets)

    @property
    def tokens(self) -> int:
        """Tokens of all targets."""
        return sum(target.tokens for target in self.targets)


def look(loaded: LoadedModel, examples: Sequence[Example], *, max_new_tokens: int = 0) -> Look:
    """Answer examples of one template, and take the cross-entropy of their targets.

    With choices one pass gives both: the target is among them, and its stop token is scored along.
    """
    if not examples[0].choices or loaded.chat.ending > 1:  # `without_stop` takes one token off
        made = answer(loaded, examples, max_new_tokens=max_new_tokens)
        targets = likelihoods(loaded, [target_request(e, loaded.chat) for e in examples])
        return Look(tuple(made), tuple(target for (target,) in targets))
    made, right = [], []
    requests = [choice_request(e, loaded.chat, stop=True) for e in examples]
    rows = likelihoods(loaded, requests)
    for example, request, row in zip(examples, requests, rows, strict=True):
        needs_stop = one_begins_another([tokens[:-1] for tokens in request.completions])
        scored = row if needs_stop else [without_stop(choice) for choice in row]
        made.append(prediction(example, [choice.nats for choice in scored], prompt_tokens=0))
        right.append(row[example.choices.index(example.target)])
    return Look(tuple(made), tuple(right))


def target_loss(loaded: LoadedModel, examples: Sequence[Example]) -> Marked:
    """Cross-entropy of the targets alone, stop token included, nats per token."""
    return _nats(loaded, examples, [target_request(e, loaded.chat) for e in examples])


def text_loss(loaded: LoadedModel, examples: Sequence[Example], *, max_tokens: int) -> Marked:
    """Cross-entropy of plain texts, the examples' targets, with no prompt around them.

    Every token but a text's first is predicted, up to `max_tokens`; nats per token. Where the
    tokenizer itself writes BOS before a text, it stands there too: without it Gemma is lost.
    """
    opening = () if loaded.chat.encoder_decoder else loaded.chat.text_opening
    requests = []
    for example in examples:
        ids = loaded.chat.tokens(example.target)[: max_tokens + 1]
        requests.append(Request((*opening, *ids[:1]), (tuple(ids[1:]),)))
    return _nats(loaded, examples, requests)


def _nats(loaded: LoadedModel, examples: Sequence[Example], requests: Sequence[Request]) -> Marked:
    """Mark each example with the cross-entropy of its request's one completion."""
    predictions = [
        Prediction(example.id, "", nll=-scored.nats / scored.tokens)
        for example, (scored,) in zip(examples, likelihoods(loaded, requests), strict=True)
    ]
    return mark(examples, predictions, metric=NATS.name)
