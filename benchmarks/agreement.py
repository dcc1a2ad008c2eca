"""Whether the sides of a case found the same: trained-on tokens, losses, choices, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LOSS_TOLERANCE = 1e-3
"""Share of the loss: both sides compute it in float32, in another order."""
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def agreement(runs: Runs, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the sides' first runs.

    Args:
        runs: Side -> runs, instil's own first.
        told: instil's and the peer's account of the first step in float32; empty for no training.

    Returns:
        `says`: for people, `agrees`: the verdict; nothing where there is nothing to compare.
    """
    failed = [account["failed"] for account in told if "failed" in account]
    if failed:
        return {"says": f"not compared: {failed[0]}", "agrees": False}
    first = {name: some[0] for name, some in runs.items() if some and "failed" not in some[0]}
    if told:
        return losses(*told, trained={n: r["loss"][0] for n, r in first.items() if r.get("loss")})
    if len(first) < 2:
        return {}
    ours, theirs, *_ = first.values()
    if "nats" in ours and "nats" in theirs:
        return choices(ours["nats"], theirs["nats"])
    if "texts" in ours and "texts" in theirs:
        return texts(ours["texts"], theirs["texts"])
    return {}


def losses(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, trained: Mapping[str, float]
) -> dict[str, Any]:
    """The first step's loss, over the tokens that both train on.

    TRL also trains on what the chat template writes behind the stop token (a newline, say). Its
    own account leaves that out again, so both means are over the same tokens.

    Args:
        ours: `loss` in nats per token, `trained` ids of each row.
        theirs: The same, and `loss_to_stop`.
        trained: Side -> its first step's loss as it was trained, in bfloat16.
    """
    pairs = list(zip(ours["trained"], theirs["trained"], strict=True))
    same = sum(b[: len(a)] == a for a, b in pairs)
    count = sum(len(a) for a, _ in pairs)
    more = sum(len(b) for _, b in pairs) - count
    mine, other = ours["loss"], theirs["loss_to_stop"]
    steps = ", ".join(f"{name} {loss:.3f}" for name, loss in trained.items())
    return {
        "says": f"first step: {count} tokens trained on, TRL {more} more behind the stop tokens; "
        f"the same ids in {same} of {len(pairs)} rows; loss over these in float32 {mine:.4f}, "
        f"TRL {other:.4f} ({theirs['loss']:.4f} with what it adds); as trained: {steps}",
        "agrees": same == len(pairs) and abs(mine - other) <= LOSS_TOLERANCE * mine,
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
