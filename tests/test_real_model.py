"""The real model and real rows: what the unit tests show on a tiny model holds here too."""

import os
from dataclasses import replace

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def private_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow tests use the user's cache: the model is fetched and converted once."""
    torch.set_num_threads(os.cpu_count() or 1)


@pytest.fixture(scope="module")
def real():
    from instil.model.load import load_model, resolve_model

    return load_model(resolve_model("smollm2-135m-instruct"), device="cpu", dtype="float32")


@pytest.fixture(scope="module", params=["smollm2-135m-instruct", "gemma-3-270m"])
def either(request: pytest.FixtureRequest):
    """Each model of the catalogue, and what transformers makes of its folder by itself."""
    from transformers import AutoModelForCausalLM

    from instil.model.catalogue import CATALOGUE
    from instil.model.load import load_model, resolve_model

    word = CATALOGUE[request.param].accept
    if word and word not in os.environ.get("INSTIL_ACCEPT", "").split(","):
        pytest.skip(f"to accept its terms: INSTIL_ACCEPT={word}")
    loaded = load_model(resolve_model(request.param), device="cpu", dtype="float32")
    own = AutoModelForCausalLM.from_pretrained(loaded.folder.path, dtype=torch.float32)
    return loaded, own.eval()


@pytest.fixture(scope="module")
def data():
    from instil.data.prepare import prepare
    from instil.tasks.task import load_task

    return prepare(
        load_task("amazon_reviews"),
        train=200,
        validation=40,
        test=60,
        seed=0,
        near_duplicates=0.8,
    )


def test_the_mask_of_a_real_review(real, data):
    from instil.data.build import render_example
    from instil.encode.mask import encode

    for template in data.templates:
        example = render_example(data.task, template, data.train[0])
        encoded = encode(example, real.chat, max_length=512)
        text = real.chat.tokenizer.decode(list(encoded.ids))
        trained = [i for i, m in zip(encoded.ids, encoded.mask, strict=True) if m]
        assert real.chat.tokenizer.decode(trained) == f"{example.target}<|im_end|>"
        turns = [{"role": m.role, "content": m.content} for m in example.messages]
        turns.append({"role": "assistant", "content": example.target})
        whole = real.chat.tokenizer.apply_chat_template(turns, tokenize=False)
        assert text == whole.rstrip("\n")
        assert text.count("<|im_start|>") == 3


def test_packed_training_loss_equals_one_by_one(real, data):
    from instil.encode.mask import encode_all
    from instil.encode.pack import pack
    from instil.encode.store import Store
    from measures import mean_loss
    from rendering import training_examples

    examples = training_examples(
        data.task, data.train[:24], data.templates, per_row="one", seed=0, epoch=0
    )
    encoded = encode_all(examples, real.chat, max_length=512)
    shared = Store(encoded).shared_prefix()
    assert shared >= 20, "SmolLM2's own system message stands before every prompt"
    packed = mean_loss(real, pack(encoded, max_tokens=1024, shared=shared))
    single = mean_loss(real, pack(encoded, max_tokens=1))
    assert packed == pytest.approx(single, rel=1e-5)


def test_choice_scores_equal_a_plain_forward_pass(real, data):
    from instil.data.build import pick_exemplars, render_example
    from instil.evaluate.choices import choice_request, likelihoods

    shots = pick_exemplars(data.task, data.train, shots=3, seed=0)
    template = next(t for t in data.answering if t.choices == ("happy", "unhappy"))
    examples = [
        render_example(data.task, template, row, exemplars=shots) for row in data.validation[:6]
    ]
    requests = [choice_request(e, real.chat) for e in examples]
    for request, found in zip(requests, likelihoods(real, requests), strict=True):
        for completion, like in zip(request.completions, found, strict=True):
            ids = torch.tensor([[*request.prompt, *completion]])
            with torch.inference_mode():
                chances = real.model(input_ids=ids).logits[0].log_softmax(-1)
            begin = len(request.prompt) - 1
            plain = sum(float(chances[begin + n, t]) for n, t in enumerate(completion))
            assert like.nats == pytest.approx(plain, abs=2e-3)


def test_generation_stops_and_reads_like_language(real):
    from instil.evaluate.generate import generate
    from instil.types import Example, Message

    ask = Example("x", "", "", "", "", (Message("user", "What is the capital of France?"),), "")
    (made,) = generate(real, [ask], max_new_tokens=40)
    assert "Paris" in made.text
    assert made.stopped


