"""Several processes encode as one does: every token, order, count and error."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from instil.encode import processes
from instil.encode.processes import Processes, encoded_shards
from instil.encode.shard import Encoder, joined
from instil.errors import DataError, InstilError, TaskError
from instil.types import TooLong
from manyrows import LENGTH, asked, contents, spoilt


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(processes, "SHARD", 7)
    monkeypatch.setattr(processes, "FEWEST", 14)


@pytest.fixture
def encoder(tiny_chat):
    return Encoder(tiny_chat, 400, TooLong.SHORTEN)


def test_two_processes_make_what_one_makes(tiny_chat):
    encoder, items = Encoder(tiny_chat, LENGTH, TooLong.SHORTEN), asked(100)
    whole = encoder.shard(items)
    assert set(whole.store.fates) == {"kept", "truncated", "dropped"}
    for count in (1, 2):
        shards = list(encoded_shards(iter(items), encoder, processes=count))
        assert [shard.store.fates.total() for shard in shards] == [7] * 14 + [2]
        assert contents(joined(shards)) == contents(whole)


def told(items, encoder, *, processes: int) -> InstilError:
    with pytest.raises(InstilError) as caught:
        joined(encoded_shards(iter(items), encoder, processes=processes))
    return caught.value


def test_rows_at_fault_are_told_as_by_one_process(tiny_chat):
    encoder = Encoder(tiny_chat, 400, TooLong.ERROR)
    items = spoilt(asked(60), 3, 24, 25, 50, note="four")
    one, two = (told(items, encoder, processes=n) for n in (1, 2))
    assert type(one) is type(two) is TaskError
    assert one.problems == two.problems
    assert one.problems[0].where.startswith("x.csv:3:")
    assert one.problems[1].what.startswith("and 3 more")


def test_an_error_of_the_drawing_comes_after_those_of_the_rows_before(encoder):
    def breaking(items):
        yield from items
        raise DataError("too few groups")

    assert "too few groups" in str(told(breaking(asked(30)), encoder, processes=1))
    strict = replace(encoder, max_length=20, too_long=TooLong.ERROR)
    one, two = (told(breaking(asked(30)), strict, processes=n) for n in (1, 2))
    assert type(one) is type(two) is DataError
    assert one.problems == two.problems
    assert "too long" in str(one)


def alive(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing(encoder):
    items = asked(70)
    with Processes(encoder, count=1) as workers:
        first = workers.submit(items[:35]).result()
        os.kill(workers._started[0].pid, signal.SIGKILL)
        first.extend(workers.submit(items[35:50]).result())
        first.extend(workers.submit(items[50:]).result())
        assert len(workers._started) == 2
    assert contents(first) == contents(encoder.shard(items))


def test_none_is_left_behind(encoder, monkeypatch):
    made: list[Processes] = []

    class Seen(Processes):
        def __init__(self, encoder, **more):
            super().__init__(encoder, **more)
            made.append(self)

    monkeypatch.setattr(processes, "Processes", Seen)
    shards = encoded_shards(iter(asked(200)), encoder, processes=2)
    next(shards)
    with pytest.raises(KeyboardInterrupt):
        shards.throw(KeyboardInterrupt)
    assert made[0]._started
    assert not any(map(alive, made[0]._started))


def test_a_process_ends_with_its_pipe(encoder):
    workers = Processes(encoder, count=1)
    workers.submit(asked(3)).result()
    (process,) = workers._started
    os.kill(process.pid, signal.SIGINT)  # Ctrl-C reaches it too, and is the parent's to handle
    time.sleep(0.1)
    assert alive(process)
    process.stdin.close()
    assert process.wait(timeout=20) == 0
    workers.__exit__(None, None, None)
