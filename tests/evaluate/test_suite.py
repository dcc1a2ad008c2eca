"""Plain texts are scored as the model's own tokenizer writes them."""

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from instil.evaluate.suite import text_loss
from instil.types import Example


@pytest.mark.parametrize("writes_bos", [False, True])
def test_a_text_stands_behind_bos_where_its_tokenizer_writes_one(tiny, writes_bos: bool) -> None:
    tokenizer, text = tiny.chat.tokenizer, "the film was not very good, I love it"
    if writes_bos:
        bos = (tokenizer.bos_token, tokenizer.bos_token_id)
        single = f"{tokenizer.bos_token} $A"
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single, None, [bos])
    ids = tokenizer(text)["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) is writes_bos
    with torch.inference_mode():
        chances = tiny.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    predicted = range(2 if writes_bos else 1, len(ids))  # all but the text's first token
    nats = [-float(chances[place - 1, ids[place]]) for place in predicted]
    example = Example("text/1", "", "", "", "", (), text)
    (score,) = text_loss(tiny, [example], max_tokens=100).scores
    assert score.value == pytest.approx(sum(nats) / len(nats), rel=1e-5)
