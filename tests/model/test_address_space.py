"""The real model in too small an address space: packs are halved, or one message ends it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from instil.model.load import load_model, pick_dtype, resolve_model


@pytest.fixture(autouse=True)
def private_cache() -> None:
    """Slow tests use the user's cache: the model is fetched, converted and proved once."""


@pytest.fixture(scope="module", autouse=True)
def proved() -> None:
    """Have the model here and its proof kept: it takes more memory than what is tried."""
    for dtype in ("bfloat16", "float32"):
        load_model(resolve_model(MODEL), device="cpu", dtype=dtype)


MODEL = "smollm2-135m-instruct"
CODE = """
import resource, sys
limit = int(sys.argv[1]) * 10**6
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from instil.cli.failures import told
try:
    from instil.encode.pack import pack
    from instil.config.methods import Lora
    from instil.model.adapter import add_adapter
    from instil.model.load import load_model, resolve_model
    from instil.train.loop import batch_gradient
    from instil.train.room import Room
    from instil.types import Encoded
    model = resolve_model("smollm2-135m-instruct")
    loaded = load_model(model, device="cpu", dtype=sys.argv[2])
    loaded = add_adapter(loaded, Lora(r=4, lora_alpha=8), seed=1)
    mask = (False,) * 80 + (True,) * 20
    examples = [Encoded(f"e{n}", tuple(range(1000 + n, 1100 + n)), mask) for n in range(20)]
    room = Room(apart=True)
    sums = batch_gradient(loaded, pack(examples, max_tokens=2000), room=room)
    print("computed", sums.tokens, room.tightened)
except Exception as error:
    message, code = told(error)
    print(message)
    sys.exit(code)
"""


def within(megabytes: int, dtype: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, str(megabytes), dtype],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.mark.slow
@pytest.mark.timeout(1000)  # bfloat16 is slow where the processor lacks it
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_too_little_for_the_weights_is_one_message(dtype: str) -> None:
    done = within(1300, dtype)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.startswith("memory ran out while ")
    assert "give the process more memory" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1000)  # bfloat16 is slow where the processor lacks it
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_too_little_for_a_pack_halves_it(dtype: str) -> None:
    if dtype == "bfloat16" and pick_dtype("auto", torch.device("cpu")) is not torch.bfloat16:
        pytest.skip("the processor has no bfloat16: it takes minutes, and no default takes it")
    assert within(2000, dtype).stdout == "computed 400 True\n"
