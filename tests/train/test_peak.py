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


def test_a_system_that_cannot_forget_counts_the_whole_process(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "STATUS", tmp_path / "none")
    monkeypatch.setattr(peak, "CLEAR", tmp_path / "no folder" / "none")
    forget_peak(CPU)
    assert peak_memory(CPU) > 10_000_000
