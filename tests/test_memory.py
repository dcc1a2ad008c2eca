"""A real pack under real limits of address space: halved, or given up in one message."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
limit = int(sys.argv[1]) * 10**6
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from instil.cli.failures import told
try:
    from instil.encode.pack import pack
    from instil.model.adapter import add_lora
    from instil.model.load import load_model, resolve_model
    from instil.train.loop import batch_gradient
    from instil.train.room import Room
    from instil.types import Encoded
    model = resolve_model("smollm2-135m-instruct")
    loaded = load_model(model, device="cpu", dtype=sys.argv[2])
    settings = {"lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
    loaded = add_lora(loaded, r=4, seed=1, **settings)
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


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("megabytes", [1300, 1500, 2000])
def test_a_pack_is_halved_or_given_up_in_one_message(megabytes: int, dtype: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(megabytes), dtype],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode == 0:
        assert done.stdout.startswith("computed 400 ")
    else:
        assert done.returncode == 2, done.stdout + done.stderr
        assert "memory" in done.stdout.partition("\n")[0]
        assert "give the process more memory" in done.stdout
    if megabytes == 2000 and dtype == "bfloat16":
        assert done.stdout == "computed 400 True\n"
