"""A learning curve on the tiny model, and what its report may say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from instil.errors import RecipeError
from instil.report.curve import curve_report, curve_verdict
from instil.report.html import to_html
from instil.stages.runfiles import load_scores, load_summary
from instil.study.curve import plan_curve
from instil.study.studies import curve_study
from instil.studyresults import CurvePoint, CurveStudy
from instil.types import Comparison, Summary
from study.conftest import QUICK, here, quiet, studied
from study.pretend import lifted, pretend

QUICKER = (*QUICK, "forgetting.tasks=none", "baselines.tfidf=false")


def test_rows_and_seeds_put_together(recipe_path: Path, tmp_path: Path, no_forecast):
    """Made-up scores: each step of rows lifts the score, prompting stays below."""
    found = studied(
        curve_study,
        recipe_path,
        changes=QUICKER,
        sizes=[10, 20, 40],
        seeds=[0, 1],
        folder=tmp_path / "curve",
        say=quiet,
        execute=pretend(lifted(0.4, rows20=0.2, rows40=0.4, prompting=-0.4)),
    )
    assert [point.score.mean for point in found.points] == pytest.approx([0.4, 0.6, 0.8])
    assert found.points[2].by_seed == pytest.approx((0.8, 0.8))
    assert found.prompting.mean == pytest.approx(0.4), "of the largest size"
    assert found.points[0].against_prompting.difference == pytest.approx(0.0)
    assert found.last_step.difference == pytest.approx(0.2)
    first, more = curve_verdict(found)
    assert "with 40 rows" in first
    assert "from 10 to" not in more
    assert "from 20 to 40 rows" in more


def test_sizes_of_fewer_rows_than_classes_are_left_out(recipe_path: Path, monkeypatch):
    many = [f"c{n}" for n in range(60)]
    (recipe_path.parent / "many.yaml").write_text(
        "id: many\nkind: topics\ncluster: topics\ndescription: Many classes.\nlicence: CC0-1.0\n"
        f"source: many.csv\ntext: text\ntarget: topic\nchoices: {many}\n"
        'templates: [{id: ask, prompt: "{{ text }}", target: "{{ topic }}"}]\n'
    )
    rows = [f"words {n} {n * n} {n % 7} said here,c{n % 60}" for n in range(900)]
    (recipe_path.parent / "many.csv").write_text("text,topic\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(recipe_path.parent)
    changes = [*QUICKER, "tasks=[{use: ./many.yaml}]", "test=120", "validation=120"]
    plan = plan_curve(recipe_path, changes=changes, sizes=None, seeds=[0])
    assert (plan.sizes, plan.left_out) == ((100, 250, 500), (50, 1000))
    with pytest.raises(RecipeError, match="more classes than rows"):
        plan_curve(recipe_path, changes=changes, sizes=[50, 100], seeds=[0])


@pytest.mark.slow
def test_sizes_and_seeds_meet_the_same_test_rows(recipe_path: Path, tmp_path: Path):
    found = studied(
        curve_study,
        recipe_path,
        changes=QUICKER,
        sizes=[16, 40],
        seeds=[0, 1],
        folder=tmp_path / "curve",
        say=quiet,
        execute=here(),
    )
    runs = [tmp_path / "curve" / "arms" / f"rows{n}-seed{s}" for n in (16, 40) for s in (0, 1)]
    rows = [{line["row"] for line in load_scores(run, "test-moods")} for run in runs]
    assert all(each == rows[0] for each in rows)
    assert [point.asked for point in found.points] == [16, 40]
    assert found.test_rows == 16
    trained = [
        set(json.loads((run / "split.json").read_text())["splits"][0]["train"]) for run in runs
    ]
    assert trained[2] != trained[3], "another seed draws other rows to train on"
    means = [load_summary(run).tasks[0].arms[0].summaries["accuracy"].mean for run in runs]
    small, large = found.points
    assert [*small.by_seed, *large.by_seed] == pytest.approx(means)
    assert found.last_step is not None
    assert found.last_step.difference == pytest.approx(large.score.mean - small.score.mean)
    assert (tmp_path / "curve" / "report.html").stat().st_size > 1000


def test_sizes_that_there_are_no_rows_for(recipe_path: Path):
    plan = plan_curve(recipe_path, changes=QUICKER, sizes=None, seeds=[0])
    assert plan.sizes == (50, 100)
    assert plan.left_out == (250, 500, 1000)
    with pytest.raises(RecipeError, match="up to 13"):
        plan_curve(recipe_path, changes=QUICKER, sizes=[50, 2000], seeds=[0])


def test_the_largest_size_comes_first_for_its_ladder(recipe_path: Path):
    plan = plan_curve(recipe_path, changes=QUICKER, sizes=[20, 10], seeds=[3, 4])
    names = ["rows20-seed3", "rows10-seed3", "rows20-seed4", "rows10-seed4"]
    assert [job.name for job in plan.jobs()] == names
    assert {job.recipe.judging_seed for job in plan.jobs()} == {0}


def summary(mean: float) -> Summary:
    return Summary("accuracy", mean, mean - 0.03, mean + 0.03, scored=100)


def change(difference: float, *, half: float = 0.03) -> Comparison:
    ends = difference - half, difference + half
    return Comparison("a", "b", "accuracy", 100, difference, *ends, None, smallest_detectable=0.04)


def curve(*gains: float, last: float) -> CurveStudy:
    points = tuple(
        CurvePoint(50 * 2**n, 50, summary(0.6 + gain), (0.6 + gain,), change(gain), 1.0)
        for n, gain in enumerate(gains)
    )
    return CurveStudy(
        "<b>x</b>", "m", "lora", ("t",), "accuracy", 100, (0,), points, summary(0.6),
        change(last), 1.0,
    )  # fmt: skip


def test_more_rows_pay_only_where_the_interval_allows():
    first, more = curve_verdict(curve(0.0, 0.1, 0.2, last=0.1))
    assert "better than prompting" in first
    assert "from 100 rows on" in first
    assert "still rising" in more
    first, more = curve_verdict(curve(0.0, 0.01, last=0.01))
    assert first.startswith("No size is shown to be better")
    assert "No difference shown" in more
    assert "which could show 4.0" in more
    assert "it got worse" in curve_verdict(curve(0.1, 0.02, last=-0.08))[1]
    alone = replace(curve(0.1, last=0), last_step=None)
    assert "One size cannot tell" in curve_verdict(alone)[1]


def test_the_page_escapes_what_it_is_given():
    page = to_html(curve_report(curve(0.0, 0.1, last=0.1)))
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;" in page
    assert "https:" not in page
