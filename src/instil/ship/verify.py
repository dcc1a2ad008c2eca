"""`instil verify`: does a model, wherever it runs, answer as the run's model did?

The run's **validation** rows are asked again, never its test rows: of the run's own model, of its
base model, and of the target, greedily and in 32 bits where that can be chosen. What comes out is
one finding, the first of these that fits::

    BOS doubled             the target's prompts are the run's, with BOS in front once more
    template differs        they are others: the place of the first other token is said
    stop token missing      answers that ended in the run go on in the target
    adapter not applied     it says what the base model says
    other weights           it is farther from the tuned model than the base model is
    equal                   every answer is the same
    worse                   answers differ, and the paired interval says that they are worse
    no difference shown     answers differ, and it does not

*Far* is the total variation distance of the next token's probabilities behind the run's own
prompts, where the target tells them, else the share of other answers.

Tests: `tests/ship/test_verify.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instil import format as fmt
from instil.compare.verdict import Outcome, outcome
from instil.config.recipe import load_recipe
from instil.data.build import Asked, render_all
from instil.errors import RunError
from instil.results.names import TUNED
from instil.ship.certificate import require_own
from instil.ship.llamacpp import llama_server
from instil.ship.shipped import load_run_base, load_run_model, proven_manifest
from instil.ship.targets import (
    Answer,
    ServerTarget,
    Target,
    folder_target,
    next_log_probs,
)
from instil.stages.context import Say, fit_rows, prepare_rows, silent
from instil.stages.origins import data_fingerprint
from instil.stages.runfiles import RECIPE, load_summary, require_whole
from instil.tasks.task import find_template
from instil.types import Comparison, Example, Prediction

if TYPE_CHECKING:
    import numpy as np

    from instil.model.load import LoadedModel

    LogProbs = np.ndarray[Any, Any]

ROWS, PROBED = 50, 8
"""Validation rows asked unless said, and those of them whose probabilities are compared."""
_ROOM = 16
"""Tokens beyond a task's limit in which a missing stop token shows."""
_FAR = 0.5
"""Total variation distance from tuned and base model alike that no rounding of weights explains."""
_SAME_SHARE = 0.8
"""Answers alike that say *this one, not that one*, of those where tuned and base model differ."""


class Finding(StrEnum):
    """What became of a model on its way."""

    EQUAL = "equal"
    NO_DIFFERENCE = "no difference shown"
    WORSE = "worse"
    NO_ADAPTER = "adapter not applied"
    TEMPLATE = "template differs"
    BOS = "BOS doubled"
    NO_STOP = "stop token missing"
    WEIGHTS = "other weights"

    @property
    def sound(self) -> bool:
        """Whether the target may be used for what the run proved."""
        return self in (Finding.EQUAL, Finding.NO_DIFFERENCE)


@dataclass(frozen=True, slots=True)
class Said:
    """What one model said to all prompts."""

    answers: tuple[Answer, ...]
    """One a row."""
    log_probs: tuple[LogProbs | None, ...] = ()
    """Of the next token behind the run's own prompts, of the first few rows."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the run's model and its base model say."""

    examples: tuple[Example, ...]
    """What is asked."""
    turns: tuple[tuple[dict[str, object], ...], ...]
    """The same as conversations."""
    prompts: tuple[tuple[int, ...], ...]
    """The same as the run's own token ids."""
    limits: tuple[int, ...]
    """The longest answer to each, in tokens."""
    metrics: tuple[str, ...]
    """What each is judged by."""
    tuned: Said
    """The run's model."""
    base: Said
    """Its base model."""
    bos: int | None = None
    """The token that a doubled BOS would be."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of a target."""

    finding: Finding
    """In a word."""
    detail: str
    """What it is seen by, in a sentence."""
    rows: int
    """Rows asked."""
    same: int
    """Answers that are the run's, word for word."""
    largest: float | None = None
    """Largest difference of two log-probabilities, in nats; None where they are not told."""
    distance: float | None = None
    """Mean total variation distance of the next token's probabilities from the run's, in 0 to 1."""
    comparisons: tuple[Comparison, ...] = ()
    """Target minus the run's model, a task each."""
    notes: tuple[str, ...] = field(default=())
    """What was not compared."""


