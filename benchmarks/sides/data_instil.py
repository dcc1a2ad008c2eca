"""instil alone: many rows rendered, encoded and packed. Prints one JSON line.

The rows are real ones, drawn with repetition and made unique by a number behind their text, since
no data set at hand has 100,000. They are drawn as they are asked for, so that holding them costs no
memory here; drawing is timed along, and so are laying every pack out and the files of shards that
many rows are kept in. Memory is that of this process and of those that it starts, looked at every
tenth of a second.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import finish, peak_bytes
from rows import asked, load, repeated

from instil.config.sections import Train
from instil.encode.plan import plan_training
from instil.encode.processes import encoded_shards
from instil.encode.shard import Encoder
from instil.model.load import ModelFolder, load_tokenizer
from instil.types import Pack, TooLong


def main(task: str, model: str, count: int) -> None:
    chat = load_tokenizer(ModelFolder("bench", Path(model), ""))
    data = load(task, train=400, validation=20)
    encoder = Encoder(chat, Train().max_length, TooLong.ERROR)
    defaults, before = Train(), peak_bytes()
    tree, folder = TreePeak(), tempfile.TemporaryDirectory()
    began, worked = time.perf_counter(), processor_seconds()
    planned = plan_training(
        lambda epoch: encoded_shards(
            asked(
                data.task,
                repeated(data.train, count=count, text=data.task.text),
                data.templates,
                epoch=epoch,
            ),
            encoder,
            folder=Path(folder.name),
        ),
        epochs=1,
        tokens_per_batch=defaults.tokens_per_batch,
        micro_batch_tokens=defaults.micro_batch_tokens,
        seed=0,
        folder=Path(folder.name),
    )
    found = laid_out(planned.batches)
    seconds = time.perf_counter() - began
    worked = processor_seconds() - worked
    folder.cleanup()
    assert found["rows"] == count, "every row is packed"
    figures = {"seconds": seconds, "processor_seconds": worked, "bytes_before": before}
    finish({**found, **figures, "peak_bytes": max(peak_bytes(), tree.bytes)})


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


class TreePeak:
    """The most memory that this process and its children were seen to hold together."""

    def __init__(self) -> None:
        self.bytes = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        own, page = Path("/proc/self/task"), os.sysconf("SC_PAGE_SIZE")
        while own.is_dir():
            held = 0
            try:
                children = [
                    c for task in own.iterdir() for c in (task / "children").read_text().split()
                ]
                for process in ("self", *children):
                    held += page * int(Path(f"/proc/{process}/statm").read_text().split()[1])
            except OSError:  # one has just ended
                held = 0
            self.bytes = max(self.bytes, held)
            time.sleep(0.1)


def laid_out(batches: Sequence[tuple[Pack, ...]]) -> Counter[str]:
    """Lay every pack out, one batch after another as training does, and count what is in them."""
    found: Counter[str] = Counter()
    for batch in batches:
        for pack in batch:
            found["rows"] += len(pack.example_ids)
            found["tokens"] += pack.tokens
            found["computed"] += len(pack.ids)
            found["places"] += sum(pack.mask)
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
