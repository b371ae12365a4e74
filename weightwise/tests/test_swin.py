"""Swin and Mini-Swin: counts, shapes, windows and masks, shared weights, initial weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from weightwise.vision.shifted import UNSEEN, ShiftedAttention, Windows
from weightwise.vision.swin import Swin
from weightwise.vision.swin_config import SWIN_VARIANTS, SwinConfig, as_published, mini_swin
from weightwise.vision.swin_counts import num_swin_parameters, swin_macs

TINY = SwinConfig(
    width=8, groups=((1, 1), (1, 1), (1, 1, 1, 1), (1,)), window=4, head_width=4, image_size=64,
    num_classes=5,
)  # fmt: skip
MINI = replace(mini_swin(TINY, (2, 2, 2, 1)), groups=((2,), (2,), (1, 3), (1,)))
# Of the unshared model; then of shared weights, with own layer normalizations, with maps over
# heads, and with convolutions: counted with the released code.
PARAMETERS = {
    "t": (28_288_354, 11_755_741, 11_767_645, 11_772_133, 12_001_765),
    "s": (49_606_258, 25_967_677, 25_985_725, 25_993_957, 26_463_205),
    "b": (87_768_224, 45_780_740, 45_804_804, 45_819_188, 46_444_852),
    "b-384": (87_903_584, 45_848_420, 45_872_484, 45_886_868, 46_512_532),
}
# What the released code says of itself.
GIGA_MACS = {
    "t": (4.494, 4.599), "s": (8.747, 8.930), "b": (15.438, 15.712), "b-384": (47.105, 48.582),
}  # fmt: skip


def model_of(config, seed=0):
    """A model with drawn weights, none of them special."""
    model = Swin(config)
    generator = torch.Generator().manual_seed(seed)
    model.initialize(generator)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)
    return model.eval()


def images(*shape, seed=0):
    """Normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(model):
    """Parameters, each once."""
    return sum(one.numel() for one in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PARAMETERS))
def test_models_have_the_published_numbers_of_parameters(name):
    """One transform after the other, in the model and by formula."""
    mini = SWIN_VARIANTS[f"mini-{name}"]
    steps = [
        SWIN_VARIANTS[name],
        replace(mini, own_norms=False, mixes=False, local="none"),
        replace(mini, mixes=False, local="none"),
        replace(mini, local="none"),
        mini,
    ]
    for config, wanted in zip(steps, PARAMETERS[name], strict=True):
        with torch.device("meta"):
            model = Swin(config)
        assert count(model) == num_swin_parameters(config) == wanted


def test_formula_counts_other_settings():
    """Uneven groups, another expansion, window, kernel and width of heads."""
    config = replace(MINI, mlp_expansion=1.3, window=3, local_kernel=3, head_width=2)
    assert count(Swin(config)) == num_swin_parameters(config)


@pytest.mark.parametrize("name", list(GIGA_MACS))
def test_multiply_accumulates_are_the_published_ones(name):
    """To the digits printed, of Swin and of Mini-Swin."""
    found = [swin_macs(SWIN_VARIANTS[one]).total for one in (name, f"mini-{name}")]
    assert tuple(round(one / 1e9, 3) for one in found) == GIGA_MACS[name]


@pytest.mark.parametrize("size", [(64, 64), (60, 41), (16, 90)])
def test_multiply_accumulates_are_those_of_the_layers_called(size):
    """By hooks on convolutions and linear layers; images that fill the windows and others."""
    totals = {"conv": 0, "linear": 0}

    def add(module, _, output):
        if isinstance(module, nn.Conv2d):
            totals["conv"] += output.numel() * module.weight[0].numel()
        else:
            totals["linear"] += output.numel() * module.in_features

    model = model_of(MINI)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    model(torch.zeros(1, 3, *size))
    wanted = swin_macs(MINI, size)
    assert totals == {"conv": wanted.conv, "linear": wanted.linear}


