"""Files of runs that an earlier version wrote, in the form of today.

Summaries of format 1, and the steps beside them, had a field for each term of the loss.
"""

from __future__ import annotations

import json
from typing import Any

OLD_TERMS = ("replay_loss", "kl", "entropy_weight")
"""Fields of a step that are names in `Step.terms` now."""


def of_today(data: bytes) -> Any:
    """Read JSON of a run; what has been said otherwise since then is said as today.

    Raises:
        ValueError: It is no JSON.
    """
    return json.loads(data, object_hook=_renewed)


def is_older(data: bytes) -> bool:
    """Whether JSON of a run may be of an earlier form; said without reading it."""
    return b'"entropy_weight' in data and b'"terms"' not in data


def _renewed(found: dict[str, Any]) -> dict[str, Any]:
    if "grad_norm" in found:
        terms = {name: found.pop(name, None) for name in OLD_TERMS}
        found["terms"] = {name: value for name, value in terms.items() if value is not None}
    if "replay_share" in found:
        found["terms"] = _terms_of_means(found)
    return found


def _terms_of_means(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Make the terms of what format 1 had a field for each, in its words."""
    terms = []
    if found.get("kl") is not None:
        what = f"Held to the base model ({found['kl_on']}): forward KL with a weight of"
        terms.append(_term("kl", f"{what} {found['kl']:g}", found["mean_kl"]))
    if found.get("entropy_weighted"):
        what = "Each token's loss was weighted by how unsure the model was there"
        terms.append(_term("entropy_weight", what, found["mean_weight"]))
    return terms


def _term(name: str, what: str, mean: float | None) -> dict[str, Any]:
    figure = "" if mean is None else f"; {mean:.4f} on average"
    return {"name": name, "sentence": f"{what}{figure}.", "mean": mean}
