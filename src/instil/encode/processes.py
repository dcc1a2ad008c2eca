"""Examples rendered and encoded by several processes, in the order and to the bit as by one.

::

    asked items -> cut into shards -> process 1, process 2, ... -> shards in order -> one store

A process is an interpreter of its own without torch (some 100 MB), fed through pipes: it gets the
chat format once, then one list of asked items after another, and answers each with a shard. It ends
when its pipe does, so that none outlives a parent that was killed; and it imports nothing of the
program that it was started from, unlike what `multiprocessing` spawns, so that a script needs no
guard around its main part. Few examples are encoded without any process, sooner than one starts.

Tests: `tests/encode/test_processes.py`.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from instil.data.build import Asked
from instil.encode.kept import Kept
from instil.encode.shard import Encoder, Shard
from instil.errors import InstilError

SHARD = 4096
"""Examples of a shard."""
FEWEST = 3 * SHARD
"""Examples from which processes are started: each takes about as long to start as 3,000 to encode.
"""


def encoded_shards(
    asked: Iterable[Asked],
    encoder: Encoder,
    *,
    processes: int | None = None,
    folder: Path | None = None,
) -> Iterator[Shard]:
    """Yield an epoch's shards, in order; a few more are being made meanwhile, never all.

    Args:
        asked: The epoch's examples, not rendered yet.
        encoder: Says how.
        processes: At most so many; None: one for each core that this process may use.
        folder: Shards of many examples are kept here, and those that are there are taken as they
            are; None: nowhere.

    Raises:
        InstilError: As `Encoder.shard`, of the first example at fault.
    """
    chunks = _chunks(asked)
    head = list(islice(chunks, FEWEST // SHARD + 1))
    count = _cores() if processes is None else processes
    if len(head) * SHARD <= FEWEST:
        count, folder = 1, None
    kept = Kept(folder, encoder) if folder and encoder.chat.tokenizer.is_fast else None
    with Processes(encoder, count=count, kept=kept) as workers:
        if count == 1:
            yield from map(workers.here, chain(head, chunks))
            return
        waiting = deque[Future[Shard]]()
        for chunk in chain(head, chunks):
            waiting.append(workers.submit(chunk))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _chunks(asked: Iterable[Asked]) -> Iterator[list[Asked] | InstilError]:
    """Cut into stretches; an error comes as the last one, so that those before it are tried."""
    chunk: list[Asked] = []
    try:
        for item in asked:
            chunk.append(item)
            if len(chunk) == SHARD:
                yield chunk
                chunk = []
    except InstilError as error:
        yield from filter(None, [chunk])
        yield error
        return
    yield from filter(None, [chunk])


def _cores() -> int:
    """Cores that this process may use: of its affinity and its control group."""
    from joblib import cpu_count

    return int(cpu_count())


class Processes:
    """Processes that encode; they start as they are needed, and end with the block."""

    def __init__(self, encoder: Encoder, *, count: int, kept: Kept | None = None) -> None:
        """Prepare `count` processes; what they make is kept, and what is kept is not made."""
        self.encoder, self.kept = encoder, kept
        self._idle = SimpleQueue[subprocess.Popen[bytes] | None]()
        for _ in range(count):
            self._idle.put(None)
        self._started: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(count, "encode")
        self._closed = False

    def __enter__(self) -> Processes:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes, whatever they are at, and wait until they are gone."""
        self._closed = True
        for process in self._started:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._started:
            process.kill()  # one that a thread has started meanwhile
            for pipe in filter(None, (process.stdin, process.stdout)):
                with suppress(OSError):  # what it holds back is for nobody
                    pipe.close()
            process.wait()

    def submit(self, chunk: list[Asked] | InstilError) -> Future[Shard]:
        """Let the next idle process encode a list; an error is the result itself."""
        return self._threads.submit(self._shard, chunk, there=True)

    def here(self, chunk: list[Asked] | InstilError) -> Shard:
        """Encode a list in this process, as `submit` does in another."""
        return self._shard(chunk, there=False)

    def _shard(self, chunk: list[Asked] | InstilError, *, there: bool) -> Shard:
        if isinstance(chunk, InstilError):
            raise chunk
        data = pickle.dumps(chunk, pickle.HIGHEST_PROTOCOL) if there or self.kept else b""
        shard = self.kept.load(data) if self.kept else None
        if shard is None:
            shard = self._there(chunk, data) if there else self.encoder.shard(chunk)
            if self.kept:
                self.kept.save(data, shard)
        return shard

    def _there(self, asked: list[Asked], data: bytes) -> Shard:
        process = self._idle.get()
        try:
            process = process or self._start()
            answer = _ask(process, data)
        except (OSError, EOFError, pickle.UnpicklingError):
            if self._closed:
                raise
            # It was killed, for want of memory say: its work is done here, and it starts anew.
            process, answer = None, self.encoder.shard(asked)
        finally:
            self._idle.put(process)
        if isinstance(answer, InstilError):
            raise answer
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )
        self._started.append(process)
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(self.encoder))
        return process


def _ask(process: subprocess.Popen[bytes], data: bytes) -> Shard | InstilError:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(data)
    process.stdin.flush()
    answer: Shard | InstilError = pickle.load(process.stdout)
    return answer


def serve() -> None:
    """Encode what comes in at the standard input, until it ends; what a process here does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    asked, answer = sys.stdin.buffer, None
    encoder: Encoder = pickle.load(asked)
    while True:
        try:
            items = pickle.load(asked)
        except EOFError:
            return
        try:
            answer = pickle.dumps(encoder.shard(items), pickle.HIGHEST_PROTOCOL)
        except InstilError as error:
            answer = pickle.dumps(error)
        answers.write(answer)
        answers.flush()
