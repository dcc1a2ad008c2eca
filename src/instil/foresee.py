"""`instil check`: everything that can be known before a run, and nothing trained."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from instil.compare.interpolation import SHARES
from instil.compare.rates import ROWS, SHARE, try_steps
from instil.compare.stats import planned_detectable
from instil.data.build import render_example
from instil.data.findings import Finding, audit_rows
from instil.data.prepare import TaskData
from instil.data.templatecheck import check_templates
from instil.encode.alike import label_findings
from instil.encode.chat_findings import chat_findings
from instil.fitting import fit_context
from instil.preflight import preflight, without_adapter
from instil.recipe import Method, Recipe
from instil.replaying import planned_replay
from instil.results import LeftOut, MixLine
from instil.stages import ROBUSTNESS_ROWS, base_proof, chat_rules, prepare_all
from instil.training import VALIDATIONS
from instil.types import Part, Piece

if TYPE_CHECKING:
    from instil.encode.chat_format import ChatFormat
    from instil.model.load import ModelFolder

PREVIEWS = 3
FEW_ROWS = 100
TRIED = 200  # training rows that every template is tried on
# Shares of the matrix-product speed that the layers' weights reached in training and in scoring on
# two CPU cores, and the bytes that a token's activations took a layer and unit of width (docs/002).
TRAINING_EFFICIENCY, SCORING_EFFICIENCY = 0.45, 0.5
ACTIVATION_BYTES = 50
# The libraries, 390 MB, and what oneDNN and the allocator keep.
PROCESS_BYTES = 600_000_000
# One generated token reads every weight once; a batch of answers shares that.
DECODING_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class TaskForecast:
    """What is known of a task before a run."""

    task: str
    """The task's id."""
    metric: str
    """The metric that decides."""
    rows: Mapping[str, int]
    """Part of the split -> rows."""
    balance: Mapping[str, Mapping[str, int]]
    """Part -> label -> rows; empty for free text."""
    removed: Mapping[str, int]
    """Reason -> duplicates taken out."""
    skipped: Mapping[str, int]
    """Reason -> rows left out before the split."""
    lengths: tuple[int, int, int]
    """Tokens of a training example: median, 95th percentile, longest."""
    previews: tuple[tuple[Piece, ...], ...]
    """A few training examples, token by token."""
    smallest_difference: float
    """What the test rows can show with 80 % power, in the metric's own unit (0 to 1)."""
    warnings: tuple[str, ...]
    """What a user should know or mend."""
    findings: tuple[Finding, ...] = ()
    """What looks wrong with the rows, the labels and the templates."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is known before a run."""

    tasks: tuple[TaskForecast, ...]
    """One a task."""
    seconds: float
    """Estimated duration of the whole run, model and data at hand."""
    memory_bytes: int
    """Estimated peak memory."""
    mix: tuple[MixLine, ...] = ()
    """What the first epoch of training holds, a line a task."""
    computed: str = ""
    """How rows go through the model."""
    left_out: tuple[LeftOut, ...] = ()
    """What carries no adapter though `all-linear` was asked for."""


def check_recipe(recipe: Recipe, *, say: Callable[[str], None] = lambda _: None) -> Forecast:
    """Look at everything a run would use; fetches what is not here yet, trains nothing.

    Raises:
        InstilError: Whatever would stop the run.
    """
    from instil.model.load import load_tokenizer, resolve_model

    rows = prepare_all(recipe)
    folder = replace(resolve_model(recipe.model, say=say), chat=chat_rules(recipe, rows))
    chat = load_tokenizer(folder)
    data = fit_context(recipe, folder, rows)
    training = planned_replay(recipe, folder, data, preflight(recipe, folder, data))
    build = base_proof(recipe, folder)
    packs = [pack for batch in training.batches for pack in batch]
    tokens = sum(len(pack.ids) if build.prefix else pack.tokens for pack in packs)
    shape = _shape(folder)
    return Forecast(
        tuple(_forecast(recipe, d, chat, training.fates) for d in data),
        _seconds(
            recipe,
            data,
            chat,
            training_tokens=tokens,
            training_steps=len(training.batches),
            shape=shape,
        ),
        _memory(recipe, shape),
        training.mix,
        str(build),
        without_adapter(recipe, folder),
    )


