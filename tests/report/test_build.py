from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from pydantic import TypeAdapter

from instil import format as fmt
from instil.report.build import build_report
from instil.report.html import to_html
from instil.report.page import Heading, Note, Plots, Report, Section, Table, Tone
from instil.report.sections.curves import MAX_POINTS
from instil.report.sections.origin import flatten, token_runs
from instil.results.guard import Margins
from instil.results.run import RunSummary
from instil.sanitize import visible
from instil.types import Piece


def report_of(sample: ModuleType, summary: RunSummary, **given: Any) -> Report:
    given = {"steps": sample.steps(), "manifest": sample.manifest(), **given}
    return build_report(summary, **given)


def section(report: Report, name: str) -> Section:
    return next(each for each in report.sections if each.id == name)


def tables(part: Section) -> list[Table]:
    return [block for block in part.blocks if isinstance(block, Table)]


def column(table: Table, title: str) -> list[str]:
    index = table.titles.index(title)
    return [row[index].text for row in table.rows]


def test_sections_stand_in_the_order_of_the_questions(sample: ModuleType) -> None:
    report = report_of(sample, sample.run())
    assert [each.id for each in report.sections] == [
        "test", "ladder", "learning", "forgetting", "wording", "classes", "probabilities",
        "mistakes", "costs", "data", "templates", "tokens", "made",
    ]  # fmt: skip
    assert report.verdict == sample.run().verdict


def test_a_summary_read_back_from_json_gives_the_same_report(sample: ModuleType) -> None:
    run = sample.run(sample.class_task(), sample.text_task())
    kind = TypeAdapter(RunSummary)
    assert report_of(sample, kind.validate_json(kind.dump_json(run))) == report_of(sample, run)


def test_the_arms_table_tells_figures_and_paired_differences(sample: ModuleType) -> None:
    (table,) = tables(section(report_of(sample, sample.run()), "test"))
    assert column(table, "Accuracy")[0] == "81.5\u00a0% (77.1\u201385.9)"
    difference = column(table, "Tuned minus this arm, points")
    assert difference == [
        "\u2014", "+8.9 (+4.6 to +13.2)", "+17.2 (+12.1 to +22.3)", "+3.0 (\u22121.1 to +7.1)",
        "+2.5 (\u22121.5 to +6.5)",
    ]  # fmt: skip
    assert column(table, "McNemar p") == [
        "\u2014", "<\u00a00.001", "<\u00a00.001", "0.214", "0.214",
    ]  # fmt: skip
    assert table.rows[1][3].tone is Tone.GOOD
    assert table.rows[3][3].tone is Tone.MUTED
    assert "6.2\u00a0points with 80 % power" in table.note
    assert column(table, "Milliseconds an answer") == ["56", "244", "55", "0.11", "32"]
    store = table.titles.index("To store")
    assert [row[store].detail for row in table.rows] == ["", "", "", "no language model", ""]


def test_free_text_shows_who_stopped_and_no_p_value(sample: ModuleType) -> None:
    report = report_of(sample, sample.run(sample.text_task()))
    (table,) = tables(section(report, "test"))
    titles = table.titles
    assert "McNemar p" not in titles
    assert column(table, "Stopped by itself") == ["99.3\u00a0%", "61.0\u00a0%"]
    assert all(len(row) == len(titles) for row in table.rows)
    (note,) = section(report, "classes").blocks
    assert isinstance(note, Note)


def test_several_tasks_are_told_apart_and_corrected_together(sample: ModuleType) -> None:
    tasks = (sample.class_task("one"), sample.class_task("two"))
    report = report_of(sample, sample.run(*tasks))
    headings = [b.text for b in section(report, "test").blocks if isinstance(b, Heading)]
    assert headings == ["one", "two"]
    assert [n.label for n in report.key_numbers][:2] == [
        "one: tuned minus prompting",
        "two: tuned minus prompting",
    ]
    # An interval just apart from zero no longer shows anything once there are many tasks.
    close = sample.difference("prompting", "tuned", by=0.0431, half=0.043)
    many = [replace(sample.class_task(f"t{i}"), comparisons=(close,)) for i in range(5)]
    assert report_of(sample, sample.run(many[0])).key_numbers[2].tone is Tone.GOOD
    assert report_of(sample, sample.run(*many)).key_numbers[0].tone is Tone.MUTED


def test_the_ladder_marks_the_bar(sample: ModuleType) -> None:
    part = section(report_of(sample, sample.run()), "ladder")
    (plots,) = (block for block in part.blocks if isinstance(block, Plots))
    assert [plot.title for plot in plots.plots] == ["0-shot", "1-shot", "5-shot"]
    ringed = [mark for plot in plots.plots for mark in plot.marks if mark.ringed]
    assert len(ringed) == 1
    assert {plot.upright.at for plot in plots.plots} == {ringed[0].x}
    assert len({plot.x.extent for plot in plots.plots}) == 1
    (folded,) = tables(part)
    assert folded.fold == "All 45 rungs as a table"
    assert len(folded.rows) == 45
    assert folded.rows[0][0].detail == "the bar"


def test_forgetting_reads_each_metric_in_its_direction(sample: ModuleType) -> None:
    report = report_of(sample, sample.run())
    (table,) = tables(section(report, "forgetting"))
    words = [row[5].detail for row in table.rows]
    assert words[1] == "after is worse"
    assert words[4] == "after is worse"  # cross-entropy: up is bad
    assert words[0] == words[2] == "no difference shown"
    assert table.rows[4][5].text == "+0.047\u00a0nats (+0.035 to +0.059)"
    lowest = next(n for n in report.key_numbers if "guard" in n.label)
    assert lowest.value == "\u22126.1\u00a0points"
    assert "finance_entities" in lowest.detail


