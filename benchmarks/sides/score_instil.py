"""One side: instil's choice scoring in bfloat16. Prints one JSON line."""

import json
import resource
import sys
import time
from pathlib import Path

from instil.evaluate.choices import choice_request, likelihoods
from instil.model.load import ModelFolder, load_model
from instil.types import Example, Message


def main(rows: str, model: str) -> None:
    loaded = load_model(ModelFolder("bench", Path(model), ""))
    examples = [
        Example(
            row["id"],
            "",
            "",
            "",
            "",
            tuple(Message(**m) for m in row["messages"]),
            row["completion"],
            tuple(row["choices"]),
        )
        for row in map(json.loads, Path(rows).read_text().splitlines())
    ]
    began = time.perf_counter()
    requests = [choice_request(e, loaded.chat) for e in examples]
    found = likelihoods(loaded, requests)
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "tokens": sum(len(r.prompt) for r in requests),
                "seconds": seconds,
                "nats": [[like.nats for like in row] for row in found],
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
