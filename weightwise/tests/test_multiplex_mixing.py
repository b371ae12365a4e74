"""Maps over heads and the convolution over the map: neutral, permuting, one result on all paths."""

import pytest
import torch
import torch.nn.functional as F

from weightwise.multiplex import HeadAttention, HeadMix, LocalMix
from weightwise.multiplex.mixing import split_mask


def drawn(*shape, seed=0):
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention(num_heads=3, *, bias=True, noise=0.3, scale=None):
    """Attention whose maps are not the identity."""
    module = HeadAttention(num_heads, mixes=True, bias=bias, scale=scale)
    with torch.no_grad():
        for index, one in enumerate(module.parameters()):
            one += noise * drawn(*one.shape, seed=index)
    return module


def qkv(num_heads=3, queries=5, keys=7):
    """Queries, keys and values of two texts."""
    return [drawn(2, num_heads, n, 4, seed=n + i) for i, n in enumerate((queries, keys, keys))]


def slow(module, q, k, v, term=0.0, mask=0.0):
    """The formulas, head by head."""
    scale = q.shape[-1] ** -0.5 if module.scale is None else module.scale
    logits = [q[:, n] @ k[:, n].mT * scale for n in range(q.shape[1])]
    if torch.is_tensor(term):
        logits = [one + term[:, n] for n, one in enumerate(logits)]
    F2, F1 = module.before, module.after
    shares = []
    for head, row in enumerate(F2.weight):
        mixed = sum(w * one for w, one in zip(row, logits, strict=True))
        mixed = mixed + (0 if F2.bias is None else F2.bias[head])
        mixed = mixed + (mask[:, 0] if torch.is_tensor(mask) else 0)
        shares.append(mixed.softmax(-1))
    out = []
    for head, row in enumerate(F1.weight):
        mixed = sum(w * one for w, one in zip(row, shares, strict=True))
        out.append((mixed + (0 if F1.bias is None else F1.bias[head])) @ v[:, head])
    return torch.stack(out, 1)


@pytest.mark.parametrize("bias", [False, True])
def test_new_maps_are_the_identity(bias):
    """To the bit."""
    a = drawn(2, 3, 4, 5)
    assert torch.equal(HeadMix(3, bias=bias)(a), a)


def test_permutations_permute_heads():
    """Row k has its one in column order[k]."""
    mix, order = HeadMix(3, bias=False), [2, 0, 1]
    with torch.no_grad():
        mix.weight.copy_(torch.eye(3)[order])
    a = drawn(2, 3, 4, 5)
    assert torch.equal(mix(a), a[:, order])


def test_maps_are_einsum_and_a_convolution_of_side_one():
    """Three ways to write one linear map."""
    mix, a = HeadMix(3, bias=True), drawn(2, 3, 4, 5)
    with torch.no_grad():
        mix.weight.copy_(drawn(3, 3, seed=1))
        mix.bias.copy_(drawn(3, seed=2))
    found = mix(a)
    wanted = torch.einsum("kn,bnst->bkst", mix.weight, a) + mix.bias[:, None, None]
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found, F.conv2d(a, mix.weight[:, :, None, None], mix.bias))


def test_the_published_start_is_drawn_from_the_generator():
    """Standard deviation 0.02; 64^2 draws know it to 0.02 / sqrt(2 * 4096) = 0.0002."""
    one, other = HeadMix(64, bias=True), HeadMix(64, bias=True)
    one.initialize(torch.Generator().manual_seed(3))
    other.initialize(torch.Generator().manual_seed(3))
    assert torch.equal(one.weight, other.weight)
    assert abs(one.weight.std().item() - 0.02) < 0.001
    assert not one.bias.any()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_is_that_of_the_formulas(bias, scale):
    """With a term before the mix, and a mask after it that hides keys from all heads."""
    module, (q, k, v) = attention(bias=bias, scale=scale), qkv()
    term = drawn(1, 3, 5, 7, seed=9)
    mask = torch.zeros(2, 1, 5, 7).masked_fill(drawn(2, 1, 5, 7, seed=8) > 1, -torch.inf)
    found = module(q, k, v, term_BMNT=term, mask=mask)
    torch.testing.assert_close(found, slow(module, q, k, v, term, mask))


def torch_way(module, q, k, v, term=None, mask=None):
    """With gradients wanted, which the compiled loops do not know."""
    return module(q, k, v, term_BMNT=term, mask=mask).detach()


@pytest.mark.parametrize("num_heads", range(1, 13))
def test_compiled_loops_give_what_torch_does(num_heads):
    """Lanes partly and wholly filled, a term for each image or for all, masks that leave a key."""
    for queries, keys in ((1, 1), (5, 31), (2, 32), (3, 33), (4, 64), (3, 97)):
        module, (q, k, v) = attention(num_heads), qkv(num_heads, queries, keys)
        mask = torch.zeros(2, num_heads, queries, keys)
        mask.masked_fill_(drawn(*mask.shape, seed=8) > 0, -torch.inf)[..., -1] = 0.5
        for term, one in (
            (drawn(2, num_heads, queries, keys, seed=9), None),
            (drawn(num_heads, 1, keys, seed=9), mask),
            (drawn(1, 1, queries, 1, seed=9), mask[:1, :1]),
            (None, mask[0, 0]),
        ):
            wanted = torch_way(module, q, k, v, term, one)
            with torch.no_grad():
                found = module(q, k, v, term_BMNT=term, mask=one)
            gap = (found - wanted).abs().max() / wanted.abs().max()
            assert gap < 3e-6, (queries, keys, gap)


