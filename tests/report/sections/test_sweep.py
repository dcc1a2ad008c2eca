"""The learning rate in words, as a curve and as a table."""

import xml.etree.ElementTree as ET
from dataclasses import replace

from instil.report.build import build_report
from instil.report.charts import draw
from instil.report.html import to_html
from instil.report.sections.sweep import sweep_blocks
from instil.results.training import Sweep, TriedRate

TRIED = Sweep(
    5e-4,
    1.5e-3,
    "its try ended with the lowest loss",
    (
        TriedRate(5e-4 / 3, 8, 0.71),
        TriedRate(5e-4, 15, 0.52, 0.11, 0.07, 0.15),
        TriedRate(1.5e-3, 15, 0.41, 0.0, 0.0, 0.0),
        TriedRate(4.5e-3, 3, None),
    ),
    steps=15,
    of_steps=300,
    rows=64,
    stretch=2.714,
    seconds=104.0,
)


def page(sample, sweep: Sweep | None) -> str:
    summary = replace(sample.run(), sweep=sweep)
    text = to_html(build_report(summary, steps=sample.steps(), manifest=sample.manifest()))
    return text.replace("\u00a0", " ")


def test_curve_table_and_sentence_are_on_the_page(sample):
    text = page(sample, TRIED)
    for shown in (
        "its try ended with the lowest loss",
        "Tried: 1.7e-4, 5e-4, 1.5e-3, 4.5e-3, each for 15 of 300 steps at most",
        "64 validation rows; 1 min 44 s in all",
        "Validation loss of short tries, by learning rate",
        "chosen: 1.5e-3",
        "+0.110",
        "+0.070 to +0.150",
        "stopped, clearly behind",
        "diverged",
        "2.7 times the rate",
    ):
        assert shown in text, shown


def test_the_axis_names_the_rates_in_their_places():
    plots = next(block for block in sweep_blocks(TRIED) if block.kind == "plots")
    root = ET.fromstring(draw(plots.plots[0], ident="x"))
    shown = [e.text for e in root.iter("text") if "e-" in (e.text or "")]
    assert shown[:3] == ["1.7e-4", "5e-4", "1.5e-3"]


def test_the_curve_holds_what_did_not_diverge():
    plots = next(block for block in sweep_blocks(TRIED) if block.kind == "plots")
    (plot,) = plots.plots
    assert list(plot.x.ticks.values()) == ["1.7e-4", "5e-4", "1.5e-3"]
    assert [mark.hollow for mark in plot.marks] == [True, False, False]
    assert len(plot.lines[0].points) == 2
    assert "0.710 with 1.7e-4 where it was stopped" in plot.description


def test_a_training_too_short_for_it_says_so():
    short = Sweep(5e-4, 5e-4, "by the rule, for 78 steps are too few to try others", of_steps=78)
    (note,) = sweep_blocks(short)
    assert note.text == "Learning rate 5e-4: by the rule, for 78 steps are too few to try others."


def test_a_given_rate_is_not_spoken_of():
    assert sweep_blocks(None) == ()
