"""Files of runs that an earlier version wrote, in the form of today.

Summaries of format 1, and the steps beside them, had a field for each term of the loss.
"""

from __future__ import annotations

import json
from typing import Any

OLD_TERMS = ("replay_loss", "kl", "entropy_weight")
"""Fields of a step that are names in `Step.terms` now."""


def of_today(data: bytes) -> bytes:
    """Return JSON of a run, where it is of an earlier form, as it is said today.

    What is no JSON stays as it is, for whoever reads it to tell.
    """
    if b'"entropy_weight' not in data or b'"terms"' in data:  # what both old forms have
        return data
    try:
        return json.dumps(json.loads(data, object_hook=_renewed)).encode()
    except ValueError:
        return data


def _renewed(record: dict[str, Any]) -> dict[str, Any]:
    if "grad_norm" in record:
        terms = {name: record.pop(name, None) for name in OLD_TERMS}
        record["terms"] = {name: value for name, value in terms.items() if value is not None}
    if "replay_share" in record:
        record["terms"] = _terms_of_means(record)
    return record


def _terms_of_means(means: dict[str, Any]) -> list[dict[str, Any]]:
    """Make the terms of what format 1 had a field for each, in its words."""
    terms = []
    if means.get("kl") is not None:
        what = f"Held to the base model ({means['kl_on']}): forward KL with a weight of"
        terms.append(_term("kl", f"{what} {means['kl']:g}", means["mean_kl"]))
    if means.get("entropy_weighted"):
        what = "Each token's loss was weighted by how unsure the model was there"
        terms.append(_term("entropy_weight", what, means["mean_weight"]))
    return terms


def _term(name: str, what: str, mean: float | None) -> dict[str, Any]:
    figure = "" if mean is None else f"; {mean:.4f} on average"
    return {"name": name, "sentence": f"{what}{figure}.", "mean": mean}
