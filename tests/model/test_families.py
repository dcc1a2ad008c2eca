"""Every family of models against transformers and PEFT, run as anyone would run them.

The reference is a model of its own from the same folder: one example at a time, no padding, its own
attention and cache, an adapter put on by PEFT. instil computes packs, on the way that its proof has
chosen for the model at hand (`model.proof`).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel

from builds import add_lora
from families import FAMILIES, auto_class, save
from instil.config.sections import Keep
from instil.encode.batch import Batch, to_batch
from instil.encode.pack import pack
from instil.evaluate.choices import Request, likelihoods
from instil.evaluate.generate import generate
from instil.evaluate.probe import prompt_features
from instil.model.adapter import load_shipped, merged, train_all, trainable
from instil.model.engine.divergence import states
from instil.model.engine.losses import (
    Anchor,
    entropy_weights,
    forward_kl,
    losses,
    summed_loss,
)
from instil.model.engine.packed import Build
from instil.model.export import save_model
from instil.model.load import LoadedModel, ModelFolder, load_model, quiet
from instil.model.prune import prune
from instil.train.loop import batch_gradient
from instil.train.objective import Objective
from instil.train.room import Room
from instil.train.terms import terms_of
from instil.types import Encoded, Example, Message

FAST = ("Llama", "Mixtral", "Gemma 3", "gpt-oss", "Falcon", "Bloom", "Mamba-2", "T5")
"""Families that `make test` tries; `make slow` tries all."""
CLOSE = 1e-4
"""Relative difference that float32 may make."""

IDS = torch.randint(20, 250, (200,), generator=torch.Generator().manual_seed(3)).tolist()
SHARED = 7
ROWS = ((12, 5), (9, 1), (20, 8), (10, 3), (8, 12), (15, 4))
"""Tokens of each row's prompt, `SHARED` of which are everybody's, and of its completion."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A family's tiny model, once in instil and once in transformers alone."""

    name: str
    folder: Path
    loaded: LoadedModel
    """Never changed: a test that trains takes a copy."""
    reference: Any

    def copy(self) -> LoadedModel:
        return replace(self.loaded, model=copy.deepcopy(self.loaded.model))


