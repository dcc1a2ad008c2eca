"""The other side: greedy `generate_until` of lm-evaluation-harness's HF backend, bfloat16.

That is transformers' `generate`, one batch padded on the left at a time.
"""

from __future__ import annotations

import sys
import time

import torch
from common import finish, read_rows
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer


def main(rows: str, model: str, new: int, batch: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = HFLM(pretrained=model, dtype="bfloat16", device=device, batch_size=batch)
    prompts = [
        tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
        for row in read_rows(rows)
    ]

    def requests(count: int, new: int) -> list[Instance]:
        settings = {"until": [], "do_sample": False, "max_gen_toks": new}
        return [
            Instance("generate_until", {}, (text, settings), 0, ("bench", number, 1))
            for number, text in enumerate(prompts[:count])
        ]

    lm.generate_until(requests(1, 2), disable_tqdm=True)  # allocations and kernels
    began = time.perf_counter()
    texts = lm.generate_until(requests(len(prompts), new), disable_tqdm=True)
    seconds = time.perf_counter() - began
    asked = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in prompts)
    # The texts come without the token that ended them; a row that stopped said one token more.
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    said = sum(min(new, length + 1) for length in lengths)
    finish(
        {
            "tokens": asked + said,
            "computed": asked + said,
            "places": said,
            "new_tokens": said,
            "stopped": sum(length < new for length in lengths),
            "seconds": seconds,
            "texts": [text.strip() for text in texts],
        },
        device=device,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
