"""Every kind of adapter is exact: the base when it is untrained or off, itself when merged, saved
or computed in packs. Which layers `mlp` and `attention` mean."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
)

import families
from instil.config.methods import Lora, Oft, Shira
from instil.errors import ModelError
from instil.model.adapter import (
    adapter_off,
    add_adapter,
    base_parameters,
    left_out,
    load_adapter,
    merged,
    planned_adapter,
    restore,
    snapshot,
    trainable,
    trainable_share,
)
from instil.model.engine.losses import summed_loss
from instil.model.engine.packed import Build
from instil.model.engine.proof import prove
from instil.model.export import save_model
from instil.model.interpolate import blend
from instil.model.load import ModelFolder, load_model, parameter_count
from test_adapter import packed_rows, row_logits

KINDS = {
    "lora": Lora(r=4, lora_alpha=8),
    "rslora": Lora(r=4, lora_alpha=8, use_rslora=True),
    "mlp": Lora(r=4, lora_alpha=8, target_modules="mlp"),
    "attention": Lora(r=4, lora_alpha=8, target_modules="attention"),
    "oft": Oft(oft_block_size=8),
    "oft, mlp": Oft(oft_block_size=8, target_modules="mlp"),
    "shira": Shira(r=4),
    "shira, attention": Shira(r=4, target_modules="attention"),
}
IDS = torch.arange(3, 40)[None]


@pytest.fixture(params=KINDS)
def settings(request):
    return KINDS[request.param]


def shaken(loaded):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trainable(loaded.model).values():
            weight.add_(torch.randn_like(weight) * 0.1)
    return loaded


def logits(loaded):
    with torch.no_grad():
        return loaded.model(input_ids=IDS).logits


def again(folder):
    return load_model(ModelFolder("tiny", folder, "none"), device="cpu", dtype="float32")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_untrained_or_switched_off_it_is_the_base_bit_for_bit(tiny, settings, dtype):
    tiny = replace(tiny, model=tiny.model.to(dtype))
    base = logits(tiny)
    loaded = add_adapter(tiny, settings, seed=0)
    assert torch.equal(logits(loaded), base)
    assert {p.dtype for p in trainable(loaded.model).values()} == {torch.float32}
    shaken(loaded)
    assert not torch.equal(logits(loaded), base)
    with adapter_off(loaded.model):
        assert torch.equal(logits(loaded), base)


def test_merged_it_is_the_same(tiny, settings):
    loaded = shaken(add_adapter(tiny, settings, seed=0))
    wanted = logits(loaded)
    whole = merged(loaded)
    assert not isinstance(whole.model, PeftModel)
    assert (logits(whole) - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Sparse invariant:UserWarning")
def test_saved_it_is_loaded_as_it_was_by_us_and_by_peft(tiny, tiny_folder, settings, tmp_path):
    loaded = shaken(add_adapter(tiny, settings, seed=5))
    wanted = logits(loaded)
    save_model(loaded, tmp_path / "model")
    assert torch.equal(logits(load_adapter(again(tiny_folder), tmp_path / "model")), wanted)
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    pefts = PeftModel.from_pretrained(plain, tmp_path / "model").eval()
    with torch.no_grad():
        theirs = pefts(input_ids=IDS).logits
    assert (theirs - wanted).abs().max() < 1e-5 * wanted.abs().max()


PACKS = Build(segments=True, prefix=True, branches=True, own_head=True)
WAYS = {
    "own layers": replace(PACKS, own_layers=True),
    "transformers' layers": PACKS,
    "row by row": Build(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradients_in_a_pack_are_those_of_rows(tiny, settings, way, recompute):
    loaded = shaken(add_adapter(tiny, settings, seed=0))
    batch, rows = packed_rows()
    weights = [*trainable(loaded.model).values()]
    labels = torch.tensor([label for *_, last in rows for label in last])
    wanted = cross_entropy(row_logits(loaded.model, rows), labels, reduction="sum")
    wanted_gradients = torch.autograd.grad(wanted, weights)
    loss = summed_loss(loaded.model, batch, build=WAYS[way], recompute=recompute)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    for found, expected in zip(torch.autograd.grad(loss, weights), wanted_gradients, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_proof_of_the_base_holds_with_an_adapter_in_it(tiny, settings):
    assert prove(tiny.model) == tiny.build
    loaded = shaken(add_adapter(tiny, settings, seed=0))
    assert prove(loaded.model.get_base_model()) == tiny.build


def test_snapshot_and_restore_are_exact(tiny, settings):
    loaded = shaken(add_adapter(tiny, settings, seed=0))
    wanted, kept = logits(loaded), snapshot(loaded.model)
    shaken(loaded)
    assert not torch.equal(logits(loaded), wanted)
    restore(loaded.model, kept)
    assert torch.equal(logits(loaded), wanted)


def test_the_same_seed_gives_the_same_adapter(tiny, tiny_folder, settings):
    """So a checkpoint holds what is trained alone: SHiRA's places are drawn again."""
    one = shaken(add_adapter(tiny, settings, seed=3))
    two = add_adapter(again(tiny_folder), settings, seed=3)
    restore(two.model, snapshot(one.model))
    assert torch.equal(logits(one), logits(two))


