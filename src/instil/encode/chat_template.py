r"""A model's chat template: which one is taken, and how it renders the same on every day.

A template is Jinja2 that writes turns as the model knows them. Some write today's date, some ask
whether the model is to think (`enable_thinking`). What a run decides on both is put in front of the
template, so that it stands in the exported tokenizer too, and serving renders as training did::

    {%- macro strftime_now(format) -%}...{%- endmacro %}
    {%- set enable_thinking = false %}
    <the model's own template>

Tests: `tests/encode/test_chat_format.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from instil.errors import ModelError, nearest
from instil.sanitize import shortened
from instil.tasks.budget import BudgetedEnvironment, budget
from instil.types import SystemTurn, Thinking

PLAIN_END = "\n\n"
"""What the plain template puts behind the answer of a worked example."""
# A base model has no chat template. This one keeps worked examples apart by an empty line, and ends
# the last answer with EOS. It is saved with the tuned model, so serving renders as training did.
PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ message.content }}"
    "{% if loop.last %}{{ eos_token }}{% else %}{{ '\\n\\n' }}{% endif %}"
    "{% else %}{{ message.content + '\\n' }}{% endif %}{% endfor %}"
)
_DEFAULT = "default"
# What strftime knows; a template's format is filled in by replacing one after another.
_DIRECTIVES = "aAbBdeHIjmMpSyYZ"
_LONGEST_TOLD = 300


class ChatTemplateError(ModelError):
    """A chat template cannot render these turns."""


@dataclass(frozen=True, slots=True)
class ChatRules:
    """What the recipe and the run decide about the chat format."""

    template: str = ""
    """A name among the model's own chat templates, or a .jinja file; empty: the model's default."""
    system: SystemTurn = SystemTurn.KEEP
    """What becomes of a system message."""
    thinking: Thinking = Thinking.OFF
    """Whether the model thinks before it answers; `auto` is decided by the rows before this."""
    date: str = ""
    """The day that the template writes, ISO 8601; empty: today."""


def pick_template(own: str | Mapping[str, str] | None, wanted: str) -> str:
    """Return the template's source: the one asked for, else the model's default, else a plain one.

    Args:
        own: The tokenizer's `chat_template`: one, several by name, or none.
        wanted: As `ChatRules.template`.

    Raises:
        ModelError: There is no such template, or several and none is called default.
    """
    named = own if isinstance(own, Mapping) else {}
    if wanted in named:
        return named[wanted]
    if wanted and Path(wanted).is_file():
        return Path(wanted).read_text(encoding="utf-8")
    if wanted:
        raise ModelError(
            f"the model has no chat template {wanted!r}, and there is no such file",
            where="chat_template",
            allowed=f"a .jinja file{''.join(f', {name}' for name in named)}",
            nearest=nearest(wanted, named),
        )
    if not named:
        return str(own or PLAIN_TEMPLATE)
    if len(named) == 1:
        return next(iter(named.values()))
    if _DEFAULT in named:
        return named[_DEFAULT]
    raise ModelError(
        "the model has several chat templates, and none of them is called default",
        where="chat_template",
        allowed=", ".join(named),
        fix=f"in the recipe: chat_template: {next(iter(named))}",
    )


def settled(source: str, rules: ChatRules) -> str:
    """Put in front of a template what a run decides: the date, and whether the model thinks.

    Nothing is put in front of a template that asks for neither. The new lines behind the tags are
    taken away by Jinja's trim_blocks, as every chat template is rendered.
    """
    flag = "true" if rules.thinking is Thinking.ON else "false"
    flags = [name for name in ("enable_thinking", "thinking") if name in source]
    front = [f"{{%- set {name} = {flag} %}}\n" for name in flags]
    if "strftime_now" in source:
        # A macro takes the place of transformers' `strftime_now`.
        day = datetime.fromisoformat(rules.date) if rules.date else datetime.now()
        parts = [f"%{letter}" for letter in _DIRECTIVES]
        parts += [f"%-{letter}" for letter in "dHImMjS"]  # without leading zeros
        filters = "".join(f" | replace({part!r}, {day.strftime(part)!r})" for part in parts)
        written = f"{{{{ format{filters} }}}}"
        front.insert(0, f"{{%- macro strftime_now(format) -%}}{written}{{%- endmacro %}}\n")
    before = "".join(front)
    return source if before in source else before + source


def with_ending(source: str, *, written: str, trained: str) -> str:
    """Make a template end its generation prompt otherwise: `trained` in place of `written`."""
    return (
        "{%- set whole_text %}\n"
        + source.removesuffix("\n")  # as Jinja itself takes off the last one
        + "{% endset %}\n"
        + "{%- if add_generation_prompt and whole_text.endswith("
        + f"{_quoted(written)}) %}}\n"
        + f"{{{{- whole_text[:whole_text | length - {len(written)}] + {_quoted(trained)} }}}}\n"
        + "{%- else %}\n{{- whole_text }}\n{%- endif %}\n"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def render(
    tokenizer: Any,
    turns: Sequence[Mapping[str, object]],
    *,
    tools: Sequence[object] = (),
    generation: bool = False,
) -> str:
    """Render turns through the tokenizer's chat template.

    The template is a stranger's: it renders within a budget (see `instil.tasks.budget`).

    Raises:
        ChatTemplateError: Whatever the template raises, in its words.
    """
    _count_steps()
    try:
        with budget():
            return str(
                tokenizer.apply_chat_template(
                    list(turns),
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=generation,
                )
            )
    except Exception as error:  # a template raises many unrelated kinds
        what = " ".join(str(error).split()) or repr(error)
        if isinstance(error, RecursionError):
            what = "it calls itself without an end"
        what = shortened(what, most=_LONGEST_TOLD)
        raise ChatTemplateError(what, where="the chat template") from error


@cache
def _count_steps() -> None:
    """Let transformers compile chat templates into a sandbox that counts their steps.

    It is transformers' own sandbox otherwise: its filters, functions and tags.
    """
    from transformers.utils import chat_template_utils

    theirs = chat_template_utils._compile_jinja_template("").environment
    ours = BudgetedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[type(extension) for extension in theirs.extensions.values()],
    )
    ours.filters.update(theirs.filters)
    ours.globals.update(theirs.globals)
    ours.count_filters()
    chat_template_utils._compile_jinja_template = lru_cache(maxsize=64)(ours.from_string)
