"""One side: instil's choice scoring, in the compute type that it picks. Prints one JSON line."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from common import finish, read_rows
from examples import as_example

from instil.evaluate import choices
from instil.model.load import ModelFolder, load_model


def computed_tokens(requests: list[choices.Request]) -> int:
    """Tokens that go through the model: a prefix shared by all prompts once a pack."""
    shared = choices.common_prefix([r.prompt for r in requests])
    packs = list(choices.packs(requests, shared))
    return sum(r.tokens - shared for r in requests) + shared * len(packs)


def main(rows: str, model: str) -> None:
    loaded = load_model(ModelFolder("bench", Path(model), ""))
    examples = [as_example(row) for row in read_rows(rows)]
    warm = [choices.choice_request(e, loaded.chat) for e in examples[:2]]
    choices.likelihoods(loaded, warm)  # allocations and kernels, as on the other side
    began = time.perf_counter()
    requests = [choices.choice_request(e, loaded.chat) for e in examples]
    found = choices.likelihoods(loaded, requests)
    seconds = time.perf_counter() - began
    finish(
        {
            "tokens": sum(len(r.prompt) for r in requests),
            "computed": computed_tokens(requests),
            "places": sum(len(c) for r in requests for c in r.completions),
            "choice_tokens": max(len(c) for r in requests for c in r.completions),
            "seconds": seconds,
            "nats": [[like.nats for like in row] for row in found],
        },
        device=loaded.device.type,
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
