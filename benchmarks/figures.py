"""From the runs of a case to its figures: medians, ratios, share of the peak, targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cases import Case, Target
from hardware import ModelSize

Run = Mapping[str, Any]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def operations(run: Run, *, case: Case, size: ModelSize, tokens: str) -> float:
    """Matrix-product operations that a run's tokens take.

    `case.operations` for each weight and token, and for each place and weight of the projection
    onto the vocabulary. Attention's own products come on top and are left out.

    Args:
        run: Of a side.
        case: Its case.
        size: The model's.
        tokens: `tokens` of the rows, or those truly `computed`.
    """
    layers = float(run[tokens]) * size.weights
    return case.operations * (layers + float(run["places"]) * size.projection)


def side_figures(runs: Sequence[Run], *, case: Case, size: ModelSize, peak: float) -> dict:
    """What the table shows of one side."""
    if "failed" in runs[0]:
        return {"failed": runs[0]["failed"]}
    found: dict[str, Any] = {
        "tokens_per_second": spread([r["tokens"] / r["seconds"] for r in runs]),
        "seconds": spread([r["seconds"] for r in runs]),
        "peak_bytes": spread([r["peak_bytes"] for r in runs]),
    }
    if case.operations:
        for tokens, name in (("tokens", "nominal"), ("computed", "computed")):
            needed = [operations(r, case=case, size=size, tokens=tokens) for r in runs]
            speeds = [n / r["seconds"] for n, r in zip(needed, runs, strict=True)]
            found[f"{name}_share"] = spread([s / peak for s in speeds])
    return found


def ratios(ours: Sequence[Run], theirs: Sequence[Run], *, same_work: bool) -> dict[str, Any]:
    """instil's figures as multiples of another side's, turn by turn.

    `speed` goes by tokens a second where both see the same tokens, else by the rows' seconds.
    """
    pairs = list(zip(ours, theirs, strict=False))

    def speed(a: Run, b: Run) -> float:
        if same_work:
            return float(a["tokens"] / a["seconds"] / (b["tokens"] / b["seconds"]))
        return float(b["seconds"] / a["seconds"])

    return {
        "speed": spread([speed(a, b) for a, b in pairs]),
        "memory": spread([a["peak_bytes"] / b["peak_bytes"] for a, b in pairs]),
        "seconds": spread([a["seconds"] / b["seconds"] for a, b in pairs]),
    }


def judged(target: Target, *, first: Mapping[str, Any], against: Mapping[str, Any]) -> dict:
    """Hold a target against what was measured; None where that could not be.

    Args:
        target: What is asked for.
        first: Figures of instil's own side.
        against: Name of another side -> ratios.
    """
    measured = None
    if target.against:
        figure = "memory" if target.figure == "growth" else target.figure
        measured = against.get(target.against, {}).get(figure, {}).get("median")
    elif target.figure == "peak":
        measured = first.get("computed_share", {}).get("median")
    elif target.figure == "seconds":
        measured = first.get("seconds", {}).get("median")
    elif target.figure == "gigabytes" and "peak_bytes" in first:
        measured = first["peak_bytes"]["median"] / 1e9
    met = None
    if measured is not None:
        met = measured >= target.bound if target.at_least else measured <= target.bound
    return {
        "figure": target.figure,
        "against": target.against,
        "bound": target.bound,
        "at_least": target.at_least,
        "measured": measured,
        "met": met,
    }


def case_figures(case: Case, measured: Mapping[str, Any], *, size: ModelSize, peak: float) -> dict:
    """All figures of a case, beside its runs."""
    runs = {name: done["runs"] for name, done in measured["sides"].items()}
    sides = {
        name: {**done, "figures": side_figures(done["runs"], case=case, size=size, peak=peak)}
        for name, done in measured["sides"].items()
    }
    first, *others = runs
    against = {
        other: ratios(runs[first], runs[other], same_work=case.same_work)
        for other in others
        if not any("failed" in run for run in (*runs[first], *runs[other]))
    }
    figures = sides[first]["figures"]
    return {
        **measured,
        "note": case.note,
        "sides": sides,
        "ratios": against,
        "targets": [judged(t, first=figures, against=against) for t in case.targets],
    }
