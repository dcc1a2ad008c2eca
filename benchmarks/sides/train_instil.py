"""One side: instil's own training loop. Prints one JSON line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from common import chunks, finish, read_rows
from examples import as_example

from instil.config.methods import Lora
from instil.config.sections import Train
from instil.encode.batch import to_batch
from instil.encode.mask import encode_all
from instil.encode.pack import batches
from instil.model.adapter import add_adapter, train_all, trainable
from instil.model.engine.losses import summed_loss
from instil.model.load import LoadedModel, ModelFolder, load_model
from instil.train.loop import Schedule, train_steps
from instil.train.optim import adamw
from instil.types import Encoded, Pack, Step


def made_trainable(model: str, method: str) -> LoadedModel:
    folder = ModelFolder("bench", Path(model), "")
    if method == "full":
        return train_all(load_model(folder, masters=True))
    return add_adapter(load_model(folder), Lora(r=8, lora_alpha=16), seed=0)


def planned(
    encoded: tuple[Encoded, ...], *, batch: int, micro_batch_tokens: int
) -> list[tuple[Pack, ...]]:
    """As many examples a step as the peer's batch has rows, whatever their lengths."""
    return [
        batches(
            some,
            tokens_per_batch=10**9,
            micro_batch_tokens=micro_batch_tokens,
            seed=0,
            epoch=0,
        )[0]
        for some in chunks(list(encoded), batch)
    ]


def agree(options: argparse.Namespace) -> None:
    """Print the first step's loss in float32, and the ids that it is over."""
    loaded = load_model(ModelFolder("bench", Path(options.model), ""), dtype="float32")
    examples = [as_example(row) for row in read_rows(options.rows)][: options.batch]
    encoded = encode_all(examples, loaded.chat, max_length=options.max_length)
    (packs,) = planned(encoded, batch=options.batch, micro_batch_tokens=options.micro)
    loaded.model.eval()
    with torch.inference_mode():
        nats = sum(
            float(
                summed_loss(loaded.model, to_batch(pack, device=loaded.device), build=loaded.build)
            )
            for pack in packs
        )
    tokens = sum(sum(pack.mask) for pack in packs)
    finish({"loss": nats / tokens, "trained": trained_ids(encoded)})


def trained_ids(encoded: Sequence[Encoded]) -> list[list[int]]:
    return [[i for i, m in zip(e.ids, e.mask, strict=True) if m] for e in encoded]


def begun(
    options: argparse.Namespace,
) -> tuple[LoadedModel, list[tuple[Pack, ...]], Iterator[Step]]:
    """The model, its packs step by step, and the steps, none of which is taken yet."""
    loaded = made_trainable(options.model, options.method)
    examples = [as_example(row) for row in read_rows(options.rows)]
    encoded = encode_all(examples, loaded.chat, max_length=options.max_length)
    plan = planned(encoded, batch=options.batch, micro_batch_tokens=options.micro)
    steps = train_steps(
        loaded,
        plan,
        optimizer=adamw(trainable(loaded.model), learning_rate=1e-4, weight_decay=0.0),
        schedule=Schedule(1e-4, 0.0, "constant", 1.0),
        steps_per_epoch=len(plan),
    )
    return loaded, plan, steps


def counted(plan: Sequence[Sequence[Pack]], taken: Sequence[Step]) -> dict[str, int]:
    """What was timed: the first step pays for allocations on every side."""
    return {
        "tokens": sum(s.tokens for s in taken[1:]),
        "computed": sum(len(p.ids) for packs in plan[1:] for p in packs),
        "places": sum(s.supervised_tokens for s in taken[1:]),
    }


def train(options: argparse.Namespace) -> None:
    loaded, plan, steps = begun(options)
    taken = list(steps)
    finish(
        {
            **counted(plan, taken),
            "seconds": sum(s.seconds for s in taken[1:]),
            "step_seconds": [s.seconds for s in taken],
            "supervised": [s.supervised_tokens for s in taken],
            "loss": [s.loss for s in taken],
        },
        device=loaded.device.type,
    )


def arguments() -> argparse.Namespace:
    found = argparse.ArgumentParser()
    found.add_argument("rows")
    found.add_argument("model")
    found.add_argument("--method", choices=["lora", "full"], required=True)
    found.add_argument("--batch", type=int, required=True, help="rows of an optimizer step")
    found.add_argument("--max-length", type=int, default=2048)
    found.add_argument(
        "--micro", type=int, default=Train().micro_batch_tokens, help="tokens of a forward pass"
    )
    found.add_argument("--agree", action="store_true", help="train nothing, tell the first loss")
    return found.parse_args()


if __name__ == "__main__":
    options = arguments()
    (agree if options.agree else train)(options)
