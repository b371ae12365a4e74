"""Settings of latent attention, and of layers that share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import (
    CodeConfig,
    GQAConfig,
    LanguageModel,
    LatentConfig,
    LayersConfig,
    ModelConfig,
    SwiGLUConfig,
    check_cut,
    layer_groups,
    num_parameters,
    num_stored_parameters,
)
from weightwise.lm.family import scale_model
from weightwise.lm.flops import forward_flop
from weightwise.recipes.tiny import tiny
from weightwise.train import from_dict, read_recipe, to_dict
from weightwise.train.recipe import override, to_toml

LATENT = LatentConfig(num_heads=4, share_factor=2)
CONFIG = ModelConfig(
    vocab_size=31,
    width=32,
    num_layers=6,
    max_length=64,
    attention=LATENT,
    ffn=SwiGLUConfig(hidden=48),
)
VARIANTS = {
    "mla": replace(LATENT, share_factor=1),
    "clla": LATENT,
    "odd_group": replace(LATENT, share_factor=4),
    "own_widths": LatentConfig(
        num_heads=3, head_width=5, value_width=7, latent_width=11, rope_width=2
    ),
    "query_latent": replace(LATENT, query_latent_width=9, query_norm=True),
    "share_up": replace(LATENT, share_up=True),
    "own_rope": replace(LATENT, rope_key="layer"),
    "norm_in_layer": replace(LATENT, latent_norm="layer"),
    "no_norm": replace(LATENT, latent_norm="none"),
    "no_rope": replace(LATENT, rope_width=0),
    "outer_scale": replace(LATENT, outer_scale=True, codes=CodeConfig()),
    "ends": replace(LATENT, keep_ends=1),
}
all_variants = pytest.mark.parametrize("attention", VARIANTS.values(), ids=VARIANTS)


def spans(config: ModelConfig) -> list[tuple[int, int]]:
    return [(group.first, group.end) for group in layer_groups(config)]


def test_defaults_are_those_of_deepseek():
    """Latents of four heads' width, rotary keys of half a head's: 32 and 4 for heads of 8."""
    assert LATENT.widths(32) == (8, 8, 32, 4)
    assert LatentConfig(num_heads=128).widths(128 * 128) == (128, 128, 512, 64)


def test_layers_form_groups():
    """Uniform, with a smaller last group, with single ends, and as written."""
    six = replace(CONFIG, num_layers=6)
    assert spans(six) == [(0, 2), (2, 4), (4, 6)]
    assert spans(replace(six, num_layers=5)) == [(0, 2), (2, 4), (4, 5)]
    assert spans(replace(six, attention=replace(LATENT, keep_ends=1))) == [
        (0, 1), (1, 3), (3, 5), (5, 6),
    ]  # fmt: skip
    explicit = replace(LATENT, share_factor=1, group_sizes=(1, 3, 2))
    assert spans(replace(six, attention=explicit)) == [(0, 1), (1, 4), (4, 6)]


@given(data=st.data(), num_layers=st.integers(1, 12))
def test_every_layer_is_in_one_group(data, num_layers):
    """Groups cover the layers in turn, never across a change of settings, whatever is chosen."""
    kinds = st.sampled_from([GQAConfig(num_heads=4, share_factor=3), *VARIANTS.values()])
    first = data.draw(st.integers(0, num_layers - 1))
    end = data.draw(st.integers(first + 1, num_layers))
    attention, other = data.draw(kinds), data.draw(kinds)
    try:
        config = replace(
            CONFIG,
            num_layers=num_layers,
            attention=attention,
            attention_of=(LayersConfig(first=first, end=end, attention=other),),
        )
    except ValueError as error:
        assert "keep_ends" in str(error)
        return
    groups = layer_groups(config)
    assert [g.index for g in groups] == list(range(len(groups)))
    assert [layer for g in groups for layer in range(g.first, g.end)] == list(range(num_layers))
    for group in groups:
        inside = [first <= layer < end for layer in range(group.first, group.end)]
        assert len(set(inside)) == 1
        assert group.attention.num_heads == (other if inside[0] else attention).num_heads
        for cut in range(group.first + 1, group.end):
            with pytest.raises(ValueError, match="layer: expected"):
                check_cut(config, cut)
        if group.first > 0:
            check_cut(config, group.first)


def test_group_bits_count_groups():
    """Each group has its bits; 16 leaves it plain, rotary keys included."""
    attention = replace(LATENT, codes=CodeConfig(bits=4), group_bits=(8, 16, 2))
    groups = layer_groups(replace(CONFIG, attention=attention))
    assert [g.attention.codes and g.attention.codes.bits for g in groups] == [8, None, 2]
    assert [g.attention.stored_rope_codes is None for g in groups] == [False, True, False]


def test_rope_codes_follow_or_go_their_own_way():
    """The same codes, none, or others."""
    four, eight = CodeConfig(bits=4), CodeConfig(bits=8)
    assert replace(LATENT, codes=four).stored_rope_codes == four
    assert replace(LATENT, codes=four, rope_codes="plain").stored_rope_codes is None
    assert replace(LATENT, codes=four, rope_codes=eight).stored_rope_codes == eight
    assert LATENT.stored_rope_codes is None


@all_variants
def test_parameters_are_counted(attention):
    """The closed form is the number that the model has."""
    config = replace(CONFIG, attention=attention)
    with torch.device("meta"):
        model = LanguageModel(config)
    assert num_stored_parameters(config) == sum(weight.numel() for weight in model.parameters())


def test_parameters_of_mla_in_numbers():
    """Counted by hand for one layer of width 32 with 4 heads of 8."""
    one = replace(CONFIG, num_layers=1)
    # q: 4*(8+4) x 32, down: (32+4) x 32, up: 4*(8+8) x 32, out: 32 x 32, ffn: 3 x 32 x 48
    assert num_parameters(one) == 48 * 32 + 36 * 32 + 64 * 32 + 32 * 32 + 3 * 32 * 48


def test_operations_count_both_parts_of_a_score():
    """A pair of tokens costs 2 (K + R + V) for every head: 2 * 4 * 20 in each of 6 layers."""
    long, short = forward_flop(CONFIG, 33), forward_flop(CONFIG, 1)
    assert long - short == 16 * 6 * 2 * 4 * (8 + 4 + 8)


def test_larger_models_of_the_same_shape():
    """Layers come in groups, widths follow the heads."""
    larger = scale_model(CONFIG, 8 * num_parameters(CONFIG))
    assert larger.num_layers % 2 == 0
    assert num_parameters(larger) == pytest.approx(8 * num_parameters(CONFIG), rel=0.05)
    with pytest.raises(ValueError, match="all alike"):
        scale_model(replace(CONFIG, attention=replace(LATENT, keep_ends=1)), 1e5)


REFUSED = {
    "odd rope width": ({"rope_width": 3}, "multiple of 2"),
    "rope of 6 / 2": ({"head_width": 6}, "rope_width: expected an even number"),
    "heads": ({"num_heads": 5}, "width: expected a multiple of num_heads 5"),
    "sizes": ({"share_factor": 1, "group_sizes": (2, 3)}, "group_sizes: expected a sum of 6"),
    "both": ({"group_sizes": (2, 4)}, "group_sizes: expected share_factor 1"),
    "empty group": ({"share_factor": 1, "group_sizes": (6, 0)}, "at least 1 layer"),
    "ends": ({"keep_ends": 4}, "keep_ends: expected at most half of 6 layers"),
    "bits without codes": ({"group_bits": (4, 4, 4)}, "group_bits: expected none without codes"),
    "bits of groups": (
        {"codes": CodeConfig(), "group_bits": (4, 4)},
        "group_bits: expected a number for each of 3 groups",
    ),
    "scale before norms": (
        {"outer_scale": True, "latent_norm": "layer"},
        "outer_scale: expected latent_norm 'leader' or 'none'",
    ),
    "no rope to keep": ({"rope_width": 0, "rope_key": "layer"}, "rope_key: expected 'leader'"),
    "rope codes": ({"rope_codes": "none"}, "expected 'same', 'plain' or a table"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_settings_are_refused_with_the_reason(change, message):
    """What cannot be built says which field and why."""
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, attention=replace(LATENT, **change))


@pytest.mark.parametrize(
    ("first", "end", "message"),
    [(3, 3, "end: expected more"), (4, 7, "attention_of.1: expected layers within 2"),
     (1, 3, "attention_of.1: expected layers within 2")],
)  # fmt: skip
def test_wrong_layers_are_refused(first, end, message):
    """Stretches stand in order, without overlap and within the model."""
    gqa = GQAConfig(num_heads=4)
    with pytest.raises(ValueError, match=message):
        replace(
            CONFIG,
            attention_of=(
                LayersConfig(first=0, end=2, attention=gqa),
                LayersConfig(first=first, end=end, attention=gqa),
            ),
        )


@pytest.mark.parametrize("layer", [0, 6])
def test_cut_outside_is_refused(layer):
    """A stage has layers."""
    with pytest.raises(ValueError, match="layer: expected 1 to 5"):
        check_cut(CONFIG, layer)


@all_variants
def test_recipes_survive_toml(tmp_path, attention):
    """What is written is read again, codes and stretches of layers included."""
    model = replace(
        CONFIG,
        max_length=256,
        attention=replace(attention, codes=CodeConfig(bits=3), rope_codes="plain"),
        attention_of=(LayersConfig(first=2, end=4, attention=GQAConfig(num_heads=4)),),
    )
    recipe = replace(tiny(), model=model)
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(recipe))
    assert read_recipe(path) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.attention.codes.bits=5", "model.attention.codes.bits: expected 2, 3, 4 or 8"),
        ("model.attention.rope_codes=none_at_all", "model.attention.rope_codes: expected 'same'"),
        ("model.attention.codes.bit=4", "model.attention.codes.bit: expected one of bits"),
        ("model.attention.kind=mla", "model.attention.kind: expected one of 'gqa', 'latent'"),
        ("model.attention.width=4", "model.attention.width: expected one of share_factor"),
        (
            "model.attention_of=[{first=0,end=1,attention={num_heads=3}}]",
            "model.width: expected a multiple of 2 * num_heads",
        ),
    ],
)
def test_wrong_recipes_are_refused_in_one_line(change, message):
    """The line names the field as the file has it."""
    recipe = replace(tiny(), model=replace(CONFIG, max_length=256))
    with pytest.raises(ValueError, match="expected") as caught:
        from_dict(override(to_dict(recipe), [change]), origin="mine")
    assert str(caught.value).startswith(f"mine: {message}")


def test_old_settings_mean_what_they_meant():
    """Attention without a kind is grouped-query attention."""
    table = to_dict(tiny())
    del table["model"]["attention"]["kind"]
    assert from_dict(table, origin="mine") == tiny()


def test_attention_of_all_layers_is_changed_at_once():
    """A change reaches the stretches with settings of their own."""
    other = LayersConfig(first=0, end=1, attention=GQAConfig(num_heads=4))
    changed = replace(CONFIG, attention_of=(other,)).with_attention(
        lambda attention: replace(attention, dropout=0.25)
    )
    assert [group.attention.dropout for group in layer_groups(changed)] == [0.25] * 4
    assert [group.attention.kind for group in layer_groups(changed)] == ["gqa"] + ["latent"] * 3
