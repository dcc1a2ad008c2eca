"""One side: instil's own training loop. Prints one JSON line."""

import json
import resource
import sys
from pathlib import Path

from instil.encode.mask import encode_all
from instil.encode.pack import batches
from instil.model.adapter import add_lora, train_all, trainable
from instil.model.load import ModelFolder, load_model
from instil.train.loop import Schedule, train_steps
from instil.train.optim import adamw
from instil.types import Example, Message


def main(rows: str, model: str, method: str, batch: int, steps: int) -> None:
    folder = ModelFolder("bench", Path(model), "")
    full = method == "full"
    loaded = load_model(folder, masters=full)
    if full:
        loaded = train_all(loaded)
    else:
        loaded = add_lora(
            loaded, r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", seed=0
        )
    lines = [json.loads(line) for line in Path(rows).read_text().splitlines()]
    examples = [
        Example(
            row["id"],
            "",
            "",
            "",
            "",
            tuple(Message(**m) for m in row["messages"]),
            row["completion"],
        )
        for row in lines
    ]
    encoded = encode_all(examples, loaded.chat, max_length=1024)
    # As many examples a step as the peer's batch size, whatever their lengths.
    plan = [
        batches(
            encoded[n : n + batch],
            tokens_per_batch=10**9,
            micro_batch_tokens=2048,
            seed=0,
            epoch=0,
        )[0]
        for n in range(0, batch * steps, batch)
    ]
    optimizer = adamw(trainable(loaded.model), learning_rate=1e-4, weight_decay=0.0)
    taken = list(
        train_steps(
            loaded,
            plan,
            optimizer=optimizer,
            schedule=Schedule(1e-4, 0.0, "constant", 1.0),
            steps_per_epoch=len(plan),
        )
    )
    warm = taken[1:]  # the first step pays for allocations on every side
    print(
        json.dumps(
            {
                "tokens": sum(s.tokens for s in warm),
                "seconds": sum(s.seconds for s in warm),
                "supervised": [s.supervised_tokens for s in taken],
                "loss": [s.loss for s in taken],
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