def test_what_is_kept_stands_beside_the_margin(sample: ModuleType) -> None:
    run = sample.run()
    (plain,) = tables(section(report_of(sample, run), "forgetting"))
    assert "Against the margin" not in plain.titles
    margins = Margins(points=4, text=0.01)
    (table,) = tables(section(report_of(sample, replace(run, margins=margins)), "forgetting"))
    place = table.titles.index("Against the margin")
    assert [row[place].text for row in table.rows] == [
        "not shown either way",
        "lost, shown",
        "kept within 4 points, shown",
        "kept within 4 points, shown",
        "lost more than 0.01 nats per token, shown",
        "kept within 4 points, shown",
    ]
    assert table.rows[5][0].detail == "over 4 guard tasks"
    assert table.rows[5][5].text == "\u22121.2\u00a0points (\u22122.5 to +0.1)"


def test_the_data_section_counts_what_was_taken_out(sample: ModuleType) -> None:
    part = section(report_of(sample, sample.run()), "data")
    sizes, labels = tables(part)
    assert column(sizes, "Rows") == ["600", "200", "300"]
    assert column(labels, "train")[0] == "246 (41.0\u00a0%)"
    facts = part.blocks[-1].facts
    assert facts["Removed: near duplicate"] == "11"
    assert facts["Skipped: where is false: score between -0.5 and 0.5"] == "765"


def test_steps_without_a_finite_loss_are_counted(sample: ModuleType) -> None:
    steps = list(sample.steps())
    steps[3] = replace(steps[3], loss=math.nan)
    blocks = section(report_of(sample, sample.run(), steps=steps), "learning").blocks
    assert Note("1 step without a finite loss is not drawn.") in blocks


def test_long_curves_are_thinned(sample: ModuleType) -> None:
    report = report_of(sample, sample.run(), steps=sample.steps(5000))
    plots = section(report, "learning").blocks[0]
    assert isinstance(plots, Plots)
    assert all(len(line.points) <= MAX_POINTS for line in plots.plots[0].lines[:2])


def test_a_run_with_hardly_anything_in_it_still_gives_a_page(sample: ModuleType) -> None:
    bare = replace(
        sample.class_task(), ladder=(), arms=(), comparisons=(), templates=(), mistakes=(),
        balance={}, groups={}, removed={}, skipped={},
    )  # fmt: skip
    run = replace(
        sample.run(bare), forgetting=(), turns=(), token_view=(), verdict=(), stage_seconds={},
        test_opened="",
    )  # fmt: skip
    html = to_html(build_report(run, steps=(), manifest={}))
    assert "No prompting ladder was climbed." in html
    assert "forgetting was not measured" in html
    assert "No steps were recorded." in html
    assert to_html(build_report(replace(run, tasks=()), steps=(), manifest={}))


def test_manifest_is_flattened_and_bytes_are_readable() -> None:
    facts = flatten({"a": {"b": [1, 2], "c": {}}, "memory_bytes": 6_442_450_944, "d": [{"e": 1}]})
    assert facts == {
        "a.b": "1, 2",
        "a.c": "none",
        "memory_bytes": "6,442,450,944 (6.4\u00a0GB)",
        "d": '[{"e": 1}]',
    }


def test_token_runs_keep_every_token_in_order() -> None:
    pieces = tuple(Piece(str(i), trained=i % 3 == 0) for i in range(10))
    runs = token_runs(pieces)
    assert tuple(piece for run in runs for piece in run.pieces) == pieces
    assert all({piece.trained for piece in run.pieces} == {run.trained} for run in runs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fmt.percent(0.8149), "81.5\u00a0%"),
        (fmt.percent(math.nan), "\u2014"),
        (fmt.fixed(-0.00001, 3), "0.000"),
        (fmt.signed(-0.0612, 2), "\u22120.06"),
        (fmt.signed(0.0001, 2), "0.00"),
        (fmt.seconds(0.61), "0.6\u00a0s"),
        (fmt.seconds(59.7), "1 min 00 s"),
        (fmt.seconds(3599.6), "1 h 00 min"),
        (fmt.seconds(7380), "2 h 03 min"),
        (fmt.size(0), "\u2014"),
        (fmt.size(999), "999\u00a0B"),
        (fmt.size(999_960), "1.0\u00a0MB"),
        (fmt.size(269_060_552), "269\u00a0MB"),
        (fmt.parameters(134_515_008), "135\u00a0M"),
        (fmt.tokens(302.6), "303"),
        (fmt.tokens(47.23), "47.2"),
        (fmt.p_value(0.0004), "<\u00a00.001"),
        (fmt.p_value(0.0149), "0.015"),
        (fmt.plural(1, "row"), "1 row"),
        (fmt.plural(1200, "row"), "1,200 rows"),
        (fmt.moment("2025-11-23T14:05:09+00:00"), "2025-11-23 14:05:09 UTC"),
        (fmt.moment("yesterday"), "yesterday"),
        (visible("a\x00\tb\nc\x7f\u202e"), "a\u2400\tb\nc\u2421\u27e8U+202E\u27e9"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert text == expected


def test_an_interval_apart_from_zero_is_never_written_as_zero(sample: ModuleType) -> None:
    found = sample.difference("a", "b", by=0.0302, half=0.0299)
    assert fmt.change_interval(found) == "+0.03 to +6.01"
