"""The examples of docs/extending.md, applied to a copy of the package, add what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USE = """
import sys
from pathlib import Path
from instil.cli.main import app
from instil.data.registry import load_rows
from instil.evaluate.metrics import score
from instil.format import style
from instil.tasks.task import load_task
from instil.types import Example, Message, Prediction

task = load_task("mugs.task.yaml")
rows = load_rows(task).rows
print(*(f"{row.fields['section']}: {row.fields['said']}" for row in rows), sep="; ")
example = Example("a", task.id, "t", "1", "1", (Message("user", "?"),), "a blue mug")
answer = Prediction("a", text="one blue mug")
print(style("jaccard").label, round(score(example, answer, metric="jaccard").value, 2))
print([c.name for c in app.registered_commands if c.name == "verdict"])

import torch
from instil.config.sections import Keep
from instil.study.methods import choose_arms
from instil.train.terms import terms_of

(term,) = terms_of(Keep(reverse_kl=0.5))
mine, base = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
q, p = mine.softmax(-1), base.softmax(-1)
assert torch.allclose(term.distance(mine, base), (q * (q / p).log()).sum(-1))
print(term.sentence(0.25), *choose_arms(["reverse-kl"], own=())["reverse-kl"])
"""
MUGS = "[first]\ntext = I like it\nsaid = so it is good\n[second]\ntext = It broke\nsaid = so bad\n"
TASK = """
id: mugs
kind: summary
source: mugs.ini
text: text
target: said
metric: jaccard
templates:
  - id: say
    prompt: "{{ text }} So?"
    target: "{{ said }}"
"""


@pytest.mark.slow
def test_the_examples_apply_and_work(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    patches = re.findall(r"```diff\n(.*?)```", text, re.DOTALL)
    assert len(patches) == 4
    for patch in patches:
        apply = ["git", "apply", "-C1", "-"]
        done = subprocess.run(
            apply, input=patch, text=True, cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    (tmp_path / "mugs.ini").write_text(MUGS, encoding="utf-8")
    (tmp_path / "mugs.task.yaml").write_text(TASK, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read, scored, commands, term = done.stdout.splitlines()
    assert read == "first: so it is good; second: so bad"
    assert scored == "words in common 0.67"  # of one, blue and mug two; articles do not count
    assert commands == "['verdict']"
    assert term.startswith("Held to the base model: reverse KL with a weight of 0.5; 0.2500 nats")
    assert term.endswith(" keep.reverse_kl=0.1")
