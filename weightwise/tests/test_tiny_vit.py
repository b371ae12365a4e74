"""TinyViT: counts, shapes, windows and padding, initial weights, drop-path."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from weightwise.vision import VARIANTS, TinyViT, TinyViTConfig, macs, num_parameters
from weightwise.vision.attention import WindowAttention
from weightwise.vision.layers import DropPath

TINY = TinyViTConfig(
    widths=(8, 32, 32, 48), depths=(1, 1, 2, 1), windows=(4, 4, 2), head_width=16, image_size=64,
    num_classes=10,
)  # fmt: skip
# Method's published table, recounted with another implementation: parameters with and without head.
PARAMETERS = {
    "5m": (5_392_764, 5_071_764),
    "11m": (10_996_972, 10_547_972),
    "21m": (21_198_568, 20_621_568),
    "21m-384": (21_230_488, 20_653_488),
    "21m-512": (21_268_120, 20_691_120),
}
# Stem, stages including the merge that follows, merges.
MODULES = {
    "5m": [19_488, (98_944, 448_232, 2_030_520, 2_473_940), (26_496, 48_480, 158_400)],
    "11m": [19_488, (98_944, 501_896, 5_086_976, 4_839_772), (26_496, 102_144, 322_112)],
    "21m": [43_056, (216_000, 1_121_484, 11_247_840, 7_992_036), (58_176, 226_944, 561_600)],
}
GIGA_MACS = {"5m": 1.270, "11m": 2.033, "21m": 4.276, "21m-384": 13.773, "21m-512": 27.016}


def model_of(config, seed=0):
    """A model with drawn weights."""
    model = TinyViT(config)
    model.initialize(torch.Generator().manual_seed(seed))
    return model


def count(module):
    """Parameters of a module."""
    return sum(one.numel() for one in module.parameters())


@pytest.mark.parametrize("name", list(VARIANTS))
def test_variants_have_the_published_numbers_of_parameters(name):
    """With and without head, in the model and by formula."""
    config = VARIANTS[name]
    with torch.device("meta"):
        model = TinyViT(config)
    whole, body = PARAMETERS[name]
    assert count(model) == num_parameters(config) == whole
    assert whole - count(model.head.fc) == body


@pytest.mark.parametrize("name", list(MODULES))
def test_modules_have_the_published_numbers_of_parameters(name):
    """Each merge counts to the stage before it; 2 x 320 for the last norm of the 5M."""
    with torch.device("meta"):
        model = TinyViT(VARIANTS[name])
    stem, stages, merges = MODULES[name]
    found = [count(stage.downsample) for stage in model.stages[1:]]
    own = [count(stage.blocks) for stage in model.stages]
    assert count(model.patch_embed) == stem
    assert found == list(merges)
    assert [a + b for a, b in zip(own, [*found, 0], strict=True)] == list(stages)
    assert count(model.head.norm) == 2 * VARIANTS[name].widths[3]


def test_formula_counts_other_factors():
    """Expansions with fractions, other depths, windows and widths of heads."""
    config = replace(TINY, conv_expansion=2.5, mlp_expansion=1.3, head_width=8, windows=(3, 2, 1))
    with torch.device("meta"):
        assert num_parameters(config) == count(TinyViT(config))


@pytest.mark.parametrize("name", list(VARIANTS))
def test_multiply_accumulates_are_the_published_ones(name):
    """To the digits printed."""
    assert round(macs(VARIANTS[name]).total / 1e9, 3) == GIGA_MACS[name]


def counted(model, images):
    """Products of convolutions and linear layers that a forward pass calls, by hooks."""
    totals = {"conv": 0, "linear": 0}

    def add(module, _, output):
        if isinstance(module, nn.Conv2d):
            totals["conv"] += output.numel() * module.weight[0].numel()
        else:
            totals["linear"] += output.numel() * module.in_features

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    model(images)
    return totals


@pytest.mark.parametrize("size", [(64, 64), (60, 41)])
def test_multiply_accumulates_are_those_of_the_layers_called(size):
    """Images that fill the windows, and such that do not."""
    found = counted(TinyViT(TINY).eval(), torch.zeros(1, 3, *size))
    wanted = macs(TINY, size)
    assert found == {"conv": wanted.conv, "linear": wanted.linear}


def test_multiply_accumulates_are_those_of_fvcore():
    """Every kind of operation, to the unit."""
    fvcore = pytest.importorskip("fvcore.nn")
    model = TinyViT(TINY).eval()
    analysis = fvcore.FlopCountAnalysis(model, torch.zeros(1, 3, 60, 60))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    found, wanted = analysis.by_operator(), macs(TINY, 60)
    assert (found["conv"], found["linear"]) == (wanted.conv, wanted.linear)
    assert found["batch_norm"] + found["layer_norm"] == wanted.norm


def test_pyramid_has_strides_4_to_32():
    """101 x 64 pixels: 26 x 16, 13 x 8, 7 x 4, 4 x 2, and the head reads the last map."""
    model = model_of(TINY).eval()
    x = torch.randn(2, 3, 101, 64)
    maps = model.pyramid(x)
    assert [tuple(one.shape) for one in maps] == [
        (2, 8, 26, 16), (2, 32, 13, 8), (2, 32, 7, 4), (2, 48, 4, 2),
    ]  # fmt: skip
    features = F.layer_norm(maps[3].mean((2, 3)), (48,))
    assert torch.allclose(model.features(x), features, atol=1e-6)
    assert torch.allclose(model(x), model.head.fc(features), atol=1e-6)


def test_images_of_another_shape_are_refused():
    """One image without its axis; four channels."""
    model = TinyViT(TINY)
    for shape in [(3, 64, 64), (1, 4, 64, 64)]:
        with pytest.raises(ValueError, match="x_B3HW: expected shape"):
            model(torch.zeros(shape))


def attention_of(mask_padding=False):
    """Two heads of 16 channels and a random table."""
    torch.manual_seed(0)
    attention = WindowAttention(32, 2, 7, mask_padding=mask_padding)
    nn.init.normal_(attention.attention_biases)
    nn.init.normal_(attention.norm.bias)
    return attention


def reference(attention, x_HWC, is_masked):
    """One image, one window, one head and one query after the other."""
    H, W, C = x_HWC.shape
    out = torch.zeros(H, W, C)
    for top in range(0, H, 7):
        for left in range(0, W, 7):
            places = [(top + i, left + j) for i in range(7) for j in range(7)]
            tokens = torch.stack([
                x_HWC[i, j] if i < H and j < W else torch.zeros(C) for i, j in places
            ])  # fmt: skip
            qkv = attention.qkv(attention.norm(tokens))
            for query, (i, j) in enumerate(places):
                if i >= H or j >= W:
                    continue
                heads = []
                for head in range(2):
                    q, k, v = qkv[:, 96 // 2 * head : 96 // 2 * (head + 1)].split(16, dim=1)
                    logits = k @ q[query] / 4
                    for key, (row, column) in enumerate(places):
                        entry = abs(i - row) * 7 + abs(j - column)
                        logits[key] += attention.attention_biases[head, entry]
                        if is_masked and (row >= H or column >= W):
                            logits[key] = -torch.inf
                    heads.append(logits.softmax(0) @ v)
                out[i, j] = attention.proj(torch.cat(heads))
    return out


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize("size", [(7, 7), (14, 7), (5, 9)])
def test_windows_attend_like_a_plain_loop(size, mask_padding):
    """A map of one window, of two, and of two that must be filled up."""
    attention = attention_of(mask_padding)
    x = torch.randn(1, *size, 32)
    with torch.no_grad():
        found, wanted = attention(x)[0], reference(attention, x[0], mask_padding)
    assert torch.allclose(found, wanted, atol=1e-5), (found - wanted).abs().max()


def test_a_map_of_one_window_needs_no_windows():
    """Two maps side by side in one call equal each for itself."""
    attention = attention_of()
    x = torch.randn(3, 7, 14, 32)
    both = torch.cat([attention(x[:, :, :7]), attention(x[:, :, 7:])], dim=2)
    assert torch.allclose(attention(x), both, atol=1e-6)


def test_initial_weights_are_the_published_ones():
    """Linear weights of deviation 0.02; no biases; branches of the first stage start at nothing."""
    model = model_of(VARIANTS["5m"])
    model.requires_grad_(False)
    linear = torch.cat([m.weight.flatten() for m in model.modules() if isinstance(m, nn.Linear)])
    assert linear.std() == pytest.approx(0.02, rel=0.01)
    assert linear.mean().abs() < 1e-4
    filters = model.stages[0].blocks[0].conv1.conv.weight  # 64 inputs: within 1 / 8
    assert filters.abs().max() == pytest.approx(1 / 8, rel=0.01)
    assert filters.std() == pytest.approx(1 / 8 / 3**0.5, rel=0.02)
    gains = {n: w for n, w in model.named_parameters() if w.dim() == 1 and n.endswith("weight")}
    zero = {name for name, gain in gains.items() if not gain.any()}
    assert zero == {f"stages.0.blocks.{i}.conv3.bn.weight" for i in (0, 1)}
    assert all((gain == 1).all() for name, gain in gains.items() if name not in zero)
    rest = [w for n, w in model.named_parameters() if n.endswith(("bias", "biases"))]
    assert not any(one.any() for one in rest)


def test_the_same_seed_gives_the_same_weights():
    """And another one others; running statistics start anew."""
    model = model_of(TINY)
    model(torch.randn(4, 3, 64, 64))
    model.initialize(torch.Generator().manual_seed(0))
    first, again = model_of(TINY).state_dict(), model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = model_of(TINY, seed=1).head.fc.weight
    assert not torch.equal(other, model.head.fc.weight)


def test_drop_path_rises_over_all_blocks():
    """0 to 0.2 over 12 blocks: the third has 2 / 11 of it."""
    rates = VARIANTS["21m"].drop_paths
    assert [len(one) for one in rates] == [2, 2, 6, 2]
    assert (rates[0][0], rates[3][1]) == (0, 0.2)
    assert rates[1][0] == pytest.approx(0.2 * 2 / 11)
    model = TinyViT(replace(TINY, drop_path=0.2))
    found = [one.rate for one in model.modules() if isinstance(one, DropPath)]
    assert found == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_drop_path_keeps_the_mean():
    """A fourth of the images is left out, the others are times 4 / 3; nothing in evaluation."""
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(10_000, 2, 2)
    dropped = drop(x)
    assert torch.equal(dropped, dropped[:, :1, :1].expand(-1, 2, 2))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    assert drop.eval()(x) is x


def test_a_model_learns():
    """A few steps on a few images, with drop-path: the loss falls, all have gradients."""
    torch.manual_seed(0)
    model = model_of(replace(TINY, drop_path=0.1))
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(one.grad is not None for one in model.parameters())


BAD = {
    "widths": (8, 30, 32, 48),
    "depths": (1, 0, 2, 1),
    "windows": (4, 4),
    "head_width": 0,
    "image_size": 0,
    "num_classes": 0,
    "conv_expansion": 0.5,
    "mlp_expansion": float("nan"),
    "drop_path": 1.0,
}


@pytest.mark.parametrize("field", list(BAD))
def test_settings_out_of_range_are_refused(field):
    """The message names the field."""
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        replace(TINY, **{field: BAD[field]})


def test_sizes_below_one_are_not_counted():
    """One side is enough."""
    with pytest.raises(ValueError, match="image_size: expected at least 1"):
        macs(TINY, (0, 8))
