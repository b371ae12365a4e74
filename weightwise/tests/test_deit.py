"""DeiT and Mini-DeiT: counts, sharing, positions, maps over heads, initial weights."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from weightwise.multiplex.mixing import HeadAttention
from weightwise.vision.deit import DeiT
from weightwise.vision.deit_config import DEIT_VARIANTS, DeiTConfig, even_groups, mini_deit
from weightwise.vision.fuse import fuse
from weightwise.vision.layers import DropPath
from weightwise.vision.relative import buckets, num_buckets, piece

TINY = DeiTConfig(width=24, num_heads=3, groups=(1,) * 4, patch=4, image_size=20, num_classes=7)
MINI = mini_deit(TINY)
ORIGINAL = {"ti": 5_717_416, "s": 22_050_664, "b": 86_567_656}
# MiniViT's published code, counted: executions of a set of weights, and parameters.
SHARED = {
    "ti": {2: 3_090_304, 3: 2_202_112, 4: 1_758_016, 6: 1_313_920, 12: 869_824},
    "s": {2: 11_450_824, 3: 7_904_968, 4: 6_132_040, 6: 4_359_112, 12: 2_586_184},
    "b": {2: 44_098_408, 3: 29_928_808, 4: 22_844_008, 6: 15_759_208, 12: 8_674_408},
}


def model_of(config, seed=0):
    """A model in evaluation mode with nothing constant in it."""
    model = DeiT(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            scale = 0.5 if "attend" in name or one.dim() < 2 else one[0].numel() ** -0.5
            one += scale * torch.randn(one.shape, generator=generator)
    return model


def images_of(config, count=2, seed=0):
    """Normal pixels."""
    side = config.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def count(config):
    """Parameters of a model, each once."""
    with torch.device("meta"):
        return sum(one.numel() for one in DeiT(config).parameters())


@pytest.mark.parametrize("size", list(ORIGINAL))
def test_originals_have_the_published_numbers_of_parameters(size):
    """5.7, 22.1 and 86.6 million; so has what shares nothing but the transforms' own."""
    config = DEIT_VARIANTS[size]
    assert count(config) == ORIGINAL[size]
    # A Mini-DeiT of single executions: 12 tables and pairs of maps more, one token with its
    # position less.
    own = 12 * (64 * 49 + 2 * config.num_heads**2) - 2 * config.width
    assert count(mini_deit(config, 1)) == ORIGINAL[size] + own


@pytest.mark.slow
@pytest.mark.parametrize("size", list(SHARED))
def test_mini_models_have_the_published_numbers_of_parameters(size):
    """In groups of 2, 3, 4, 6 and 12 executions."""
    found = {r: count(mini_deit(DEIT_VARIANTS[size], r)) for r in SHARED[size]}
    assert found == SHARED[size]
    assert count(DEIT_VARIANTS[f"mini-{size}"]) == SHARED[size][2]


def test_larger_images_cost_positions_only():
    """24 x 24 instead of 14 x 14 patches of 768 channels: 44,390,248."""
    assert count(DEIT_VARIANTS["mini-b-384"]) == 44_098_408 + (24**2 - 14**2) * 768 == 44_390_248


def test_one_layer_with_convolutions_is_what_the_abstract_counts():
    """5 x 5 filters and shifts of 768 channels in 12 executions: 86.6 M / 9.71."""
    config = replace(mini_deit(DEIT_VARIANTS["b"], 12), local="stream", local_kernel=5)
    assert count(config) == 8_674_408 + 12 * 26 * 768 == 8_914_024
    assert ORIGINAL["b"] / 8_914_024 == pytest.approx(9.71, abs=0.005)


def test_groups_of_any_length():
    """Even ones, what is left over at the end, and one set for all."""
    assert even_groups(12, 1) == (1,) * 12
    assert even_groups(12, 5) == (5, 5, 2)
    assert even_groups(11, 2) == (2, 2, 2, 2, 2, 1)
    assert even_groups(4, 9) == (4,)
    with pytest.raises(ValueError, match="repeats: expected at least 1"):
        even_groups(12, 0)


