r"""Writing YAML that people read: comments, blocks for texts of several lines, lists in one line.

`explained` turns a pydantic model into a mapping that carries its fields' descriptions as comments;
`dump_yaml` writes that, or plain values::

    >>> print(dump_yaml({"shots": [0, 1], "prompt": "Good?\n{{ text }}", "rows": None}), end="")
    shots: [0, 1]
    prompt: |-
      Good?
      {{ text }}
    rows: null
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping
from enum import StrEnum

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from instil.config.yamlfile import parse_yaml
from instil.errors import InstilError
from instil.sanitize import visible

_WIDTH = 98


def comment(mapping: CommentedMap, key: str, text: str, *, indent: int = 0) -> None:
    """Put a comment above a key of a mapping that stands `indent` columns in."""
    lines, width = list[str](), _WIDTH - indent - 2
    for paragraph in text.splitlines():
        hang = "    " if paragraph.startswith(" ") else ""  # one that begins with blanks hangs
        lines += textwrap.wrap(visible(paragraph), width=width, subsequent_indent=hang)
    mapping.yaml_set_comment_before_after_key(key, before="\n".join(lines), indent=indent)


def dump_yaml(data: object, *, header: str = "") -> str:
    """Write plain values, or a mapping with comments, as YAML that `parse_yaml` reads back.

    Lists of plain scalars are written in one line, texts of several lines as blocks.
    """
    yaml = YAML(typ="rt")
    yaml.Representer = _Writer
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 10**6  # a folded line would change how a prompt reads
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(_blocks(data), stream)
    top = "".join(f"# {line}\n" for line in textwrap.wrap(visible(header), width=_WIDTH - 2))
    return f"{top}\n{stream.getvalue()}" if top else stream.getvalue()


class _Writer(RoundTripRepresenter):
    """ruamel's writer, but null is written out; left empty it reads like a forgotten value."""

    def represent_none(self, data: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Writer.add_representer(type(None), _Writer.represent_none)


def edited(
    text: str,
    change: Callable[[CommentedMap], None],
    *,
    where: str,
    error: type[InstilError],
) -> str:
    r"""Return a YAML mapping with a change made in it; comments, order and quotes are kept.

    Args:
        text: As it is.
        change: Changes the mapping in place.
        where: The file's name, for messages.
        error: The class to raise.

    >>> text = "a: 1  # one\nb: [x, 'y']\n"
    >>> print(edited(text, lambda a: a.update(a=2), where="", error=InstilError), end="")
    a: 2  # one
    b: [x, 'y']
    """
    if not isinstance(parse_yaml(text, where=where, error=error).data, dict):
        raise error("this file has no keys", where=where, fix="write `key: value`, a line each")
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    before, data = yaml.load(text), yaml.load(text)
    change(data)
    return text if data == before else dump_yaml(data)


def _blocks(value: object) -> object:
    """Choose how each value is written, keeping the comments of mappings."""
    if isinstance(value, CommentedMap):
        for key in value:
            value[key] = _blocks(value[key])
        return value
    if isinstance(value, Mapping):
        return {_key(key): _blocks(item) for key, item in value.items()}
    if isinstance(value, CommentedSeq):
        value[:] = [_blocks(item) for item in value]
        return value
    if isinstance(value, (list, tuple)):
        listed = CommentedSeq(_blocks(item) for item in value)
        if not any(isinstance(item, (dict, list)) or "\n" in str(item) for item in value):
            listed.fa.set_flow_style()
        return listed
    if not isinstance(value, str):
        return value
    # In a line of a list `?x` reads as a key; other texts of this kind need escapes.
    if value.startswith("?") or not all(line.isprintable() for line in value.split("\n")):
        return DoubleQuotedScalarString(value)
    return LiteralScalarString(value) if "\n" in value and not value[0].isspace() else value


def _key(key: object) -> object:
    """Escape a key that would not read back the same; a key is never a block."""
    if isinstance(key, str) and (key.startswith("?") or not key.isprintable()):
        return DoubleQuotedScalarString(key)
    return key


def explained(section: BaseModel, *, indent: int = 0) -> CommentedMap:
    """Turn a model into a YAML mapping with its fields' descriptions as comments."""
    mapping = CommentedMap()
    for name, field in type(section).model_fields.items():
        value, text = getattr(section, name), str(field.description)
        if isinstance(value, BaseModel):
            value = explained(value, indent=indent + 2)
        elif isinstance(value, tuple):
            if isinstance(value[0], BaseModel):  # the keys of all items are told above the list
                keys = type(value[0]).model_fields.items()
                text += "".join(f"\n  {key}: {below.description}" for key, below in keys)
            value = [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
        mapping[name] = value.value if isinstance(value, StrEnum) else value
        comment(mapping, name, text, indent=indent)
    return mapping
