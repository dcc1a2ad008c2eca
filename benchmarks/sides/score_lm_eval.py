"""The other side: lm-evaluation-harness's HF backend, bfloat16, the same requests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import finish, read_rows
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer


def count_computed(model: Any) -> Callable[[], int]:
    """Count the cells (padding too) that go into the model from here on."""
    cells = 0
    forward = model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal cells
        cells += (kwargs.get("input_ids") if "input_ids" in kwargs else args[0]).numel()
        return forward(*args, **kwargs)

    model.forward = counted
    return lambda: cells


def main(rows: str, model: str, batch: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = HFLM(pretrained=model, dtype="bfloat16", device=device, batch_size=batch)
    lines = read_rows(rows)
    requests, tokens = [], 0
    for number, row in enumerate(lines):
        text = tokenizer.apply_chat_template(
            row["messages"], tokenize=False, add_generation_prompt=True
        )
        tokens += len(tokenizer(text, add_special_tokens=False)["input_ids"])
        requests += [
            Instance("loglikelihood", {}, (text, choice), k, ("bench", number, 1))
            for k, choice in enumerate(row["choices"])
        ]
    lm.loglikelihood(requests[:2], disable_tqdm=True)  # allocations and kernels
    cells = count_computed(lm.model)
    began = time.perf_counter()
    found = iter([nats for nats, _ in lm.loglikelihood(requests, disable_tqdm=True)])
    seconds = time.perf_counter() - began
    finish(
        {
            "tokens": tokens,
            "computed": cells(),
            "places": cells(),  # it projects every place onto the vocabulary
            "seconds": seconds,
            "nats": [[next(found) for _ in row["choices"]] for row in lines],
        },
        device=device,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
