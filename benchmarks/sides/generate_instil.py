"""One side: instil's greedy generation. Prints one JSON line."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from common import finish, read_rows
from examples import as_example

from instil.evaluate.choices import common_prefix
from instil.evaluate.generate import generate
from instil.model.load import ModelFolder, load_model


def main(rows: str, model: str, new: int) -> None:
    loaded = load_model(ModelFolder("bench", Path(model), ""))
    examples = [as_example(row) for row in read_rows(rows)]
    generate(loaded, examples[:1], max_new_tokens=2)  # allocations and kernels
    began = time.perf_counter()
    found = generate(loaded, examples, max_new_tokens=new)
    seconds = time.perf_counter() - began
    shared = common_prefix([tuple(loaded.chat.prompt(e.messages)) for e in examples])
    tokens = sum(p.prompt_tokens + p.new_tokens for p in found)
    finish(
        {
            "tokens": tokens,
            "computed": tokens - shared * (len(examples) - 1),
            "places": sum(p.new_tokens for p in found),
            "new_tokens": sum(p.new_tokens for p in found),
            "stopped": sum(bool(p.stopped) for p in found),
            "seconds": seconds,
            "texts": [p.text for p in found],
        },
        device=loaded.device.type,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
