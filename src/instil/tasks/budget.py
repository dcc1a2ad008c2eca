"""A Jinja sandbox whose templates cannot run for ever, nor fill the memory.

A template comes with a task or a model that somebody else made. Jinja's own sandbox keeps it from
the machine, not from loops in loops, a text doubled forty times or `"%1000000000d"`. Here every
turn of a loop, call, filter and operator is counted against a `budget`; what an operation would
make is reckoned before it is made, so that no single step is long::

    with budget():
        text = environment.from_string(source).render(fields)    # or BudgetError

Without a budget around it a template is not counted, but no single step is long either.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from itertools import chain
from typing import Any, TypeVar

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

T = TypeVar("T")

STEPS = 200_000
"""Turns of loops, calls, filters and operators of one rendering."""
CHARACTERS = 50_000_000
"""Characters and items that the steps of one rendering make together."""
SECONDS = 3.0
"""Seconds of this thread's processor that one rendering takes."""
LONGEST_SOURCE = 1_000_000
"""Characters of a template."""
LARGEST_NUMBER = 4096
"""Bits of a whole number."""
WIDEST = 100_000
"""A width, a count of columns and the like."""

_STEPS_BETWEEN_CLOCKS = 64
_MOST_ITEMS = 200_000  # of one value: lists of lists in lists have more than they seem to

_WIDTHS = frozenset(
    "batch center expandtabs indent ljust rjust round slice to_bytes truncate wordwrap "
    "zfill".split()
)
"""Filters, methods and functions whose whole numbers say how much they write."""
_CHEAP = frozenset(
    "abs attr batch count d default dictsort first float groupby int items last length list map "
    "max min random reject rejectattr reverse round select selectattr slice sort sum "
    "unique".split()
)
"""Filters that write no list or mapping as a text."""
_FORMATS = frozenset({"format", "format_map"})
_WIDE_FORMAT = re.compile(r"\d{6}|\*|\{[^{}]*\{")


class BudgetError(SecurityError):
    """A template does more than its budget allows."""


@dataclass(slots=True)
class _Budget:
    steps: int = field(default_factory=lambda: STEPS)
    characters: int = field(default_factory=lambda: CHARACTERS)
    until: float = field(default_factory=lambda: time.thread_time() + SECONDS)

    def spend(self, size: int) -> None:
        self.steps -= 1
        self.characters -= size
        if self.steps < 0:
            raise BudgetError(f"it takes more than {STEPS:,} steps")
        if self.characters < 0:
            raise BudgetError(f"it makes more than {CHARACTERS:,} characters")
        if self.steps % _STEPS_BETWEEN_CLOCKS == 0 and time.thread_time() > self.until:
            raise BudgetError(f"it takes longer than {SECONDS:g} seconds")


_LEFT: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def budget() -> Iterator[None]:
    """Count what templates do from here on, and stop them with a `BudgetError`."""
    token = _LEFT.set(_Budget())
    try:
        yield
    finally:
        _LEFT.reset(token)


def _spend(value: T, size: int | None = None) -> T:
    """Count a step and what it made."""
    size = _items(value) if size is None else size
    left = _LEFT.get()
    if left is not None:
        left.spend(size)
    return value


def _allow(size: int) -> None:
    """Refuse an operation that would make more than is left, before it is begun."""
    left = _LEFT.get()
    if size > (CHARACTERS if left is None else left.characters):
        raise BudgetError(f"it makes more than {CHARACTERS:,} characters")


def _items(value: object) -> int:
    """The characters of a text; the items of lists within lists, each time that they are listed."""
    return len(value) if isinstance(value, str | bytes) else _walked(value, of_text=lambda _: 1)


def _written(value: object) -> int:
    """About how many characters a value has when it is written as a text."""
    return len(value) if isinstance(value, str | bytes) else _walked(value, of_text=len)


def _walked(value: object, *, of_text: Callable[[Any], int]) -> int:
    if not isinstance(value, list | tuple | Mapping | Set):
        return 1
    total, seen, waiting = 0, 0, [iter([value])]
    while waiting:
        for each in waiting[-1]:
            total, seen = total + 1, seen + 1
            if seen > _MOST_ITEMS:
                raise BudgetError(f"a value has more than {_MOST_ITEMS:,} items")
            if isinstance(each, str | bytes):
                total += of_text(each)
            elif isinstance(each, Mapping):
                waiting.append(chain.from_iterable(each.items()))
                break
            elif isinstance(each, list | tuple | Set):
                waiting.append(iter(each))
                break
        else:
            waiting.pop()
    return total


def _check_call(name: str, values: tuple[object, ...], more: Mapping[str, object]) -> None:
    """Refuse a filter, method or function that would make too much; `values` begins with its own.

    Raises:
        BudgetError: naming what it would do.
    """
    numbers = [n for n in (*values[1:], *more.values()) if isinstance(n, int)]
    if name in _WIDTHS and any(abs(number) > WIDEST for number in numbers):
        raise BudgetError(f"`{name}` of more than {WIDEST:,}")
    first = values[0] if values else None
    if name in _FORMATS and _WIDE_FORMAT.search(str(first)):
        raise BudgetError(f"`{name}` with a width that is not written, or of six digits")
    if name == "sum" and not isinstance(more.get("start", values[2:3] or 0), int | float | tuple):
        raise BudgetError("`sum` is for numbers")
    if name not in _CHEAP:
        _allow(_made(name, first, values[1:], more))


