"""A run's model, written for use without instil."""

from __future__ import annotations

import shutil
from pathlib import Path

from instil.errors import Problem, RunError
from instil.ship.shipped import load_run_model
from instil.stages.directory import load_summary, require_whole


def export(folder: Path, *, out: Path, merge: bool) -> Path:
    """Write a run's model for use without instil.

    Args:
        folder: A finished run.
        out: The folder to make.
        merge: Fold the adapter into the base weights: one plain transformers model.

    Raises:
        RunError: The folder is no finished run, or its model holds links.
    """
    load_summary(folder)
    if not (folder / "model").is_dir():
        raise RunError(
            Problem(f"{folder / 'model'} is gone", fix="bring it back, or make the run anew")
        )
    _refuse_links(folder / "model")
    require_whole(folder)
    if not merge:
        shutil.copytree(folder / "model", out)
        return out
    from instil.model.adapter import merged
    from instil.model.export import save_model

    save_model(merged(load_run_model(folder)), out)
    shutil.copy(folder / "model" / "README.md", out / "README.md")
    return out


def _refuse_links(model: Path) -> None:
    """Refuse links in a model's folder: what they lead to would be copied, whatever it is."""
    links = [path for path in sorted(model.rglob("*")) if path.is_symlink()]
    if links:
        raise RunError(
            *(
                Problem(
                    "a link in a run's model is not exported",
                    where=str(link),
                    found=f"it leads to {link.readlink()}",
                    fix="put the file itself there, or take the link out",
                )
                for link in links[:3]
            )
        )
