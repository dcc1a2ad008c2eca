"""What `instil verify` tells apart: each fault is put into an exported model, and that alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from instil.data.build import render_all
from instil.errors import ModelError, RunError
from instil.ship.certificate import CERTIFICATE, require_own
from instil.ship.export import export
from instil.ship.formats import Format
from instil.ship.targets import Answer, ServerTarget, folder_target
from instil.ship.verify import Finding, Reference, Said, ask, judge, reference, verify

pytestmark = pytest.mark.slow  # many whole runs


@pytest.fixture(scope="module")
def known(done: Path) -> Reference:
    return reference(done, rows=30)


@pytest.fixture
def merged(done: Path, tmp_path: Path) -> Path:
    return export(done, out=tmp_path / "merged", form=Format.MERGED).path


def judged(folder: Path, known: Reference, base: Path):
    target = folder_target(folder, base=base)
    tokens = [target.tokens(turns) for turns in known.turns]
    return judge(known, ask(target, known), tokens=tokens)


def base_model(folder: Path, tiny: Path) -> None:
    AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).save_pretrained(folder)


def stranger(folder: Path, tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    torch.manual_seed(9)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3) if weight.dim() > 1 else None
    model.save_pretrained(folder)


def template(change: Callable[[str], str]) -> Callable[[Path, Path], None]:
    def break_it(folder: Path, tiny: Path) -> None:
        file = folder / "chat_template.jinja"
        file.write_text(change(file.read_text()))

    return break_it


def no_stop(folder: Path, tiny: Path) -> None:
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 399}))


FAULTS = {
    Finding.EQUAL: lambda folder, tiny: None,
    Finding.NO_ADAPTER: base_model,
    Finding.WEIGHTS: stranger,
    Finding.TEMPLATE: template(lambda text: text.replace("assistant", "user")),
    Finding.BOS: template(lambda text: "{{ bos_token }}" + text),
    Finding.NO_STOP: no_stop,
}


@pytest.mark.parametrize("finding", FAULTS)
def test_each_fault_is_told_by_its_name(finding, merged, known, tiny_folder):
    FAULTS[finding](merged, tiny_folder)
    found = judged(merged, known, tiny_folder)
    assert found.finding is finding, found.detail
    assert found.finding.sound == (finding is Finding.EQUAL)


def test_a_chat_template_that_refuses_is_an_error_with_its_words(merged, known, tiny_folder):
    target = folder_target(merged, base=tiny_folder)
    target.tokenizer.chat_template = "{{ raise_exception('no system message, please') }}"
    with pytest.raises(ModelError, match="no system message, please"):
        target.tokens(known.turns[0])


def answered(known: Reference, *, wrong: int, scores: bool = False) -> Said:
    """The run's own answers, of which some are the other choice."""
    answers = list(known.tuned.answers)
    for place in range(wrong):
        said = known.examples[place]
        text = next(c for c in said.choices if c != said.target)
        answers[place] = Answer(text, True)
    return Said(tuple(answers), known.tuned.log_probs if scores else ())


def test_worse_answers_are_told_with_their_interval(known):
    known = replace(known, tuned=answered(known, wrong=0))
    right = tuple(Answer(e.target, True) for e in known.examples)
    known = replace(known, tuned=Said(right), base=Said(right))
    many, few = (judge(known, answered(known, wrong=each)) for each in (14, 1))
    assert many.finding is Finding.WORSE
    assert "points" in many.detail
    assert few.finding is Finding.NO_DIFFERENCE
    assert few.finding.sound
    assert judge(known, Said(right)).finding is Finding.EQUAL


def test_a_server_that_tells_only_how_long_prompts_are(known):
    def with_counts(more: int) -> Said:
        return Said(
            tuple(
                replace(answer, prompt_tokens=len(prompt) + more)
                for answer, prompt in zip(known.tuned.answers, known.prompts, strict=True)
            )
        )

    assert judge(known, with_counts(0)).finding is Finding.EQUAL
    assert judge(known, with_counts(1)).finding is Finding.BOS
    assert judge(known, with_counts(5)).finding is Finding.TEMPLATE
    assert judge(known, Said(known.base.answers)).finding is Finding.NO_ADAPTER


@pytest.mark.enable_socket
def test_gguf_files_are_run_by_llama_cpp(done, done_lora, tmp_path):
    pytest.importorskip("xllamacpp")
    whole = export(done, out=tmp_path / "gguf", form=Format.GGUF)
    found = verify(str(whole.weights), run=done, rows=8)
    assert found.finding is Finding.EQUAL, found.detail
    assert found.largest is not None
    assert found.largest < 0.05
    adapter = export(done_lora, out=tmp_path / "lora", form=Format.GGUF_LORA)
    found = verify(str(adapter.path), run=done_lora, rows=4)
    assert found.finding.sound, found.detail
    assert found.largest is not None
    assert found.largest < 1e-4


def test_a_run_of_which_every_row_has_tools(done, monkeypatch):
    def with_tools(asked):
        return [replace(e, tools=({"name": "look"},)) for e in render_all(asked)]

    monkeypatch.setattr("instil.ship.verify.render_all", with_tools)
    with pytest.raises(RunError, match="all of them have tools"):
        reference(done, rows=2)


def test_what_was_exported_from_another_run(done, merged):
    file = merged / CERTIFICATE
    known = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**known, "run": "another"}), encoding="utf-8")
    with pytest.raises(RunError, match="exported from another run") as refused:
        verify(str(merged), run=done, rows=2)
    assert known["begun"] in refused.value.problems[0].found
    file.write_text("{", encoding="utf-8")
    require_own(str(merged), done)  # a certificate that cannot be read proves nothing
    require_own("http://127.0.0.1:1", done)


def test_what_is_no_model(done, tmp_path):
    with pytest.raises(RunError, match="no model"):
        verify(str(tmp_path / "nothing"), run=done, rows=2)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    with pytest.raises(RunError, match="no whole GGUF"):
        verify(str(tmp_path / "broken.gguf"), run=done, rows=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="cannot load"):
        verify(str(tmp_path / "empty"), run=done, rows=2)


class Said200:
    """What `requests.post` returns of a server that answers 200."""

    def __init__(self, body: object) -> None:
        self.json = lambda: body

    def raise_for_status(self) -> None:
        pass


@pytest.mark.parametrize("body", [{}, [], {"choices": []}, {"choices": [{"message": None}]}])
def test_a_server_that_answers_in_another_form(monkeypatch, body):
    monkeypatch.setattr("requests.post", lambda *_, **__: Said200(body))
    with pytest.raises(RunError, match="does not answer"):
        ServerTarget("http://host").answer([], max_tokens=1)
    with pytest.raises(RunError, match="does not answer"):
        ServerTarget("http://host", vocabulary=4).tokens([])


def test_a_server_whose_model_has_more_tokens(monkeypatch):
    top = [{"id": 7, "logprob": -0.1}, {"id": 2, "logprob": -2.0}]
    body = {"completion_probabilities": [{"top_logprobs": top}]}
    monkeypatch.setattr("requests.post", lambda *_, **__: Said200(body))
    log_probs = ServerTarget("http://host", vocabulary=4).log_probs([1])
    assert log_probs.tolist() == [-math.inf, -math.inf, -2.0, -math.inf]


@pytest.mark.enable_socket
def test_a_server_that_is_not_there(done):
    with pytest.raises(RunError, match="does not answer"):
        ServerTarget("http://127.0.0.1:9").answer([], max_tokens=1)