def test_compiled_shares_are_within_two_millionths_of_the_largest():
    """Identity values show shares themselves; logits reach 300, in float64 beside them."""
    module = attention(3)
    q, k = 30 * drawn(2, 3, 20, 8), drawn(2, 3, 50, 8, seed=1)
    v = torch.eye(50).expand(2, 3, 50, 50)
    with torch.no_grad():
        found = module(q, k, v).double()
        wanted = slow(module.double(), q.double(), k.double(), v.double())
    # Logits of 300 in float32 are known to 300 * 6e-8 = 2e-5, which is a relative error of shares.
    assert ((found - wanted).abs() / wanted.abs().amax(-1, keepdim=True)).max() < 4e-5
    small = attention(3)
    with torch.no_grad():
        found = small(q / 30, k, v).double()
        wanted = slow(small.double(), q.double() / 30, k.double(), v.double())
    assert ((found - wanted).abs() / wanted.abs().amax(-1, keepdim=True)).max() < 2e-6


def test_masks_repeat_along_images_on_all_paths():
    """Six windows with two masks: the second one hides keys of every second window."""
    module, (q, k, v) = attention(), [drawn(6, 3, 5, 4, seed=i) for i in range(3)]
    mask = torch.stack([torch.zeros(1, 5, 5), drawn(1, 5, 5)])
    wanted = torch_way(module, q, k, v, None, mask.repeat(3, 1, 1, 1))
    assert torch.equal(torch_way(module, q, k, v, None, mask), wanted)
    with torch.no_grad():
        torch.testing.assert_close(module(q, k, v, mask=mask), wanted)
        with pytest.raises(ValueError, match=r"mask: expected a shape that fits \(6, 3, 5, 5\)"):
            module(q, k, v, mask=drawn(4, 1, 5, 5))
    plain = HeadAttention(3, mixes=False, bias=False)
    assert torch.equal(plain(q, k, v, mask=mask), plain(q, k, v, mask=mask.repeat(3, 1, 1, 1)))


def test_an_image_that_is_not_a_number_leaves_the_others_alone(monkeypatch):
    """One image a turn, so that the next one finds its numbers in the buffer."""
    monkeypatch.setattr("weightwise.multiplex.mixing_inference.TURN", 1)
    module, (q, k, v) = attention(), qkv()
    with torch.no_grad():
        wanted = module(q, k, v)
        q[0] = torch.nan
        found = module(q, k, v)
    assert found[0].isnan().all()
    assert torch.equal(found[1], wanted[1])


def test_queries_that_see_no_key_are_not_numbers():
    """As torch has it; the others are as they were."""
    module, (q, k, v) = attention(), qkv()
    mask = torch.zeros(5, 7)
    mask[2] = -torch.inf
    with torch.no_grad():
        found, wanted = module(q, k, v, mask=mask), module(q, k, v)
    assert found[:, :, 2].isnan().all()
    assert torch.equal(found[:, :, [0, 1, 3, 4]], wanted[:, :, [0, 1, 3, 4]])


@pytest.mark.slow
def test_threads_change_nothing():
    """Two images of 256 tokens and three heads are enough to be shared."""
    module, (q, k, v) = attention(), qkv(queries=256, keys=256)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.no_grad():
                found.append(module(q, k, v))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, rtol=0, atol=1e-7)


def test_attention_without_maps_is_the_fused_one():
    """Term and mask are added."""
    module, (q, k, v) = HeadAttention(3, mixes=False, bias=False), qkv()
    term, mask = drawn(1, 3, 5, 7), drawn(2, 1, 5, 7, seed=1)
    assert not list(module.parameters())
    assert torch.equal(module(q, k, v), F.scaled_dot_product_attention(q, k, v))
    found = module(q, k, v, term_BMNT=term, mask=mask)
    assert torch.equal(found, F.scaled_dot_product_attention(q, k, v, attn_mask=term + mask))
    only_term = module(q, k, v, term_BMNT=term)
    assert torch.equal(only_term, F.scaled_dot_product_attention(q, k, v, attn_mask=term))


