"""How figures read: the one place for the number formats of reports and model cards.

Shares are shown in percent, overlap metrics in points of 100, cross-entropy in nats::

    >>> percent(0.8149) == f"81.5{NBSP}%"
    True
    >>> seconds(192)
    '3 min 12 s'
    >>> size(19_570_000) == f"19.6{NBSP}MB"
    True

Tests: `tests/report/test_build.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from instil.results.names import MEAN_SCORE
from instil.results.training import LeftOut
from instil.scoring.metrics import METRICS, NATS
from instil.types import Comparison, Summary

NBSP = "\u00a0"
EN_DASH = "\u2013"
MINUS = "\u2212"
MISSING = "\u2014"


class Unit(StrEnum):
    """In which unit a metric is shown."""

    PERCENT = "percent"
    POINTS = "points"
    NATS = "nats"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class MetricStyle:
    """How a metric is named and shown."""

    label: str
    """For headings."""
    unit: Unit
    """The unit of its figures."""


def style(metric: str) -> MetricStyle:
    """Return how `metric` is shown; an unknown one goes by its own name, as a plain figure."""
    if metric == NATS.name:
        return MetricStyle(NATS.label, Unit.NATS)
    if metric == "macro_f1":
        return MetricStyle("macro-F1", Unit.PERCENT)
    if metric == MEAN_SCORE:
        return MetricStyle("each task's own metric", Unit.PERCENT)
    if metric not in METRICS:
        return MetricStyle(metric, Unit.PLAIN)
    known = METRICS[metric]
    return MetricStyle(known.label, Unit.POINTS if known.points else Unit.PERCENT)


def scale(unit: Unit) -> float:
    """Return by what a figure is multiplied before it is shown in `unit`."""
    return 100.0 if unit in (Unit.PERCENT, Unit.POINTS) else 1.0


def fixed(value: float, decimals: int) -> str:
    """Return `value` with so many decimals, a true minus sign, and no minus zero."""
    if not math.isfinite(value):
        return MISSING
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float, decimals: int) -> str:
    """Return `value` like `fixed`, with its sign; zero has none."""
    text = fixed(value, decimals)
    rises = math.isfinite(value) and value > 0 and text.strip("0.,") != ""
    return f"+{text}" if rises else text


def percent(share: float) -> str:
    """Return a share of 1 in percent, with one decimal."""
    return MISSING if not math.isfinite(share) else f"{fixed(100 * share, 1)}{NBSP}%"


def without_adapter(left_out: LeftOut) -> str:
    """Say which layers carry no adapter, how much of the base model they are, and why."""
    why = "stacked weights, not linear layers"
    if left_out.linear:
        why = "PEFT has no adapter for them in this family"
    share = f"{percent(left_out.share)} of the base model's weights"
    return f"no adapter on {', '.join(left_out.layers)} ({share}): {why}"


def figure(value: float, metric: str) -> str:
    """Return one figure of `metric` in its unit."""
    unit = style(metric).unit
    if unit is Unit.PERCENT:
        return percent(value)
    return fixed(value * scale(unit), _decimals(unit))


def interval(summary: Summary) -> str:
    """Return a mean with its 95 % interval: `81.5 % (77.1-85.2)`, with an en dash."""
    return f"{figure(summary.mean, summary.metric)} ({ends(summary)})"


def ends(summary: Summary) -> str:
    """Return the ends of a mean's interval, without their unit: `77.1-85.2`, with an en dash."""
    unit = style(summary.metric).unit
    low, high = (fixed(end * scale(unit), _decimals(unit)) for end in (summary.low, summary.high))
    return f"{low}{EN_DASH}{high}"


def change(comparison: Comparison) -> str:
    """Return a difference with its sign and unit: `+7.5 points`."""
    return f"{change_figure(comparison)}{NBSP}{difference_unit(comparison.metric)}".rstrip()


def change_figure(comparison: Comparison) -> str:
    """Return a difference with its sign, where the unit stands elsewhere: `+7.5`."""
    unit = style(comparison.metric).unit
    return signed(comparison.difference * scale(unit), _digits(comparison))


def difference_unit(metric: str) -> str:
    """Return the unit of differences in `metric`; empty where it has none."""
    return _NAMES[style(metric).unit]


def change_interval(comparison: Comparison) -> str:
    """Return the ends of a difference's interval: `+3.1 to +11.8`."""
    unit = style(comparison.metric).unit
    digits = _digits(comparison)
    low, high = (signed(end * scale(unit), digits) for end in (comparison.low, comparison.high))
    return f"{low} to {high}"


def change_with_interval(comparison: Comparison) -> str:
    """Return a difference and the ends of its interval: `+7.5 points (+3.1 to +11.8)`."""
    return f"{change(comparison)} ({change_interval(comparison)})"


def figures_with_interval(comparison: Comparison) -> str:
    """Return the same without a unit, for a column that names it: `+7.5 (+3.1 to +11.8)`."""
    return f"{change_figure(comparison)} ({change_interval(comparison)})"


def size_of_change(value: float, metric: str) -> str:
    """Return the size of a difference in `metric`, without a sign: `5.1 points`."""
    unit = style(metric).unit
    return f"{fixed(value * scale(unit), _decimals(unit))}{NBSP}{_NAMES[unit]}".rstrip()