def verify(
    target: str,
    *,
    run: Path,
    rows: int = ROWS,
    model: str = "",
    key: str = "",
    say: Say = silent,
) -> Verified:
    """Hold a model, wherever it runs, against the run's own.

    Args:
        target: A folder of transformers or PEFT, a GGUF file, or the address of a server.
        run: The finished run.
        rows: Validation rows to ask, spread over the tasks.
        model: Of a server with several models, which.
        key: A token that the server asks for.
        say: Shows one line.

    Raises:
        RunError: The run is not finished, its rows are no longer what they were, the target was
            exported from another run, or it cannot be asked.
    """
    require_own(target, run)
    say("asking the run's model and its base model")
    known = reference(run, rows=rows)
    with opened(target, run=run, model=model, key=key, known=known) as there:
        say(f"asking {target}")
        said = ask(there, known)
        return judge(known, said, tokens=[there.tokens(turns) for turns in known.turns[:PROBED]])


def reference(run: Path, *, rows: int) -> Reference:
    """Ask the run's model and its base model the first validation rows of each task.

    Raises:
        RunError: The run is not finished, or its rows are no longer what they were.
    """
    from instil.model.adapter import adapter_off
    from instil.model.soundness import context_length

    require_whole(run)
    loaded = load_run_model(run, dtype="float32")
    if loaded.model.config.is_encoder_decoder:
        raise RunError(
            "models with an encoder are not verified: their prompts are no conversations",
            where=str(run),
            fix="export with --no-verify",
        )
    recipe, manifest = load_recipe(run / RECIPE), proven_manifest(run)
    results = {result.task: result for result in load_summary(run).tasks}
    data = prepare_rows(recipe)
    for d in data:
        then, now = manifest["data"][d.task.id], data_fingerprint(d)
        if any(then[name] != now[name] for name in ("rows", "templates")):
            raise RunError(
                f"the rows or templates of {d.task.id} are no longer those of the run",
                where=str(run),
                fix="bring back the data and the task file that it was made from",
            )
    # The validation rows as the run asks them, each with its limit in tokens and its metric.
    asked: list[tuple[Example, int, str]] = []
    longest, _ = context_length(loaded.folder.path)
    for d in fit_rows(recipe, data, chat=loaded.chat, longest=longest):
        result = results[d.task.id]
        judged = next(arm.template for arm in result.arms if arm.name == TUNED)
        template = find_template(d.task, judged)
        taken = d.validation[: max(2, rows // len(data))]
        asked += [
            (example, d.task.max_new_tokens + _ROOM, result.metric)
            for example in render_all(Asked(d.task, template, row) for row in taken)
            if not example.tools and not any(turn.tool_calls for turn in example.messages)
        ]
    if not asked:
        raise RunError(
            "no validation row can be asked again: all of them have tools",
            where=str(run),
            fix="export with --no-verify",
        )
    examples, limits, metrics = zip(*asked, strict=True)
    prompts = tuple(tuple(loaded.chat.prompt(e.messages)) for e in examples)
    tuned = _said(loaded, examples, limits, prompts)
    if hasattr(loaded.model, "peft_config"):
        with adapter_off(loaded.model):
            base = _said(loaded, examples, limits, prompts)
    else:
        base = _said(load_run_base(run, dtype="float32"), examples, limits, prompts)
    turns = tuple(loaded.chat.conversation(e.messages) for e in examples)
    bos = loaded.chat.tokenizer.bos_token_id
    return Reference(examples, turns, prompts, limits, metrics, tuned, base, bos)


def _said(
    loaded: LoadedModel,
    examples: Sequence[Example],
    limits: Sequence[int],
    prompts: Sequence[tuple[int, ...]],
) -> Said:
    from instil.evaluate.generate import generate

    predictions: dict[str, Prediction] = {}
    for limit in dict.fromkeys(limits):
        asked = [e for e, own in zip(examples, limits, strict=True) if own == limit]
        predictions |= {p.example_id: p for p in generate(loaded, asked, max_new_tokens=limit)}
    ordered = [predictions[example.id] for example in examples]
    return Said(
        tuple(Answer(p.text, bool(p.stopped)) for p in ordered),
        tuple(next_log_probs(loaded.model, prompt) for prompt in prompts[:PROBED]),
    )


@contextmanager
def opened(target: str, *, run: Path, model: str, key: str, known: Reference) -> Iterator[Target]:
    """Open a target as long as the block lasts.

    Raises:
        RunError: It is neither a folder nor a GGUF file nor an address, or it cannot be run.
    """
    from instil.model.load import resolve_model

    width = len(known.tuned.log_probs[0]) if known.tuned.log_probs[0] is not None else 0
    if target.startswith(("http://", "https://")):
        there = ServerTarget(target, model, key)
        as_llama = replace(there, vocabulary=width)
        try:
            as_llama.tokens(known.turns[0])
        except RunError:
            yield there
        else:
            yield as_llama
        return
    path = Path(target)
    files = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if len(files) == 1:
        path = files[0]
    if path.is_file() and path.suffix == ".gguf":
        from instil.ship.gguf.write import is_adapter, write_model

        longest = max(len(p) + n for p, n in zip(known.prompts, known.limits, strict=True))
        with ExitStack() as stack:
            adapter = None
            if is_adapter(path):  # beside a GGUF file of the base model, made for that
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="instil-verify-"))
                adapter, path = path, Path(scratch) / "base.gguf"
                write_model(
                    load_run_base(run, dtype="float32"),
                    path,
                    kind="f32",
                    name="base",
                    certificate={},
                )
            server = llama_server(path, adapter=adapter, context=longest + _ROOM)
            yield ServerTarget(stack.enter_context(server), vocabulary=width)
        return
    if not path.is_dir():
        raise RunError(
            "this is no model",
            where=target,
            allowed="a folder that was exported, a .gguf file, http://HOST:PORT",
        )
    yield folder_target(path, base=resolve_model(load_recipe(run / RECIPE).model).path)


