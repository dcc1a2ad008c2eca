"""The test is opened once a run, and the manifest says when.

Figures of the test stay honest only as long as nobody has chosen anything by them. So a run that
has seen its test is not judged again, unless that is asked for; then the manifest has the time of
every look, and the report says how many there were. A judging that was stopped half-way is gone on
with by `--resume`: no report has shown any of it, and the same model is asked.
"""

from __future__ import annotations

from enum import StrEnum

from instil.errors import Problem, RunError
from instil.stages.directory import SUMMARY, Run, load_manifest, now

OPENED, MODEL, GONE_ON = "test_opened", "test_model_sha256", "test_gone_on_with"
TEST = "test"
"""The stage that opens it."""


class Look(StrEnum):
    """Whether the test may be opened where it has been before."""

    ONCE = "once"
    AGAIN = "again"


def prepare_look(run: Run, *, look: Look) -> None:
    """Drop the finished test of a run that is to be judged again.

    Raises:
        RunError: There has been no look yet that another could follow.
    """
    if look is Look.ONCE:
        return
    if not load_manifest(run.folder).get(OPENED):
        raise RunError(
            Problem(
                "the test of this run has not been opened yet: there is no look to repeat",
                where=str(run.folder),
                fix="leave --look-again out",
            )
        )
    run.forget(TEST)


def open_test(run: Run, *, look: Look) -> None:
    """Note in the manifest that the test is opened, before any of its rows is asked.

    Raises:
        RunError: It has been opened before, by a judging that was finished or of another model, and
            another look was not asked for.
    """
    from instil.model.load import fingerprint  # torch comes with it

    manifest = load_manifest(run.folder)
    opened, model = list(manifest.get(OPENED, [])), fingerprint(run.model)
    if opened and look is Look.ONCE:
        judged = (run.folder / SUMMARY).exists()
        if judged or manifest.get(MODEL, model) != model:
            raise RunError(_refusal(run, opened, judged=judged))
        run.note(**{GONE_ON: [*manifest.get(GONE_ON, []), now()]})
        return
    run.note(**{OPENED: [*opened, now()], MODEL: model})


def looks_sentence(looks: int) -> str:
    """Say what figures of a test are worth that was opened before; empty for a first look.

    >>> looks_sentence(1)
    ''
    """
    if looks < 2:
        return ""
    return (
        f"The test was opened {looks} times: its figures are no first look, and whatever was "
        "chosen after an earlier one makes them flatter."
    )


def _refusal(run: Run, opened: list[str], *, judged: bool) -> Problem:
    why = "this run has been judged" if judged else "the model has been changed since"
    return Problem(
        f"the test of this run has been opened before, and {why}: it is not opened again",
        where=str(run.folder),
        found=", ".join(opened),
        fix=f"begin a new run; or, to look again and have the report say so: instil run "
        f"--resume {run.folder} --look-again",
    )
