import pytest
from cases import Case, Side, Target
from figures import case_figures, judged, operations, ratios, side_figures, spread
from hardware import ModelSize

SIZE = ModelSize(weights=1000, projection=100)


def run(seconds, *, tokens=100, computed=80, places=10, peak_bytes=1000):
    return {
        "tokens": tokens,
        "computed": computed,
        "places": places,
        "seconds": seconds,
        "peak_bytes": peak_bytes,
    }


def case(**given) -> Case:
    settings = {"operations": 4, **given}
    return Case("a case", lambda folder: None, {"instil": Side(""), "peer": Side("")}, **settings)


def measured(ours, theirs):
    sides = {"instil": ours, "peer": theirs}
    return {
        "name": "a case",
        "agreement": {},
        "sides": {n: {"settings": "", "tried": {}, "runs": r} for n, r in sides.items()},
    }


def test_the_spread_is_median_lowest_highest():
    assert spread([3.0, 1.0, 8.0]) == {"median": 3.0, "lowest": 1.0, "highest": 8.0}


def test_operations_count_weights_by_token_and_the_projection_by_place():
    one = run(1.0)
    assert operations(one, case=case(), size=SIZE, tokens="tokens") == 4 * (100 * 1000 + 10 * 100)
    assert operations(one, case=case(), size=SIZE, tokens="computed") == 4 * (80 * 1000 + 10 * 100)
    full = operations(one, case=case(operations=6), size=SIZE, tokens="tokens")
    assert full == 6 * (100 * 1000 + 10 * 100)


def test_share_of_the_peak_is_operations_a_second_over_the_peak():
    figures = side_figures([run(2.0)], case=case(), size=SIZE, peak=404_000.0)
    assert figures["nominal_share"]["median"] == pytest.approx(0.5)
    assert figures["computed_share"]["median"] == pytest.approx(4 * 81_000 / 2 / 404_000)
    assert figures["tokens_per_second"]["median"] == 50


def test_where_nothing_is_multiplied_there_is_no_share():
    figures = side_figures([run(2.0)], case=case(operations=0), size=SIZE, peak=1.0)
    assert "nominal_share" not in figures


def test_ratios_are_taken_turn_by_turn():
    ours, theirs = [run(1.0), run(2.0), run(4.0)], [run(4.0), run(4.0), run(4.0)]
    found = ratios(ours, theirs, same_work=True)
    assert found["speed"] == {"median": 2.0, "lowest": 1.0, "highest": 4.0}
    assert found["seconds"]["median"] == 0.5


def test_tokens_a_second_make_up_for_other_tokens_unless_the_work_is_compared_by_rows():
    ours, theirs = [run(1.0, tokens=50)], [run(4.0, tokens=100)]
    assert ratios(ours, theirs, same_work=True)["speed"]["median"] == 2.0
    assert ratios(ours, theirs, same_work=False)["speed"]["median"] == 4.0


@pytest.mark.parametrize(
    ("target", "figure", "met"),
    [
        (Target("speed", 2.0, "peer"), 2.0, True),
        (Target("speed", 2.1, "peer"), 2.0, False),
        (Target("memory", 0.5, "peer"), 0.5, True),
        (Target("memory", 0.4, "peer"), 0.5, False),
        (Target("growth", 1.0, "peer"), 0.5, True),
        (Target("seconds", 0.4, "peer"), 0.5, False),
        (Target("peak", 0.25), 0.25, True),
        (Target("seconds", 59.0), 60.0, False),
        (Target("speed", 2.0, "not run"), None, None),
    ],
)
def test_targets_are_judged_by_the_median_in_their_own_direction(target, figure, met):
    against = {
        "peer": {
            "speed": {"median": 2.0},
            "memory": {"median": 0.5},
            "seconds": {"median": 0.5},
        }
    }
    first = {"computed_share": {"median": 0.25}, "seconds": {"median": 60.0}}
    found = judged(target, first=first, against=against)
    assert (found["measured"], found["met"]) == (figure, met)


def test_a_side_that_failed_has_no_figures_and_meets_no_target():
    wanted = case(targets=(Target("speed", 2.0, "peer"),))
    report = case_figures(
        wanted, measured([run(1.0)], [{"failed": "out of memory"}]), size=SIZE, peak=1.0
    )
    assert report["sides"]["peer"]["figures"] == {"failed": "out of memory"}
    assert report["ratios"] == {}
    assert report["targets"][0]["met"] is None


@pytest.mark.parametrize(("held", "met"), [(1.9e9, True), (2.1e9, False)])
def test_memory_of_all_processes_is_held_against_gigabytes(held, met):
    first = side_figures([run(2.0, peak_bytes=held)], case=case(), size=SIZE, peak=1.0)
    assert judged(Target("gigabytes", 2.0), first=first, against={})["met"] is met