def ask(target: Target, known: Reference) -> Said:
    """Let a target answer everything."""
    answers = tuple(
        target.answer(turns, max_tokens=limit)
        for turns, limit in zip(known.turns, known.limits, strict=True)
    )
    return Said(answers, tuple(target.log_probs(prompt) for prompt in known.prompts[:PROBED]))


def judge(
    known: Reference, said: Said, *, tokens: Sequence[tuple[int, ...] | None] = ()
) -> Verified:
    """Say what became of a model.

    Args:
        known: What the run's model and its base model say.
        said: What the target says.
        tokens: What the target makes of the first prompts; None each where it does not tell.
    """
    import numpy as np

    same = sum(
        (a.text, a.stopped) == (b.text, b.stopped)
        for a, b in zip(known.tuned.answers, said.answers, strict=True)
    )
    comparisons = _compared(known, said)
    gaps = [
        float(np.max(np.abs(a - b)[np.isfinite(a) & np.isfinite(b)]))
        for a, b in _both_told(known.tuned, said)
    ]
    largest, distance = max(gaps, default=None), _distance(known.tuned, said)
    notes = () if largest is not None else ("the target tells no probabilities",)

    def verified(finding: Finding, detail: str) -> Verified:
        return Verified(
            finding, detail, len(said.answers), same, largest, distance, comparisons, notes
        )

    wrong = _prompts(known, said, tokens) or _ends(known, said) or _weights(known, said)
    if wrong:
        return verified(*wrong)
    if same == len(said.answers):
        return verified(Finding.EQUAL, f"all {same} answers are the run's")
    other = f"{len(said.answers) - same} of {len(said.answers)} answers differ from the run's"
    worse = [c for c in comparisons if outcome(c) is Outcome.WORSE]
    finding = Finding.WORSE if worse else Finding.NO_DIFFERENCE
    shown = "; ".join(
        f"{fmt.style(c.metric).label} {fmt.change_with_interval(c)}" for c in worse or comparisons
    )
    return verified(finding, f"{other}: {shown}")


def _prompts(
    known: Reference, said: Said, tokens: Sequence[tuple[int, ...] | None]
) -> tuple[Finding, str] | None:
    """Hold the target's prompts against the run's; their lengths, where it tells no more."""
    for place, (prompt, theirs) in enumerate(zip(known.prompts, tokens, strict=False), start=1):
        if theirs is None or theirs == prompt:
            continue
        if known.bos is not None and theirs == (known.bos, *prompt):
            return Finding.BOS, f"prompt {place} begins with token {known.bos} twice"
        pairs = enumerate(zip(prompt, theirs, strict=False))
        first = next((at for at, (a, b) in pairs if a != b), min(len(prompt), len(theirs)))
        return Finding.TEMPLATE, (
            f"prompt {place} has other tokens from token {first + 1} on: "
            f"{list(theirs[first : first + 5])}, in the run {list(prompt[first : first + 5])}"
        )
    if tokens and tokens[0] is not None:
        return None
    counts = [
        (len(prompt), a.prompt_tokens)
        for prompt, a in zip(known.prompts, said.answers, strict=True)
        if a.prompt_tokens is not None
    ]
    gaps = {theirs - ours for ours, theirs in counts}
    if gaps == {1} and known.bos is not None:
        return Finding.BOS, "every prompt has one token more than the run's"
    if gaps - {0}:
        pair = next(pair for pair in counts if pair[0] != pair[1])
        return Finding.TEMPLATE, f"a prompt of {pair[0]} tokens in the run has {pair[1]}"
    return None


