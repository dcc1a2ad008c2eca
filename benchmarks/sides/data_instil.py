"""instil alone: many rows rendered, encoded and packed. Prints one JSON line.

The rows are real ones, drawn with repetition and made unique by a number behind their text, since
no data set at hand has 100,000. They are drawn as they are asked for, so that holding them costs no
memory here; drawing is timed along, and so is laying every pack out.
"""

from __future__ import annotations

import sys
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
    began = time.perf_counter()
    planned = plan_training(
        lambda epoch: encoded_shards(
            asked(
                data.task,
                repeated(data.train, count=count, text=data.task.text),
                data.templates,
                epoch=epoch,
            ),
            encoder,
        ),
        epochs=1,
        tokens_per_batch=defaults.tokens_per_batch,
        micro_batch_tokens=defaults.micro_batch_tokens,
        seed=0,
    )
    found = laid_out(planned.batches)
    seconds = time.perf_counter() - began
    assert found["rows"] == count, "every row is packed"
    finish({**found, "seconds": seconds, "bytes_before": before})


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
