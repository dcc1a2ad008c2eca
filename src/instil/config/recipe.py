"""The recipe: one YAML file that says what a run does.

Three lines are a whole recipe; everything else has a default that suits a laptop without a GPU::

    model: smollm2-135m-instruct
    tasks:
      - use: amazon_reviews

`load_recipe` reads it, takes overrides (`train.learning_rate=2e-4`), and makes the paths in it
absolute; `to_yaml` writes it back with every default filled in and explained. Names of fields are
those that users of Hugging Face's libraries know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from instil.config.methods import METHODS, Adapter, Lora, Method, Oft, Shira
from instil.config.overrides import override
from instil.config.sections import (
    All,
    Auto,
    Baselines,
    ByRule,
    Forgetting,
    Keep,
    Mix,
    Name,
    Section,
    SplitRules,
    Train,
    names_once,
    unique,
)
from instil.config.validation import dotted, validate
from instil.config.yamlfile import Loc, read_yaml
from instil.config.yamlwriter import dump_yaml, explained
from instil.errors import Problem, RecipeError
from instil.types import SystemTurn, Thinking


class Device(StrEnum):
    """Where the model computes."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Track(StrEnum):
    """A tracker."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"
    TRACKIO = "trackio"


class Dtype(StrEnum):
    """The number format of matrix products."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class Quantize(StrEnum):
    """How the frozen base is packed."""

    NF4 = "nf4"


class TaskUse(Section):
    """A task to train on."""

    use: Name = Field(description="A library task (`instil tasks`), or the path of a task file.")
    train: int | None = Field(
        None, ge=1, description="Rows to train on; null: all that validation and test leave over."
    )
    templates: Auto | All | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        "auto",
        description="Templates to train through: all, a list of their ids, or auto: of a single "
        "task with choices the first that ask its question, one for each 1000 training rows; else "
        "all.",
    )
    held_out_templates: (
        Annotated[float, Field(gt=0, lt=1)]
        | Annotated[tuple[Name, ...], Field(min_length=1)]
        | None
    ) = Field(
        None,
        description="Phrasings to test on and not to train on: a share (0.3), or ids; null: none.",
    )
    weight: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="Share of the mix, relative to the other tasks'; null: by size.",
    )

    _each_once = field_validator("templates", "held_out_templates")(names_once)


