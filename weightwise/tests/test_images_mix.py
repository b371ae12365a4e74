"""Mixup and CutMix in pairs: shares, rectangles, targets, missing partners."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.images import Mix, draw_mix, mix_pairs

SEEDS = st.integers(0, 2**31 - 1)
CUTMIX, MIXUP = Mix(mixup=0), Mix(cutmix=0)


def images(count, size=16):
    """Image i is full of the number i."""
    return torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).repeat(1, 3, size, size)


@given(seed=SEEDS, other=SEEDS)
def test_the_order_of_a_pair_does_not_matter(seed, other):
    """The exclusive or of the seeds is symmetric, and decides alone."""
    assert draw_mix(Mix(), seed, other) == draw_mix(Mix(), other, seed)
    assert draw_mix(Mix(), seed, other) == draw_mix(Mix(), seed ^ other, 0)


@given(seeds=st.lists(SEEDS, min_size=6, max_size=6), size=st.integers(2, 40))
def test_the_share_is_that_of_the_pixels(seeds, size):
    """In every pair each image has lam of itself, by mixup and by CutMix."""
    for config in (CUTMIX, MIXUP, Mix()):
        x_BCSS = images(6, size)
        mixing = mix_pairs([x_BCSS], seeds, range(6), config)
        assert mixing.partner.tolist() == [1, 0, 3, 2, 5, 4]
        lam_B = mixing.lam
        expected = lam_B * torch.arange(6) + (1 - lam_B) * mixing.partner
        assert torch.allclose(x_BCSS.mean((1, 2, 3)), expected, atol=1e-4)
        assert torch.equal(lam_B[::2], lam_B[1::2])


def test_cutmix_pastes_a_rectangle_of_the_partner():
    """Pixels are of one or the other, and both images change them at the same places."""
    for seed in range(20):
        x_BCSS = images(2)
        mixing = mix_pairs([x_BCSS], [seed, 0], [0, 1], CUTMIX)
        changed_SS = x_BCSS[0, 0] == 1
        assert torch.equal(changed_SS, x_BCSS[1, 0] == 0)
        rows, columns = changed_SS.any(1), changed_SS.any(0)
        assert changed_SS.sum() == rows.sum() * columns.sum()
        assert mixing.lam[0] == 1 - changed_SS.sum() / 256


def test_draws_have_the_distributions_of_the_settings():
    """Beta(0.8, 0.8) has mean 1/2 and variance 1/4 / 2.6; beta(1, 1) has 1/12; half of each."""
    drawn = [draw_mix(Mix(), seed, 0) for seed in range(2000)]
    cut = [one.lam for one in drawn if one.centre is not None]
    mixed = [one.lam for one in drawn if one.centre is None]
    assert len(cut) == pytest.approx(1000, abs=112)  # five deviations of sqrt(500)
    for found, variance in ((cut, 1 / 12), (mixed, 1 / 10.4)):
        assert np.mean(found) == pytest.approx(0.5, abs=5 * np.sqrt(variance / len(found)))
        assert np.var(found) == pytest.approx(variance, rel=0.15)
    assert all(draw_mix(Mix(prob=0.0), seed, 0) is None for seed in range(50))
    assert all(draw_mix(CUTMIX, seed, 0).centre for seed in range(50))
    assert not any(draw_mix(MIXUP, seed, 0).centre for seed in range(50))


def test_samples_without_a_partner_stay_as_they_are():
    """Of places 0 to 6, 1 and 4 are missing, and 6 is the last of an odd number: only 2, 3 mix."""
    x_BCSS = images(5)
    mixing = mix_pairs([x_BCSS], [11, 12, 13, 14, 15], [0, 2, 3, 5, 6], MIXUP)
    assert mixing.partner.tolist() == [0, 2, 1, 3, 4]
    assert (mixing.lam == 1).tolist() == [True, False, False, True, True]
    whole = images(5)
    assert torch.equal(x_BCSS[[0, 3, 4]], whole[[0, 3, 4]])


def test_all_views_are_mixed_alike():
    """Mixup's share is the same at any size; CutMix's rectangle lies at the same place."""
    small, large = images(2, 20), images(2, 200)
    mixing = mix_pairs([small, large], [5, 6], [0, 1], CUTMIX)
    shares = [float((x[0] == 0).float().mean()) for x in (small, large)]
    assert shares[0] == pytest.approx(float(mixing.lam[0]))
    assert shares[0] == pytest.approx(shares[1], abs=0.1)
    assert 0 < shares[1] < 1


def test_dense_and_sparse_targets_are_mixed_alike():
    """A class that both have adds up."""
    generator = torch.Generator().manual_seed(0)
    target_BC = torch.rand(4, 7, generator=generator).softmax(-1)
    value_BK, index_BK = target_BC.topk(7)
    mixing = mix_pairs([images(4)], [1, 2, 3, 4], range(4), Mix())
    index_B2K, value_B2K = mixing.sparse(index_BK, value_BK)
    rebuilt_BC = torch.zeros(4, 7).scatter_add(1, index_B2K, value_B2K)
    assert torch.allclose(rebuilt_BC, mixing.dense(target_BC), atol=1e-6)
    lam = float(mixing.lam[2])
    assert torch.allclose(mixing.dense(target_BC)[2], lam * target_BC[2] + (1 - lam) * target_BC[3])
    assert torch.allclose(mixing.dense(target_BC).sum(1), torch.ones(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": -1}, "mixup: expected 0 to 1000, got -1"),
        ({"switch_prob": 2}, "switch_prob: expected 0 to 1, got 2"),
        ({"mixup": 0, "cutmix": 0}, "mixup: expected mixup or cutmix above 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    """The message names the field."""
    with pytest.raises(ValueError, match=message):
        Mix(**settings)
