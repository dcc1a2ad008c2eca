"""instil alone: many rows rendered, encoded and packed. Prints one JSON line.

The rows are real ones, drawn with repetition and made unique by a number behind their text, since
no data set at hand has 100,000. They are drawn as they are asked for, so that holding them costs no
memory here; drawing is timed along.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import finish, peak_bytes
from rows import load, repeated

from instil.data.build import training_examples
from instil.encode.plan import plan_training
from instil.model.load import ModelFolder, load_tokenizer
from instil.recipe import Train


def main(task: str, model: str, count: int) -> None:
    chat = load_tokenizer(ModelFolder("bench", Path(model), ""))
    data = load(task, train=400, validation=20)
    defaults, before = Train(), peak_bytes()
    began = time.perf_counter()
    planned = plan_training(
        lambda epoch: training_examples(
            data.task,
            repeated(data.train, count=count, text=data.task.text),
            data.templates,
            per_row="one",
            seed=0,
            epoch=epoch,
        ),
        chat,
        epochs=1,
        max_length=defaults.max_length,
        too_long="error",
        tokens_per_batch=defaults.tokens_per_batch,
        micro_batch_tokens=defaults.micro_batch_tokens,
        seed=0,
    )
    seconds = time.perf_counter() - began
    packs = [pack for batch in planned.batches for pack in batch]
    assert sum(len(pack.example_ids) for pack in packs) == count, "every row is packed"
    finish(
        {
            "tokens": sum(pack.tokens for pack in packs),
            "computed": sum(len(pack.ids) for pack in packs),
            "places": sum(sum(pack.mask) for pack in packs),
            "rows": count,
            "seconds": seconds,
            "bytes_before": before,
        }
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