class Recipe(Section):
    """Everything a run needs to know."""

    model: Name = Field(
        description="The base model: a name from `instil models`, a folder (./name), or a hub id."
    )
    tasks: tuple[TaskUse, ...] = Field(min_length=1, description="What to train on.")
    method: Method = Field(
        Method.LORA,
        description="lora trains small adapters; full trains every weight; oft rotates what layers "
        "read; shira trains few single weights; auto trains LoRA, tries replay and interpolation "
        "as far as need be, and picks on validation.",
    )
    lora: Lora = Field(Lora(), description="Low-rank adapters; used when method is lora.")
    oft: Oft = Field(
        Oft(), description="Rotations of what each layer reads; used when method is oft."
    )
    shira: Shira = Field(
        Shira(),
        description="Changes of single weights, drawn from the seed; used when method is shira.",
    )
    train: Train = Field(Train(), description="The training loop.")
    mix: Mix = Field(Mix(), description="How the tasks are mixed in training.")
    validation: int = Field(
        150, ge=2, description="Rows a task that prompts, checkpoints and stopping are chosen on."
    )
    test: int = Field(300, ge=2, description="Rows a task that are scored once, at the end.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seeds every shuffle and every draw.")
    split: SplitRules = Field(SplitRules(), description="How rows are parted.")
    baselines: Baselines = Field(
        Baselines(), description="What the tuned model has to beat, on the same rows."
    )
    forgetting: Forgetting = Field(
        Forgetting(), description="What the model should still know afterwards."
    )
    keep: Keep = Field(Keep(), description="What is done so that it does.")
    chat_template: Name | None = Field(
        None,
        description="A .jinja file, or a name among the model's chat templates; null: its own, or "
        "a plain one for a base model.",
    )
    system: SystemTurn = Field(
        SystemTurn.KEEP,
        description="keep leaves a system message to the chat template; merge puts it before the "
        "user's first text, for models that know none.",
    )
    thinking: Thinking = Field(
        Thinking.AUTO,
        description="Whether a reasoning model thinks before it answers: off, on, or auto (on "
        "where the rows' answers have <think> blocks).",
    )
    device: Device = Field(Device.AUTO, description="auto, cpu or cuda.")
    dtype: Dtype = Field(
        Dtype.AUTO, description="auto (bfloat16 where the processor has it), bfloat16 or float32."
    )
    quantize: Quantize | None = Field(
        None,
        description="nf4: the frozen base in 4 bits (QLoRA), for models that do not fit otherwise; "
        "needs instil[qlora]. null: as it is.",
    )
    track: Track | None = Field(
        None,
        description="Where steps and final figures go beside the run directory: tensorboard, "
        "mlflow, wandb or trackio, each a package of its own; null: nowhere.",
    )
    output: Name = Field(
        "runs", description="The folder that run directories are made in, from where you are."
    )

    @property
    def judging_seed(self) -> int:
        """What draws the rows that the model is judged on."""
        return self.seed if self.split.seed is None else self.split.seed

    @property
    def adapter(self) -> Adapter:
        """The settings of the method's adapter."""
        settings: Adapter = getattr(self, METHODS[self.method].section)
        return settings

    @property
    def exports_adapter(self) -> bool:
        """Whether what is exported is an adapter on the base model; else it is a whole model."""
        return METHODS[self.method].adapter and self.keep.prune is None

    @field_validator("tasks")
    @classmethod
    def _tasks_once(cls, tasks: tuple[TaskUse, ...]) -> tuple[TaskUse, ...]:
        unique([task.use for task in tasks])
        return tasks

    @model_validator(mode="after")
    def _apart_from_others(self) -> Recipe:
        if both := {use.use for use in self.tasks}.intersection(self.split.apart_from or ()):
            raise ValueError(
                f"split.apart_from names {', '.join(sorted(both))}, which is trained on: leave it "
                "out of one of the two"
            )
        return self

    @model_validator(mode="after")
    def _tries_them_itself(self) -> Recipe:
        asked = (self.keep.replay.share, self.keep.interpolate) != (None, None)
        if self.method is Method.AUTO and asked:
            raise ValueError(
                "method auto tries keep.replay and keep.interpolate by itself: leave them out, or "
                "take method lora"
            )
        if self.method is Method.AUTO and self.keep.prune is not None:
            raise ValueError(
                "method auto exports what it measured, which is not pruned: leave out keep.prune, "
                "or take method lora"
            )
        return self

    @model_validator(mode="after")
    def _prunes_whole_weights(self) -> Recipe:
        if self.quantize and self.keep.prune is not None:
            raise ValueError(
                "keep.prune exports whole weights, and `quantize` packs the base into 4 bits: "
                "leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _packed_is_frozen(self) -> Recipe:
        if self.quantize and not METHODS[self.method].on_packed:
            raise ValueError(
                "`quantize` packs the base into 4 bits, which cannot be trained by "
                f"{METHODS[self.method].word}: take method lora"
            )
        return self

    @model_validator(mode="after")
    def _dealt_out(self) -> Recipe:
        if self.train.fsdp and self.method is Method.AUTO:
            raise ValueError("train.fsdp and method auto: name the method, say lora")
        if self.train.fsdp and METHODS[self.method].adapter and self.keep.prune is not None:
            raise ValueError(
                "keep.prune merges the adapter into whole weights, which train.fsdp deals out: "
                "leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _interpolates(self) -> Recipe:
        if self.keep.interpolate is not None and not METHODS[self.method].interpolates:
            raise ValueError(
                f"keep.interpolate has no exact adapter for {METHODS[self.method].word}: a part of "
                "a rotation is no part of the change it makes. Leave it out, or take method lora, "
                "shira or full"
            )
        return self

    @model_validator(mode="after")
    def _steers(self) -> Recipe:
        if self.forgetting.at_most is None:
            return self
        if not self.forgetting.reads_text:
            raise ValueError(
                "forgetting.at_most is a loss on general text, which is not measured here: leave "
                "out `forgetting.text: false` and `forgetting.tasks: none`"
            )
        shares = self.keep.interpolate, self.keep.prune
        if shares != (None, None) or self.method == Method.AUTO:
            raise ValueError(
                "forgetting.at_most chooses the interpolation weight by itself: leave out "
                "keep.interpolate and keep.prune, and take another method than auto"
            )
        if not METHODS[self.method].interpolates:
            raise ValueError(
                "forgetting.at_most chooses an interpolation weight, and a part of "
                f"{METHODS[self.method].word} is no adapter of its kind: use another method"
            )
        return self

    @model_validator(mode="after")
    def _one_way_of_mixing(self) -> Recipe:
        weighted = [task.weight is not None for task in self.tasks]
        if any(weighted) and not all(weighted):
            bare = self.tasks[weighted.index(False)].use
            raise ValueError(f"some tasks have a `weight` and {bare} has none: give all or none")
        if any(weighted) and (self.mix.cap is not None or self.mix.temperature != 1):
            raise ValueError("`weight` says the shares: leave out mix.cap and mix.temperature")
        return self


_SECTIONS = frozenset(
    {"lora", "oft", "shira", "train", "mix", "split", "baselines", "forgetting", "keep"}
)
"""A section whose keys are all commented out (`train:`) has its defaults."""


_ROWS = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ".xlsx", ".xls", ".ods")


def load_recipe(path: Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: The YAML file; paths in it count from its folder.
        overrides: `train.learning_rate=2e-4`, values as in YAML; paths count from where you are.

    Raises:
        RecipeError: All mistakes in the file and the overrides, with file and line.
    """
    if path.suffix.lower() in _ROWS:
        what, fix = "these are rows, and no recipe", f"write one for them: instil init {path.name}"
        raise RecipeError(what, where=str(path), fix=fix)
    file = read_yaml(path, error=RecipeError)
    if not isinstance(file.data, dict):
        empty = file.data is None
        raise RecipeError(
            "this recipe is empty" if empty else "this is not a recipe: it has no keys",
            where=str(path),
            allowed="keys such as `model:` and `tasks:`",
            fix="start with `instil init YOUR.csv`, which writes one",
        )
    if {"source", "templates"} <= file.data.keys():
        what = "this is a task, not a recipe"
        fix = f"give the recipe that names it: tasks: [{{use: ./{path.name}}}]"
        raise RecipeError(what, where=str(path), fix=fix)
    data = {k: v for k, v in file.data.items() if not (v is None and k in _SECTIONS)}
    places: dict[Loc, str] = {}
    problems: list[Problem] = []
    for text in overrides:
        try:
            loc = override(data, text, model=Recipe, error=RecipeError, taken_as=_from_here)
            places[loc] = f"--set {text}"
        except RecipeError as bad:
            problems += bad.problems

    def place(loc: Loc) -> str:
        """Name the override that set a value, or else its line in the file."""
        set_by = (places[loc[:end]] for end in range(len(loc), 0, -1) if loc[:end] in places)
        return next(set_by, "") or file.place(loc)

    try:
        recipe = validate(Recipe, data, place=place, error=RecipeError)
    except RecipeError as bad:
        raise RecipeError(*problems, *bad.problems) from None
    if problems:
        raise RecipeError(*problems)
    return resolve_paths(recipe, folder=path.resolve().parent)


def _from_here(loc: Loc, value: object) -> object:
    """Take paths in a value that was given on the command line from where the user is."""
    if isinstance(value, dict):
        return {key: _from_here((*loc, key), each) for key, each in value.items()}
    if isinstance(value, list):
        return [_from_here((*loc, n), each) for n, each in enumerate(value)]
    key = dotted(tuple(0 if isinstance(part, int) else part for part in loc))
    if not isinstance(value, str) or key not in _PATHS:
        return value
    return _PATHS[key](value, Path.cwd())


def resolve_paths(recipe: Recipe, *, folder: Path) -> Recipe:
    """Make the paths of task files, model folder and chat template absolute, from `folder`."""
    tasks = tuple(
        use.model_copy(update={"use": task_reference(use.use, folder=folder)})
        for use in recipe.tasks
    )
    guard = recipe.forgetting.tasks
    if isinstance(guard, tuple):
        guard = tuple(task_reference(name, folder=folder) for name in guard)
        if len(set(guard)) < len(guard):
            twice = next(name for n, name in enumerate(guard) if name in guard[:n])
            raise RecipeError("a task is given twice", where="forgetting.tasks", found=twice)
    forgetting = recipe.forgetting.model_copy(update={"tasks": guard})
    replay = recipe.keep.replay
    if isinstance(replay.of, tuple):
        of = tuple(task_reference(name, folder=folder) for name in replay.of)
        replay = replay.model_copy(update={"of": of})
    keep = recipe.keep.model_copy(update={"replay": replay})
    split = recipe.split
    if split.apart_from is not None:
        apart = tuple(task_reference(name, folder=folder) for name in split.apart_from)
        split = split.model_copy(update={"apart_from": apart})
    model, template = _absolute(recipe.model, folder), recipe.chat_template
    template = template and _template_file(template, folder)
    return recipe.model_copy(
        update={
            "tasks": tasks,
            "forgetting": forgetting,
            "keep": keep,
            "split": split,
            "model": model,
            "chat_template": template,
        }
    )


def without_effect(recipe: Recipe) -> tuple[str, ...]:
    """Say which settings do nothing, because another one is as it is."""
    keep, mix = recipe.keep, recipe.mix
    trains_lora = recipe.method in (Method.LORA, Method.AUTO)
    idle = {
        "keep.kl_on does nothing without keep.kl": not keep.kl and keep.kl_on != Keep().kl_on,
        "keep.replay.of does nothing without keep.replay.share": not keep.replay.share
        and keep.replay.of != Keep().replay.of,
        "mix.few_shot does nothing without mix.few_shot_share": not mix.few_shot_share
        and mix.few_shot not in (Mix().few_shot, "best"),
        "lora does nothing without method: lora": not trains_lora and recipe.lora != Lora(),
        "oft does nothing without method: oft": recipe.method is not Method.OFT
        and recipe.oft != Oft(),
        "shira does nothing without method: shira": recipe.method is not Method.SHIRA
        and recipe.shira != Shira(),
    }
    return tuple(what for what, is_so in idle.items() if is_so)


def task_reference(use: str, *, folder: Path) -> str:
    """Return the name of a library task as it is, the path of a task file made absolute."""
    if use.startswith("hub/") and not use.endswith((".yaml", ".yml")):
        return use  # the library's tasks for data sets of the hub
    if use.endswith((".yaml", ".yml")) or "/" in use or os.sep in use:
        return os.path.abspath(folder / os.path.expanduser(use))
    return use


def _absolute(model: str, folder: Path) -> str:
    """Make a path absolute; `org/name` is one only where it exists, since hub ids look so too."""
    path = folder / os.path.expanduser(model)
    meant = model.startswith((".", "~", os.sep))
    return os.path.abspath(path) if meant or ("/" in model and path.exists()) else model


def _template_file(template: str, folder: Path) -> str:
    """Make the path of a chat template absolute; a name without a dot or a slash is no path."""
    if template == "null" or not ("/" in template or os.sep in template or "." in template):
        return template
    return os.path.abspath(folder / os.path.expanduser(template))


_PATHS: dict[str, Callable[[str, Path], str]] = {
    "model": _absolute,
    "chat_template": _template_file,
    **dict.fromkeys(
        ("tasks.0.use", "forgetting.tasks.0", "keep.replay.of.0", "split.apart_from.0"),
        lambda use, folder: task_reference(use, folder=folder),
    ),
}
"""Keys whose values may be paths, and what makes them absolute."""

HIGHEST_RATE = 2e-3
"""Of the rule, with LoRA: narrower models than some 340 were not in its fit."""


def resolve_learning_rate(
    learning_rate: float | ByRule, *, method: Method | str, width: int
) -> float:
    """Return the peak learning rate; for `rule`, and for `auto` where nothing is tried, by a rule.

    The rule: 5e-4 * (2000 / width) ** 0.78 with LoRA, in two digits, and a tenth of that for full
    fine-tuning. It is the fit of Schulman et al., "LoRA Without Regret" (2025), for llama-like
    models, as their cookbook has it; the rate does not depend on the rank. What we measured with a
    width of 576 agrees (docs/defaults.md).

    Args:
        learning_rate: As the recipe has it.
        method: lora, full, oft or shira.
        width: Of the model's hidden states.

    >>> resolve_learning_rate("rule", method="lora", width=576)
    0.0013
    >>> resolve_learning_rate("rule", method="full", width=4096)
    2.9e-05
    """
    if not isinstance(learning_rate, str):
        return learning_rate
    lora = min(HIGHEST_RATE, 5e-4 * (2000 / width) ** 0.78)
    return float(f"{lora * METHODS[method].rate:.1e}")


def run_name(path: Path) -> str:
    """Return the name of the runs of a recipe file.

    >>> run_name(Path("shop/reviews.recipe.yaml"))
    'reviews'
    """
    return path.stem.removesuffix(".recipe") or path.stem


def to_yaml(recipe: Recipe) -> str:
    """Write a recipe as YAML with every default filled in and each key explained."""
    header = "Every key of this recipe, with the defaults filled in; `load_recipe` reads it back."
    return dump_yaml(explained(recipe), header=header)
