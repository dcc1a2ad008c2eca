"""The other side: TRL's SFTTrainer on the same rows, default or best settings. Prints one line."""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    """Times every step; the first one pays for allocations and is left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.began)


def main(rows: str, model: str, method: str, batch: int, steps: int, settings: str) -> None:
    lines = [json.loads(line) for line in Path(rows).read_text().splitlines()][: batch * steps]
    tokenizer = AutoTokenizer.from_pretrained(model)
    table = Dataset.from_list(
        [
            {
                "prompt": row["messages"],
                "completion": [{"role": "assistant", "content": row["completion"]}],
            }
            for row in lines
        ]
    )
    best = settings == "best"
    weights = torch.bfloat16 if best and method == "lora" else torch.float32
    extra = {"bf16": True, "gradient_checkpointing": False} if best else {}
    clock = Clock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=weights),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            dataloader_pin_memory=False,
            train_sampling_strategy="sequential",
            **extra,
        ),
        train_dataset=table,
        processing_class=tokenizer,
        peft_config=None
        if method == "full"
        else LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    print(
        json.dumps(
            {
                "tokens": sum(lengths[batch:]),
                "seconds": sum(clock.seconds[1:]),
                "loss": [entry["loss"] for entry in logs],
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