def test_executions_of_a_group_hold_the_same_parameters():
    """Weights of attention and MLP, but nothing else; groups of 3 and 1."""
    blocks = DeiT(replace(MINI, groups=(3, 1), local="kept")).blocks
    names = dict(blocks[0].named_parameters())
    weights = {f"{part}.{leaf}" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
               for leaf in ("weight", "bias")}  # fmt: skip
    for i, shared in ((1, weights), (2, weights), (3, set())):
        other = dict(blocks[i].named_parameters())
        assert names.keys() == other.keys()
        assert {name for name in names if names[name] is other[name]} == shared


def test_pieces_are_those_of_the_published_formula():
    """Alpha 1.9, beta 3.8, gamma 15.2, cut to whole numbers; antisymmetric."""
    alpha, beta, gamma = 1.9, 3.8, 15.2

    def formula(x):
        if abs(x) <= alpha:
            return round(x)
        far = alpha + math.log(abs(x) / alpha) / math.log(gamma / alpha) * (beta - alpha)
        return int(math.copysign(min(beta, round(far)), x))

    offsets = list(range(-40, 41))
    found = piece(torch.tensor(offsets)).tolist()
    assert found == [formula(x) for x in offsets]
    assert set(found) == {-3, -2, -1, 0, 1, 2, 3}
    assert found == [-x for x in reversed(found)]


def test_buckets_of_a_published_map():
    """49 on 14 x 14 patches; 24 for a token and itself; the class token has the fiftieth."""
    bucket_NN = buckets(14, 14, class_token=False)
    assert sorted(bucket_NN.unique().tolist()) == list(range(49))
    assert (bucket_NN.diagonal() == 24).all()
    assert (bucket_NN + bucket_NN.t() == 48).all()  # (3 + g) + (3 - g), 7 times that for rows
    # Query (5, 5), key (4, 8): one row below, three columns left: 7 (1 + 3) + (-2 + 3).
    assert bucket_NN[5 * 14 + 5, 4 * 14 + 8] == 29
    with_token = buckets(3, 5, class_token=True)
    assert with_token.shape == (16, 16)
    assert (with_token[0] == 49).all()
    assert (with_token[:, 0] == 49).all()
    assert torch.equal(with_token[1:, 1:], buckets(3, 5, class_token=False))
    assert num_buckets(class_token=True) == 50


def reference(model, x_B3HW):
    """Mini-DeiT in plain steps: sums over heads by einsum, one position after the other."""
    config, at = model.config, model.state_dict()
    M, d = config.num_heads, config.width // config.num_heads
    side = config.side
    weight, bias = at["patch_embed.proj.weight"], at["patch_embed.proj.bias"]
    x = F.conv2d(x_B3HW, weight, bias, config.patch).flatten(2).transpose(1, 2) + at["pos_embed"]
    bucket_NN = buckets(side, side, class_token=False)
    for i in range(config.depth):
        own = {name[len(f"blocks.{i}.") :]: one for name, one in at.items()
               if name.startswith(f"blocks.{i}.")}  # fmt: skip
        u = F.layer_norm(x, (config.width,), own["norm1.weight"], own["norm1.bias"], 1e-6)
        q, k, v = (
            part.unflatten(2, (M, d))
            for part in F.linear(u, own["attn.qkv.weight"], own["attn.qkv.bias"]).chunk(3, dim=2)
        )
        q = q / d**0.5
        logits = torch.einsum("bimd,bjmd->bmij", q, k)
        for a in range(side**2):
            for b in range(side**2):
                column = own["attn.position.table"][:, bucket_NN[a, b]]
                logits[:, :, a, b] += q[:, a] @ column
        logits = torch.einsum("kn,bnij->bkij", own["attn.attend.before.weight"], logits)
        p = torch.einsum("kn,bnij->bkij", own["attn.attend.after.weight"], logits.softmax(-1))
        y = torch.einsum("bmij,bjmd->bimd", p, v).flatten(2)
        x = x + F.linear(y, own["attn.proj.weight"], own["attn.proj.bias"])
        u = F.layer_norm(x, (config.width,), own["norm2.weight"], own["norm2.bias"], 1e-6)
        u = F.gelu(F.linear(u, own["mlp.fc1.weight"], own["mlp.fc1.bias"]))
        x = x + F.linear(u, own["mlp.fc2.weight"], own["mlp.fc2.bias"])
    x = F.layer_norm(x, (config.width,), at["norm.weight"], at["norm.bias"], 1e-6)
    return F.linear(x.mean(1), at["head.weight"], at["head.bias"])