def test_bfloat16_finds_nearly_the_same_likelihoods(real, data):
    from instil.data.build import render_example
    from instil.evaluate.choices import choice_request, likelihoods
    from instil.model.load import load_model, resolve_model

    half = load_model(resolve_model("smollm2-135m-instruct"), device="cpu", dtype="bfloat16")
    examples = [render_example(data.task, data.answering[0], r) for r in data.validation[:20]]
    requests = [choice_request(e, real.chat) for e in examples]
    pairs = zip(likelihoods(real, requests), likelihoods(half, requests), strict=True)
    gaps = [abs(a.nats - b.nats) for one, two in pairs for a, b in zip(one, two, strict=True)]
    # A bfloat16 logit near 20 has steps of an eighth: this is the rounding that a user sees.
    assert sum(gaps) / len(gaps) < 0.3


def test_every_library_task_renders_encodes_and_scores_on_ten_real_rows(real):
    from instil.data.build import render_example
    from instil.data.registry import load_rows
    from instil.encode.mask import shorten
    from instil.evaluate.suite import answer, mark
    from instil.tasks.task import library, load_task
    from instil.types import Role

    assert len(library()) >= 7
    for name in library():
        task = load_task(name)
        template = next(t for t in task.templates if t.role is Role.ANSWER)
        rows = load_rows(task).rows[:10]
        examples = [render_example(task, template, row) for row in rows]
        examples = [shorten(e, real.chat, max_tokens=400) or e for e in examples]
        made = answer(real, examples, max_new_tokens=min(16, task.max_new_tokens))
        marked = mark(examples, made, metric=task.metric)
        assert all(s.value is not None and 0 <= s.value <= 1 for s in marked.scores), name
        perfect = [replace(p, text=e.target) for e, p in zip(examples, made, strict=True)]
        best = mark(examples, perfect, metric=task.metric)
        assert all(s.value == pytest.approx(1) for s in best.scores), name


def test_packs_have_the_loss_of_transformers_own_forward_pass(either, data):
    from instil.encode.mask import encode_all
    from instil.encode.pack import pack
    from instil.encode.store import Store
    from instil.types import Message
    from measures import mean_loss
    from rendering import training_examples

    loaded, own = either
    rows, wordings = data.train[:10], data.templates
    examples = [*training_examples(data.task, rows, wordings, per_row="one", seed=0, epoch=0)]
    # One is longer than Gemma's sliding window of 512 tokens.
    reviews = " ".join(str(row.fields["sentence"]) for row in data.train)[:4000]
    long = replace(examples[0], id="long", messages=(Message("user", reviews),), text=reviews)
    encoded = encode_all([*examples, long], loaded.chat, max_length=1500)
    assert max(len(each.ids) for each in encoded) > 600
    losses = []
    for each in encoded:
        ids = torch.tensor([each.ids])
        labels = torch.where(torch.tensor([each.mask]), ids, -100)
        with torch.inference_mode():
            losses.append(float(own(ids, labels=labels).loss) * sum(each.mask))
    expected = sum(losses) / sum(sum(each.mask) for each in encoded)
    packed = mean_loss(
        loaded, pack(encoded, max_tokens=2048, shared=Store(encoded).shared_prefix())
    )
    assert packed == pytest.approx(expected, rel=1e-5)


def test_choices_have_the_likelihoods_of_transformers_own_forward_pass(either, data):
    from instil.data.build import pick_exemplars, render_example
    from instil.evaluate.choices import choice_request, likelihoods

    loaded, own = either
    shots = pick_exemplars(data.task, data.train, shots=2, seed=0)
    examples = [
        render_example(data.task, data.answering[0], row, exemplars=shots)
        for row in data.validation[:4]
    ]
    requests = [choice_request(example, loaded.chat) for example in examples]
    for request, found in zip(requests, likelihoods(loaded, requests), strict=True):
        for completion, like in zip(request.completions, found, strict=True):
            ids = torch.tensor([[*request.prompt, *completion]])
            with torch.inference_mode():
                chances = own(ids).logits[0].log_softmax(-1)
            begin = len(request.prompt) - 1
            plain = sum(float(chances[begin + n, t]) for n, t in enumerate(completion))
            assert like.nats == pytest.approx(plain, abs=2e-3)


def test_generation_says_what_transformers_own_says(either):
    from instil.evaluate.generate import generate
    from instil.types import Example, Message

    loaded, own = either
    asks = [
        Example(str(n), "", "", "", "", (Message("user", text),), "")
        for n, text in enumerate(("Name three colours.", "The capital of France is"))
    ]
    for ask, made in zip(asks, generate(loaded, asks, max_new_tokens=20), strict=True):
        ids = torch.tensor([loaded.chat.prompt(ask.messages)])
        with torch.inference_mode():
            said = own.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
        text = loaded.chat.tokenizer.decode(said, skip_special_tokens=True)
        assert made.text.strip() == text.strip()


