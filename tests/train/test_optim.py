from itertools import pairwise

import pytest
import torch

from instil.train.optim import adamw, rate


def rates(schedule: str, *, steps: int = 10, warmup: float = 0.3) -> list[float]:
    return [
        rate(s, peak=1.0, steps=steps, warmup_ratio=warmup, schedule=schedule)
        for s in range(1, steps + 1)
    ]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_climbs_to_the_peak_and_never_rises_after(schedule):
    found = rates(schedule)
    assert found[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert all(a >= b for a, b in pairwise(found[2:]))
    assert all(value > 0 for value in found)
    assert (found[-1] == 1.0) == (schedule == "constant")


def test_vectors_do_not_decay():
    weights = {"w": torch.nn.Parameter(torch.ones(2, 2)), "b": torch.nn.Parameter(torch.ones(2))}
    groups = adamw(weights, learning_rate=0.1, weight_decay=0.5).param_groups
    assert [(g["params"][0].ndim, g["weight_decay"]) for g in groups] == [(2, 0.5), (1, 0.0)]
