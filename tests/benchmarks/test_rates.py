"""The autopilot against a full sweep: which training each takes, and what that costs on test."""

import pytest
import rates


def line(factor, *, seed=0, validation=0.5, loss=1.0, test=()):
    values = {f"t/{n}": float(v) for n, v in enumerate(test)}
    return {
        "task": "t",
        "seed": seed,
        "factor": factor,
        "rate": 5e-4 * (factor or 1),
        "validation": validation,
        "validation_loss": loss,
        "test": values,
        "groups": {key: key for key in values},
    }


def pilot(factor=1.0, *, seed=0):
    return {
        "task": "t",
        "seed": seed,
        "factor": None,
        "rate": 5e-4 * factor,
        "sweep": {"tried": [1, 2]},
    }


def test_a_full_sweep_takes_the_best_validation_score_and_breaks_ties_by_loss():
    lines = [line(1 / 3, validation=0.9, loss=2), line(1.0, validation=0.9, loss=1), line(3.0)]
    assert rates.full_choice(lines)["factor"] == 1.0
    assert rates.nearest(lines, 5e-4 / 3)["factor"] == 1 / 3
    with pytest.raises(AssertionError):
        rates.nearest(lines, 1e-3)


def test_the_loss_is_paired_over_all_seeds():
    a, b = line(1.0, test=[1, 1, 0, 1]), line(3.0, test=[1, 1, 1, 0])
    c, d = line(1.0, test=[0, 0, 0, 0]), line(3.0, test=[1, 0, 0, 0])
    mean, low, high = rates.lost([(a, b), (c, d)])
    assert mean == pytest.approx(12.5)
    assert low <= mean <= high


def test_the_table_marks_both_choices(tmp_path):
    lines = [
        pilot(),
        line(1.0, validation=0.8, test=[1, 0, 1, 1]),
        line(3.0, validation=0.9, test=[1, 1, 1, 1]),
        line(1.0, seed=1),  # not finished: no autopilot yet
    ]
    text = rates.table(lines)
    assert "| t | 0 | 80.0 / 75.0 | 90.0 / 100.0 | 0.0015 | 0.0005 | 2 |" in text
    assert "t: the autopilot's choice minus the full sweep's on test: -25.0 points" in text
    assert "| t | 1 |" not in text
    for each in lines:
        rates.append(tmp_path / "x" / "rates.jsonl", each)
    assert rates.kept(tmp_path / "x" / "rates.jsonl") == lines
    assert rates.is_line(lines[0], "t", 0, None)
    third = {**lines[0], "factor": round(1 / 3, 4)}  # as a file holds it
    assert rates.is_line(third, "t", 0, 1 / 3)