def test_diagonal_maps_take_the_fused_kernel_in_inference_and_give_the_same():
    """Biases too: that before the softmax has no effect, that after it adds to each value."""
    module, (q, k, v) = attention(), qkv()
    with torch.no_grad():
        for mix in (module.before, module.after):
            mix.weight.copy_(torch.diag(torch.tensor([1.0, 0.5, -2.0])))
    term, mask = drawn(1, 3, 5, 7), drawn(2, 1, 5, 7, seed=1)
    assert not module.is_fused()  # gradients are wanted
    slowly = module(q, k, v, term_BMNT=term, mask=mask)
    with torch.no_grad():
        assert module.is_fused()
        torch.testing.assert_close(module(q, k, v, term_BMNT=term, mask=mask), slowly)
        torch.testing.assert_close(module(q, k, v), slow(module, q, k, v))


def test_a_changed_map_is_looked_at_again():
    """The answer of a moment ago is not kept beyond a change."""
    module = HeadAttention(2, mixes=True, bias=False)
    with torch.no_grad():
        assert module.is_fused()
        module.after.weight[0, 1] = 0.1
        assert not module.is_fused()
        module.load_state_dict(HeadAttention(2, mixes=True, bias=False).state_dict())
        assert module.is_fused()


@pytest.mark.slow
def test_compiled_attention_is_the_same():
    """Forward and backward."""
    module, (q, k, v) = attention(), qkv()
    q.requires_grad_()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    found, wanted = compiled(q, k, v), module(q, k, v)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(one.square().sum(), q)[0] for one in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_dropout_falls_on_what_the_values_are_weighed_with():
    """With one key of value one, outputs are 0 or 1 / (1 - rate)."""
    module = HeadAttention(2, mixes=True, bias=False)
    q, k = drawn(1, 2, 50, 4), drawn(1, 2, 1, 4)
    torch.manual_seed(0)
    out = module(q, k, torch.ones(1, 2, 1, 1), dropout=0.5)
    assert sorted(out.unique().tolist()) == [0.0, 2.0]


def test_masks_part_in_terms_and_unseen_keys():
    """The sum of the parts is what came in."""
    mask = torch.tensor([[0.5, -100.0, -torch.inf, -49.0]])
    term, unseen = split_mask(mask, -50.0)
    assert torch.equal(term, torch.tensor([[0.5, 0.0, 0.0, -49.0]]))
    assert torch.equal(term + unseen, mask)


def test_new_convolutions_keep_what_comes_in():
    """To the bit, before and after initialize."""
    mix, x = LocalMix(4, 3, residual="kept", eps=1e-6), drawn(2, 5, 6, 4)
    assert torch.equal(mix(x), x)
    mix.initialize(torch.Generator())
    assert torch.equal(mix(x), x)


@pytest.mark.parametrize("residual", ["kept", "published"])
def test_convolutions_are_those_of_the_formula(residual):
    """Neighbours by hand, at a corner: the window of side 3 reaches four cells."""
    mix, x = LocalMix(2, 3, residual=residual, eps=1e-6), drawn(1, 4, 4, 2)
    with torch.no_grad():
        mix.conv.weight.copy_(drawn(2, 1, 3, 3, seed=1))
        mix.conv.bias.copy_(drawn(2, seed=2))
    u = F.layer_norm(x, (2,), eps=1e-6)
    around = sum(mix.conv.weight[:, 0, 1 + i, 1 + j] * u[0, i, j] for i in (0, 1) for j in (0, 1))
    start = x if residual == "kept" else u
    torch.testing.assert_close(mix(x)[0, 0, 0], start[0, 0, 0] + around + mix.conv.bias)


def test_published_convolutions_start_as_torch_does():
    """Uniform within 1 / sqrt(7 * 7) = 1 / 7."""
    mix = LocalMix(64, 7, residual="published", eps=1e-5)
    mix.initialize(torch.Generator().manual_seed(0))
    assert 0.99 / 7 < mix.conv.weight.abs().max().item() <= 1 / 7
    assert mix.conv.weight.std().item() == pytest.approx(1 / 7 / 3**0.5, rel=0.05)


def test_settings_out_of_range_are_named():
    """One message for each."""
    with pytest.raises(ValueError, match="num_heads: expected at least 1, got 0"):
        HeadMix(0, bias=False)
    with pytest.raises(ValueError, match="kernel: expected an odd number of at least 1, got 4"):
        LocalMix(4, 4, residual="kept", eps=1e-6)
    with pytest.raises(ValueError, match="residual: expected kept or published, got 'new'"):
        LocalMix(4, 3, residual="new", eps=1e-6)
    with pytest.raises(ValueError, match="floor: expected a finite number below 0, got 0"):
        split_mask(torch.zeros(1), 0.0)


def test_fused_optimizers_change_what_evaluation_computes():
    """They leave versions of weights alone; a map that they made dense mixes in evaluation."""
    attend = HeadAttention(2, mixes=True, bias=False)
    q, k, v = torch.randn(3, 1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attend.eval()(q, k, v)  # the maps are known to be diagonal
    optimizer = torch.optim.AdamW(attend.parameters(), lr=0.5, fused=True)
    attend.train()(q, k, v).square().sum().backward()
    optimizer.step()
    wanted = attend(q, k, v)
    with torch.no_grad():
        torch.testing.assert_close(attend.eval()(q, k, v), wanted.detach())