def _ends(known: Reference, said: Said) -> tuple[Finding, str] | None:
    ended = [
        (ours, theirs)
        for ours, theirs in zip(known.tuned.answers, said.answers, strict=True)
        if ours.stopped
    ]
    on = sum(not theirs.stopped and theirs.text.startswith(ours.text) for ours, theirs in ended)
    if ended and on > len(ended) / 2:
        return Finding.NO_STOP, f"{on} of {len(ended)} answers go on where the run's ended"
    return None


def _weights(known: Reference, said: Said) -> tuple[Finding, str] | None:
    """Tell base model and strangers from the tuned model."""
    from_tuned = _distance(known.tuned, said)
    from_base = _distance(known.base, said)
    apart = _distance(known.tuned, known.base)
    if from_tuned is not None and from_base is not None and apart:
        what = (
            f"distance {from_tuned:.3f} from the tuned model and {from_base:.3f} from the base "
            f"model, which are {apart:.3f} apart (total variation of the next token)"
        )
        if from_base < apart / 4 and from_tuned > apart / 2:
            return Finding.NO_ADAPTER, what
        if min(from_tuned, from_base) >= min(apart, _FAR):
            return Finding.WEIGHTS, what
        return None
    texts = [tuple(a.text for a in each.answers) for each in (known.tuned, known.base, said)]
    rows = list(zip(*texts, strict=True))
    telling = [row for row in rows if row[0] != row[1]]
    as_base = sum(base == theirs for _, base, theirs in telling)
    as_tuned = sum(tuned == theirs for tuned, _, theirs in telling)
    what = (
        f"where tuned and base model differ, {as_base} of {len(telling)} answers are the base "
        f"model's and {as_tuned} the tuned model's"
    )
    if as_base >= _SAME_SHARE * len(telling) > 0 and as_tuned <= (1 - _SAME_SHARE) * len(telling):
        return Finding.NO_ADAPTER, what
    neither = sum(
        theirs not in (tuned, base, *example.choices)
        for example, (tuned, base, theirs) in zip(known.examples, rows, strict=True)
    )
    if neither > len(rows) / 2:
        return Finding.WEIGHTS, f"{neither} of {len(rows)} answers are neither model's"
    return None


def _distance(one: Said, other: Said) -> float | None:
    """Return the mean total variation distance over the probed rows, in 0 to 1."""
    import numpy as np

    apart = [np.abs(np.exp(a) - np.exp(b)).sum() / 2 for a, b in _both_told(one, other)]
    return float(np.mean(apart)) if apart else None


def _both_told(one: Said, other: Said) -> list[tuple[LogProbs, LogProbs]]:
    """Return the log-probabilities of the rows for which both models tell them."""
    return [
        (a, b)
        for a, b in zip(one.log_probs, other.log_probs, strict=False)
        if a is not None and b is not None
    ]


def _compared(known: Reference, said: Said) -> tuple[Comparison, ...]:
    """Judge the answers to each task's rows, and pair them with the run's."""
    from instil.compare.pairing import compare_marked
    from instil.evaluate.suite import mark

    comparisons = []
    for task in dict.fromkeys(e.task for e in known.examples):
        rows = [place for place, e in enumerate(known.examples) if e.task == task]
        examples, metric = [known.examples[place] for place in rows], known.metrics[rows[0]]
        ours, theirs = (
            mark(
                examples,
                [
                    Prediction(e.id, model.answers[p].text, stopped=model.answers[p].stopped)
                    for e, p in zip(examples, rows, strict=True)
                ],
                metric=metric,
            )
            for model in (known.tuned, said)
        )
        if len(ours.values.keys() & theirs.values.keys()) >= 2:
            comparisons.append(compare_marked(ours, theirs, a="run", b="target", seed=0))
    return tuple(comparisons)
