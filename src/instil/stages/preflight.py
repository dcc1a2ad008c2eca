"""What a run would stumble over late, found before anything is computed.

The ladder of a real model takes minutes; a template that cannot be rendered, a row that is too long
or a layer that does not exist must not wait for its end. `check_recipe` and `run_recipe` both come
through here.

Tests: `tests/stages/test_fitting.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from instil.config.methods import METHODS
from instil.data.answer_shown import can_show
from instil.data.build import pick_exemplars, render_example
from instil.data.findings import Finding, Level
from instil.data.prepare import TaskData
from instil.data.registry import load_rows
from instil.data.templatecheck import check_templates
from instil.errors import DataError, InstilError, ModelError, Problem, RecipeError, nearest
from instil.results.training import LeftOut
from instil.scoring.constraints import is_condition
from instil.stages.context import RunContext
from instil.stages.gating import gate_rows, texts_to_read
from instil.stages.training import asks_for_all, encoded_training
from instil.tasks.task import library, load_task
from instil.types import KlOn, Part, Row, Template

if TYPE_CHECKING:
    from instil.encode.plan import TrainingData

TRIED = 200
"""Training rows whose prompts are looked at for the answer."""
LONGEST = 5
"""Rows of a task, the longest ones, whose prompts are measured."""


def preflight(context: RunContext) -> TrainingData:
    """Go through everything that can be known before the model is loaded.

    Returns:
        The encoded training examples, without replay.

    Raises:
        InstilError: All that would stop the run later, of the class of the first problem.
    """
    data, errors = context.data, list[InstilError]()
    _check_tasks(context, errors)
    _check_model(context, errors)
    for d in data:
        with _noting(errors):  # prompts that show the answer
            asked = [t for t in (*d.templates, *d.held_out) if can_show(d.task, t)]
            errors += [
                DataError(finding.what, where=finding.examples[0], fix=finding.fix)
                for finding in template_findings(d, asked)
                if finding.level is Level.ERROR and finding.examples
            ]
        with _noting(errors):
            _check_conditions(d)
    wanted = context.recipe.forgetting
    if wanted.at_most is not None:
        with _noting(errors):
            texts_to_read(context)
    if wanted.gate_checkpoints:
        with _noting(errors):
            gate_rows(context)
    _raise(errors)
    training = encoded_training(context)
    for d in data:
        with _noting(errors):
            # The longest row, written by each template, is looked for in the text.
            row = max(d.train, key=_size)
            for template in (*d.templates, *d.held_out):
                context.chat.require_shown(render_example(d.task, template, row))
    _raise(errors)
    for d in data:
        with _noting(errors):
            _check_prompts(context, d)
    _raise(errors)
    return training


def _check_conditions(data: TaskData) -> None:
    """See that there are the conditions that answers are to meet.

    Raises:
        DataError: One is misspelt: its rows would have no score.
    """
    if not data.task.checks:
        return
    scored: Counter[Part] = Counter()
    for part, row in ((p, row) for p in (Part.VALIDATION, Part.TEST) for row in data.part(p)):
        example = render_example(data.task, data.answering[0], row)
        scored[part] += bool(example.checks)
        for condition in example.checks:
            if not is_condition(condition):
                raise DataError(
                    f"there is no condition {condition!r}",
                    where=row.place or f"row {row.id} of {data.task.id}",
                    allowed='words = 3, items <= 2, capitals, starts with "a" and others: '
                    "instil/scoring/constraints.py lists them",
                    fix=f"mend it in the field {data.task.checks!r}",
                )
    for part, least in ((Part.VALIDATION, 1), (Part.TEST, 2)):
        if data.task.metric == "constraint" and scored[part] < least:
            raise DataError(
                f"{scored[part]} of the {len(data.part(part))} {part} rows of {data.task.id} have "
                "a condition, so that nothing can be judged by them",
                where=f"the field {data.task.checks!r}",
                fix=f"leave rows without conditions out (`where: {data.task.checks}`), or ask for "
                "more rows",
            )


def template_findings(data: TaskData, templates: Sequence[Template]) -> list[Finding]:
    """Try templates on some training rows; each finding names its template and counts the rows."""
    tried = replace(data.task, templates=tuple(templates))
    return [
        replace(f, what=f"template {f.template!r}: {f.what} ({f.count} of {f.of} rows)")
        for f in check_templates(tried, data.train[:TRIED])
    ]


@contextmanager
def _noting(errors: list[InstilError]) -> Iterator[None]:
    """Note the error that ends a check, so that all checks are made."""
    try:
        yield
    except InstilError as error:
        errors.append(error)


def _raise(errors: Sequence[InstilError]) -> None:
    """Raise what all checks found at once."""
    if errors:
        raise type(errors[0])(*(problem for error in errors for problem in error.problems))


def _check_tasks(context: RunContext, errors: list[InstilError]) -> None:
    """Note ids that come twice, unknown templates to prompt with, and tasks that cannot be read."""
    data, recipe = context.data, context.recipe
    twice = [name for name, count in Counter(d.task.id for d in data).items() if count > 1]
    if twice:
        what = f"two tasks have the id {twice[0]!r}, under which their figures are kept"
        fix = "give one of the task files another `id:`, or leave one of the tasks out"
        errors.append(RecipeError(what, where="tasks", fix=fix))
    known = list(dict.fromkeys(t.id for d in data for t in (*d.answering, *d.held_out)))
    prompts = recipe.baselines.templates
    errors += [
        RecipeError(
            f"no task has an answering template {name!r}",
            where="baselines.templates",
            allowed=", ".join(known),
            nearest=nearest(name, known),
        )
        for name in (() if isinstance(prompts, str) else prompts)
        if name not in known
    ]
    guard, replay = recipe.forgetting.tasks, recipe.keep.replay
    for name in () if isinstance(guard, str) else guard:
        with _noting(errors):
            task = load_task(name)
            if name not in library():  # the rows of a library task are known to be sound
                load_rows(task)
    for name in replay.of if replay.share and not isinstance(replay.of, str) else ():
        with _noting(errors):
            task = load_task(name)
            if task.id in {d.task.id for d in data}:
                what = f"{task.id} is trained on: there is nothing to replay"
                fix = "name other tasks, or leave it out"
                raise RecipeError(what, where="keep.replay.of", found=name, fix=fix)


def _check_model(context: RunContext, errors: list[InstilError]) -> None:
    """Note what the model cannot do: packing, turns, layers, length."""
    from instil.model.adapter import linear_layers, planned_adapter, skeleton
    from instil.model.nf4 import require_nf4
    from instil.model.soundness import context_length, require_own_tokenizer

    recipe, model = context.recipe, context.model
    with _noting(errors):
        if recipe.quantize:
            require_nf4()
    if context.chat.encoder_decoder and recipe.chat_template:
        what = "an encoder-decoder model has no turns, and takes no chat template"
        errors.append(RecipeError(what, where="chat_template", fix="leave it out"))
    held = recipe.keep.kl and recipe.keep.kl_on is KlOn.PROMPT
    if context.chat.encoder_decoder and held:
        what = "an encoder-decoder model predicts nothing within its prompts"
        fix = "set keep.kl_on: completion"
        errors.append(RecipeError(what, where="keep.kl_on", found="prompt", fix=fix))
    if context.chat.encoder_decoder and recipe.keep.distil:
        what = "an encoder-decoder model cannot be shown an answer: its prompts hold none"
        fix = "leave it out, or set keep.kl with keep.kl_on: completion"
        errors.append(
            RecipeError(what, where="keep.distil", found=f"{recipe.keep.distil:g}", fix=fix)
        )
    with _noting(errors):
        rows = skeleton(model).get_input_embeddings().weight.shape[0]
        require_own_tokenizer(model.path, context.chat, rows=rows)
    if recipe.train.fsdp:
        from instil.train.sharded import require_packed

        with _noting(errors):
            require_packed(context.build)
    if METHODS[recipe.method].adapter:
        with _noting(errors):
            targets = recipe.adapter.target_modules
            layers = () if isinstance(targets, str) else linear_layers(skeleton(model))
            short = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
            unknown = [
                Problem(
                    f"the model has no linear layer {target!r}",
                    where=f"{METHODS[recipe.method].section}.target_modules",
                    allowed=f"all-linear, mlp, attention, or some of {', '.join(short)}",
                    nearest=nearest(target, short),
                )
                for target in (() if isinstance(targets, str) else targets)
                if not any(name == target or name.endswith(f".{target}") for name in layers)
            ]
            if unknown:
                raise RecipeError(*unknown)
            planned_adapter(model, recipe.adapter)
    most, (longest, key) = recipe.train.max_length, context_length(model.path)
    if longest and recipe.keep.distil and most <= longest < 2 * most:
        errors.append(
            ModelError(
                "keep.distil reads each example twice, which the model cannot take: its "
                f"{key} is {longest}",
                where="train.max_length",
                found=str(most),
                allowed=f"at most {longest // 2}",
                fix=f"train.max_length: {longest // 2}",
            )
        )
    if longest and most > longest:
        errors.append(
            ModelError(
                f"{most} tokens are more than the model can take: its {key} is {longest}",
                where="train.max_length",
                found=str(most),
                allowed=f"at most {longest}",
                fix=f"train.max_length: {longest}",
            )
        )


def _check_prompts(context: RunContext, data: TaskData) -> None:
    """Measure the longest prompts that validation, ladder and test will ask."""
    longest, shots, seed = context.longest, context.recipe.baselines.shots, context.recipe.seed
    exemplars = {
        count: pick_exemplars(data.task, data.train, shots=count, seed=seed)
        for count in sorted({0, *shots})
    }
    if not longest:
        return
    rows = sorted([*data.validation, *data.test], key=_size, reverse=True)
    for count, shown in exemplars.items():
        alone = data.crowded.get(count, frozenset())  # asked without worked examples
        # Where none has them it is no few-shot prompting: the first one says so.
        asked = [row for row in rows if row.id not in alone] or rows
        for template, row in product((*data.answering, *data.held_out), asked[:LONGEST]):
            example = render_example(data.task, template, row, exemplars=shown)
            room = context.chat.answer_room(example, max_new_tokens=data.task.max_new_tokens)
            if sum(room) <= longest:
                continue
            tokens = f"{sum(room):,} tokens, but the model takes {longest}"
            if not count:
                raise DataError(
                    f"template {template.id} and its answer take {tokens}",
                    where=row.place,
                    fix="set train.too_long to shorten or drop, or leave such rows out in the "
                    "task file, as in where: text | length < 5000",
                )
            fewer = ", ".join(str(each) for each in shots if each < count) or "0"
            raise DataError(
                f"a {count}-shot prompt of template {template.id} takes {tokens}",
                where="baselines.shots",
                fix=f"baselines: {{shots: [{fewer}]}}",
            )


def _size(row: Row) -> int:
    return sum(len(str(value)) for value in row.fields.values())


def without_adapter(context: RunContext) -> tuple[LeftOut, ...]:
    """Say what of the model will carry no adapter, though `all-linear` asks for every layer."""
    from instil.model.adapter import left_out, planned_adapter

    if not asks_for_all(context):
        return ()
    return left_out(planned_adapter(context.model, context.recipe.adapter))
