"""What an earlier version wrote is read as today's."""

import json

import pytest
from pydantic import TypeAdapter

from instil.results import Means
from instil.stages.directory import Run, load_steps, step_line
from instil.stages.older import is_older, of_today
from instil.types import Step

STEP = Step(1, 0.5, 2.0, 1e-3, 1.0, 12, 34, 0.5, 10**9, terms={"kl": 0.25, "replay_loss": 3.0})
OLD = {**json.loads(step_line(STEP)), "kl": 0.25, "replay_loss": 3.0, "entropy_weight": None}
del OLD["terms"]


def test_a_step_of_format_1(tmp_path):
    lines = [json.dumps(OLD), step_line(STEP).decode()]
    (tmp_path / "steps.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert load_steps(tmp_path) == (STEP, STEP)


@pytest.mark.parametrize("mean", [0.0123, None])
def test_means_of_format_1(mean):
    old = {
        "replay_share": 0.05,
        "replay_of": "own",
        "replayed": [],
        "replay_loss": 3.4,
        "kl": 0.1,
        "kl_on": "prompt",
        "mean_kl": mean,
        "entropy_weighted": True,
        "mean_weight": 0.5,
    }
    data = json.dumps({"means": old}).encode()
    assert is_older(data)
    means = TypeAdapter(Means).validate_python(of_today(data)["means"])
    assert (means.replay_share, means.replay_loss) == (0.05, 3.4)
    assert [(term.name, term.mean) for term in means.terms] == [
        ("kl", mean),
        ("entropy_weight", 0.5),
    ]
    assert "(prompt): forward KL with a weight of 0.1" in means.terms[0].sentence
    assert means.terms[1].sentence.endswith("; 0.5000 on average.")


def test_a_digest_of_steps_is_of_the_lines_as_they_stand(tmp_path):
    """So a run that an earlier version began may go on."""
    from instil.stages.directory import _chained

    line = json.dumps(OLD).encode()
    (tmp_path / "steps.jsonl").write_bytes(line + b"\n")
    Run(tmp_path).begin_steps(up_to=1, digest=_chained([line]))
    assert load_steps(tmp_path) == (STEP,)
