"""The test is opened once; a second look is refused, or asked for and told."""

from pathlib import Path

import pytest

from instil.errors import RunError
from instil.stages.directory import Run
from instil.stages.judge import Look, looks_sentence, open_test, prepare_look
from instil.stages.runfiles import load_manifest


@pytest.fixture
def a_run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.model.mkdir()
    (run.model / "adapter_model.safetensors").write_bytes(b"weights")
    (run.model / "adapter_config.json").write_text('{"lora_alpha": 8}', encoding="utf-8")
    run.kept("test", int, lambda: 1)
    return run


def opened(run: Run) -> int:
    return len(load_manifest(run.folder).get("test_opened", []))


def test_the_first_look_is_noted(a_run):
    open_test(a_run, look=Look.ONCE)
    assert opened(a_run) == 1


def test_a_judging_that_was_stopped_is_gone_on_with_and_is_no_second_look(a_run):
    open_test(a_run, look=Look.ONCE)
    open_test(a_run, look=Look.ONCE)
    assert opened(a_run) == 1
    assert len(load_manifest(a_run.folder)["test_gone_on_with"]) == 1


def test_a_run_that_was_judged_is_not_opened_again(a_run):
    open_test(a_run, look=Look.ONCE)
    (a_run.folder / "summary.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="--look-again"):
        open_test(a_run, look=Look.ONCE)
    open_test(a_run, look=Look.AGAIN)
    assert opened(a_run) == 2


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_nor_is_it_for_another_model(a_run, name):
    open_test(a_run, look=Look.ONCE)
    (a_run.model / name).write_bytes(b"changed")
    with pytest.raises(RunError, match="the model has been changed"):
        open_test(a_run, look=Look.ONCE)
    assert opened(a_run) == 1


def test_looking_again_drops_the_finished_test(a_run):
    kept = a_run.folder / "state" / "test.json"
    with pytest.raises(RunError, match="not been opened"):
        prepare_look(a_run, look=Look.AGAIN)
    assert kept.exists()
    open_test(a_run, look=Look.ONCE)
    prepare_look(a_run, look=Look.ONCE)
    assert kept.exists()
    prepare_look(a_run, look=Look.AGAIN)
    assert not kept.exists()


def test_only_further_looks_are_spoken_of():
    assert looks_sentence(1) == ""
    assert "2 times" in looks_sentence(2)
