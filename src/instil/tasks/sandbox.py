"""Jinja2 behind a fence: what a task file may compute, and no more.

A task file is data that people pass around, so its templates and expressions run in Jinja's
immutable sandbox, with these further limits:

- an undefined field, or one without a value (None), is an error, never an empty text;
- `range` gives at most 1000 numbers, texts cannot be multiplied or padded, loops nest twice at
  most, and there are no macros, includes or imports: no template loops for ever by a slip;
- a list or a mapping is never printed, nor joined to a text: it would read as Python writes it;
- what a template computes is counted against a budget of steps, characters and time (`budget`);
- filters are the harmless ones of Jinja in `_KEPT`, and our own in `_OWN`.

Whitespace follows the habit of chat templates: a line that holds only a `{% ... %}` tag vanishes.
Own filters::

    {{ " a  b " | squeeze }}               a b
    {{ "one two three" | first_words(2) }} one two
    {{ label | tidy }}                     in one Unicode form (NFKC), nothing invisible in it
    {{ "It works. Mostly." | first_sentence }} It works.
    {{ "R&amp;D" | unescape }}             R&D
    {{ "a <b>good</b> film" | strip_tags }}    a good film
    {{ "Â£5" | mend_encoding }}            £5
    {{ tokens | spans(tags) | map(attribute="text") | join(", ") }}   the names that tags mark
    {{ "4.5" | float }}                    4.5, where Jinja's own would turn "four" into 0.0
    {{ {"a": [1, 2]} | tojson }}           {"a": [1, 2]}
    {{ ["a", "b"] | choice }}              a or b, for the same row always the same
    {{ ["a", "b", "a"] | most_frequent }}  ["a"]

Tests: `tests/tasks/test_template.py`.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache, wraps
from typing import Any, TypeVar

from jinja2 import (
    StrictUndefined,
    Template,
    UndefinedError,
    meta,
    nodes,
    pass_context,
    pass_eval_context,
)
from jinja2.exceptions import FilterArgumentError, SecurityError, TemplateAssertionError
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.nodes import EvalContext
from jinja2.runtime import Context

from instil.scoring.text import UNSPACED
from instil.tasks.budget import PRINTED, BudgetedEnvironment, budget, printed
from instil.tasks.spans import names_of

T = TypeVar("T")

LONGEST_RANGE = 1000
"""Numbers that `range` gives at most."""
DEEPEST_LOOP = 2
"""Loops within one another."""

_KEPT = (
    "abs capitalize count d default first items join last length list lower map max min reject "
    "rejectattr replace reverse select selectattr sort string sum title trim truncate unique "
    "upper wordcount"
).split()
"""Jinja's own filters that need no fence (not `attr`, `format`, `center`, `random` ...)."""

_REFUSED_METHODS = frozenset(
    {"format", "format_map", "center", "ljust", "rjust", "zfill", "expandtabs", "encode"}
)
"""Methods of texts that reach attributes by name, or make a text of any length."""

_REFUSED_TAGS = (
    nodes.Macro,
    nodes.CallBlock,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.Block,
)


_BREAK = re.compile(r"<(?:br|hr|/p|/div|/li|/tr|/h[1-6])\b[^<>]{0,1000}>", re.IGNORECASE)
_WORD = re.compile(rf"{UNSPACED.pattern}|(?:(?!{UNSPACED.pattern})\S)+")
_SENTENCE_END = re.compile(
    "[.!?][\"')\\]\u201d\u2019\u00bb]*(?=\\s)|[\u3002\uff01\uff1f\uff61\u0964\u061f\u06d4][\"')\uff09\u300d\u300f\u201d\u2019]*"
)
_QUOTES = "\"'(\u201c\u2018\u00ab\u201e\u300c\u300e\uff08"
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,1000}>|<!--.{0,1000}?-->", re.DOTALL)


def _squeeze(value: object) -> str:
    """Turn every run of whitespace into one space."""
    return " ".join(str(value).split())


def tidied(value: object) -> str:
    r"""Bring a text into one Unicode form (NFKC), without invisible characters, blanks single.

    >>> tidied(" cafe\u0301\u200b \u00a0\uff01")
    'caf\xe9 !'
    """
    whole = unicodedata.normalize("NFKC", str(value))
    return _squeeze("".join(sign for sign in whole if unicodedata.category(sign) != "Cf"))


