"""Kept shards are those of their rows alone; a killed run goes on with what it has."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from instil.encode import processes
from instil.encode.kept import Kept
from instil.encode.processes import Processes, encoded_shards
from instil.encode.shard import Encoder, joined
from instil.errors import TaskError
from instil.types import TooLong
from manyrows import LENGTH, asked, contents, spoilt

# Encodes the first shards of an epoch and is killed: by itself, right after the fourth is written.
CHILD = """
import os, pickle, signal, sys
from pathlib import Path
from instil.encode import processes
from instil.encode.kept import Kept

save, saved = Kept.save, []

def save_and_die(self, asked, shard):
    save(self, asked, shard)
    saved.append(asked)
    if len(saved) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

Kept.save = save_and_die
processes.SHARD, processes.FEWEST = 7, 14
encoder, items = pickle.loads(Path(sys.argv[1]).read_bytes())
for shard in processes.encoded_shards(items, encoder, processes=1, folder=Path(sys.argv[2])):
    pass
"""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(processes, "SHARD", 7)
    monkeypatch.setattr(processes, "FEWEST", 14)


@pytest.fixture
def encoder(tiny_chat):
    return Encoder(tiny_chat, LENGTH, TooLong.SHORTEN)


@pytest.fixture
def made(monkeypatch):
    """How many examples each call encoded."""
    made = []
    shard = Encoder.shard

    def counted(self, items):
        made.append(len(items))
        return shard(self, items)

    monkeypatch.setattr(Encoder, "shard", counted)
    return made


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def run(items, encoder, folder):
    return joined(encoded_shards(iter(items), encoder, processes=1, folder=folder))


def test_a_killed_run_goes_on_with_the_shards_it_has(tmp_path, encoder, made):
    items, folder = asked(60), tmp_path / "encoded"
    (tmp_path / "job").write_bytes(pickle.dumps((encoder, items)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "77"}
    child = [sys.executable, "-c", CHILD, str(tmp_path / "job"), str(folder)]
    assert subprocess.run(child, env=environment, check=False).returncode == -9
    assert len(files(folder)) == 4
    assert contents(run(items, encoder, folder)) == contents(encoder.shard(items))
    assert made == [7] * 4 + [4, 60]  # the rest of 60, then all for comparison
    made.clear()
    run(items, encoder, folder)
    assert not made


def test_few_examples_are_kept_nowhere(tmp_path, encoder):
    run(asked(14), encoder, tmp_path / "encoded")
    assert not (tmp_path / "encoded").exists()


def test_other_rows_or_another_policy_find_nothing(tmp_path, encoder):
    data = pickle.dumps(asked(3))
    kept = Kept(tmp_path, encoder)
    kept.save(data, encoder.shard(asked(3)))
    assert contents(kept.load(data)) == contents(encoder.shard(asked(3)))
    assert kept.load(pickle.dumps(asked(3, seed=1))) is None
    for other in (
        replace(encoder, max_length=LENGTH + 1),
        replace(encoder, too_long=TooLong.DROP),
        replace(encoder, chat=replace(encoder.chat, rules=replace(encoder.chat.rules, date="1"))),
    ):
        assert Kept(tmp_path, other).load(data) is None


@pytest.mark.parametrize("place", [5, -3, -400])
def test_a_damaged_file_is_made_again(tmp_path, encoder, made, place):
    items = asked(21)
    whole = contents(run(items, encoder, tmp_path))
    file = files(tmp_path)[1]
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    made.clear()
    assert contents(run(items, encoder, tmp_path)) == whole
    assert made == [7]


def test_rows_at_fault_are_told_again(tmp_path, encoder):
    items = spoilt(asked(30), 10, note="four")
    for _ in range(2):
        with pytest.raises(TaskError, match=r"x\.csv:10:"):
            run(items, encoder, tmp_path)
    assert len(files(tmp_path)) == 4  # of five


@pytest.mark.slow
def test_what_processes_made_is_kept_as_what_one_makes(tmp_path, encoder):
    items = asked(14)
    with Processes(encoder, count=1, kept=Kept(tmp_path, encoder)) as workers:
        there = workers.submit(items).result()
        again = workers.here(items)
    assert contents(there) == contents(again) == contents(encoder.shard(items))
