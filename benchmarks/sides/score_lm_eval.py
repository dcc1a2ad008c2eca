"""The other side: lm-evaluation-harness's HF backend, bfloat16, the same requests."""

import json
import resource
import sys
import time
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer


def main(rows: str, model: str, batch: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = HFLM(pretrained=model, dtype="bfloat16", device="cpu", batch_size=batch)
    requests, tokens = [], 0
    for n, row in enumerate(map(json.loads, Path(rows).read_text().splitlines())):
        text = tokenizer.apply_chat_template(
            row["messages"], tokenize=False, add_generation_prompt=True
        )
        tokens += len(tokenizer(text, add_special_tokens=False)["input_ids"])
        requests += [
            Instance("loglikelihood", {}, (text, choice), k, ("bench", n, 1))
            for k, choice in enumerate(row["choices"])
        ]
    began = time.perf_counter()
    found = [nats for nats, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    seconds = time.perf_counter() - began
    per_row = len(requests) // (n + 1)
    nats = [found[i : i + per_row] for i in range(0, len(found), per_row)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tokens": tokens, "seconds": seconds, "nats": nats, "peak_bytes": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