# In sentences, which are also read in a terminal: no sign or space but those of a keyboard.


def plain(text: str) -> str:
    """Return a figure with a hyphen for its minus sign, and with spaces that may break.

    >>> plain(f"{MINUS}6.0{NBSP}points")
    '-6.0 points'
    """
    return text.replace(NBSP, " ").replace(MINUS, "-")


def plain_change(comparison: Comparison) -> str:
    """Return a difference with its sign and unit: `+9.3 points`, `+0.031 nats per token`."""
    return plain(change(comparison)) + _per_token(comparison.metric)


def plain_interval(comparison: Comparison) -> str:
    """Return the ends of a difference's interval: `+5.1 to -13.5`."""
    return plain(change_interval(comparison))


def plain_size(value: float, metric: str) -> str:
    """Return the size of a difference, without a sign: `5.1 points`, `0.031 nats per token`."""
    return plain(size_of_change(value, metric)) + _per_token(metric)


def plain_level(value: float, metric: str) -> str:
    """Return a mean in hundredths or in nats: `83.0`."""
    unit = style(metric).unit
    return plain(fixed(value * scale(unit), _decimals(unit)))


def duration(value: float) -> str:
    """Return seconds in words: `42 seconds`, `6.3 minutes`."""
    if value < 59.5:
        shown = f"{value:.0f}"
        return f"{shown} second" if shown == "1" else f"{shown} seconds"
    return f"{value / 60:.1f} minutes" if value < 7197 else f"{value / 3600:.1f} hours"


def stored(count: int) -> str:
    """Return bytes in thousands, millions or billions: `210 KB`, `9.8 MB`, `14.0 GB`."""
    if count < 999_500:
        return f"{max(1, round(count / 1e3))} KB" if count else "0 KB"
    if count < 999.5e6:
        return f"{count / 1e6:.1f} MB" if count < 99.95e6 else f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:.1f} GB"


def _per_token(metric: str) -> str:
    return " per token" if style(metric).unit is Unit.NATS else ""


def p_value(value: float | None) -> str:
    """Return a p-value with three decimals, or that it lies below them."""
    if value is None:
        return MISSING
    return f"<{NBSP}0.001" if value < 0.001 else fixed(value, 3)


def learning_rate(value: float) -> str:
    """Return a learning rate with three digits: `0.0013`, `5e-5`."""
    return f"{value:.3g}".replace("e-0", "e-")


def count(value: float) -> str:
    """Return a whole number with a comma between thousands."""
    return fixed(value, 0)


def tokens(value: float) -> str:
    """Return a mean number of tokens: one decimal below 100, none above."""
    return fixed(value, 1 if abs(value) < 99.95 and value != round(value) else 0)


def parameters(value: int) -> str:
    """Return a number of weights: `4.9 M`; a dash for none."""
    return _with_prefix(value, ("", "K", "M", "B", "T")) if value else MISSING


def size(value: int) -> str:
    """Return bytes in powers of 1000: `98 MB`; a dash for none."""
    return _with_prefix(value, ("B", "kB", "MB", "GB", "TB")) if value else MISSING


def seconds(value: float) -> str:
    """Return a duration in its two largest units: `3 min 12 s`."""
    if not math.isfinite(value):
        return MISSING
    if value < 59.5:
        return f"{fixed(value, 1 if value < 10 else 0)}{NBSP}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours} h {minutes:02d} min"


def milliseconds(value: float) -> str:
    """Return milliseconds in as many digits as count: `31`, `4.2`, `0.13`."""
    if value >= 9.95:
        return f"{value:.0f}"
    return f"{value:.2g}" if value >= 0.001 else "0.00"


def moment(text: str) -> str:
    """Return an ISO 8601 time for people, and anything else as it stands."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text or MISSING
    return time.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")


def plural(number: int, noun: str) -> str:
    """Return a counted noun: `1 row`, `1,200 rows`."""
    return f"{count(number)} {noun if number == 1 else noun + 's'}"


def seeds(used: Sequence[int]) -> str:
    """Return how many seeds there were, and which: `2 seeds (0, 1)`."""
    return f"{plural(len(used), 'seed')} ({', '.join(map(str, used))})"


_NAMES = {Unit.PERCENT: "points", Unit.POINTS: "points", Unit.NATS: "nats", Unit.PLAIN: ""}


def _decimals(unit: Unit) -> int:
    return 1 if unit in (Unit.PERCENT, Unit.POINTS) else 3


def _digits(comparison: Comparison) -> int:
    """Return as many decimals as tell an interval apart from zero where it excludes zero."""
    unit = style(comparison.metric).unit
    digits = _decimals(unit)
    nearest = scale(unit) * min(abs(comparison.low), abs(comparison.high))
    apart = comparison.low > 0 or comparison.high < 0
    while apart and nearest > 1e-9 and round(nearest, digits) == 0:
        digits += 1
    return digits


def _with_prefix(value: int, units: tuple[str, ...]) -> str:
    amount = float(value)
    for unit in units:
        decimals = 1 if unit != units[0] and amount < 99.95 else 0
        # 999.6 would read 1,000: the next unit takes it.
        if amount < 999.5 or unit == units[-1]:
            return f"{fixed(amount, decimals)}{NBSP}{unit}".rstrip()
        amount /= 1000
    raise AssertionError("the last unit takes every amount")
