"""Templates of promptsource (Bach et al. 2022): `templates.yaml`, one file a data set.

    templates:
      02ff2949-...: !Template
        name: Movie Expressed Sentiment 2
        jinja: 'What sentiment? {{text}} ||| {{ answer_choices[label] }}'
        answer_choices: negative ||| positive
        metadata: !TemplateMetadata {original_task: true}

The tags are PyYAML's, which would make objects of them; here they are read as plain mappings, and
every other tag is refused. `jinja` is one text that is rendered and then split at `|||`; it is
split before rendering here, through conditions where it stands inside them, so that a prompt can be
told from its answer without any row.

Tests: `tests/tasks/imports/test_foreign.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from jinja2 import TemplateSyntaxError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from instil.config.yamlfile import BoundedComposer, read_text
from instil.errors import TaskError
from instil.tasks.imports.wording import Wording
from instil.tasks.sandbox import pieces

SEPARATOR = "|||"
FILE = "templates.yaml"
_INSIDE = r"\b(?:(?!%\}).)*%\}"
_EMPTY = re.compile(
    rf"\{{%-?\s*(if|for){_INSIDE}\s*(?:\{{%-?\s*(?:else|elif){_INSIDE}\s*)*\{{%-?\s*end\1\s*-?%\}}",
    re.DOTALL,
)
ORIGIN, LICENCE = "promptsource", "Apache-2.0"
_BEHIND_A_TAG = re.compile(r"([%#]\})(\r?\n)")


class _Plain(SafeConstructor):
    """Makes mappings of promptsource's two tags, and refuses all others."""


for _tag in ("!Template", "!TemplateMetadata"):
    _Plain.add_constructor(_tag, lambda own, node: dict(own.construct_mapping(node, deep=True)))


def read_promptsource(path: Path, *, name: str) -> list[Wording]:
    """Read a `templates.yaml`.

    Args:
        path: The file, or a folder above it.
        name: Where the folder holds several data sets: the one to take, such as `super_glue/rte`.

    Raises:
        TaskError: No such file, no YAML, another tag, or a template without prompt and answer.
    """
    file = path / name / FILE if path.is_dir() else path
    text = read_text(file, error=TaskError)
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Plain
    yaml.Composer = BoundedComposer
    try:
        content = yaml.load(text)
    except (YAMLError, ValueError) as bad:
        raise TaskError(
            "this promptsource file cannot be read",
            where=str(file),
            found=" ".join(str(bad).split())[:300],
            allowed="YAML with the tags !Template and !TemplateMetadata",
        ) from None
    templates = content.get("templates") if isinstance(content, Mapping) else None
    if not isinstance(templates, Mapping) or not templates:
        what = "this is no promptsource file: it has no `templates`"
        raise TaskError(what, where=str(file))
    return [_wording(entry, where=f"{file}: {key}") for key, entry in templates.items()]


def _wording(entry: object, *, where: str) -> Wording:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("jinja"), str):
        raise TaskError("a template has no `jinja` text", where=where)
    # Theirs is Jinja2 as it is, where a line break behind a tag stays; ours takes it out.
    prompt, target = split(_BEHIND_A_TAG.sub(r"\1\2\2", entry["jinja"]))
    metadata = entry.get("metadata")
    original = metadata.get("original_task") if isinstance(metadata, Mapping) else None
    return Wording(
        name=str(entry.get("name") or entry.get("id")).strip(),
        prompt=prompt,
        target=target,
        answers=str(entry.get("answer_choices") or ""),
        judged=original is not False,
        origin=ORIGIN,
        licence=LICENCE,
    )


def split(source: str) -> tuple[str, str]:
    r"""Part a Jinja2 text at `|||` into what is asked and what is answered.

    Tags such as `{% if ... %}` go into both, so that both can be rendered by themselves; a text
    that Jinja2 cannot read is cut at the first separator.

    >>> split("{% if a %}Q1 ||| {{ b }}{% else %}Q2 ||| no{% endif %}")
    ('{% if a %}Q1 {% else %}Q2 {% endif %}', '{% if a %} {{ b }}{% else %} no{% endif %}')
    """
    try:
        parts = pieces(source)
    except TemplateSyntaxError:
        prompt, _, target = source.partition(SEPARATOR)
        return prompt, target.partition(SEPARATOR)[0]
    halves: tuple[list[str], list[str]] = ([], [])
    half, opened = 0, list[int]()
    for tag, text in parts:
        if tag:  # each branch of a condition begins in the half in which the condition began
            if tag in ("if", "for"):
                opened.append(half)
            elif tag in ("elif", "else") and opened:
                half = opened[-1]
            elif tag in ("endif", "endfor") and opened:
                opened.pop()
            for part in halves:
                part.append(text)
            continue
        for number, each in enumerate(text.split(SEPARATOR) if tag is None else [text]):
            half += number > 0
            if half < len(halves):
                halves[half].append(each)
    return _without_empty("".join(halves[0])), _without_empty("".join(halves[1]))


def _without_empty(source: str) -> str:
    """Take out conditions around nothing, which a half is left with where the other has it all."""
    shorter = _EMPTY.sub("", source)
    return shorter if shorter == source else _without_empty(shorter)
