"""The rotation of latents: orthogonal, its own inverse, row by row, free for who reads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm.latent import rotation
from weightwise.lm.latent.codes import fake_quantize
from weightwise.lm.latent.config import CodeConfig
from weightwise.lm.latent.rotation import rotate_features

WIDTHS = st.sampled_from([1, 2, 3, 4, 5, 7, 12, 36, 96, 128, 320, 512, 576])


def sylvester(width: int) -> torch.Tensor:
    """Hadamard's matrix by doubling, as Sylvester built it."""
    matrix = torch.ones(1, 1)
    while len(matrix) < width:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix


@given(width=WIDTHS)
def test_the_matrix_is_orthogonal_and_symmetric(width):
    """R R = 1 and R = R^T, for widths of any factors."""
    matrix = rotate_features(torch.eye(width))
    assert torch.equal(matrix, matrix.T)
    assert torch.allclose(matrix @ matrix, torch.eye(width), atol=2e-6)


@pytest.mark.parametrize("width", [1, 2, 8, 256])
def test_powers_of_two_have_hadamards_matrix(width):
    """Ones of both signs, divided by the root of the width."""
    matrix = rotate_features(torch.eye(width))
    assert torch.allclose(matrix, sylvester(width) / width**0.5, rtol=1e-6)


@pytest.mark.parametrize("width", [6, 12, 320])
def test_every_feature_goes_everywhere(width):
    """No entry of the matrix is large, and the weights of a feature are not on a few others."""
    matrix = rotate_features(torch.eye(width))
    assert matrix.abs().max() < 2 * width**-0.5
    assert (matrix.square().sum(0) - 1).abs().max() < 1e-5


@given(width=WIDTHS, seed=st.integers(0, 2**31))
def test_a_row_alone_has_its_bits_in_a_batch(width, seed):
    """Compiled code and plain operations compute every row in one order."""
    x = torch.randn(4, 3, width, generator=torch.Generator().manual_seed(seed))
    whole = rotate_features(x)
    assert torch.equal(rotate_features(x[2:3, 1:2]), whole[2:3, 1:2])
    assert torch.equal(rotate_features(x.transpose(0, 1)), whole.transpose(0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotation, "fits", lambda _: False)
        assert torch.equal(rotate_features(x), whole)


def test_the_gradient_is_the_rotated_gradient():
    """Half of |R x|^2 has the gradient R R x = x, and that gradient the derivative 1."""
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    half_square = rotate_features(x).square().sum() / 2
    (grad,) = torch.autograd.grad(half_square, x, create_graph=True)
    assert torch.allclose(grad, x, atol=1e-5)
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert torch.allclose(second, torch.ones(2, 12), atol=1e-5)


def test_a_reader_of_plain_rows_reads_rotated_ones():
    """(W R)(R x) = W x: folding the rotation into an up-projection changes nothing."""
    make = torch.Generator().manual_seed(0)
    x, up = torch.randn(9, 96, generator=make), torch.randn(40, 96, generator=make)
    read = rotate_features(x) @ rotate_features(up).T
    assert torch.allclose(read, x @ up.T, atol=1e-4)


def test_features_of_very_different_sizes_are_kept_better():
    """Four large features among small ones: the rotation saves most of what 4 bits lose."""
    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    x[:, ::32] *= 30
    config = CodeConfig()
    plain = (fake_quantize(x, config) - x).square().sum()
    rotated = (rotate_features(fake_quantize(rotate_features(x), config)) - x).square().sum()
    assert rotated < 0.7 * plain


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_stay_what_they_are(dtype):
    """Rows of other types are computed in float32 and rounded back."""
    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(rotate_features(x), rotate_features(x.float()).to(dtype))