def _first_words(value: object, n: int) -> str:
    """Keep the first `n` words, with single spaces; without blanks between words, characters."""
    text = _squeeze(value)
    ends = [word.end() for word in _WORD.finditer(text)][:n]
    return text[: ends[-1]] if ends else ""


def _first_sentence(value: object) -> str:
    """Keep what comes before the first end of a sentence.

    That is `.`, `!` or `?` with a space and no small letter behind it, or a mark of other scripts.
    """
    text = _squeeze(value)
    for end in _SENTENCE_END.finditer(text):
        begins = text[end.end() : end.end() + 2].lstrip()[:1]
        capital = begins.isalpha() and not begins.islower()  # or of a script that has none
        if capital or begins.isdecimal() or begins in _QUOTES:
            return text[: end.end()]
    return text


def _unescape(value: object) -> str:
    """Resolve HTML entities, also those that were escaped twice."""
    return html.unescape(html.unescape(str(value)))


_CONTROLS = {
    byte: meant for byte in range(128, 160) if (meant := bytes([byte]).decode("cp1252", "ignore"))
}
"""Control codes that Latin-1 makes of bytes -> the characters that Windows-1252 means by them."""


def _mend_encoding(value: object, read_as: str = "cp1252") -> str:
    """Give text that was read in a wrong encoding its characters back; other text stays as it is.

    That is UTF-8 read as `read_as`, or else Windows-1252 read as Latin-1.
    """
    try:
        return str(value).encode(read_as).decode("utf-8")
    except UnicodeError:
        return str(value).translate(_CONTROLS)


