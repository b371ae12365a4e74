"""Mixed attention in the place of torch's fused one: masks, groups of heads, scales."""

import pytest
import torch
import torch.nn.functional as F

from weightwise.multiplex.transforms import MixedAttention, side_of


def drawn(*shape, seed=0):
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def qkv(heads=4):
    """Queries of four heads, keys and values of as many or fewer."""
    return drawn(2, 4, 5, 3), drawn(2, heads, 5, 3, seed=1), drawn(2, heads, 5, 3, seed=2)


SEEN = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(3)) > 0.3
SEEN |= torch.eye(5, dtype=torch.bool)
BIAS = drawn(1, 4, 5, 5, seed=4)
CALLS = {
    "plain": {},
    "causal": {"is_causal": True},
    "seen": {"attn_mask": SEEN},
    "seen of two axes": {"attn_mask": SEEN[0, 0]},
    "unseen": {"attn_mask": torch.zeros(2, 1, 5, 5).masked_fill(~SEEN, -torch.inf)},
    "bias": {"attn_mask": BIAS},
    "bias and unseen": {"attn_mask": (BIAS - 100.0 * ~SEEN)},
    "scale": {"scale": 0.3},
}


@pytest.mark.parametrize("name", list(CALLS))
def test_neutral_maps_are_the_fused_attention(name):
    """On the way with gradients, which mixes, and on that without, which does not."""
    module, (q, k, v) = MixedAttention(4, bias=True), qkv()
    wanted = F.scaled_dot_product_attention(q, k, v, **CALLS[name])
    torch.testing.assert_close(module.instead(q, k, v, **CALLS[name]), wanted)
    with torch.no_grad():
        torch.testing.assert_close(module.instead(q, k, v, **CALLS[name]), wanted)


def test_key_heads_of_a_group_are_repeated():
    """Two of them for four heads of queries."""
    module, (q, k, v) = MixedAttention(4, bias=False), qkv(heads=2)
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    found = module.instead(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["causal", "seen", "unseen", "bias and unseen"])
def test_keys_that_are_not_to_be_seen_stay_so(name):
    """Values are unit vectors, so outputs are shares; maps with negative entries mix the logits."""
    module, (q, k, _) = MixedAttention(4, bias=True), qkv()
    with torch.no_grad():
        module.before.weight.copy_(drawn(4, 4, seed=5))
    is_seen = torch.ones(5, 5, dtype=torch.bool).tril() if name == "causal" else SEEN
    shares = module.instead(q, k, torch.eye(5).expand(2, 4, 5, 5), **CALLS[name])
    assert shares.masked_select(~is_seen).abs().max() < 1e-20
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 4, 5))


def test_heads_that_are_not_there_are_named():
    """A cached step that asks with groups of heads as tokens cannot be mixed."""
    module, (q, k, v) = MixedAttention(8, bias=False), qkv()
    with pytest.raises(ValueError, match=r"batch, 8 heads, tokens, channels.*got \(2, 4, 5, 3\)"):
        module.instead(q, k, v)


def test_only_squares_are_maps():
    """Sixteen tokens are four by four."""
    assert side_of(16) == 4
    for number in (15, 0, -1):
        with pytest.raises(ValueError, match=f"expected those of a square map, got {number}"):
            side_of(number)
