"""The form of a task file: its keys, and what each may hold.

The keys are those of `Task`, `Template` and `SourceSpec`; a source may also be a bare path::

    id: mugs
    source: mugs.csv
    text: review
    target: label
    choices: [good, bad]
    templates:
      - {id: plain, prompt: "Good or bad? {{ review }}"}
      - {from: flan_pairs.json, format: flan}       # see `foreign`

Tests: `tests/tasks/test_task.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from instil.tasks.formats import FORMATS
from instil.types import OnBadRow, Role, TrainOn

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"


def _as_text(value: object) -> object:
    """Take `choices: [1, 2, 3]` for the texts that they are in a file."""
    if isinstance(value, list):
        # A tuple, since pydantic's strict mode knows what follows a validator for Python, not JSON.
        return tuple(str(v) if type(v) is int else v for v in value)
    return value


def _as_words(value: object) -> object:
    """Take `labels: {0: 1, 1: true}` for the texts that they are in a file."""

    def word(value: object) -> object:
        if isinstance(value, bool):
            return str(value).lower()
        return str(value) if isinstance(value, int | float) else value

    return {key: word(each) for key, each in value.items()} if isinstance(value, dict) else value


Name = Annotated[str, Field(pattern=_NAME)]
Filled = Annotated[str, Field(min_length=1)]
Choices = Annotated[tuple[Filled, ...], BeforeValidator(_as_text)]
Words = Annotated[dict[str, Filled], BeforeValidator(_as_words)]


class Form(BaseModel):
    """What may be written, and no more."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceForm(Form):
    """The keys of `source`."""

    uri: Filled
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    format: Literal[("", *FORMATS)] = ""  # type: ignore[valid-type]
    columns: tuple[Filled, ...] = ()
    encoding: Filled = "utf-8"
    filename: str = ""
    query: str = ""
    on_bad_row: OnBadRow = OnBadRow.ERROR


class TemplateForm(Form):
    """The keys of one entry of `templates`."""

    id: Name
    prompt: str
    target: str | None = None
    role: Role = Role.ANSWER
    choices: Choices | None = None
    system: str = ""
    origin: str = "instil"
    licence: str = "Apache-2.0"


class Collection(Form, populate_by_name=True):
    """The keys of an entry of `templates` that takes them from another project's collection."""

    from_: Annotated[Filled, Field(alias="from")]
    """The file or folder."""
    format: Literal["promptsource", "natural_instructions", "flan"]
    set: str = ""
    """Which of several sets in it."""
    only: tuple[Filled, ...] = ()
    """Names to take; empty: all."""
    skip: tuple[Filled, ...] = ()
    """Names to leave out."""
    fields: dict[str, str] = {}
    """Their name for a field -> ours."""
    labels: Choices = ()
    """Our choices in the order in which they number them; empty: as the task has them."""


class TaskForm(Form):
    """The keys of a task file."""

    id: Name
    kind: Filled = "custom"
    cluster: str = ""
    description: str = ""
    licence: str = "not stated"
    source: SourceForm
    text: Filled
    target: Filled
    choices: Choices = ()
    labels: Words = {}
    metric: str = ""
    fields: dict[str, str] = {}
    where: str = ""
    row_id: str = ""
    group: str = ""
    references: str = ""
    checks: str = ""
    max_new_tokens: Annotated[int, Field(ge=1)] = 48
    rows: Annotated[int, Field(ge=0)] = 0
    history: str = ""
    train_on: TrainOn = TrainOn.ALL
    tools: str = ""
    calls: str = ""
    templates: tuple[TemplateForm, ...]