@pytest.fixture(
    scope="module",
    params=[n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES],
)
def family(request, tmp_path_factory, tiny_folder) -> Opened:
    folder = tmp_path_factory.mktemp("family") / "model"
    save(request.param, folder, tokenizer=tiny_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTIL_CACHE", str(folder.parent / "cache"))
        loaded = load_model(ModelFolder("tiny", folder, "none"), device="cpu", dtype="float32")
    return Opened(request.param, folder, loaded, of_transformers(folder))


def of_transformers(folder: Path) -> Any:
    config = transformers.AutoConfig.from_pretrained(folder)
    return auto_class(config).from_pretrained(folder, dtype=torch.float32).eval()


def rows() -> Iterator[tuple[list[int], int]]:
    """Yield the ids of each example, and how many of them are its prompt."""
    start = SHARED
    for prompt, completion in ROWS:
        end = start + prompt - SHARED + completion
        yield IDS[:SHARED] + IDS[start:end], prompt
        start = end


def packed() -> Batch:
    encoded = [
        Encoded(str(n), tuple(ids), tuple(place >= prompt for place in range(len(ids))))
        for n, (ids, prompt) in enumerate(rows())
    ]
    (whole,) = pack(encoded, max_tokens=1000, shared=SHARED)
    return to_batch(whole, device=torch.device("cpu"))


def row_logits(model: Any, prompt: list[int], behind: list[int]) -> torch.Tensor:
    """Logits from the prompt's last token on, from the row alone: one more than `behind` has."""
    if not model.config.is_encoder_decoder:
        whole = torch.tensor([prompt + behind])
        out = model(input_ids=whole, attention_mask=torch.ones_like(whole), use_cache=False)
        return out.logits[0, len(prompt) - 1 :]
    asked, said = torch.tensor([prompt]), torch.tensor([[start_token(model.config), *behind]])
    out = model(
        input_ids=asked,
        attention_mask=torch.ones_like(asked),
        decoder_input_ids=said,
        use_cache=False,
    )
    return out.logits[0]


def start_token(config: Any) -> int:
    """Return what the decoder begins with, where transformers has it."""
    if hasattr(config, "decoder_start_token_id"):
        return config.decoder_start_token_id
    return config.decoder.bos_token_id


def all_logits(model: Any) -> torch.Tensor:
    return torch.cat([row_logits(model, row[:n], row[n:])[:-1] for row, n in rows()])


def row_losses(model: Any) -> torch.Tensor:
    labels = torch.tensor([token for ids, prompt in rows() for token in ids[prompt:]])
    return torch.nn.functional.cross_entropy(all_logits(model), labels, reduction="sum")


def assert_same_gradients(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare by name; a weight that nothing depends on may have no gradient, or zeros."""
    assert found.keys() == wanted.keys()
    assert any(p.grad is not None for p in wanted.values())
    most = max(float(p.grad.norm()) for p in wanted.values() if p.grad is not None)
    far = {}
    for name, theirs in wanted.items():
        grad = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        ours = torch.zeros_like(grad) if found[name].grad is None else found[name].grad
        distance = float((ours - grad).norm())
        if not distance <= CLOSE * float(grad.norm()) + 1e-6 * most:
            far[name] = f"{distance:.2g} of {float(grad.norm()):.2g}"
    assert not far


def gradients(model: Any, loss: torch.Tensor) -> dict[str, Any]:
    loss.backward()
    return trainable(model)


def test_loss_and_gradients_of_a_pack(family):
    loaded, reference = train_all(family.copy()), copy.deepcopy(family.reference)
    reference.requires_grad_(True)
    ours = summed_loss(loaded.model, packed(), build=loaded.build)
    theirs = row_losses(reference)
    assert ours.item() == pytest.approx(theirs.item(), rel=CLOSE)
    assert_same_gradients(gradients(loaded.model, ours), gradients(reference, theirs))


def test_choices_behind_prompts(family):
    completions = ((5, 300, 17), (41,), (300, 8, 7, 42, 6, 99, 12, 250, 31))
    requests = [Request(tuple(ids[:prompt]), completions) for ids, prompt in rows()]
    wanted = []
    with torch.inference_mode():
        for request in requests:
            for completion in completions:
                logits = row_logits(family.reference, list(request.prompt), list(completion))
                log_probs = logits[:-1].log_softmax(-1)
                chosen = log_probs[torch.arange(len(completion)), list(completion)]
                wanted.append(float(chosen.sum()))
    plain = Build(longest=family.loaded.build.longest)
    for build in {family.loaded.build, plain}:
        scored = likelihoods(replace(family.loaded, build=build), requests)
        found = [like.nats for each in scored for like in each]
        assert found == pytest.approx(wanted, rel=CLOSE)


def test_hidden_states_of_the_middle_layer(family):
    prompts = [tuple(ids[:prompt]) for ids, prompt in rows()]
    model, wanted = family.reference, []
    reads = model.get_encoder() if model.config.is_encoder_decoder else model
    with torch.inference_mode():
        for prompt in prompts:
            states = reads(
                input_ids=torch.tensor([prompt]), output_hidden_states=True
            ).hidden_states
            middle = states[len(states) // 2]
            middle = middle if middle.dim() == 3 else middle[0]  # Gemma 3n's first stream
            wanted.append(middle[0, SHARED:].mean(0))
    spread = float(torch.stack(wanted).std())
    plain = Build(longest=family.loaded.build.longest)
    for build in {family.loaded.build, plain}:
        found = prompt_features(replace(family.loaded, build=build), prompts, skip=SHARED)
        assert float((torch.tensor(found) - torch.stack(wanted)).abs().max()) < 1e-3 * spread


def test_greedy_generation(family):
    texts = ("this is a good book", "awful sound", "it works and the price is not bad", "I hate it")
    loaded, tokenizer = family.loaded, family.loaded.chat.tokenizer
    examples = [
        Example(f"t/{n}/a", "t", "a", str(n), "g", (Message("user", text),), "good")
        for n, text in enumerate(texts)
    ]
    found = generate(loaded, examples, max_new_tokens=9)
    wanted = []
    for example in examples:
        prompt = torch.tensor([loaded.chat.prompt(example.messages)])
        out = family.reference.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            num_beams=1,
            max_new_tokens=9,
            eos_token_id=list(loaded.chat.stop_ids),
            pad_token_id=loaded.chat.pad_id,
        )
        new = out[0, 1 if family.reference.config.is_encoder_decoder else prompt.shape[1] :]
        wanted.append((tokenizer.decode(new, skip_special_tokens=True).strip(), len(new)))
    assert [(each.text, each.new_tokens) for each in found] == wanted


def with_adapter(family: Opened) -> LoadedModel:
    loaded = add_lora(
        family.copy(), r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear", seed=0
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in trainable(loaded.model).values():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    loaded.model.eval()
    return loaded


def test_an_adapter_trained_saved_loaded_and_merged(family, tmp_path):
    loaded = with_adapter(family)
    save_model(loaded, tmp_path / "adapter")
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # ranks of expert layers, which are used
        reference = PeftModel.from_pretrained(
            copy.deepcopy(family.reference), tmp_path / "adapter", is_trainable=True
        ).eval()
    ours = summed_loss(loaded.model, packed(), build=loaded.build)
    theirs = row_losses(reference)
    assert ours.item() == pytest.approx(theirs.item(), rel=CLOSE)
    assert_same_gradients(gradients(loaded.model, ours), gradients(reference, theirs))

    base = ModelFolder("tiny", family.folder, "none")
    again = load_shipped(tmp_path / "adapter", base=base, device="cpu", dtype="float32")
    with torch.inference_mode():
        wanted, without = all_logits(reference), all_logits(family.reference)
        assert float((wanted - without).norm()) > 0.02 * float(without.norm())
        assert_same(all_logits(again.model), wanted)
        save_model(merged(again), tmp_path / "merged")
        assert_same(all_logits(of_transformers(tmp_path / "merged")), wanted)


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert float((found - wanted).norm()) <= CLOSE * float(wanted.norm())


@pytest.mark.parametrize("family", [n for n in FAST if n != "T5"], indirect=True)
def test_a_teacher_that_is_shown_the_answer(family):
    loaded, generator = with_adapter(family), torch.Generator().manual_seed(7)
    items = [
        Encoded(
            str(length),
            tuple(torch.randint(20, 250, (length,), generator=generator).tolist()),
            (False,) * (length - 3) + (True,) * 3,
        )
        for length in (7, 9, 6)
    ]
    every = []
    for item in items:
        once, twice = (torch.tensor([item.ids * times]) for times in (1, 2))
        with torch.no_grad():
            log_q = loaded.model(input_ids=once).logits[0, -4:-1].log_softmax(-1)
            log_p = family.reference(input_ids=twice).logits[0, -4:-1].log_softmax(-1)
        every.append((log_p.exp() * (log_p - log_q)).sum(-1))
    packs = pack(items, max_tokens=30)
    whole = Objective(terms=terms_of(Keep(distil=1.0))).over(packs, step=1)
    found = whole.means(batch_gradient(loaded, packs, room=Room(), whole=whole))
    assert found["distil"] == pytest.approx(torch.cat(every).mean().item(), rel=1e-3)


@pytest.mark.parametrize("family", FAST, indirect=True)
def test_a_pruned_update_is_saved_as_it_was_computed(family, tmp_path):
    whole, base = merged(with_adapter(family)), family.copy()
    prune(whole, base=base, share=0.3)
    with torch.no_grad():
        wanted = all_logits(whole.model)
        save_model(whole, tmp_path / "model")
        loaded = load_shipped(tmp_path / "model", base=base.folder, device="cpu", dtype="float32")
        assert_same(all_logits(loaded.model), wanted)
        prune(whole, base=base, share=0.0)
        assert_same(all_logits(whole.model), all_logits(base.model))


@pytest.mark.parametrize("family", FAST, indirect=True)
def test_kl_and_entropy_weights(family):
    batch, loaded = packed(), with_adapter(family)
    with torch.no_grad():
        other = states(family.loaded.model, batch, build=loaded.build)
        log_p = all_logits(family.reference).log_softmax(-1)
    found = losses(
        loaded.model,
        batch,
        build=loaded.build,
        weigh=[entropy_weights],
        anchors=[Anchor(batch.predict_from, other, forward_kl)],
    )
    with torch.no_grad():
        logits = all_logits(loaded.model)
    log_q = logits.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum()
    top = logits.topk(20).values.log_softmax(-1)
    weights = -(top.exp() * top).sum(-1) / math.log(20)
    nats = -log_q[torch.arange(len(log_q)), batch.labels]
    assert found.distances[0].item() == pytest.approx(kl.item(), rel=CLOSE)
    assert found.total.item() == pytest.approx((weights * nats).sum().item(), rel=CLOSE)


def test_each_part_is_heard(family):
    kind = FAMILIES[family.name]
    with torch.no_grad():
        whole = float(row_losses(family.reference))
        for part in kind.weights:
            without = copy.deepcopy(family.reference)
            silenced = [p for name, p in without.named_parameters() if part in name]
            silenced += [b for name, b in without.named_buffers() if part in name]
            assert silenced, part
            for p in silenced:
                p.zero_()
            assert abs(float(row_losses(without)) - whole) > 0.01, part
    for key, value in kind.without.items():
        config = copy.deepcopy(family.reference.config)
        setattr(config, key, value)
        without = auto_class(config).from_pretrained(family.folder, config=config).eval()
        with torch.no_grad():
            assert abs(float(row_losses(without)) - whole) > 0.01, key


DOCS = Path(__file__).parents[2] / "docs" / "models.md"
COLUMNS = ("segments", "prefix", "branches", "own_layers", "own_head", "own_memory", "padding")


def table_row(name: str, build: Build) -> str:
    marks = " | ".join("x" if getattr(build, column) else "" for column in COLUMNS)
    return f"| {name} | {marks} | {FAMILIES[name].note} |"


def table_rows() -> dict[str, str]:
    """Return the rows of the table in the docs by the family they are for."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    split = {line: line.split(" | ") for line in lines if line.startswith("| ")}
    cells = {line: each for line, each in split.items() if len(each) == len(COLUMNS) + 2}
    return {each[0].removeprefix("| "): line for line, each in list(cells.items())[1:]}


def test_the_docs_say_which_short_cuts_were_proved(family, update_golden):
    """`--update-golden` writes the row anew; all rows with `-n 0 -m ""`."""
    row = table_row(family.name, family.loaded.build)
    if update_golden:
        rows = {**table_rows(), family.name: row}
        text, mark, _ = DOCS.read_text(encoding="utf-8").partition("<!-- table -->\n")
        table = [rows[name] for name in FAMILIES if name in rows]
        head = ["family", *(column.replace("_", " ") for column in COLUMNS), "what is special"]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *table]
        DOCS.write_text(text + mark + "\n".join(lines) + "\n", encoding="utf-8")
    assert table_rows()[family.name] == row


def test_the_docs_name_every_family_in_order():
    assert list(table_rows()) == list(FAMILIES)
