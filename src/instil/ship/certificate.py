"""The certificate that travels with an exported model: what it is made from, and what was proved.

It goes into the model card and into a GGUF file's metadata, and names no path of the user's and no
row. Whoever has the run can hold it against its directory; whoever has the model can tell by the
hashes which base model and which adapter it is.

Tests: `tests/ship/test_export.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from instil import format as fmt
from instil.errors import RunError
from instil.files import file_sha256
from instil.ship.shipped import proven_manifest
from instil.stages.runfiles import load_summary
from instil.types import Comparison, Summary

VERSION = 1
CERTIFICATE = "certificate.json"
"""Its file, beside what was exported."""


def certificate(folder: Path) -> dict[str, Any]:
    """Return a run's certificate, as JSON has it.

    Args:
        folder: A finished run.

    Raises:
        RunError: It is none, or one of an earlier version of instil.
    """
    summary, manifest = load_summary(folder), proven_manifest(folder)
    weights = sorted((folder / "model").glob("*.safetensors"))
    base = manifest["model"]
    return {
        "certificate": VERSION,
        "run": manifest["run_id"],
        "begun": manifest["begun"],
        "made_with": manifest["versions"],
        "base_model": {name: base[name] for name in ("name", "sha256", "licence")},
        "method": summary.training.method,
        "weights": {each.name: file_sha256(each) for each in weights},
        "recipe_sha256": manifest["recipe_sha256"],
        "data": manifest["data"],
        "test_opened": manifest["test_opened"],
        "test": [
            {
                "task": task.task,
                "rows": {str(part): count for part, count in task.rows.items()},
                "arms": {
                    arm.name: {name: _figure(each) for name, each in arm.summaries.items()}
                    for arm in task.arms
                },
                "tuned_minus": {
                    arm.name: _difference(pair)
                    for arm in task.arms
                    if (pair := task.against(arm.name)) is not None
                },
            }
            for task in summary.tasks
        ],
        "forgetting": [
            {
                "task": guard.task,
                "before": _figure(guard.before),
                "after": _figure(guard.after),
                "difference": _difference(guard.comparison),
            }
            for guard in summary.forgetting
        ],
        "verdict": list(summary.verdict),
    }


def require_own(target: str, run: Path) -> None:
    """Refuse what was exported from another run, as the certificate beside it says.

    Args:
        target: A folder, a file or the address of a server; without a certificate it may be any.
        run: The finished run that it should be of.

    Raises:
        RunError: It is of another one.
    """
    path = Path(target)
    lies = (path if path.is_dir() else path.parent) / CERTIFICATE
    try:
        known = json.loads(lies.read_text(encoding="utf-8"))
        theirs, begun = str(known["run"]), str(known["begun"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if theirs != proven_manifest(run)["run_id"]:
        raise RunError(
            f"this was exported from another run than {run.name}",
            where=target,
            found=f"its {CERTIFICATE} names a run that was begun on {begun}",
            fix="name the run that it was exported from: --run",
        )


def _figure(summary: Summary) -> dict[str, object]:
    """A mean with its 95 % interval."""
    return {
        "metric": summary.metric,
        "mean": summary.mean,
        "low": summary.low,
        "high": summary.high,
    }


def _difference(comparison: Comparison) -> dict[str, object]:
    return {
        "metric": comparison.metric,
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "pairs": comparison.n,
    }


def card_section(known: dict[str, Any]) -> str:
    """Return the certificate as a section of the model card."""
    times = fmt.plural(len(known["test_opened"]), "time")
    text = json.dumps(known, indent=1, ensure_ascii=True)
    return (
        "\n## Certificate\n\n"
        f"What this model is made from and what was proved of it; the test was opened {times}. "
        "`instil verify` asks a model the run's validation rows again.\n\n"
        f"```json\n{text}\n```\n"
    )
