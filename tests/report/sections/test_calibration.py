from __future__ import annotations

from dataclasses import replace

from instil.report.build import build_report
from instil.report.charts import draw
from instil.report.page import Note, Plots, Table
from instil.report.sections.calibration import calibration_blocks, temperature_sentence
from instil.types import Estimate
from report.sample import class_task, manifest, probabilities, run, text_task


def texts(table: Table) -> list[list[str]]:
    return [[cell.text.replace("\u00a0", " ") for cell in row] for row in table.rows]


def test_calibration_before_and_after_the_temperature_and_what_is_answered() -> None:
    plots, calibrations, promises = calibration_blocks(class_task())
    assert isinstance(plots, Plots)
    assert isinstance(calibrations, Table)
    assert isinstance(promises, Table)
    as_it_is, warmed, prompting = texts(calibrations)
    assert as_it_is[0] == "tuned, zero-shot"
    assert warmed[0] == "tuned, zero-shot, temperature 2.31"
    assert prompting[0] == "5-shot prompting (calibrated)"
    assert as_it_is[3] == "13.2 % (9.2\u201318.2)"
    assert [row[3].detail for row in calibrations.rows] == [
        "too sure",
        "no error shown",
        "too sure",
    ]
    assert as_it_is[5] == "0.312 (0.272\u20130.362)"
    ten, five, one = texts(promises)
    assert ten == ["10.0 %", "81.23 %", "9.6 %", "63.0 % (57.0\u201369.0)", "7.4 % (4.0\u201312.0)"]
    assert five[1] == one[1] == "none"
    details = [row[1].detail for row in promises.rows]
    assert details == [
        "",
        "about 410 validation rows needed",
        "however many rows: too many are wrong",
    ]
    for plot in plots.plots:
        assert draw(plot, ident="p").startswith("<svg")


def test_the_temperature_is_called_better_only_where_its_interval_says_so() -> None:
    found = probabilities()
    assert "\u22120.041 (\u22120.062 to \u22120.019; better)" in temperature_sentence(found)
    unclear = replace(found, brier_change=Estimate(-0.01, -0.03, 0.01))
    assert "no difference shown" in temperature_sentence(unclear)


def test_groups_are_told() -> None:
    task = replace(class_task(), probabilities=replace(probabilities(), design=2.4))
    *_, promises = calibration_blocks(task)
    assert isinstance(promises, Table)
    assert "2.4 rows count as one, and the promise is approximate" in promises.note


def test_a_run_without_probabilities_has_no_such_section() -> None:
    older = replace(class_task(), probabilities=None)
    report = build_report(run(older), steps=(), manifest=manifest())
    assert "probabilities" not in [section.id for section in report.sections]
    (note,) = calibration_blocks(text_task())
    assert isinstance(note, Note)
    assert "Free text" in note.text
