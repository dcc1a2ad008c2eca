import sys

import pytest
import torch

from instil.train import peak
from instil.train.peak import forget_peak, peak_memory

CPU = torch.device("cpu")
BYTES = 200_000_000


def test_the_peak_is_that_since_it_was_forgotten():
    forget_peak(CPU)
    before = peak_memory(CPU)
    block = torch.ones(BYTES, dtype=torch.uint8)
    assert peak_memory(CPU) > before + 0.9 * BYTES
    del block
    assert peak_memory(CPU) > before + 0.9 * BYTES
    forget_peak(CPU)
    if peak.CLEAR.exists():
        assert peak_memory(CPU) < before + 0.5 * BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives memory back when asked")
def test_what_is_free_is_not_in_use():
    forget_peak(CPU)
    before = peak_memory(CPU)
    blocks = [torch.ones(100_000, dtype=torch.uint8) for _ in range(BYTES // 100_000)]
    del blocks[:-1]  # the last one lies behind all others, and keeps the heap as long as it is
    forget_peak(CPU)
    assert peak_memory(CPU) < before + 0.5 * BYTES


def test_a_system_that_cannot_forget_counts_the_whole_process(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "STATUS", tmp_path / "none")
    monkeypatch.setattr(peak, "CLEAR", tmp_path / "no folder" / "none")
    forget_peak(CPU)
    assert peak_memory(CPU) > 10_000_000
