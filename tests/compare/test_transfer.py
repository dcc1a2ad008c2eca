"""Backward transfer of matrices made by hand."""

import pytest

from instil.compare.transfer import backward_transfer


def test_backward_transfer_by_hand():
    matrix = [
        [0.90, 0.40, 0.30],
        [0.80, 0.85, 0.35],
        [0.70, 0.80, 0.95],
    ]
    assert backward_transfer(matrix) == pytest.approx(((0.70 - 0.90) + (0.80 - 0.85)) / 2)


def test_nothing_forgotten_and_something_gained():
    assert backward_transfer([[0.5, 0.1], [0.5, 0.9]]) == 0
    assert backward_transfer([[0.5, 0.1], [0.75, 0.9]]) == pytest.approx(0.25)


@pytest.mark.parametrize("matrix", [[[0.5]], [[0.5, 0.4]], [[0.5, 0.4], [0.3]]])
def test_other_shapes_are_our_own_mistake(matrix):
    with pytest.raises(AssertionError):
        backward_transfer(matrix)
