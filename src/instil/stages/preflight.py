"""What a run would stumble over late, found before anything is computed.

The ladder of a real model takes minutes; a template that cannot be rendered, a row that is too long
or a layer that does not exist must not wait for its end. `check_recipe` and `run_recipe` both come
through here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from instil.config.recipe import Method, Recipe
from instil.data.answer_shown import can_show
from instil.data.build import pick_exemplars, render_example
from instil.data.findings import Level
from instil.data.prepare import TaskData
from instil.data.registry import load_rows
from instil.data.templatecheck import check_templates
from instil.errors import DataError, InstilError, ModelError, Problem, RecipeError, nearest
from instil.results import LeftOut
from instil.stages.training import asks_for_all, encoded_training
from instil.tasks.task import library, load_task
from instil.types import KlOn, Row, Template

if TYPE_CHECKING:
    from instil.encode.chat_format import ChatFormat
    from instil.encode.plan import TrainingData
    from instil.model.load import ModelFolder

TRIED = 200
"""Training rows whose prompts are looked at for the answer."""
LONGEST = 5
"""Rows of a task, the longest ones, whose prompts are measured."""


def preflight(recipe: Recipe, folder: ModelFolder, data: Sequence[TaskData]) -> TrainingData:
    """Go through everything that can be known before the model is loaded.

    Args:
        recipe: What is to be done.
        folder: The base model.
        data: The recipe's tasks, split.

    Returns:
        The encoded training examples.

    Raises:
        InstilError: All that would stop the run later, of the class of the first problem.
    """
    from instil.model.load import load_tokenizer

    chat = load_tokenizer(folder)
    checks: list[Callable[[], object]] = [
        lambda: _distinct_tasks(data),
        lambda: _baseline_templates(recipe, data),
        lambda: _guard_tasks(recipe),
        lambda: _replayed_tasks(recipe, data),
        lambda: _four_bits(recipe),
        lambda: _chat_template(recipe, chat),
        lambda: _own_tokenizer(folder, chat),
        lambda: _kl_places(recipe, folder),
        lambda: _layers(recipe, folder),
        lambda: _max_length(recipe, folder),
    ]
    checks += [lambda d=d: _hidden_answers(d) for d in data]  # type: ignore[misc]
    _all(checks)
    training = encoded_training(recipe, data, chat)
    _all([lambda d=d: _rows_shown(d, chat) for d in data])  # type: ignore[misc]
    _all([lambda d=d: _prompts_fit(recipe, d, folder, chat) for d in data])  # type: ignore[misc]
    return training


def _hidden_answers(data: TaskData) -> None:
    """Refuse templates whose prompts show the answer."""
    rows, task = data.train[:TRIED], data.task
    shown = [t for t in (*data.templates, *data.held_out) if can_show(task, t)]
    problems = [
        Problem(
            f"template {found.template!r}: {found.what} ({found.count} of {found.of} rows)",
            where=found.examples[0],
            fix=found.fix,
        )
        for found in check_templates(replace(task, templates=tuple(shown)), rows)
        if found.level is Level.ERROR and found.examples
    ]
    if problems:
        raise DataError(*problems)


def _chat_template(recipe: Recipe, chat: ChatFormat) -> None:
    if recipe.chat_template and chat.encoder_decoder:
        what = "an encoder-decoder model has no turns, and takes no chat template"
        raise RecipeError(Problem(what, where="chat_template", fix="leave it out"))


def _own_tokenizer(folder: ModelFolder, chat: ChatFormat) -> None:
    from instil.model.adapter import skeleton
    from instil.model.soundness import require_own_tokenizer

    rows = skeleton(folder).get_input_embeddings().weight.shape[0]
    require_own_tokenizer(folder.path, chat, rows=rows)


def _rows_shown(data: TaskData, chat: ChatFormat) -> None:
    """Write the longest training row by each template of the task, and look for it in the text."""
    row = max(data.train, key=_size)
    for template in (*data.templates, *data.held_out):
        chat.require_shown(render_example(data.task, template, row))


def _four_bits(recipe: Recipe) -> None:
    from instil.model.nf4 import require_nf4

    if recipe.quantize:
        require_nf4()


def _kl_places(recipe: Recipe, folder: ModelFolder) -> None:
    from instil.model.load import is_encoder_decoder

    if recipe.keep.kl and recipe.keep.kl_on is KlOn.PROMPT and is_encoder_decoder(folder):
        raise RecipeError(
            Problem(
                "an encoder-decoder model predicts nothing within its prompts",
                where="keep.kl_on",
                found="prompt",
                fix="set keep.kl_on: completion",
            )
        )


def _all(checks: Sequence[Callable[[], object]]) -> None:
    """Make every check, then raise what they found at once."""
    errors: list[InstilError] = []
    for check in checks:
        try:
            check()
        except InstilError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])(*(problem for error in errors for problem in error.problems))


def _distinct_tasks(data: Sequence[TaskData]) -> None:
    twice = [name for name, count in Counter(d.task.id for d in data).items() if count > 1]
    if twice:
        what = f"two tasks have the id {twice[0]!r}, under which their figures are kept"
        fix = "give one of the task files another `id:`, or leave one of the tasks out"
        raise RecipeError(Problem(what, where="tasks", fix=fix))


def _baseline_templates(recipe: Recipe, data: Sequence[TaskData]) -> None:
    known = list(dict.fromkeys(t.id for d in data for t in (*d.answering, *d.held_out)))
    wanted = recipe.baselines.templates
    problems = [
        Problem(
            f"no task has an answering template {name!r}",
            where="baselines.templates",
            allowed=", ".join(known),
            nearest=nearest(name, known),
        )
        for name in (() if isinstance(wanted, str) else wanted)
        if name not in known
    ]
    if problems:
        raise RecipeError(*problems)


def _guard_tasks(recipe: Recipe) -> None:
    wanted = recipe.forgetting.tasks
    names = () if isinstance(wanted, str) else wanted

    def readable(name: str) -> None:
        task = load_task(name)
        if name not in library():  # the rows of a library task are known to be sound
            load_rows(task)

    _all([lambda name=name: readable(name) for name in names])  # type: ignore[misc]


def _replayed_tasks(recipe: Recipe, data: Sequence[TaskData]) -> None:
    wanted = recipe.keep.replay
    trained = {d.task.id for d in data}

    def other(name: str) -> None:
        task = load_task(name)
        if task.id in trained:
            what = f"{task.id} is trained on: there is nothing to replay"
            fix = "name other tasks, or leave it out"
            raise RecipeError(Problem(what, where="keep.replay.of", found=name, fix=fix))

    names = wanted.of if wanted.share and not isinstance(wanted.of, str) else ()
    _all([lambda name=name: other(name) for name in names])  # type: ignore[misc]


def _layers(recipe: Recipe, folder: ModelFolder) -> None:
    from instil.model.adapter import linear_layers, planned_lora, skeleton

    if recipe.method is Method.FULL:
        return
    targets = recipe.lora.target_modules
    layers = () if isinstance(targets, str) else linear_layers(skeleton(folder))
    short = list(dict.fromkeys(name.rpartition(".")[2] for name in layers))
    problems = [
        Problem(
            f"the model has no linear layer {target!r}",
            where="lora.target_modules",
            allowed=f"all-linear, or some of {', '.join(short)}",
            nearest=nearest(target, short),
        )
        for target in (() if isinstance(targets, str) else targets)
        if not any(name == target or name.endswith(f".{target}") for name in layers)
    ]
    if problems:
        raise RecipeError(*problems)
    wanted = targets if isinstance(targets, str) else list(targets)
    planned_lora(folder, lora_dropout=recipe.lora.lora_dropout, target_modules=wanted)


def without_adapter(recipe: Recipe, folder: ModelFolder) -> tuple[LeftOut, ...]:
    """Say what of the model will carry no adapter, though `all-linear` asks for every layer."""
    from instil.model.adapter import ALL_LINEAR, left_out, planned_lora

    if not asks_for_all(recipe):
        return ()
    dropout = recipe.lora.lora_dropout
    return left_out(planned_lora(folder, lora_dropout=dropout, target_modules=ALL_LINEAR))


def _max_length(recipe: Recipe, folder: ModelFolder) -> None:
    from instil.model.soundness import context_length

    longest, key = context_length(folder.path)
    if longest and recipe.train.max_length > longest:
        raise ModelError(
            Problem(
                f"{recipe.train.max_length} tokens are more than the model can take: its {key} is "
                f"{longest}",
                where="train.max_length",
                found=str(recipe.train.max_length),
                allowed=f"at most {longest}",
                fix=f"train.max_length: {longest}",
            )
        )


def _prompts_fit(recipe: Recipe, data: TaskData, folder: ModelFolder, chat: ChatFormat) -> None:
    """Measure the longest prompts that validation, ladder and test will ask."""
    from instil.model.soundness import context_length

    shots = recipe.baselines.shots
    exemplars = {
        count: pick_exemplars(data.task, data.train, shots=count, seed=recipe.seed)
        for count in sorted({0, *shots})
    }
    longest, _ = context_length(folder.path)
    if not longest:
        return
    for count, shown in exemplars.items():
        for template, row, tokens in _measured(data, chat, shown):
            if tokens > longest:
                raise DataError(_too_long(recipe, template, row, count, f"{tokens:,}", longest))


def _measured(
    data: TaskData, chat: ChatFormat, shown: Sequence[Row]
) -> Iterator[tuple[Template, Row, int]]:
    asked = sorted([*data.validation, *data.test], key=_size, reverse=True)[:LONGEST]
    new = data.task.max_new_tokens
    for template in (*data.answering, *data.held_out):
        for row in asked:
            example = render_example(data.task, template, row, exemplars=shown)
            yield template, row, sum(chat.answer_room(example, max_new_tokens=new))


def _size(row: Row) -> int:
    return sum(len(str(value)) for value in row.fields.values())


def _too_long(
    recipe: Recipe, template: Template, row: Row, count: int, tokens: str, longest: int
) -> Problem:
    if count:
        fewer = ", ".join(str(shots) for shots in recipe.baselines.shots if shots < count)
        what = f"a {count}-shot prompt of template {template.id} takes {tokens} tokens"
        return Problem(
            f"{what}, but the model takes {longest}",
            where="baselines.shots",
            fix=f"baselines: {{shots: [{fewer}]}}" if fewer else "baselines: {shots: [0]}",
        )
    what = f"template {template.id} and its answer take {tokens} tokens, but the model takes"
    return Problem(
        f"{what} {longest}",
        where=row.place,
        fix="set train.too_long to shorten or drop, or leave such rows out in the task file, as in "
        "where: text | length < 5000",
    )