def _strip_tags(value: object) -> str:
    """Take HTML tags out and resolve entities; a tag of a new line becomes one, `a < b` stays."""
    text = _unescape(_TAG.sub("", _BREAK.sub("\n", str(value))))
    lines = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def _spans(
    tokens: Sequence[str], tags: Sequence[object], names: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Join tokens to the names that their tags mark (`B-PER I-PER O`), each with text and type.

    Where tags are numbers, `names` says what they stand for.
    """
    marks = [str(names[int(str(tag))] if names else tag) for tag in tags]
    return [{"text": text, "type": kind} for kind, text in names_of(tokens, marks)]


def _float(value: object) -> float:
    """Turn text into a number; unlike Jinja's own, refuse what is none."""
    try:
        number = float(str(value))
    except ValueError:
        raise FilterArgumentError(f"{str(value)!r} is not a number") from None
    if not math.isfinite(number):
        raise FilterArgumentError(f"{str(value)!r} is not a finite number")
    return number


def _int(value: object) -> int:
    """Turn text into a whole number (towards zero); unlike Jinja's own, refuse what is none."""
    return value if isinstance(value, int) else int(_float(value))


def _round(value: object, digits: int = 0) -> float:
    """Round to so many digits; Jinja's own can be sent to compute 10 to the power of a billion."""
    return round(_float(value), digits)


@pass_context
def _choice(context: Context, value: Sequence[object]) -> object:
    """Take one of a list: drawn, but always the same for the same row and list."""
    fields = context.get("row")
    key = repr((sorted(fields.items()) if isinstance(fields, Mapping) else "", list(value)))
    drawn = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return value[int.from_bytes(drawn, "big") % len(value)]


def _most_frequent(value: Iterable[Hashable]) -> list[Hashable]:
    """Return the items that occur most often, each once, in their order."""
    counts = Counter(value)
    return [item for item, count in counts.items() if count == max(counts.values())]


def _tojson(value: object) -> str:
    """Write a value as JSON; unlike Jinja's own, with `<` and `&` as they are."""
    return json.dumps(value, ensure_ascii=False, default=str)


_OWN: dict[str, Callable[..., object]] = {
    "squeeze": _squeeze,
    "tidy": tidied,
    "first_words": _first_words,
    "first_sentence": _first_sentence,
    "unescape": _unescape,
    "mend_encoding": _mend_encoding,
    "strip_tags": _strip_tags,
    "spans": _spans,
    "float": _float,
    "int": _int,
    "round": _round,
    "choice": _choice,
    "most_frequent": _most_frequent,
    "tojson": _tojson,
}

_OF_TEXT = (
    "capitalize lower replace string title trim truncate upper wordcount "
    "squeeze tidy first_words first_sentence unescape mend_encoding strip_tags"
).split()
"""Filters that take a text."""


def _range(*bounds: int) -> range:
    """Like Python's, but short."""
    numbers = range(*bounds)
    if numbers[LONGEST_RANGE:]:
        raise SecurityError(f"range gives more than {LONGEST_RANGE} numbers")
    return numbers


def _zip(*lists: Sequence[object]) -> list[tuple[object, ...]]:
    """Like Python's, at once: templates of other projects loop over two lists with it."""
    return list(zip(*lists, strict=False))


def _finalize(value: object) -> object:
    """Refuse to print None: a prompt with the word `None` in it is a mistake that nobody sees."""
    if value is None:
        raise UndefinedError("an expression has no value (None)")
    return _printed_text(value)


def _printed_text(value: T) -> T:
    return printed(_text(value))


class NoTextError(Exception):
    """A template writes a value that has no writing but Python's own, such as a list."""

    def __init__(self, value: object) -> None:
        """Keep the value, so that a message can name its field."""
        self.value, self.written = value, repr(value)  # which raises for what is undefined in it
        self.kind = "mapping" if isinstance(value, Mapping) else "list"
        if isinstance(value, bytes):
            self.kind = "value of bytes"
        super().__init__(f"a {self.kind} is no text")


def _text(value: T) -> T:
    """Refuse lists and their like: `[{'role': 'user', ...}]` is no prompt."""
    if isinstance(value, list | tuple | Mapping | Set | bytes | Iterator):
        raise NoTextError(value)
    return value


def _of_text(action: Callable[..., object]) -> Callable[..., object]:
    """Let a filter of texts refuse a list, which it would turn into Python's writing of it."""

    @wraps(action)  # with the marks by which Jinja hands over its context
    def run(*values: object, **more: object) -> object:
        return action(*map(_text, values), **more)

    return run


@pass_eval_context
def _join(context: EvalContext, value: Iterable[object], d: str = "", attribute: Any = None) -> Any:
    """Join texts as Jinja's own does; a list among them is refused."""
    items = list(value)
    return DEFAULT_FILTERS["join"](
        context, items if attribute is not None else [*map(_text, items)], d, attribute
    )


class _Undefined(StrictUndefined):
    """Strict within a list too, which is printed by `repr`."""

    __slots__ = ()
    __repr__ = StrictUndefined.__str__


class _Environment(BudgetedEnvironment):
    """The sandbox with the limits that the module's docstring names."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiply and divide numbers alone."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" or not (numbers or operator == "+"):
            raise SecurityError(f"`{operator}` is for numbers" if operator != "**" else "no `**`")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse the methods of numbers and texts that can fill the memory."""
        if isinstance(obj, int | float) or (isinstance(obj, str) and attr in _REFUSED_METHODS):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Let `is_safe_attribute` decide on `format` too."""
        return None


def _environment() -> _Environment:
    env = _Environment(
        undefined=_Undefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    env.globals = {"range": _range, "zip": _zip}
    filters = {name: env.filters[name] for name in _KEPT} | _OWN
    guarded = {name: _of_text(filters[name]) for name in _OF_TEXT}
    counting = {name: own for name, own in env.filters.items() if name.startswith("_")}
    # The parts of `a ~ b` are printed too: Jinja turns a list among them into a text by itself.
    env.filters = filters | guarded | counting | {"join": _join, PRINTED: _printed_text}
    env.count_filters()
    return env


_ENV = _environment()

FILTERS = tuple(sorted(name for name in _ENV.filters if not name.startswith("_")))
"""The names of all filters that a task file may use."""


def _loop_depth(node: nodes.Node) -> int:
    inner = max((_loop_depth(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, nodes.For)


def _fence(tree: nodes.Template) -> nodes.Template:
    """Refuse the tags that a prompt does not need and that could run for ever."""
    for node in tree.find_all(_REFUSED_TAGS):
        name = type(node).__name__.lower()
        raise TemplateAssertionError(f"a template may not use {name!r}", node.lineno)
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise TemplateAssertionError("a loop may not be recursive", loop.lineno)
    if _loop_depth(tree) > DEEPEST_LOOP:
        raise TemplateAssertionError(f"loops may nest {DEEPEST_LOOP} deep at most", 1)
    return tree


def pieces(source: str) -> list[tuple[str | None, str]]:
    """Part a template into its tags, its expressions and the text between them, nothing lost.

    Returns:
        (name, source) of each: the name of a tag such as `if`, empty for an expression `{{ ... }}`,
        None for text and comments. Raises Jinja's own errors.
    """
    parts: list[tuple[str | None, str]] = []
    tag: str | None = None
    inside = ""
    for _, kind, text in _ENV.lex(source):
        if kind in ("block_begin", "variable_begin"):
            tag, inside = ("" if kind == "variable_begin" else None), text
        elif inside:
            inside += text
            if kind == "name" and tag is None:
                tag = text
            if kind in ("block_end", "variable_end"):
                parts.append((tag, inside))
                inside = ""
        else:
            parts.append((None, text))
    return parts


@lru_cache(maxsize=1024)
def compiled(source: str) -> Template:
    """Compile a template; raises Jinja's own errors."""
    _fence(_ENV.parse(source))
    return _ENV.from_string(source)


@lru_cache(maxsize=1024)
def compiled_expression(source: str) -> Callable[[Mapping[str, object]], Any]:
    """Compile an expression, which yields a value of any type; raises Jinja's own errors."""
    return _ENV.compile_expression(source, undefined_to_none=False)


def rendered(source: str, scope: Mapping[str, object]) -> str:
    """Render a template within a budget; raises Jinja's own errors."""
    if "{" not in source:  # as most choices are: nothing in it to look up
        return _plain(source)
    with budget():
        return compiled(source).render(scope)


@lru_cache(maxsize=1024)
def _plain(source: str) -> str:
    """Render a template without expressions, tags and comments: the same in every scope."""
    return compiled(source).render()


def computed(source: str, scope: Mapping[str, object]) -> Any:
    """Compute an expression within a budget, lazy results as lists; raises Jinja's own errors."""
    with budget():
        result = compiled_expression(source)(scope)
        return list(result) if isinstance(result, Iterator) else result


@lru_cache(maxsize=1024)
def variables(source: str) -> frozenset[str]:
    """Name the fields that a template looks up; `row["A b"]` counts as the field `A b`.

    The bare name `row` stays in the result only where the whole row is used at once, also by
    `row.items()` or `row.values()`.
    """
    tree = _fence(_ENV.parse(source))
    called = {call.node for call in tree.find_all(nodes.Call)}
    globals_used = {n.name for n in called if isinstance(n, nodes.Name) and n.name in _ENV.globals}
    names = set(meta.find_undeclared_variables(tree)) - {"range"} - globals_used
    keyed = [key for node in tree.find_all(_LOOKUPS) if (key := _key(node))]
    bare = sum(node.name == "row" for node in tree.find_all(nodes.Name)) - len(keyed)
    return frozenset((names - {"row"}) | set(keyed) | ({"row"} if bare > 0 else set()))


_LOOKUPS = (nodes.Getitem, nodes.Getattr, nodes.Call)


def _key(node: nodes.Node) -> str:
    """Return `A b` for `row["A b"]` and `row.get("A b")`, and for `row.b` the name `b`.

    Else an empty text: `row.items` is the mapping's method, also where a column is called so.
    """
    of_row = nodes.Name("row", "load")
    match node:
        case nodes.Getitem(node=of, arg=nodes.Const(value=key)) if of == of_row:
            return str(key)
        case nodes.Getattr(node=of, attr=name) if of == of_row and not hasattr(dict, name):
            return str(name)
        case nodes.Call(
            node=nodes.Getattr(node=of, attr="get"), args=[nodes.Const(value=key), *_]
        ) if of == of_row:
            return str(key)
    return ""


def expression_variables(source: str) -> frozenset[str]:
    """Name the fields that an expression looks up."""
    compiled_expression(source)
    return variables("{{ " + source + " }}")
