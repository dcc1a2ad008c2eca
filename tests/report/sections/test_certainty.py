"""The section on probabilities, and that it is only there where there are any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from instil.report.build import build_report
from instil.report.html import to_html
from instil.report.sections.certainty import certainty_blocks, temperature_sentence
from instil.results import TUNED, Answering, Calibration, Certainty, CertaintyBin
from instil.types import Estimate

ERROR, BRIER = Estimate(0.021, 0.01, 0.034), Estimate(0.2, 0.15, 0.26)
BINS = (CertaintyBin(0.6, 0.5, 40), CertaintyBin(0.99, 0.95, 40))
KNOWN = Certainty(
    1.7,
    100,
    (Calibration(TUNED, ERROR, BRIER, BINS, 1.7), Calibration(TUNED, ERROR, BRIER, BINS)),
    (Answering(0.02), Answering(0.1, 0.8, 0.03, 0.09)),
)


def test_the_page_has_it(sample):
    run = sample.run()
    task = replace(run.tasks[0], certainty=KNOWN)
    for summary, there in ((run, False), (replace(run, tasks=(task,)), True)):
        html = to_html(build_report(summary, steps=(), manifest=sample.manifest()))
        assert ("How sure, and how often right" in html) is there
    text = html.replace("\u00a0", " ")
    for said in (
        "divided by 1.70 wherever probabilities are told",
        "tuned, zero-shot, with its temperature",
        "tuned, zero-shot, as it is",
        "1.0 to 3.4",
        "no threshold is shown to keep to it",
        "at most 9.0 %",
        "95.0 % right of 40 at 99.0 %",
    ):
        assert said in text, said


@pytest.mark.parametrize(
    ("heat", "said"), [(1.7, "surer than it is"), (0.6, "less sure"), (1.01, "about as sure")]
)
def test_how_sure(heat, said):
    assert said in temperature_sentence(replace(KNOWN, temperature=heat))


def test_no_choices(sample):
    (note,) = certainty_blocks(sample.run().tasks[0])
    assert "no choices" in note.text