def test_multiply_accumulates_of_attention_by_hand():
    """One 4 x 4 window of 8 channels in 2 heads: 2 * 16^2 * 8, and 2 * 16^2 * 2^2 for the maps."""
    config = replace(TINY, groups=((1,),) * 4, mixes=True)
    # Stages of 4 x 4, 2 x 2, 1 and 1 tokens, 8 to 64 channels, 2 to 16 heads.
    tokens, widths, heads = (16, 4, 1, 1), (8, 16, 32, 64), (2, 4, 8, 16)
    wanted = sum(2 * n * n * (c + m * m) for n, c, m in zip(tokens, widths, heads, strict=True))
    assert swin_macs(config, 16).attention == wanted
    with pytest.raises(ValueError, match="image_size: expected at least 1, got"):
        swin_macs(config, (16, 0))


def test_pyramid_has_strides_4_to_32():
    """101 x 62 pixels: 26 x 16, 13 x 8, 7 x 4, 4 x 2, and the head reads the last map."""
    model = model_of(MINI)
    x = images(2, 3, 101, 62)
    with torch.no_grad():
        maps = model.pyramid(x)
        features = model.norm(maps[3].permute(0, 2, 3, 1)).mean((1, 2))
        assert torch.allclose(model.features(x), features, atol=1e-6)
        assert torch.allclose(model(x), model.head(features), atol=1e-6)
    assert [tuple(one.shape) for one in maps] == [
        (2, 8, 26, 16), (2, 16, 13, 8), (2, 32, 7, 4), (2, 64, 4, 2),
    ]  # fmt: skip
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in maps)


def test_images_of_another_shape_are_refused():
    """One image without its axis; four channels; no pixels."""
    for shape in [(3, 64, 64), (1, 4, 64, 64), (1, 3, 0, 64)]:
        with pytest.raises(ValueError, match="x_B3HW: expected shape"):
            Swin(TINY)(torch.zeros(shape))


