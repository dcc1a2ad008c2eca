from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Phi3Config, Phi3ForCausalLM

from instil.encode.chat_format import chat_format
from instil.encode.mask import encode_all
from instil.encode.pack import pack
from instil.evaluate import choices
from instil.evaluate.choices import (
    CALIBRATED,
    NORMALISED,
    RAW,
    Likelihood,
    Request,
    choice_request,
    choice_scores,
    common_prefix,
    likelihoods,
    prediction,
    target_request,
)
from instil.evaluate.suite import answer, look
from instil.model.engine.proof import prove
from instil.types import Example, Message
from measures import mean_loss


def example(text: str, options: tuple[str, ...] = ("positive", "negative")) -> Example:
    return Example("t/1/a", "t", "a", "1", "g", (Message("user", text),), options[0], options)


def reference(loaded, request: Request) -> list[float]:
    """One completion at a time, the whole text in one plain forward pass."""
    sums = []
    for completion in request.completions:
        ids = torch.tensor([[*request.prompt, *completion]])
        chances = loaded.model(input_ids=ids).logits[0].detach().log_softmax(-1)
        begin = len(request.prompt) - 1
        sums.append(sum(float(chances[begin + n, token]) for n, token in enumerate(completion)))
    return sums


@pytest.mark.parametrize("cells", [40, 4096])
def test_shared_prefix_and_branches_score_as_one_at_a_time(tiny, monkeypatch, cells):
    monkeypatch.setattr(choices, "PACK_TOKENS", cells)
    texts = ["good phone", "the film is very very bad and the sound is poor", "x", "battery"]
    requests = [
        choice_request(example(f"Question: is it good?\n{t}", options), tiny.chat)
        for t in texts
        for options in [("positive", "negative"), ("it is good", "no", "fast battery of the phone")]
    ]
    found = likelihoods(tiny, requests)
    for request, here in zip(requests, found, strict=True):
        assert [like.nats for like in here] == pytest.approx(reference(tiny, request), abs=1e-4)
        assert [like.tokens for like in here] == [len(c) for c in request.completions]


def test_rotary_positions_by_the_length_of_the_row(tiny):
    """One completion takes its row over the length from which other factors count, one does not."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 8.0}
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=len(tiny.chat.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=2,
        max_position_embeddings=128,
        original_max_position_embeddings=16,
        rope_parameters={**rope, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
        initializer_range=0.3,
    )
    model = Phi3ForCausalLM(config).eval()
    loaded = replace(tiny, model=model, build=prove(model))
    requests = [Request(tuple(range(20, 20 + n)), ((5, 6), (7, 8, 9, 10))) for n in (4, 12, 13, 14)]
    for request, here in zip(requests, likelihoods(loaded, requests), strict=True):
        assert [like.nats for like in here] == pytest.approx(reference(loaded, request), rel=1e-4)


def test_a_single_request_works(tiny):
    request = choice_request(example("good"), tiny.chat)
    (found,) = likelihoods(tiny, [request])
    assert [like.nats for like in found] == pytest.approx(reference(tiny, request), abs=1e-4)
    assert likelihoods(tiny, []) == []


def test_stop_token_counts_only_where_one_choice_begins_another(tiny_chat):
    plain = choice_request(example("x", ("positive", "negative")), tiny_chat)
    numbers = choice_request(example("x", ("1", "1 2")), tiny_chat)
    assert all(c[-1] != tiny_chat.stop_id for c in plain.completions)
    assert all(c[-1] == tiny_chat.stop_id for c in numbers.completions)


def test_target_request_scores_the_stop_token(tiny_chat):
    (completion,) = target_request(example("x"), tiny_chat).completions
    assert completion[-1] == tiny_chat.stop_id


def test_scoring_rules_by_hand():
    found = (Likelihood(-2.0, 1), Likelihood(-3.0, 3))
    scores = choice_scores(found, content_free=(Likelihood(-1.0, 1), Likelihood(-4.0, 3)))
    assert scores == {RAW: (-2.0, -3.0), NORMALISED: (-2.0, -1.0), CALIBRATED: (-1.0, 1.0)}
    assert CALIBRATED not in choice_scores(found)


def test_prediction_takes_the_likeliest():
    taken = prediction(example("x"), (-3.0, -1.0), prompt_tokens=7)
    assert (taken.text, taken.choice_scores, taken.prompt_tokens) == ("negative", (-3.0, -1.0), 7)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_common_prefix_leaves_every_prompt_a_token(prompts):
    shared = common_prefix([tuple(p) for p in prompts])
    assert 0 <= shared < min(len(p) for p in prompts)
    assert len({tuple(p[:shared]) for p in prompts}) == 1


def test_scoring_is_deterministic(tiny):
    requests = [choice_request(example(f"text {n}"), tiny.chat) for n in range(5)]
    assert likelihoods(tiny, requests) == likelihoods(tiny, requests)


def test_a_look_scores_no_blank_that_the_template_writes_before_the_stop_token(tiny):
    template = tiny.chat.tokenizer.chat_template
    blank = template.replace("message['content'] +", "message['content'] + ' ' +")
    assert blank != template
    tiny.chat.tokenizer.chat_template = blank
    loaded = replace(tiny, chat=chat_format(tiny.chat.tokenizer))
    assert (tiny.chat.ending, loaded.chat.ending) == (1, 2)
    items = [replace(example(f"good {'bad ' * n}"), id=f"t/{n}/a") for n in range(5)]
    seen, answered = look(loaded, items), answer(loaded, items)
    assert [p.choice_scores for p in seen.predictions] == [p.choice_scores for p in answered]
    requests = [target_request(item, loaded.chat) for item in items]
    assert seen.tokens == sum(len(r.completions[0]) for r in requests)


@pytest.mark.parametrize("options", [("positive", "negative"), ("1", "1 2")])
def test_a_look_gives_the_same_answers_and_the_loss_of_the_targets(tiny, options):
    items = [
        replace(example(f"good {'bad ' * n}", options), id=f"t/{n}/a", target=options[n % 2])
        for n in range(5)
    ]
    seen = look(tiny, items)
    assert [p.text for p in seen.predictions] == [p.text for p in answer(tiny, items)]
    encoded = encode_all(items, tiny.chat, max_length=500)
    loss = mean_loss(tiny, pack(encoded, max_tokens=1))
    assert seen.tokens == sum(sum(e.mask) for e in encoded)
    assert seen.nats / seen.tokens == pytest.approx(loss, rel=1e-4)
