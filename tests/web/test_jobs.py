"""Commands that outlive whoever began them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from instil.web.jobs import Job, begin, find, jobs


def ended(job: Job, *, seconds: float = 60) -> Job:
    until = time.monotonic() + seconds
    while job.running:
        assert time.monotonic() < until, job.output
        time.sleep(0.05)
    return job


def test_a_command_runs_in_the_folder_and_leaves_its_code(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    job = begin(tmp_path, ["init", "rows.csv"])
    assert job.line == "instil init rows.csv"
    assert job.running
    assert (ended(job).code, job.state) == (2, "refused")
    assert "too few" in job.output
    good = ended(begin(tmp_path, ["--version"]))
    assert (good.code, good.state) == (0, "done")
    assert [each.id for each in jobs(tmp_path)] == sorted([job.id, good.id], reverse=True)
    assert find(tmp_path, job.id) == job
    assert find(tmp_path, "../x") is None


def test_a_command_goes_on_when_its_server_is_killed(tmp_path):
    program = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom instil.web.jobs import begin\n"
        "begin(Path(sys.argv[1]), ['models'])\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    (job,) = jobs(tmp_path)
    assert ended(job).code == 0
    assert "smollm2" in job.output


def test_stop_is_ctrl_c(tmp_path):
    job = begin(tmp_path, ["ui", "--no-browser", "--port", "0"])
    until = time.monotonic() + 60
    while "open http" not in job.output:
        assert time.monotonic() < until, job.output
        time.sleep(0.05)
    job.stop()
    ended(job, seconds=20)
    assert job.state in ("done", "stopped")
    job.stop()  # nothing to stop any more


def test_another_process_with_its_number_is_not_the_job(tmp_path):
    place = tmp_path / ".instil" / "jobs" / "x"
    place.mkdir(parents=True)
    ours = Job(place, ("models",), pid=1, started=1.0, begun="")
    assert not ours.running
    assert ours.state == "killed"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"command": 3}'])
def test_a_job_that_is_half_written_is_passed_over(tmp_path: Path, text: str):
    place = tmp_path / ".instil" / "jobs" / "x"
    place.mkdir(parents=True)
    (place / "job.json").write_text(text)
    assert jobs(tmp_path) == []