def test_texts_in_several_languages_round_trip_and_begin_once(either):
    from instil.types import Message

    loaded, _ = either
    texts = (
        "Ein schöner Tag: naïve façade, 3.50 €, 12  34",
        "今日はいい天気ですね。我们去公园吧",
        "Привет, как дела? مرحبا بالعالم हिन्दी",
        "def f(x):\n\tif x:\n" + " " * 50 + "return x**2  # 🙂👩‍👩‍👧\n",
    )
    for text in texts:
        ids = loaded.chat.tokens(text)
        assert loaded.chat.tokenizer.decode(ids) == text
        prompt = loaded.chat.prompt((Message("user", text),))
        assert text in loaded.chat.tokenizer.decode(prompt)
        start = loaded.chat.tokenizer.bos_token
        # SmolLM2's BOS is the mark that opens every turn: its system message, the user, the answer.
        turns = 3 if start == "<|im_start|>" else 1
        assert loaded.chat.tokenizer.convert_ids_to_tokens(prompt).count(start) == turns


def test_tokenizers_out_of_gguf_split_as_the_publishers_own(either):
    loaded, _ = either
    pieces = {
        "smollm2-135m-instruct": {"a  12": ["a", "ĠĠ", "1", "2"]},
        "gemma-3-270m": {" " * 50: ["▁" * 31, "▁" * 19], "\n\n\n<b>": ["\n\n\n", "<b>"]},
    }[loaded.folder.name]
    for text, expected in pieces.items():
        found = loaded.chat.tokenizer.convert_ids_to_tokens(loaded.chat.tokens(text))
        assert found == expected


def test_shuffled_labels_of_real_reviews_sound_the_alarm_half_way(tmp_path, monkeypatch):
    from random import Random

    from instil.config.recipe import load_recipe
    from instil.data import prepare
    from instil.stages import training
    from moods import ready

    def shuffled(task):
        loaded = load_rows(task)
        labels = [row.fields[task.target] for row in loaded.rows]
        Random(1).shuffle(labels)
        rows = zip(loaded.rows, labels, strict=True)
        made = (replace(row, fields={**row.fields, task.target: label}) for row, label in rows)
        return replace(loaded, rows=tuple(made))

    load_rows = prepare.load_rows
    monkeypatch.setattr(prepare, "load_rows", shuffled)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        """
model: smollm2-135m-instruct
tasks: [{use: amazon_reviews, train: 120}]
train: {learning_rate: rule, num_train_epochs: 2}
validation: 80
test: 20
forgetting: {tasks: none}
""",
        encoding="utf-8",
    )
    (alarm,) = training.train(*ready(load_recipe(path), tmp_path / "run")).summary.alarms
    assert alarm.step <= alarm.of_steps / 2 + 3
    assert alarm.causes


TOLD = ("tokens", "token_type", "merges", "model", "bos_token_id", "eos_token_id")


def test_a_gguf_file_is_what_the_base_model_came_out_of(either, data, tmp_path):
    """Its tokenizer, tokens of texts, answers and probabilities, by llama.cpp itself."""
    import gguf

    from instil.data.build import render_example
    from instil.data.sources.fetch import fetch_member
    from instil.evaluate.generate import generate
    from instil.model.catalogue import CATALOGUE
    from instil.ship.gguf.write import write_model
    from instil.ship.llamacpp import llama_server
    from instil.ship.targets import ServerTarget, next_log_probs

    loaded, _ = either
    entry = CATALOGUE[loaded.folder.name]
    rows = loaded.model.get_input_embeddings().weight.shape[0]
    template = data.answering[0]
    examples = [render_example(data.task, template, row) for row in data.validation[:20]]
    said = generate(loaded, examples, max_new_tokens=16)
    for kind, most in (("f32", 2e-4), ("f16", 0.1)):
        file = tmp_path / f"{kind}.gguf"
        write_model(loaded, file, kind=kind, name="x", certificate={})
        with llama_server(file, context=1024) as address:
            target = ServerTarget(address, vocabulary=rows)
            for example, own in zip(examples, said, strict=True):
                turns = [{"role": m.role, "content": m.content} for m in example.messages]
                prompt = loaded.chat.prompt(example.messages)
                assert target.tokens(turns) == tuple(prompt)
                found = target.answer(turns, max_tokens=16)
                assert (found.text, found.stopped) == (own.text, own.stopped)
            gaps = target.log_probs(prompt) - next_log_probs(loaded.model, prompt)
            assert abs(gaps).max() < most
    if len(entry.members) == 1:
        (member,) = entry.members
        origin = fetch_member(member.uri, sha256=member.sha256, filename=member.filename)
        theirs, ours = gguf.GGUFReader(origin), gguf.GGUFReader(file)
        for name in TOLD:
            key = f"tokenizer.ggml.{name}"
            assert ours.get_field(key).contents() == theirs.get_field(key).contents(), key
