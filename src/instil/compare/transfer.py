"""Tasks one after another: what a later task did to an earlier one.

`R[i][j]` is the score on task j after training on tasks 0 to i. A worked example with three::

                 A     B     C
    after A    0.90  0.40  0.30
    after B    0.80  0.85  0.35      backward transfer: ((0.70 - 0.90) + (0.80 - 0.85)) / 2
    after C    0.70  0.80  0.95
"""

from __future__ import annotations

from collections.abc import Sequence


def backward_transfer(matrix: Sequence[Sequence[float]]) -> float:
    """Return the backward transfer of a square matrix of scores, stages by tasks.

    BWT = 1/(T-1) sum_i (R[T,i] - R[i,i]), i from 1 to T-1 (Lopez-Paz & Ranzato 2017, "Gradient
    Episodic Memory for Continual Learning", arXiv:1706.08840, equation 3). Below zero: forgotten.

    >>> round(backward_transfer([[0.9, 0.4, 0.3], [0.8, 0.85, 0.35], [0.7, 0.8, 0.95]]), 3)
    -0.125
    """
    tasks = len(matrix)
    assert tasks > 1, "one task has nothing after it"
    assert all(len(row) == tasks for row in matrix), "as many tasks as stages"
    last = matrix[-1]
    return sum(last[i] - matrix[i][i] for i in range(tasks - 1)) / (tasks - 1)