def test_what_is_trained_is_counted(tiny, tiny_folder, settings):
    bare = parameter_count(tiny.model)
    loaded = add_adapter(tiny, settings, seed=0)
    assert base_parameters(loaded.model) == bare
    count, share = trainable_share(loaded.model)
    assert count == parameter_count(loaded.model) - bare
    assert share == count / (count + bare)
    if settings.target_modules == "all-linear":
        assert left_out(loaded.model) == ()
    planned = planned_adapter(ModelFolder("tiny", tiny_folder, "none"), settings)
    if type(settings) is not Lora:
        assert {n: p.shape for n, p in trainable(planned).items()} == {
            n: p.shape for n, p in trainable(loaded.model).items()
        }


# --- which layers, and what is refused -----------------------------------------------------------

PARTS = {
    "Llama": ("gate_proj up_proj down_proj", "q_proj k_proj v_proj o_proj"),
    "OPT": ("fc1 fc2", "q_proj k_proj v_proj out_proj"),
    "GPT-2": ("mlp.c_fc mlp.c_proj", "attn.c_attn attn.c_proj"),
    "Bloom": ("dense_h_to_4h dense_4h_to_h", "query_key_value self_attention.dense"),
    "Falcon-H1": ("gate_proj up_proj down_proj", "q_proj k_proj v_proj o_proj"),
    "FLAN-T5": ("wi_0 wi_1 wo", "q k v o"),
    "BART": ("fc1 fc2", "q_proj k_proj v_proj out_proj"),
    "Cohere": ("gate_proj up_proj down_proj", "q_proj k_proj v_proj o_proj"),
    "RWKV": (
        "feed_forward.key feed_forward.receptance feed_forward.value",
        "attention.key attention.value attention.receptance attention.output",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("part", ["mlp", "attention"])
@pytest.mark.parametrize("name", PARTS)
def test_mlp_and_attention_are_told_by_what_holds_their_layers(tiny, name, part):
    wanted = PARTS[name][part == "attention"]
    loaded = replace(tiny, model=families.build(name))
    model = add_adapter(loaded, Lora(target_modules=part), seed=0).model
    on = {n.split(".lora_")[0] for n in trainable(model)}
    assert {end for end in wanted.split() if any(n.endswith(f".{end}") for n in on)} == {
        *wanted.split()
    }
    assert all(any(n.endswith(f".{end}") for end in wanted.split()) for n in on)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("Mixtral", "mlp", "weights that are in no linear layer"),
        ("DeepSeek-V3", "mlp", "weights that are in no linear layer"),
        ("JetMoE", "attention", "weights that are in no linear layer"),
        ("Mamba", "mlp", "no layer of this model can be told to be of its mlp"),
    ],
)
def test_where_a_part_cannot_be_told_that_is_said(tiny, name, part, said):
    with pytest.raises(ModelError, match=said):
        add_adapter(replace(tiny, model=families.build(name)), Lora(target_modules=part), seed=0)


def test_blocks_that_do_not_divide_a_layer_s_inputs_are_refused(tiny, tiny_folder):
    said = "(?s)32, but .* reads 48.*2, 3, 4, 6, 8, 12, 16, 24, 48.*oft.oft_block_size: 24"
    with pytest.raises(ModelError, match=said):
        add_adapter(tiny, Oft(), seed=0)
    with pytest.raises(ModelError, match=said):
        planned_adapter(ModelFolder("tiny", tiny_folder, "none"), Oft())