@pytest.mark.parametrize("groups", [(2, 2), (3, 1), (1, 1, 1), (4,)])
def test_a_mini_model_computes_what_is_published(groups):
    """With gradients, without them, and fused, beside plain steps."""
    model = model_of(replace(MINI, groups=groups))
    x = images_of(MINI, 3)
    wanted = reference(model, x)
    assert torch.allclose(model(x), wanted, atol=1e-4), (model(x) - wanted).abs().max()
    with torch.inference_mode():
        assert torch.allclose(model(x), wanted, atol=1e-4)
        assert torch.allclose(fuse(model)(x), wanted, atol=1e-4)


@pytest.mark.parametrize("turn", [1, 2000, 1 << 20])
@pytest.mark.parametrize("kind", ["look-up", "tensor", "none"])
def test_attention_in_turns_is_attention_at_once(monkeypatch, turn, kind):
    """One image of a turn, a few with a rest, all; with masks and biases."""
    monkeypatch.setattr("weightwise.multiplex.mixing_inference.TURN", turn)
    torch.manual_seed(0)
    model = model_of(replace(MINI, num_heads=2, image_size=24))
    attention = model.blocks[0].attn
    attend = HeadAttention(2, mixes=True, bias=True)
    for one in attend.parameters():
        nn.init.normal_(one)
    q, k, v = torch.randn(3, 5, 2, 36, 12).transpose(2, 3).contiguous().transpose(2, 3).unbind(0)
    term = {
        "look-up": attention.position(model._places()),
        "tensor": torch.randn(1, 2, 36, 36),
        "none": None,
    }[kind]
    mask = torch.zeros(5, 1, 36, 36).masked_fill(torch.rand(5, 1, 36, 36) < 0.3, -torch.inf)
    mask[..., 0] = 0.0
    for one in (None, mask):
        wanted = attend(q, k, v, term_BMNT=term, mask=one)
        with torch.no_grad():
            found = attend(q, k, v, term_BMNT=term, mask=one)
        assert wanted.requires_grad
        assert torch.allclose(found, wanted, atol=1e-5), (found - wanted).abs().max()


