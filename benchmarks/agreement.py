"""Whether the sides of a case found the same: trained-on tokens, losses, choices, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LOSS_TOLERANCE = 0.05
"""Nats per token: bfloat16 logits near 20 come in steps of an eighth (docs/002)."""
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def agreement(runs: Runs, told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Compare the sides' first runs; `told` is the peer's account of the first step.

    Returns:
        Nothing where there is nothing to compare.
    """
    first = {name: some[0] for name, some in runs.items() if some and "failed" not in some[0]}
    if len(first) < 2:
        return {}
    ours, *others = first.values()
    if told and "failed" in told:
        return {"says": f"not compared: {told['failed']}", "agrees": False}
    if told:
        return losses(ours, told)
    theirs = others[0]
    if "nats" in ours and "nats" in theirs:
        return choices(ours["nats"], theirs["nats"])
    if "texts" in ours and "texts" in theirs:
        return texts(ours["texts"], theirs["texts"])
    return {}


def losses(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The first step's loss, over the tokens that both train on.

    TRL also trains on what the chat template writes behind the stop token (a newline, say). Its
    own account leaves that out again, so both means are over the same tokens.
    """
    same = sum(b[: len(a)] == a for a, b in zip(ours["trained"], theirs["trained"], strict=True))
    more = sum(len(b) for b in theirs["trained"]) - sum(len(a) for a in ours["trained"])
    mine, other = ours["loss"][0], theirs["loss_to_stop"]
    rows = len(ours["trained"])
    return {
        "says": f"first step: {ours['supervised'][0]} tokens trained on, TRL {more} more behind "
        f"the stop tokens; the same ids in {same} of {rows} rows; loss over these {mine:.3f}, "
        f"TRL {other:.3f} ({theirs['loss']:.3f} with what it adds)",
        "agrees": same == rows and abs(mine - other) <= LOSS_TOLERANCE,
    }


def choices(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The choices taken, and how far apart the differences between choices are.

    Only differences within a row are compared: lm-eval moves white space that ends the prompt to
    the choices, which adds the same to each of them.
    """
    gaps, same = [], 0
    for mine, other in zip(ours, theirs, strict=True):
        a, b = _centred(mine), _centred(other)
        gaps += [abs(x - y) for x, y in zip(a, b, strict=True)]
        same += a.index(max(a)) == b.index(max(b))
    mean = sum(gaps) / len(gaps)
    return {
        "says": f"same choice in {same} of {len(ours)} rows; differences between choices are "
        f"{mean:.2f} nats apart on average",
        "agrees": same >= 0.9 * len(ours),
    }


def _centred(nats: Sequence[float]) -> list[float]:
    mean = sum(nats) / len(nats)
    return [n - mean for n in nats]


def texts(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, Any]:
    """How many generated texts are the same, and how many begin the same way.

    In bfloat16 a near-tie may fall either way, and everything behind it differs.
    """
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    first = sum(a.split()[:2] == b.split()[:2] for a, b in zip(ours, theirs, strict=True))
    return {
        "says": f"same text in {same} of {len(ours)} rows, same first two words in {first}",
        "agrees": first >= 0.8 * len(ours),
    }
