"""The linear probe against scikit-learn on hidden states as anyone would take them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from families import auto_class, save
from instil.data.build import render_example
from instil.evaluate import probe as module
from instil.evaluate.probe import (
    ask_probe,
    probe_file,
    prompt_features,
    train_probe,
)
from instil.model.load import LoadedModel, ModelFolder, load_model, quiet
from reviews import TASK, TEMPLATE, make_rows

PACKED, HYBRID, ENCODED = "Llama", "Falcon-H1", "T5"
TRAIN, TEST = make_rows(40, seed=1), make_rows(12, seed=2)


@pytest.fixture(scope="module", params=[PACKED, HYBRID, ENCODED])
def loaded(request, tmp_path_factory, tiny_folder) -> Iterator[LoadedModel]:
    folder = tmp_path_factory.mktemp("probe") / "model"
    save(request.param, folder, tokenizer=tiny_folder)
    with pytest.MonkeyPatch.context() as patch, quiet():
        patch.setenv("INSTIL_CACHE", str(folder.parent / "cache"))
        yield load_model(ModelFolder("tiny", folder, "none"), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def tiny_loaded(tiny_folder, proofs) -> LoadedModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTIL_CACHE", str(proofs))
        return load_model(ModelFolder("tiny", tiny_folder, "none"), device="cpu", dtype="float32")


def examples_of(rows):
    return [render_example(TASK, TEMPLATE, row) for row in rows]


def prompts_of(loaded: LoadedModel, examples) -> list[tuple[int, ...]]:
    return [tuple(loaded.chat.prompt(e.messages)) for e in examples]


def of_transformers(loaded: LoadedModel, examples, *, skip: int) -> np.ndarray:
    """Each prompt by itself, through transformers' own model from the same folder."""
    config = loaded.model.config
    model = auto_class(config).from_pretrained(loaded.folder.path, dtype=torch.float32).eval()
    lines = []
    for example in examples:
        ids = torch.tensor([loaded.chat.prompt(example.messages)])
        reads = model.get_encoder() if config.is_encoder_decoder else model
        with torch.inference_mode():
            states = reads(input_ids=ids, output_hidden_states=True).hidden_states
        middle = states[len(states) // 2]  # of 2 layers behind the first, of 3 behind the second
        lines.append(middle[0, skip:].mean(0).numpy())
    return np.stack(lines)


def test_it_is_logistic_regression_on_transformers_own_hidden_states(loaded) -> None:
    examples, asked = examples_of(TRAIN), examples_of(TEST)
    made = train_probe(loaded, TRAIN, examples, task=TASK)
    assert made.skip > 3
    features = of_transformers(loaded, examples, skip=made.skip)
    found = prompt_features(loaded, prompts_of(loaded, examples), skip=made.skip)
    assert np.abs(found - features).max() < 1e-4 * features.std()
    scaler = StandardScaler().fit(features)
    settings = made.classifier.model.get_params()
    wanted = LogisticRegression(**{**settings, "tol": 1e-8, "max_iter": 1000})
    wanted.fit(scaler.transform(features), [row.fields["label"] for row in TRAIN])
    chances = wanted.predict_proba(scaler.transform(of_transformers(loaded, asked, skip=made.skip)))
    answers = ask_probe(loaded, made, asked)
    for answer, chance in zip(answers, chances, strict=True):
        bad, fair, good = map(math.exp, answer.choice_scores)
        assert (bad, good) == pytest.approx(tuple(chance), abs=0.01)
        assert fair < 1e-6


def test_the_file_that_is_counted_answers_alike(tiny_loaded) -> None:
    made = train_probe(tiny_loaded, TRAIN, examples_of(TRAIN), task=TASK)
    stored = np.load(io.BytesIO(probe_file(made)))
    asked = examples_of(TEST)
    prompts = prompts_of(tiny_loaded, asked)
    features = prompt_features(tiny_loaded, prompts, skip=int(stored["skip"]))
    scaled = (features - stored["mean"]) / stored["scale"]
    good = 1 / (1 + np.exp(-(scaled @ stored["weights"][0] + stored["bias"])))
    answers = ask_probe(tiny_loaded, made, asked)
    assert [math.exp(a.choice_scores[2]) for a in answers] == pytest.approx(good.tolist())


def test_an_answer_does_not_depend_on_what_is_asked_with_it(tiny_loaded) -> None:
    made = train_probe(tiny_loaded, TRAIN, examples_of(TRAIN), task=TASK)
    asked = examples_of(TEST)
    together = ask_probe(tiny_loaded, made, asked)
    for example, answer in zip(asked, together, strict=True):
        (alone,) = ask_probe(tiny_loaded, made, [example])
        assert alone.choice_scores == pytest.approx(answer.choice_scores, abs=1e-3)
        assert alone.prompt_tokens == answer.prompt_tokens > made.skip


def test_a_prompt_of_shared_tokens_alone_keeps_its_last(tiny_loaded) -> None:
    prompts = prompts_of(tiny_loaded, examples_of(TEST[:1]))
    length = len(prompts[0])
    last, beyond = (prompt_features(tiny_loaded, prompts, skip=n) for n in (length - 1, length))
    assert np.array_equal(last, beyond)


def test_a_row_beyond_the_context_is_read_as_far_as_it_goes(tiny_loaded) -> None:
    long = make_rows(1, seed=3)[0]
    long = replace(long, fields={**long.fields, "text": "good " * 2000})
    rows = [*TRAIN, long]
    shown = [render_example(TASK, TEMPLATE, row) for row in rows]
    assert max(map(len, prompts_of(tiny_loaded, shown))) > 512
    assert max(map(len, module.prompts_of(tiny_loaded, shown))) == 512
    assert train_probe(tiny_loaded, rows, shown, task=TASK).classifier.model is not None
