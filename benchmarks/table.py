"""The report as Markdown: one table of sides, one of targets, and what the sides agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from settings import TRL

HEADER = (
    "| case | side | tokens/s | seconds | peak memory | share of peak: of rows | computed "
    "| instil is | instil's memory |",
    "|---|---|---|---|---|---|---|---|---|",
)
WORDS = {
    "speed": "speed against",
    "memory": "memory against",
    "peak": "share of the matrix-product peak",
    "seconds": "seconds",
    "growth": "memory against",
    "gigabytes": "memory, GB",
}


def table(report: Mapping[str, Any]) -> str:
    """Write the whole report."""
    lines = [f"# Benchmarks, {report['date']}", "", described(report), "", *HEADER]
    for case in report["cases"]:
        lines += sides(case)
    for name in report.get("not_measured", []):
        lines.append(f"| {name} | | not measured | | | | | | |")
    lines += ["", *explained(), "", "## Targets", ""]
    lines += ["| case | target | measured | |", "|---|---|---|---|"]
    lines += [line for case in report["cases"] for line in targets(case)]
    lines += ["", "## Agreement", ""]
    lines += [line for case in report["cases"] for line in agreed(case)]
    lines += ["", "## Settings", ""]
    lines += [line for case in report["cases"] for line in settings(case)]
    return "\n".join(lines) + "\n"


def described(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    peaks = ", ".join(f"{n}: {speed / 1e9:.0f}" for n, speed in report["matrix_peaks"].items())
    card = f"{machine['card']}; " if "card" in machine else ""
    quick = (
        "**A quick run: it shows that everything works, and measures nothing.** "
        if report.get("quick")
        else ""
    )
    return (
        f"{quick}{card}{machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB; torch {machine['torch']}, "
        f"transformers {machine['transformers']}, peft {machine['peft']}, "
        f"python {machine['python']}. bfloat16 products of square matrices, GFLOP/s by size: "
        f"{peaks}; the highest is the peak. Model: {report['model']}. {report['repeats']} turns of "
        "each side; medians, in brackets lowest to highest."
    )


def explained() -> list[str]:
    return [
        "*Tokens* are those of the rows, padding and shared prefixes left out, the same for every "
        "side. *Share of peak* counts 2 operations a weight and token forward, 4 with gradients "
        "through frozen weights (LoRA), 6 with gradients of all weights; the projection onto the "
        "vocabulary where the side computes it; attention's own products not at all. *Of rows* "
        "takes the rows' tokens, *computed* those that went through the model: padding adds "
        "some, prefixes computed once save some. Ratios are taken turn by turn. The first "
        "training step is left out on every side, and so are loading and tokenizing in training. "
        "TRL best has bfloat16 weights in LoRA (its default: float32); in full fine-tuning both "
        "sides keep float32 weights, since bfloat16 ones would round the updates away. *Its "
        "products alone* are the matrix products of instil's own steps, computed once more with "
        "nothing between them: the speed that it would have if all else were free.",
    ]


def sides(case: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, side in case["sides"].items():
        figures = side["figures"]
        if "failed" in figures:
            lines.append(
                f"| {case['name']} | {name} | failed: {cell(figures['failed'])} | | | | | | |"
            )
            continue
        ratio = case["ratios"].get(name)
        lines.append(
            f"| {case['name']} | {name} "
            f"| {spread(figures['tokens_per_second'], '.0f')} "
            f"| {spread(figures['seconds'], '.1f')} "
            f"| {spread(figures['peak_bytes'], '.2f', scale=1e-9)} GB "
            f"| {share(figures.get('nominal_share'))} | {share(figures.get('computed_share'))} "
            f"| {compared(name, ratio) if ratio else ''} "
            f"| {spread(ratio['memory'], '.0%') if ratio else ''} |"
        )
    return lines


def compared(name: str, ratio: Mapping[str, Any]) -> str:
    """instil beside a peer; beside itself (fewer rows, fewer shots) only its time says anything."""
    if name.startswith("instil"):
        return f"{spread(ratio['seconds'], '.2f')} x its seconds"
    return f"{spread(ratio['speed'], '.2f')} x as fast"


def cell(text: str) -> str:
    """Text that cannot break a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def spread(found: Mapping[str, float], form: str, *, scale: float = 1.0) -> str:
    """`median (lowest to highest)`; the median alone where all are one."""
    middle, low, high = (format(found[k] * scale, form) for k in ("median", "lowest", "highest"))
    return middle if low == high == middle else f"{middle} ({low} to {high})"


def share(found: Mapping[str, float] | None) -> str:
    return f"{found['median']:.0%}" if found else ""


def targets(case: Mapping[str, Any]) -> list[str]:
    lines = []
    for target in case["targets"]:
        percent = target["figure"] in ("peak", "memory")
        bound, measured = (
            "not measured" if v is None else f"{v:.0%}" if percent else f"{v:.3g}"
            for v in (target["bound"], target["measured"])
        )
        what = f"{WORDS[target['figure']]} {target['against']}".strip()
        if target["figure"] == "seconds" and target["against"]:
            what = f"seconds against {target['against']}"
        limit = "at least" if target["at_least"] else "at most"
        verdict = {None: "", True: "met", False: "**short of it**"}[target["met"]]
        lines.append(f"| {case['name']} | {what}: {limit} {bound} | {measured} | {verdict} |")
    return lines


def agreed(case: Mapping[str, Any]) -> list[str]:
    found = case["agreement"]
    if not found:
        return []
    verdict = "agree" if found["agrees"] else "**do not agree**"
    return [f"- {case['name']}: {verdict}. {found['says']}."]


def settings(case: Mapping[str, Any]) -> list[str]:
    lines = [f"- {case['name']}: {case['note']}."] if case["note"] else []
    for name, side in case["sides"].items():
        if side["tried"]:
            tried = ", ".join(
                f"`{s.removeprefix('--settings ')}` {v if isinstance(v, str) else format(v, '.0f')}"
                for s, v in side["tried"].items()
            )
            lines.append(
                f"- {case['name']}, {name}: {meant(side['settings'])}, the fastest of {tried} "
                "(tokens/s in one try each)."
            )
        elif side["settings"]:
            lines.append(f"- {case['name']}, {name}: {meant(side['settings'])}, no other tried.")
    return lines


def meant(arguments: str) -> str:
    """A side's arguments, and what they mean."""
    option, _, name = arguments.partition(" ")
    if option == "--settings":
        return f"`{name}` ({TRL[name].says})"
    return f"batches of {arguments}"