def test_more_changes_than_weights_are_refused(tiny, tiny_folder):
    with pytest.raises(ModelError, match=r"(?s)at most 16.*a lower shira\.r"):
        add_adapter(tiny, Shira(r=17), seed=0)
    with pytest.raises(ModelError, match="at most 16"):
        planned_adapter(ModelFolder("tiny", tiny_folder, "none"), Shira(r=17))
    add_adapter(tiny, Shira(r=16), seed=0)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Oft(), "GPT-2"),
        (Shira(), "GPT-2"),
        (Oft(target_modules=["c_attn"]), "GPT-2"),
        (Shira(target_modules=["c_attn"]), "GPT-2"),
        (Shira(), "Falcon"),
    ],
)
def test_a_model_without_a_layer_for_them_is_refused(tiny, settings, name):
    """GPT-2's layers are Conv1D, Falcon's add their bias apart."""
    with pytest.raises(ModelError, match=r"(?s)no adapter for this.*method: lora"):
        add_adapter(replace(tiny, model=families.build(name)), settings, seed=0)


def test_a_layer_of_one_output_is_left_out_and_said_to_be(tiny):
    loaded = replace(tiny, model=families.build("Qwen2-MoE"))
    left = left_out(add_adapter(loaded, Shira(r=1), seed=0).model)
    assert {name for each in left for name in each.layers} == {
        "experts.gate_up_proj",
        "experts.down_proj",
        "mlp.shared_expert_gate",
    }


def test_layers_that_read_less_than_a_block_are_left_out_and_said_to_be(tiny):
    loaded = replace(tiny, model=families.build("Gemma 3n"))
    left = left_out(add_adapter(loaded, Oft(oft_block_size=8), seed=0).model)
    assert {name for each in left for name in each.layers} == {
        "altup.correction_coefs",
        "altup.prediction_coefs",
    }


def test_rotations_are_computed_in_float32_in_training_too(tiny):
    loaded = shaken(add_adapter(tiny, Oft(oft_block_size=8), seed=0))
    rotation = loaded.model.get_base_model().model.layers[0].mlp.down_proj.oft_R["default"]
    x = torch.randn(5, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = rotation(x)
    assert torch.equal(found, rotation(x))
    matrix = rotation.get_weight()
    torch.testing.assert_close(matrix @ matrix.t(), torch.eye(96), atol=1e-5, rtol=0)


def test_latents_of_four_dimensions_are_rotated_as_rows(tiny):
    model = families.build("DeepSeek-V2")
    base = logits(replace(tiny, model=model))
    loaded = add_adapter(replace(tiny, model=model), Oft(oft_block_size=8), seed=0)
    assert torch.equal(logits(loaded), base)
    wanted = logits(shaken(loaded))
    assert (logits(merged(loaded)) - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_rslora_scales_by_the_root_of_the_rank(tiny):
    model = add_adapter(tiny, KINDS["rslora"], seed=0).model.get_base_model()
    assert model.model.layers[0].mlp.up_proj.scaling == {"default": 8 / 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shira_changes_as_many_weights_as_it_says_and_no_other(tiny, dtype):
    tiny = replace(tiny, model=tiny.model.to(dtype))
    before = {n: w.detach().clone() for n, w in tiny.model.named_parameters()}
    loaded = shaken(add_adapter(tiny, Shira(r=2), seed=0))
    wanted = logits(loaded)
    whole = replace(tiny, model=merged(loaded).model.to(dtype))
    assert torch.equal(logits(whole), wanted), "what is merged is what was computed with"
    for name, weight in whole.model.named_parameters():
        changed = int((weight != before[name]).sum())
        linear = "_proj" in name
        most = 2 * sum(weight.shape) if linear else 0
        assert 0.95 * most <= changed <= most


@pytest.mark.parametrize("kind", ["lora", "rslora", "mlp", "shira"])
def test_a_share_of_the_way_is_that_share_of_the_change(tiny, tiny_folder, kind):
    base = {n: w.detach().clone() for n, w in tiny.model.named_parameters()}
    before = logits(tiny)
    loaded = shaken(add_adapter(tiny, KINDS[kind], seed=0))
    wanted = logits(loaded)
    put = blend(loaded)
    for share, end in ((0.0, before), (1.0, wanted), (0.0, before), (1.0, wanted)):
        put(share)
        assert torch.equal(logits(loaded), end)
    put(0.3)
    part = dict(merged(loaded).model.named_parameters())
    whole = dict(
        merged(
            shaken(add_adapter(again(tiny_folder), KINDS[kind], seed=0))
        ).model.named_parameters()
    )
    moved = 0
    for name, weight in part.items():
        mixed = torch.lerp(base[name], whole[name], 0.3)
        torch.testing.assert_close(weight, mixed, atol=1e-6, rtol=1e-6)
        moved += not torch.equal(base[name], whole[name])
    assert moved > 0


def test_no_share_of_a_rotation_is_made(tiny):
    with pytest.raises(AssertionError, match="the recipe refuses it"):
        blend(add_adapter(tiny, Oft(oft_block_size=8), seed=0))
