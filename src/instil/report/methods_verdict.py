"""What a study of methods shows, in sentences, and which of its differences are shown at all."""

from __future__ import annotations

from collections.abc import Sequence

from instil import format as fmt
from instil.compare.interpolation import TOLERANCE
from instil.compare.verdict import PROMPTING, Outcome, outcomes
from instil.format import NBSP
from instil.studyresults import MethodArm, MethodsStudy
from instil.types import Comparison

MOST = 0.5
"""The share of the reference arm's loss that is most of it."""


def methods_verdict(study: MethodsStudy) -> tuple[str, ...]:
    """Return what the study shows, in a few sentences."""
    return tuple(
        filter(
            None,
            (_scores_sentence(study), _forgot_sentence(study), *_recovery(study), _size(study)),
        )
    )


def trained_arms(study: MethodsStudy) -> list[MethodArm]:
    """Return the arms that were tuned, the reference arm among them."""
    return [arm for arm in study.arms if arm.trained]


def score_outcomes(study: MethodsStudy) -> dict[str, Outcome]:
    """Arm -> what its score against the reference arm's shows, corrected over all arms."""
    return shown_of([(a.name, a.score_against) for a in study.arms])


def text_outcomes(study: MethodsStudy) -> dict[str, Outcome]:
    """Arm -> what its loss on general text against the reference arm's shows."""
    return shown_of([(a.name, a.text_against) for a in study.arms])


def points_outcomes(study: MethodsStudy) -> dict[str, Outcome]:
    """Arm -> what its change on the guard tasks against the reference arm's shows."""
    return shown_of([(a.name, a.points_against) for a in study.arms])


def shown_of(found: Sequence[tuple[str, Comparison | None]]) -> dict[str, Outcome]:
    """Arm -> what its comparison shows, corrected over all that are given (Holm)."""
    known = [(name, each) for name, each in found if each is not None]
    shown = outcomes([each for _, each in known])
    return {name: each for (name, _), each in zip(known, shown, strict=True)}


def reference_arm(study: MethodsStudy) -> MethodArm:
    """Return the arm that the others are compared with."""
    return next(arm for arm in study.arms if arm.name == study.reference)


def _scores_sentence(study: MethodsStudy) -> str:
    shown = score_outcomes(study)
    reference = reference_arm(study)
    parts = [
        f"On {', '.join(study.tasks)}, {reference.label} reached {fmt.interval(reference.score)}"
    ]
    level = []
    for arm in study.arms:
        if arm.score_against is None:
            continue
        if shown[arm.name] is Outcome.NOT_SHOWN:
            level.append(arm)
        else:
            parts.append(f"{arm.label} is {shown[arm.name]} than that by {_size_of(arm)}")
    if level:
        parts.append(
            f"no difference from it is shown for {_names(level)} (this study could show "
            f"{_detectable([a.score_against for a in level])})"
        )
    return f"{'; '.join(parts)}; corrected for {fmt.plural(len(shown), 'comparison')}."


def _size_of(arm: MethodArm) -> str:
    assert arm.score_against is not None
    found = arm.score_against
    return f"{fmt.change(found).lstrip('+' + fmt.MINUS)} ({fmt.change_interval(found)})"


def _names(arms: Sequence[MethodArm]) -> str:
    return ", ".join(arm.label for arm in arms)


def _detectable(found: Sequence[Comparison | None]) -> str:
    known = [each for each in found if each is not None and each.smallest_detectable]
    if not known:
        return "no more than its rows had in common"
    sizes = sorted(each.smallest_detectable for each in known)
    metric = known[0].metric
    low, high = (fmt.size_of_change(size, metric) for size in (sizes[0], sizes[-1]))
    return low if low == high else f"{low} to {high}"


def _forgot_sentence(study: MethodsStudy) -> str:
    arms = [arm for arm in trained_arms(study) if arm.text is not None]
    if not arms:
        return "Forgetting was not measured on general text."
    shown = shown_of([(arm.name, arm.text) for arm in arms])
    lost = [arm for arm in arms if shown[arm.name] is Outcome.WORSE]
    kept = [arm for arm in arms if shown[arm.name] is not Outcome.WORSE]
    parts = [f"{arm.label} lost {_text(arm)}" for arm in lost]
    if kept:
        parts.append(f"no loss is shown for {_names(kept)}")
    return f"General text: {'; '.join(parts)}."


def _text(arm: MethodArm) -> str:
    assert arm.text is not None
    return f"{fmt.change(arm.text).lstrip('+')} per token ({fmt.change_interval(arm.text)})"


def _recovery(study: MethodsStudy) -> list[str]:
    """Say which arms give back most of what the reference arm lost on general text."""
    reference = reference_arm(study)
    others = [arm for arm in trained_arms(study) if arm.text_against is not None]
    if reference.text is None or not others:
        return []
    if outcomes([reference.text])[0] is not Outcome.WORSE:
        return [f"{reference.label} shows no loss on general text that others could give back."]
    shown = text_outcomes(study)
    found = [
        arm
        for arm in others
        if shown[arm.name] is Outcome.BETTER
        and _recovered(arm, reference) > MOST
        and arm.score_against is not None
        and arm.score_against.difference >= -TOLERANCE
    ]
    if not found:
        return [
            f"No arm is shown to give back most of what {reference.label} lost on general text at "
            "a score within half a point of it."
        ]
    return [_recovery_sentence(arm, reference) for arm in found]


def _recovered(arm: MethodArm, reference: MethodArm) -> float:
    assert arm.text_against is not None
    assert reference.text is not None
    return -arm.text_against.difference / reference.text.difference


def _recovery_sentence(arm: MethodArm, reference: MethodArm) -> str:
    assert arm.text_against is not None
    assert arm.score_against is not None
    share = _recovered(arm, reference)
    part = f"{100 * share:.0f}{NBSP}% of" if share <= 1 else "more than"
    return (
        f"{arm.label} gives back {part} what {reference.label} lost on general text "
        f"({fmt.change(arm.text_against)} per token, {fmt.change_interval(arm.text_against)}), at "
        f"{fmt.change(arm.score_against)} of score ({fmt.change_interval(arm.score_against)})."
    )


def _size(study: MethodsStudy) -> str:
    """Put another model, prompted, beside the tuned one, with what predictions take."""
    others = [arm for arm in study.arms if not arm.trained and arm.name != PROMPTING]
    reference = reference_arm(study)
    found = []
    for arm in others:
        word = score_outcomes(study)[arm.name]
        shown = {
            Outcome.BETTER: f"{arm.label} is better than {study.model} tuned ({reference.label})",
            Outcome.WORSE: f"{arm.label} is worse than {study.model} tuned ({reference.label})",
            Outcome.NOT_SHOWN: f"no difference is shown between {arm.label} and {study.model} "
            f"tuned ({reference.label})",
        }[word]
        found.append(
            f"{shown[:1].upper()}{shown[1:]}: {fmt.figure(arm.score.mean, study.metric)} against "
            f"{fmt.figure(reference.score.mean, study.metric)}; a thousand predictions take "
            f"{thousand(arm)} against {thousand(reference)}."
        )
    return " ".join(found)


def thousand(arm: MethodArm) -> str:
    """Return how long a thousand predictions take."""
    speed = arm.costs.predictions_per_second
    return fmt.seconds(1000 / speed) if speed else fmt.MISSING
