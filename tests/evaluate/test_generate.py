import torch

from instil.evaluate import generate as module
from instil.evaluate.generate import generate
from instil.types import Example, Message


def example(text: str, name: str) -> Example:
    return Example(f"t/{name}/a", "t", "a", name, "g", (Message("user", text),), "good")


def reference(loaded, item: Example, limit: int) -> tuple[str, bool]:
    ids = loaded.chat.prompt(item.messages)
    start = len(ids)
    for _ in range(limit):
        token = int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in loaded.chat.stop_ids:
            return loaded.chat.tokenizer.decode(ids[start:], skip_special_tokens=True).strip(), True
        ids = [*ids, token]
    return loaded.chat.tokenizer.decode(ids[start:], skip_special_tokens=True).strip(), False


def test_batched_generation_equals_one_token_at_a_time(tiny, monkeypatch):
    monkeypatch.setattr(module, "BATCH_TOKENS", 150)  # several batches, rows of unequal length
    items = [example("good " * n, str(n)) for n in (1, 9, 4, 20)]
    found = generate(tiny, items, max_new_tokens=12)
    assert [p.example_id for p in found] == [i.id for i in items]
    for item, taken in zip(items, found, strict=True):
        assert (taken.text, taken.stopped) == reference(tiny, item, 12)
        assert 1 <= taken.new_tokens <= 12


def test_a_model_that_says_stop_is_heard_though_stop_is_the_padding(tiny, monkeypatch):
    """Make the stop token the likeliest everywhere: every row ends at once, with no text."""
    forward = tiny.model.forward

    def eager_to_stop(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits[..., tiny.chat.stop_id] = 1e4
        return out

    monkeypatch.setattr(tiny.model, "forward", eager_to_stop)
    found = generate(tiny, [example("good", "1"), example("good bad", "2")], max_new_tokens=5)
    assert [(p.text, p.stopped, p.new_tokens) for p in found] == [("", True, 1)] * 2