def _made(name: str, first: object, others: tuple[object, ...], more: Mapping[str, object]) -> int:
    """About how many characters a filter or method of `first` makes."""
    if isinstance(first, Iterator):
        return 0  # it is counted as its items are taken
    texts = [text for text in (*others, *more.values()) if isinstance(text, str)]
    longest = max(map(len, texts), default=0)
    if name == "replace" and isinstance(first, str) and texts:
        return len(first) + (first.count(texts[0]) if texts[0] else len(first) + 1) * longest
    if name == "join":
        parts = max([first, *others], key=_items)
        return _written(parts) + _items(parts) * max(longest, len(str(first)[:WIDEST]) + 1)
    if name == "translate" and others and isinstance(others[0], Mapping):
        return _items(first) * max((len(str(v)) for v in others[0].values()), default=1)
    widths = [n for n in (*others, *more.values()) if isinstance(n, int)]
    if name in ("expandtabs", "indent"):
        return _written(first) * (1 + max([*widths, longest, 8]))
    if name in ("tojson", "pprint"):
        return _written(first) * 2 + _items(first) * 32 * max([*widths, longest, 1])
    return _written(first) * 2 + sum(map(_written, others))


def _counted_filter(name: str, action: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter be counted; Jinja's marks by which it is handed its context are kept."""
    contextual = int(hasattr(action, "jinja_pass_arg"))

    @wraps(action)
    def run(*values: Any, **more: Any) -> Any:
        _check_call(name, values[contextual:], more)
        made = action(*values, **more)
        return _counted(made) if isinstance(made, Iterator) else _spend(made)

    return run


def _counted(items: Iterable[T], constant: int = 0) -> Iterator[T]:
    """Count the items as they are taken, with what a loop writes each time."""
    for item in items:
        _spend(item, 1 + constant)
        yield item


def _looped(items: Any, constant: int) -> Any:
    """The items of a `for`, counted; a missing list is left to complain by itself."""
    if isinstance(items, Undefined) or not isinstance(items, Iterable):
        return items
    return _counted(items, constant)


def printed(value: T) -> T:
    """Count what is written; a list is reckoned before it becomes a text."""
    size = _written(value)
    _allow(size)
    return _spend(value, size)


def _bits(value: object) -> int:
    return abs(value).bit_length() if isinstance(value, int) else 0


_LOOPED, PRINTED, _SPENT = "_looped", "_printed", "_spent"
"""Filters that stand in the tree of a template alone."""


class BudgetedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which every step is counted."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.filters.update({_LOOPED: _looped, PRINTED: printed, _SPENT: _spend})
        if self.finalize is None:
            self.finalize = printed

    def count_filters(self) -> None:
        """Let all filters be counted; called once, when all are there."""
        self.globals.pop("lipsum", None)  # no template needs it, and it writes as much as it likes
        self.filters.update(
            {n: _counted_filter(n, f) for n, f in self.filters.items() if not n.startswith("_")}
        )

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute, where the result is not too large."""
        if operator == "%" and isinstance(left, str | bytes):
            _check_call("format", (left, right), {})
        power = max(1, abs(right)) if isinstance(right, int) else 1
        size = {"**": _bits(left) * power, "*": _bits(left) + _bits(right)}.get(operator, 0)
        if size > LARGEST_NUMBER:
            raise BudgetError("a number is too large")
        if operator == "*":
            for times, repeated in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(repeated, str | bytes | list | tuple):
                    _allow(max(0, times) * _items(repeated))
        if operator == "+":
            _allow(_items(left) + _items(right))
        return _spend(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method or function, where the result is not too large."""
        method = getattr(__obj, "__wrapped__", __obj)
        name = str(getattr(method, "__name__", ""))
        _check_call(name, (getattr(method, "__self__", None), *args), kwargs)
        made = super().call(__context, __obj, *args, **kwargs)
        return _counted(made) if isinstance(made, Iterator) else _spend(made)

    def _generate(self, source: nodes.Template, *more: Any, **options: Any) -> str:
        """Put the counting into a template's tree."""
        return super()._generate(_Counting(self).visit(source), *more, **options)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > LONGEST_SOURCE:
            raise BudgetError(f"it has more than {LONGEST_SOURCE:,} characters")
        return super()._parse(source, name, filename)


class _Counting(NodeTransformer):
    """Puts filters that count around the lists that a template loops over, writes and makes."""

    def __init__(self, environment: BudgetedEnvironment) -> None:
        self.environment = environment

    def visit_For(self, loop: nodes.For) -> nodes.For:
        constant = sum(len(data.data) for data in loop.find_all(nodes.TemplateData))
        self.generic_visit(loop)
        loop.iter = self._filtered(loop.iter, _LOOPED, nodes.Const(constant))
        return loop

    def visit_Concat(self, joined: nodes.Concat) -> nodes.Concat:
        self.generic_visit(joined)
        joined.nodes = [self._filtered(part, PRINTED) for part in joined.nodes]
        return joined

    def visit_List(self, made: nodes.List | nodes.Dict) -> nodes.Expr:
        self.generic_visit(made)
        return self._filtered(made, _SPENT)

    visit_Dict = visit_List

    def visit_Tuple(self, made: nodes.Tuple) -> nodes.Expr:
        self.generic_visit(made)
        return self._filtered(made, _SPENT) if made.ctx == "load" else made

    def _filtered(self, value: Any, name: str, *more: nodes.Expr) -> nodes.Filter:
        return nodes.Filter(
            value, name, list(more), [], None, None,
            lineno=value.lineno, environment=self.environment,
        )  # fmt: skip
