"""The other side: TRL's SFTTrainer on the same rows, in one of `settings.TRL`. Prints one line.

`--agree` trains nothing: it computes the loss of the first step's rows, as TRL's collator lays
them out, on the tokens that TRL trains on and on those that instil trains on.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

# Nothing here is fetched, and no server is asked.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from common import finish, read_rows
from datasets import Dataset
from peft import LoraConfig
from settings import TRL, TrlSettings
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Clock(TrainerCallback):
    """Times every step; the first one pays for allocations and is left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.passes: list[int] = []
        """Forward passes of each step."""

    def on_step_begin(self, args, state, control, **kwargs):
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.began)


class Counted:
    """A collator that keeps, for each forward pass, its tokens, its cells and its labels."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator
        self.seen: list[tuple[int, int, int]] = []

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        made = self.collator(rows)
        tokens = sum(len(row["input_ids"]) for row in rows)
        labels = int((made["labels"] != -100).sum())
        self.seen.append((tokens, made["input_ids"].numel(), labels))
        return made


def prepared(options: argparse.Namespace, chosen: TrlSettings, clock: Clock) -> SFTTrainer:
    rows = read_rows(options.rows)[: options.steps * options.batch or None]
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    table = Dataset.from_list(
        [
            {
                "prompt": row["messages"],
                "completion": [{"role": "assistant", "content": row["completion"]}],
            }
            for row in rows
        ]
    )
    per_device = 1 if chosen.packed else min(chosen.per_device or options.batch, options.batch)
    accumulate = 1 if chosen.packed else -(-options.batch // per_device)
    if chosen.packed:
        extra = {"packing": True, "max_length": step_tokens(rows, tokenizer, options.batch)}
    else:
        extra = {"max_length": options.max_length}
    lora = options.method == "lora"
    narrow = chosen.bf16_weights and lora
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            options.model,
            dtype=torch.bfloat16 if narrow else torch.float32,
            attn_implementation=chosen.attention,
        ),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=accumulate,
            num_train_epochs=1,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=DEVICE == "cpu",
            dataloader_pin_memory=False,
            disable_tqdm=True,
            **{"train_sampling_strategy": "sequential", **extra, **chosen.extra},
        ),
        train_dataset=table,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        if lora
        else None,
        callbacks=[clock],
    )


def step_tokens(rows: list[dict[str, Any]], tokenizer: Any, batch: int) -> int:
    """Tokens of a pack that holds about as many rows as a step has."""
    lengths = [
        len(
            tokenizer.apply_chat_template(
                [*row["messages"], {"role": "assistant", "content": row["completion"]}],
                tokenize=True,
                return_dict=True,
            )["input_ids"]
        )
        for row in rows
    ]
    return max(max(lengths), int(1.02 * batch * sum(lengths) / len(lengths)))


def train(options: argparse.Namespace) -> None:
    chosen, clock = TRL[options.settings], Clock()
    trainer = prepared(options, chosen, clock)
    counted = trainer.data_collator = Counted(trainer.data_collator)
    trainer.train()
    steps = len(clock.seconds)
    passes = trainer.args.gradient_accumulation_steps
    by_step = [counted.seen[n : n + passes] for n in range(0, len(counted.seen), passes)][:steps]
    sums = [[sum(kind) for kind in zip(*some, strict=True)] for some in by_step]
    tokens, cells, labels = (sum(column) for column in zip(*sums[1:], strict=True))
    finish(
        {
            "tokens": tokens,
            "computed": cells,
            "places": labels,
            "seconds": sum(clock.seconds[1:]),
            "step_seconds": clock.seconds,
            "supervised": [some[2] for some in sums],
            "loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        },
        device=DEVICE,
    )


def agree(options: argparse.Namespace) -> None:
    """Print both means of the first step's loss, and the ids that each is over."""
    trainer = prepared(options, TRL[options.settings], Clock())
    model, tokenizer = trainer.model.eval(), trainer.processing_class
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    theirs, ours, trained = [], [], []
    for row in trainer.train_dataset.select(range(options.batch)):
        made = trainer.data_collator([{k: row[k] for k in ("input_ids", "labels")}])
        nats, ids = per_token(model, made, bf16=trainer.args.bf16)
        end = len(ids) - ids[::-1].index(stop)  # behind the last stop token
        theirs += nats
        ours += nats[:end]
        trained.append(ids)
    finish(
        {
            "loss": sum(theirs) / len(theirs),
            "loss_to_stop": sum(ours) / len(ours),
            "supervised": len(theirs),
            "trained": trained,
        },
        device=DEVICE,
    )


def per_token(model: Any, batch: dict[str, Any], *, bf16: bool) -> tuple[list[float], list[int]]:
    """Cross-entropy of every labelled token of one collated row, in nats, and the tokens."""
    labels = batch["labels"][0, 1:]
    places = (labels != -100).nonzero().flatten()
    with torch.inference_mode(), torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=bf16):
        logits = model(
            input_ids=batch["input_ids"].to(DEVICE),
            attention_mask=batch["attention_mask"].to(DEVICE),
            logits_to_keep=places.to(DEVICE),
        ).logits[0]
    wanted = labels[places].to(DEVICE)
    nats = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
    return nats.tolist(), wanted.tolist()


def arguments() -> argparse.Namespace:
    found = argparse.ArgumentParser()
    found.add_argument("rows")
    found.add_argument("model")
    found.add_argument("--method", choices=["lora", "full"], required=True)
    found.add_argument("--batch", type=int, required=True, help="rows of an optimizer step")
    found.add_argument("--steps", type=int, default=0, help="at most so many; 0: all")
    found.add_argument("--max-length", type=int, default=2048)
    found.add_argument("--settings", choices=sorted(TRL), default="default")
    found.add_argument("--agree", action="store_true")
    return found.parse_args()


if __name__ == "__main__":
    options = arguments()
    (agree if options.agree else train)(options)
