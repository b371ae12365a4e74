"""Scaled tensors: codes as torch and ml_dtypes have them, scales, and what operations do."""

import io

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.numerics import ScaledTensor
from weightwise.numerics.scaled_tensor import amax_of
from weightwise.numerics.stored import (
    LARGEST,
    dequantize,
    exact_scale,
    power_of_two_scale,
    quantize,
)

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
ONE = torch.ones(())
PAYLOADS = (E4M3, E5M2, torch.float16, torch.bfloat16)
ORACLES = {E4M3: ml_dtypes.float8_e4m3fn, E5M2: ml_dtypes.float8_e5m2}


def long(values, count=4096):
    """As a tensor that the compiled loops take, values repeated."""
    values = torch.as_tensor(values)
    return values.repeat(-(-count // values.numel()))[:count].contiguous()


@pytest.mark.parametrize("dtype", [E4M3, E5M2])
def test_all_codes_mean_what_torch_and_ml_dtypes_say(dtype):
    """256 codes, NaN and infinities among them, one by one and through the compiled loop."""
    codes = torch.arange(256, dtype=torch.uint8)
    wanted = torch.from_numpy(codes.numpy().view(ORACLES[dtype]).astype(np.float32))
    assert torch.equal(wanted.nan_to_num(9e9), codes.view(dtype).float().nan_to_num(9e9))
    found = dequantize(long(codes).view(dtype), ONE)
    assert torch.equal(found[:256].nan_to_num(9e9), wanted.nan_to_num(9e9))


@pytest.mark.parametrize("dtype", PAYLOADS)
def test_values_round_as_torch_rounds_them(dtype):
    """Random values over the whole range, ties, subnormal numbers, and those beyond the largest."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=generator, dtype=torch.int64)
    values = bits.to(torch.int32).view(torch.float32)
    levels = torch.arange(256, dtype=torch.uint8).view(E4M3).float().nan_to_num(0.0)
    ties = (levels.unique()[1:] + levels.unique()[:-1]) / 2
    near = torch.cat([ties, torch.nextafter(ties, ties + 1), torch.nextafter(ties, ties - 1)])
    values = torch.cat([values[values.isfinite()], near, near * 2.0**-7, torch.zeros(2)])
    limit = LARGEST.get(dtype)
    clamped = values if limit is None else values.clamp(-limit, limit)
    wanted = clamped.to(dtype)
    found = quantize(values, dtype, ONE)
    assert torch.equal(found.view(torch.uint8), wanted.view(torch.uint8))


def test_halves_of_the_smallest_value_go_to_even():
    """2^-10 lies between 0 and 2^-9 of E4M3; a little more goes up."""
    found = quantize(long([2.0**-10, 1.01 * 2.0**-10, 3 * 2.0**-10]), E4M3, ONE)
    assert found[:3].float().tolist() == [0.0, 2.0**-9, 2.0**-8]


def test_scales_are_the_published_ones():
    """The worked values of E4M3; zero and what is not finite keep the scale before."""
    amax = torch.tensor([1e-3, 1.0, 448.0, 448.1, 1000.0, 0.0, torch.inf, torch.nan])
    found = power_of_two_scale(amax, 448.0, 7.0)
    assert found.tolist() == [262144.0, 256.0, 1.0, 0.5, 0.25, 7.0, 7.0, 7.0]
    assert power_of_two_scale(torch.tensor(1.0), 448.0, margin=2).item() == 64.0
    assert exact_scale(torch.tensor(2.0), 448.0).item() == 224.0


@given(st.floats(2.0**-100, 2.0**100, width=32), st.sampled_from(list(LARGEST.values())))
def test_a_scale_brings_the_largest_into_the_upper_binade(amax, limit):
    """Amax * scale lies in (limit / 2, limit]."""
    scaled = amax * power_of_two_scale(torch.tensor(amax), limit).item()
    assert limit / 2 < scaled <= limit


@pytest.mark.parametrize("amax", [1e-45, 1e-38, 1e-30, 3e38])
def test_scales_stay_finite_at_the_ends(amax):
    """Tiny and huge magnitudes give scales within 2^-126 and 2^126."""
    scale = power_of_two_scale(torch.tensor(amax), 448.0)
    assert 2.0**-126 <= scale.item() <= 2.0**126


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40), st.sampled_from(PAYLOADS))
def test_errors_stay_within_half_a_step(values, dtype):
    """Of the largest value in the binade: 2^-4 of E4M3, 2^-3 of E5M2, 2^-11 and 2^-8."""
    x = torch.tensor(values)
    steps = {E4M3: 2.0**-4, E5M2: 2.0**-3, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
    made = ScaledTensor.of(x, dtype)
    tiny = {E4M3: 2.0**-10, E5M2: 2.0**-17}.get(dtype, 2.0**-25) / made.scale
    bound = x.abs() * steps[dtype] + tiny
    assert ((made.decode() - x).abs() <= bound).all()
    assert made.amax == amax_of(x)


def test_amax_sees_what_is_not_finite():
    """NaN and infinities answer with infinity, in short and long tensors; the payload has none."""
    for bad in (torch.nan, torch.inf, -torch.inf):
        for count in (5, 5000):
            x = torch.ones(count)
            x[3] = bad
            made = ScaledTensor.of(x, E4M3)
            assert made.amax == torch.inf
            assert made.has_inf_or_nan()
            assert made.decode().isfinite().all()
    assert amax_of(torch.empty(0)) == 0


def test_numbers_change_only_the_scale():
    """Times and divided by numbers, in place: the payload stays, the values follow."""
    x = torch.randn(50, 60)
    made = ScaledTensor.of(x, E4M3)
    before, values = made.payload.clone().view(torch.uint8), made.decode()
    made.mul_(3.0).div_(torch.tensor(4.0))
    assert torch.equal(made.payload.view(torch.uint8), before)
    torch.testing.assert_close(made.decode(), values * 0.75)
    torch.testing.assert_close(made.amax, amax_of(x) * 0.75)
    assert torch.equal(made.mul_(0.0).decode(), torch.zeros(50, 60))


def test_views_share_and_copies_do_not():
    """A row written through a view is the tensor's; a clone keeps its own."""
    made = ScaledTensor.of(torch.randn(4, 6), torch.float16)
    copied = made.clone()
    for view in (made.t(), made[1:3], made.view(-1), made.transpose(0, 1), made[0], made[:, 2:]):
        assert isinstance(view, ScaledTensor)
        assert (
            view.payload.untyped_storage().data_ptr() == made.payload.untyped_storage().data_ptr()
        )
    torch.testing.assert_close(made.t().decode(), made.decode().t())
    made.zero_()
    assert not torch.equal(copied.decode(), made.decode())


def test_operations_give_plain_values_and_in_place_ones_store():
    """A sum is plain float32; the same in place has a scale of its own."""
    x, y = torch.randn(30, 40), torch.randn(30, 40)
    made = ScaledTensor.of(x, torch.float16)
    total = made + y
    assert type(total) is torch.Tensor
    torch.testing.assert_close(total, x + y, rtol=1e-3, atol=1e-3)
    made.add_(100 * y)
    torch.testing.assert_close(made.decode(), x + 100 * y, rtol=1e-3, atol=1e-1)
    assert made.amax == pytest.approx((x + 100 * y).abs().max().item(), rel=1e-3)
    plain = torch.zeros(30, 40)
    assert torch.equal(plain.copy_(made), made.decode())


def test_clipping_unscaling_and_loss_scales_work_on_gradients():
    """Torch's own functions for clipping and for loss scales take scaled gradients."""
    weight = torch.nn.Parameter(torch.randn(20, 20))
    gradient = torch.randn(20, 20)
    weight.grad = ScaledTensor.of(gradient, E4M3)
    stored = weight.grad.decode()
    norm = torch.nn.utils.clip_grad_norm_([weight], 1.0)
    torch.testing.assert_close(norm, stored.norm())
    torch.testing.assert_close(weight.grad.decode(), stored / (norm + 1e-6))
    found = torch.zeros(1)
    torch._amp_foreach_non_finite_check_and_unscale_([weight.grad], found, torch.tensor(0.5))
    assert found.item() == 0
    torch.testing.assert_close(weight.grad.decode(), 0.5 * stored / (norm + 1e-6))
    weight.grad.amax.fill_(torch.inf)
    torch._amp_foreach_non_finite_check_and_unscale_([weight.grad], found, torch.tensor(0.5))
    assert found.item() == 1


@pytest.mark.parametrize("dtype", PAYLOADS)
def test_files_hold_the_payload(tmp_path, dtype):
    """Saved, and loaded without running code from the file: the same bytes, and few of them."""
    made = ScaledTensor.of(torch.randn(300, 100), dtype)
    torch.save({"x": made}, tmp_path / "x.pt")
    loaded = torch.load(tmp_path / "x.pt", weights_only=True)["x"]
    assert torch.equal(loaded.payload.view(torch.uint8), made.payload.view(torch.uint8))
    assert (loaded.scale, loaded.amax, loaded.dtype) == (made.scale, made.amax, made.dtype)
    assert (tmp_path / "x.pt").stat().st_size < made.payload.nbytes + 4000


def test_modules_hold_scaled_parameters():
    """A parameter in a state dict, loaded into a module with other values, and used."""
    first, second = torch.nn.Linear(8, 6), torch.nn.Linear(8, 6)
    for layer in (first, second):
        layer.weight = torch.nn.Parameter(ScaledTensor.of(layer.weight.detach(), torch.float16))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    assert isinstance(second.weight, ScaledTensor)
    x = torch.randn(3, 8)
    assert torch.equal(first(x), second(x))
    assert first(x).sum().backward() is None
    assert first.weight.grad is not None


# torch's compiler calls deprecated parts of torch.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_the_compiler_takes_them():
    """A compiled function of a scaled tensor gives what the same function gives otherwise."""
    made = ScaledTensor.of(torch.randn(64, 64), E4M3)

    def use(x, y):
        return (x @ y).relu() + x

    y = torch.randn(64, 64)
    torch.testing.assert_close(torch.compile(use, backend="aot_eager")(made, y), use(made, y))


def test_what_cannot_be_stored_is_refused():
    """Integers, complex and sparse tensors, and other payloads; the message says what can."""
    with pytest.raises(ValueError, match=r"dtype: expected one of float8_.* got torch\.int8"):
        ScaledTensor.of(torch.ones(3), torch.int8)
    for bad in (torch.ones(3, dtype=torch.int32), torch.ones(3, dtype=torch.complex64)):
        with pytest.raises(ValueError, match="x: expected a dense float32"):
            ScaledTensor.of(bad, E4M3)
    with pytest.raises(ValueError, match="x: expected a dense float32"):
        ScaledTensor.of(torch.eye(3).to_sparse(), E4M3)


def test_a_part_shares_the_scale_of_the_whole():
    """Written, multiplied or emptied through a view, the rest keeps its values."""
    values = torch.randn(8, 100)
    for dtype in (E4M3, torch.float16):
        made = ScaledTensor.of(values, dtype)
        rest = made[1:].decode()
        made[0].copy_(1000 * values[0])
        torch.testing.assert_close(made[0].decode(), 1000 * values[0], rtol=0.07, atol=2.0)
        torch.testing.assert_close(made[1:].decode(), rest, rtol=0.07, atol=3.0)
        assert made.amax == amax_of(1000 * values[0])
        made[0].mul_(2.0)
        before = made[1:].decode()
        torch.testing.assert_close(before, rest, rtol=0.07, atol=6.0)
        made[0].zero_()
        assert not made[0].decode().any()
        assert torch.equal(made[1:].decode(), before)
    empty = ScaledTensor.of(torch.zeros(6, 50), torch.float16)
    for row, value in zip(empty, values[:6, :50], strict=True):
        row.copy_(value)
    torch.testing.assert_close(empty.decode(), values[:6, :50], rtol=1e-3, atol=1e-4)