BAD = {
    "width": 6, "groups": ((1,), (1,), (1,)), "window": 0, "head_width": 0, "mlp_expansion": 0.5,
    "image_size": 0, "num_classes": 0, "drop_path": 1.0, "mix_start": "zero", "local": "conv",
    "local_kernel": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", list(BAD))
def test_settings_out_of_range_are_refused(name):
    """The message names the field."""
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        replace(TINY, **{name: BAD[name]})


def test_repeats_are_one_number_a_stage():
    """Depths 2, 2, 4, 1 in runs of up to 2, 2, 3 and 6."""
    assert mini_swin(TINY, (2, 2, 3, 6)).groups == ((2,), (2,), (3, 1), (1,))
    with pytest.raises(ValueError, match="repeats: expected 4 numbers"):
        mini_swin(TINY, (2, 2))
    with pytest.raises(ValueError, match=r"groups: expected 4 stages"):
        replace(TINY, groups=((1,), (1,), (1, 0), (1,)))


def attention_of(window, *, is_shifted, mixes=False, mask_unshifted=False, mask_padding=True):
    """Two heads of 4 channels, and a random table and random maps."""
    windows = Windows(
        side=window, is_shifted=is_shifted, mask_unshifted=mask_unshifted,
        mask_padding=mask_padding,
    )  # fmt: skip
    torch.manual_seed(0)
    attention = ShiftedAttention(8, 2, windows, mixes=mixes)
    for weight in attention.parameters():
        nn.init.normal_(weight)
    return attention


def reference(attention, x_HWC):
    """One image, one window, one query and one key after the other; what is seen by its meaning."""
    windows = attention.windows
    H, W, C = x_HWC.shape
    sides = [min(length, windows.side) for length in (H, W)]
    full = [-(-length // side) * side for length, side in zip((H, W), sides, strict=True)]
    shifts = [windows.side // 2 if one > windows.side else 0 for one in (H, W)]
    moved = shifts if windows.is_shifted else (0, 0)
    cuts = shifts if windows.is_shifted or windows.mask_unshifted else (0, 0)
    out = torch.zeros(H, W, C)
    for top in range(0, full[0], sides[0]):
        for left in range(0, full[1], sides[1]):
            cells = [(top + i, left + j) for i in range(sides[0]) for j in range(sides[1])]
            places = [tuple((p + s) % f for p, s, f in zip(one, moved, full, strict=True))
                      for one in cells]  # fmt: skip
            inside = [i < H and j < W for i, j in places]
            tokens = torch.stack([
                x_HWC[p] if good else torch.zeros(C) for p, good in zip(places, inside, strict=True)
            ])  # fmt: skip
            q, k, v = attention.qkv(tokens).view(len(cells), 3, 2, 4).permute(1, 2, 0, 3)
            for query, place in enumerate(places):
                if not inside[query]:
                    continue
                logits = (k @ q[:, query, :, None])[..., 0] / 2
                hidden = torch.zeros(len(cells))
                for key, other in enumerate(cells):
                    own = cells[query]
                    row, column = (
                        a - b + windows.side - 1 for a, b in zip(own, other, strict=True)
                    )
                    entry = row * (2 * windows.side - 1) + column
                    logits[:, key] += attention.relative_position_bias_table[entry]
                    is_far = any(
                        (a >= f - s) != (b >= f - s)
                        for a, b, f, s in zip(own, other, full, cuts, strict=True)
                    )
                    if is_far or (windows.mask_padding and not inside[key]):
                        hidden[key] = UNSEEN
                before, after = attention.attend.before, attention.attend.after
                if before is not None:
                    logits = before.weight @ logits + before.bias[:, None]
                p = (logits + hidden).softmax(-1)
                if after is not None:
                    p = after.weight @ p + after.bias[:, None]
                out[place] = attention.proj((p[:, None] @ v).reshape(C))
    return out


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (3, 8), (6, 9)])
@pytest.mark.parametrize("mixes", [False, True])
def test_windows_attend_like_a_plain_loop(size, mixes):
    """One window, four, one axis with one window only, and windows to fill up; shifted or not."""
    x = images(2, *size, 8)
    for is_shifted in (False, True):
        attention = attention_of(4, is_shifted=is_shifted, mixes=mixes)
        with torch.no_grad():
            found = attention(x)
            wanted = torch.stack([reference(attention, one) for one in x])
        assert torch.allclose(found, wanted, atol=1e-4), (found - wanted).abs().max()


@pytest.mark.parametrize("size", [(8, 8), (6, 9)])
def test_other_masks_are_those_of_the_loop(size):
    """Windows masked although they are not shifted; padding that is seen."""
    x = images(1, *size, 8)
    for is_shifted in (False, True):
        for masks in ({"mask_unshifted": True}, {"mask_padding": False}):
            attention = attention_of(3, is_shifted=is_shifted, mixes=True, **masks)
            with torch.no_grad():
                found, wanted = attention(x)[0], reference(attention, x[0])
            assert torch.allclose(found, wanted, atol=1e-4), (found - wanted).abs().max()


def test_shifted_windows_move_with_a_periodic_map_but_for_the_mask():
    """Far from the border, a map moved by one window gives what moved by one window."""
    attention = attention_of(4, is_shifted=True)
    x = images(1, 16, 16, 8)
    with torch.no_grad():
        found, moved = attention(x), attention(x.roll(4, 1))
    assert torch.allclose(found[:, 2:8], moved[:, 6:12], atol=1e-5)
    assert not torch.allclose(found[:, 14:], moved[:, 2:4], atol=1e-2)


def test_filling_up_changes_nothing_for_the_tokens_that_are_there():
    """A map of 6 rows beside one whose other rows, up to 8, hold noise."""
    attention = attention_of(4, is_shifted=False)
    x = images(1, 8, 4, 8)
    with torch.no_grad():
        short, long = attention(x[:, :6]), attention(x)
    assert torch.allclose(short[:, :4], long[:, :4], atol=1e-5)
    assert not torch.allclose(short[:, 4:], long[:, 4:6], atol=1e-2)


def test_a_layout_serves_training_after_inference():
    """It is worked out once for a size, and not in inference mode."""
    attention = attention_of(4, is_shifted=True)
    x = images(1, 8, 8, 8)
    with torch.inference_mode():
        attention(x)
    first = attention.layout(8, 8, x.device)
    attention(x.requires_grad_()).sum().backward()
    assert attention.layout(8, 8, x.device) is first
    assert attention.layout(4, 8, x.device) is not first
    assert x.grad is not None


def test_executions_of_a_group_hold_the_same_parameters():
    """Groups of 1 and 3 in the third stage; norms and transforms are their own."""
    blocks = Swin(MINI).layers[2].blocks
    own = ("norm1.weight", "norm2.bias", "attn.attend.before.weight", "local.conv.weight")
    for name, one in blocks[1].named_parameters():
        others = [blocks[number].get_parameter(name) for number in (0, 2, 3)]
        is_own = name.startswith(("norm", "attn.attend", "local"))
        assert [other is one for other in others] == [False, not is_own, not is_own], name
    assert all(name in dict(blocks[1].named_parameters()) for name in own)
    blocks = Swin(replace(MINI, own_norms=False)).layers[2].blocks
    assert blocks[1].norm1.weight is blocks[3].norm1.weight is not blocks[0].norm1.weight


def test_shifts_alternate_by_the_place_in_the_stage():
    """The released code begins each group with the shift that its first place asks for."""
    blocks = Swin(MINI).layers[2].blocks
    assert [one.attn.windows.is_shifted for one in blocks] == [False, True, False, True]


def test_drop_path_rises_over_executions():
    """Nine executions: 0 to 0.4 in steps of 0.05; both branches of one have the same."""
    model = Swin(replace(MINI, drop_path=0.4))
    rates = [block.drop_path.rate for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.05 * number for number in range(9)])


def test_neutral_transforms_change_nothing():
    """At the start a Mini-Swin is the Swin that shares the same weights."""
    mini = Swin(MINI)
    mini.initialize(torch.Generator().manual_seed(0))
    plain = Swin(replace(MINI, mixes=False, local="none"))
    plain.initialize(torch.Generator().manual_seed(0))
    x = images(2, 3, 64, 64)
    assert torch.allclose(mini(x), plain(x), atol=1e-6)


def test_initial_weights_are_the_published_ones():
    """Deviation 0.02 for matrices and tables; the same seed, the same bits."""
    config = as_published(mini_swin(replace(TINY, width=32, head_width=4), (2, 2, 2, 1)))
    model, same = Swin(config), Swin(config)
    for one in (model, same):
        one.initialize(torch.Generator().manual_seed(1))
    for (name, one), other in zip(model.named_parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other), name
    block = model.layers[1].blocks[1]
    for weight in (block.attn.qkv.weight, block.mlp.fc1.weight,
                   block.attn.relative_position_bias_table,
                   block.attn.attend.before.weight):  # fmt: skip
        assert weight.std().item() == pytest.approx(0.02, rel=0.15)
    # 1 / sqrt(49) for the convolution, 1 / sqrt(48) for patches, uniform: bound / sqrt(3).
    assert block.local.conv.weight.std().item() == pytest.approx(1 / 7 / 3**0.5, rel=0.05)
    patches = model.patch_embed.proj.weight
    assert patches.std().item() == pytest.approx(1 / 12, rel=0.05)
    assert patches.abs().max() < 48**-0.5
    assert block.norm1.weight.eq(1).all()
    assert not block.mlp.fc1.bias.any()
    model.config = replace(config, mix_start="identity")
    model.initialize(torch.Generator().manual_seed(1))
    assert torch.equal(block.attn.attend.after.weight, torch.eye(16))