def test_maps_that_change_no_head_leave_plain_attention():
    """Identity maps and zero tables: the same as without either, with and without gradients."""
    config = replace(MINI, mixes=False, relative=False)
    plain, mini = model_of(config), DeiT(MINI).eval()
    mini.load_state_dict(plain.state_dict(), strict=False)
    x = images_of(MINI)
    assert torch.allclose(mini(x), plain(x), atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(mini(x), plain(x), atol=1e-5)


def test_relative_positions_of_a_class_token():
    """The fiftieth bucket is in use: its column changes what the model says."""
    config = replace(MINI, class_token=True)
    model, x = model_of(config), images_of(config)
    before = model(x)
    with torch.no_grad():
        model.blocks[0].attn.position.table[:, 49] += 1
    assert (model(x) - before).abs().max() > 1e-3
    assert model.features(x).shape == (2, 24)
    assert torch.equal(model.features(x), model.tokens(x)[:, 0])


@pytest.mark.parametrize("class_token", [False, True])
def test_convolutions_before_the_mlp(class_token):
    """Kept and stream begin as the identity, published not; a class token passes by."""
    plain = model_of(replace(TINY, class_token=class_token))
    x = images_of(TINY)
    for local in ("kept", "stream", "published"):
        model = DeiT(replace(plain.config, local=local, local_kernel=3)).eval()
        model.load_state_dict(plain.state_dict(), strict=False)
        assert torch.allclose(model(x), plain(x), atol=1e-5) == (local != "published")
    block = DeiT(replace(plain.config, local="stream", local_kernel=3)).blocks[0]
    nn.init.normal_(block.local.weight)
    x_BNC = torch.randn(2, 25 + class_token, 24)
    found = block._mix(x_BNC)
    filters = block.local.weight
    image = x_BNC[:, -25:].transpose(1, 2).reshape(2, 24, 5, 5)
    wanted = F.conv2d(image, filters, block.local.bias, padding=1, groups=24)
    assert torch.allclose(found[:, -25:], wanted.flatten(2).transpose(1, 2), atol=1e-6)
    assert torch.equal(found[:, :-25], x_BNC[:, :-25])


def test_the_map_and_the_features():
    """Tokens of patches row by row; the mean over them is what the head reads."""
    model, x = model_of(MINI), images_of(MINI)
    (map_BCRS,) = model.pyramid(x)
    assert map_BCRS.shape == (2, 24, 5, 5)
    assert torch.equal(map_BCRS[0, :, 1, 2], model.tokens(x)[0, 7])
    assert torch.allclose(model.features(x), map_BCRS.mean((2, 3)), atol=1e-6)
    assert torch.equal(model(x), model.head(model.features(x)))
    token = model_of(TINY)
    assert torch.equal(token.pyramid(x)[0][0, :, 1, 2], token.tokens(x)[0, 8])


def test_images_of_another_shape_are_refused():
    """An axis too few, four channels, another size."""
    model = DeiT(MINI)
    for shape in [(3, 20, 20), (1, 4, 20, 20), (1, 3, 20, 24)]:
        with pytest.raises(ValueError, match=r"x_B3HW: expected shape \(images, 3, 20, 20\), got"):
            model(torch.zeros(shape))


def test_initial_weights_are_the_published_ones():
    """Deviation 0.02, no biases, gains 1; maps over heads identities or drawn."""
    model = DeiT(replace(MINI, width=192, groups=(2, 2)))
    model.initialize(torch.Generator().manual_seed(0))
    at = model.state_dict()
    linear = torch.cat([at[f"blocks.{i}.mlp.fc1.weight"].flatten() for i in (0, 2)])
    assert linear.std() == pytest.approx(0.02, rel=0.01)
    assert at["pos_embed"].std() == pytest.approx(0.02, rel=0.05)
    filters = at["patch_embed.proj.weight"]
    assert filters.abs().max() == pytest.approx(48**-0.5, rel=0.01)  # 3 x 4 x 4 inputs
    rest = [one for name, one in at.items() if name.endswith(("bias", "table"))]
    assert not any(one.any() for one in rest if one is not at["patch_embed.proj.bias"])
    assert all((one == 1).all() for name, one in at.items() if "norm" in name and "weight" in name)
    assert all(
        torch.equal(one, torch.eye(3)) for name, one in at.items() if name.endswith("before.weight")
    )
    drawn = DeiT(replace(MINI, mix_start="published"))
    drawn.initialize(torch.Generator().manual_seed(0))
    maps = torch.stack([one for name, one in drawn.state_dict().items() if "attend" in name])
    assert 0.012 < maps.std() < 0.028  # 72 numbers
    assert maps.mean().abs() < 0.01


@pytest.mark.parametrize("local", ["none", "kept", "published", "stream"])
def test_the_same_seed_gives_the_same_weights(local):
    """Whatever was there before; another seed gives others."""
    config = replace(MINI, mix_start="published", local=local)
    models = [model_of(config), DeiT(config), DeiT(config)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        model.initialize(torch.Generator().manual_seed(seed))
    first, again, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert not torch.equal(first["blocks.0.mlp.fc1.weight"], first["blocks.2.mlp.fc1.weight"])


def test_drop_path_rises_over_executions():
    """0 to 0.3 over four executions, whatever they share; one execution has none."""
    model = DeiT(replace(MINI, drop_path=0.3))
    found = [one.rate for one in model.modules() if isinstance(one, DropPath)]
    assert found == pytest.approx([0, 0.1, 0.2, 0.3])
    assert replace(MINI, groups=(1,), drop_path=0.3).drop_paths == (0.0,)


def test_a_model_learns():
    """A few steps on a few images, with drop-path: the loss falls, all have gradients."""
    torch.manual_seed(0)
    model = DeiT(replace(MINI, drop_path=0.1, mix_start="published", local="kept"))
    model.initialize(torch.Generator().manual_seed(0))
    x, y = images_of(MINI, 7), torch.arange(7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(one.grad is not None for one in model.parameters())


BAD = {
    "width": 25,
    "num_heads": 0,
    "groups": (2, 0),
    "mlp_expansion": float("nan"),
    "patch": 0,
    "image_size": 21,
    "num_classes": 0,
    "drop_path": 1.0,
    "mix_start": "zero",
    "local": "global",
    "local_kernel": 4,
}


@pytest.mark.parametrize("field", list(BAD))
def test_settings_out_of_range_are_refused(field):
    """The message names the field."""
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        replace(TINY, **{field: BAD[field]})