def _forecast(
    recipe: Recipe, data: TaskData, chat: ChatFormat, fates: Mapping[str, int]
) -> TaskForecast:
    from instil.encode.mask import encode_all, token_view

    examples = [
        render_example(data.task, data.templates[n % len(data.templates)], row)
        for n, row in enumerate(data.train)
    ]
    encoded = encode_all(
        examples,
        chat,
        max_length=recipe.train.max_length,
        too_long=recipe.train.too_long,
    )
    lengths = sorted(len(e.ids) for e in encoded if e.ids)
    shown = [e for e in encoded if e.ids][:PREVIEWS]
    groups = Counter(row.group for row in data.test)
    return TaskForecast(
        task=data.task.id,
        metric=data.task.metric,
        rows={str(part): len(data.part(part)) for part in Part},
        balance=data.balance,
        removed=Counter(removed.why for removed in data.split.removed),
        skipped=data.split.skipped,
        lengths=(lengths[len(lengths) // 2], lengths[int(0.95 * len(lengths))], lengths[-1]),
        previews=tuple(token_view(e, chat) for e in shown),
        smallest_difference=planned_detectable(list(groups.values())),
        warnings=tuple(_warnings(data, fates)),
        findings=(
            *audit_rows(data),
            *label_findings(data.task, chat),
            *chat_findings(data, chat),
            *_template_findings(data),
        ),
    )


def _warnings(data: TaskData, fates: Mapping[str, int]) -> list[str]:
    found = []
    for fate in ("truncated", "dropped"):
        if fates.get(fate):
            found.append(
                f"{fates[fate]} training examples are {fate}: longer than train.max_length"
            )
    if len(data.test) < FEW_ROWS:
        found.append(f"{len(data.test)} test rows show large differences alone")
    found += _notes(data.notes)
    return found


def _template_findings(data: TaskData) -> Iterator[Finding]:
    """Try all templates of the run, held-out ones too, on some training rows."""
    templates = (*data.templates, *data.held_out)
    rows = data.train[:TRIED]
    for found in check_templates(replace(data.task, templates=templates), rows):
        what = f"template {found.template!r}: {found.what} ({found.count} of {found.of} rows)"
        yield Finding(what, found.count, found.places, found.fix)


def _notes(notes: Mapping[str, int]) -> list[str]:
    """A line each; many labels that are read alike (6.0 as 6) share one."""
    labels = [what for what in notes if what.startswith("label ")]
    if len(labels) < 3:
        return [f"{what}: {count} rows" for what, count in notes.items()]
    total = sum(notes[what] for what in labels)
    others = [f"{what}: {count} rows" for what, count in notes.items() if what not in labels]
    return [*others, f"{labels[0]}, and {len(labels) - 1} other labels likewise: {total} rows"]


def _shape(folder: ModelFolder) -> Mapping[str, Any]:
    """Sizes from the model's config and weights; nothing is loaded."""
    from transformers import AutoConfig

    from instil.model.load import folder_bytes

    config = AutoConfig.from_pretrained(folder.path, trust_remote_code=False).get_text_config()
    width = 4 if str(config.dtype).endswith("float32") else 2
    parameters = folder_bytes(folder.path) / width
    table = config.vocab_size * config.hidden_size
    # Of the vocabulary's tables few rows are read, and few places are projected.
    tables = table if config.tie_word_embeddings else 2 * table
    return {
        "layers": config.num_hidden_layers * (2 if config.is_encoder_decoder else 1),
        "hidden": config.hidden_size,
        "parameters": parameters,
        "multiplied": max(parameters - tables, parameters / 2),
    }


def _seconds(
    recipe: Recipe,
    data: Sequence[TaskData],
    chat: ChatFormat,
    *,
    training_tokens: int,
    training_steps: int,
    shape: Mapping[str, Any],
) -> float:
    per_token = shape["multiplied"] / matrix_speed(recipe)
    operations = (6 if recipe.method is Method.FULL else 4) + (2 if recipe.keep.kl else 0)
    training = training_tokens * operations * per_token / TRAINING_EFFICIENCY
    owns = {d.task.id: _own_tokens(d, chat) for d in data}
    if recipe.train.learning_rate == "auto" and _tries_rates(owns, training_tokens, training_steps):
        training *= 1 + SHARE  # at most
    auto = recipe.method is Method.AUTO
    training *= 2 if auto else 1  # with and without replay, at most
    tried = len(SHARES) + 1 if auto or recipe.keep.interpolate == "auto" else 0
    scored, generated = 0.0, 0.0
    for d in data:
        shots = len(recipe.baselines.shots)
        phrasings = 1 + len(d.held_out) / len(d.answering)
        ladder = len(d.validation) * shots * phrasings
        # Validations during training and while interpolating, both models for the distance between
        # them, the choice of a template, two models on test, wordings.
        looks = VALIDATIONS + 1 + 2 + tried
        asked = ladder + looks * len(d.validation) / len(d.answering) + len(d.validation)
        whole = d.held_out and not d.few_rows
        few = len(d.test) if whole else min(ROBUSTNESS_ROWS, len(d.test))
        asked += 3 * len(d.test) / len(d.answering) + 2 * few * phrasings
        own = sum(owns[d.task.id])
        scored += asked * own
        if not d.task.choices:
            batches = asked * len(d.answering) / 16
            generated += batches * d.task.max_new_tokens * DECODING_SECONDS
    guards = 0 if recipe.forgetting.tasks == "none" else 5
    guards_asked = guards * (2 + tried / 2)  # what is tried is asked on half of the rows
    scored += guards_asked * recipe.forgetting.rows * 200
    generated += guards_asked * (1 + recipe.forgetting.rows / 16) * 24 * DECODING_SECONDS
    return float(training + generated + scored * 2 * per_token / SCORING_EFFICIENCY)


def _tries_rates(owns: Mapping[str, Sequence[float]], tokens: int, steps: int) -> bool:
    """Whether a training is long enough for short tries; a look costs half of what a step does."""
    each = [sum(own) / len(own) for own in owns.values()]
    look = ROWS * sum(each) / len(each) / 2
    return try_steps(steps=steps, step_cost=tokens / steps, look_cost=look) > 0


def _own_tokens(data: TaskData, chat: ChatFormat) -> list[float]:
    """Mean tokens of a prompt that it does not share with the others, a template."""
    from instil.evaluate.choices import common_prefix

    found = []
    for template in data.answering:
        examples = [render_example(data.task, template, row) for row in data.validation[:30]]
        prompts = [tuple(chat.prompt(e.messages, tools=e.tools)) for e in examples]
        found.append(sum(map(len, prompts)) / len(prompts) - common_prefix(prompts))
    return found


def matrix_speed(recipe: Recipe) -> float:
    """Measure this machine's matrix products in the compute type, operations a second."""
    import torch

    from instil.model.load import pick_device, pick_dtype

    device = pick_device(recipe.device)
    size = 4096 if device.type == "cuda" else 1024
    a = torch.rand(size, size, device=device, dtype=pick_dtype(recipe.dtype, device))
    speeds = []
    for _ in range(5):
        began = time.perf_counter()
        (a @ a).sum().item()
        speeds.append(2 * size**3 / (time.perf_counter() - began))
    return max(speeds)


def _memory(recipe: Recipe, shape: Mapping[str, Any]) -> int:
    weights = shape["parameters"]
    # LoRA: the base in bfloat16, and little else; full: float32 weights, gradients, two moments,
    # and the untouched model where the trained one is held to it.
    full = 18 if recipe.keep.kl else 16
    held = weights * (full if recipe.method is Method.FULL else 2.5)
    if recipe.quantize:  # half a byte a packed weight and its share of the scales; one layer whole
        held -= shape["multiplied"] * (2.5 - 0.6)
    activations = recipe.train.micro_batch_tokens * shape["layers"] * shape["hidden"]
    return int(PROCESS_BYTES + held + activations * ACTIVATION_BYTES)
