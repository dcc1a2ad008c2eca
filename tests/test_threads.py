"""How torch's threads wait: set before torch is loaded, unless the user has a say."""

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
TELL = (
    f"import os, sys, instil; print([os.environ.get(n) for n in {NAMES}], 'torch' in sys.modules)"
)


def told(**given: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in NAMES} | given
    command = [sys.executable, "-c", TELL]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_waiting_threads_spin_a_little_before_they_sleep():
    assert told() == "[None, '200', None] False"


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_set_stays(name):
    wanted = [None if n != name else "7" for n in NAMES]
    assert told(**{name: "7"}) == f"{wanted} False"
