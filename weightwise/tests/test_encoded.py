"""Tensors stored as packed codes and scales."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from weightwise.numerics import ScaledFormat, encode, fake_quantize, parse
from weightwise.numerics.encoded import pack, unpack

NAMES = [
    *("e4m3@32", "e2m1@channel", "e3m2@5", "e5m10@tensor", "e8m7@3", "e7m21@4", "e0m3@2"),
    *("mxfp8", "mxfp8_e5m2-rceil", "mxfp6_e3m2-even", "mxfp6_e2m3-ceil", "mxfp4", "nvfp4"),
    *("nvfp4-subnormal", "e2m1@7/bfloat16", "e4m3@tensor/e8m0"),
]
FLOATS = st.floats(-1e6, 1e6, width=32)
TENSORS = arrays(np.float32, array_shapes(max_dims=3, max_side=40), elements=FLOATS).map(
    torch.from_numpy
)


@pytest.mark.slow
@settings(deadline=None)
@given(TENSORS, st.sampled_from(NAMES), st.sampled_from(["even", "away", "stochastic"]), st.data())
def test_decoding_gives_what_fake_quantize_gives(
    x: Tensor, name: str, rounding: str, data: st.DataObject
) -> None:
    """Every bit of the round trip is that of the fake-quantized tensor, the sign of zero too."""
    axis = data.draw(st.integers(-x.dim(), x.dim() - 1))
    stored = encode(x, name, axis=axis, rounding=rounding, seed=5)  # type: ignore[arg-type]
    expected = fake_quantize(x, name, axis=axis, rounding=rounding, seed=5)  # type: ignore[arg-type]
    assert torch.equal(stored.decode().view(torch.int32), expected.view(torch.int32))


@pytest.mark.slow
@settings(deadline=None)
@given(TENSORS, st.sampled_from([*NAMES, "mxint8", "int4@channel"]), st.data())
def test_stored_bytes_are_counted_right(x: Tensor, name: str, data: st.DataObject) -> None:
    """The format's own count of bits is what codes and scales take, but for the last byte."""
    axis = data.draw(st.integers(-x.dim(), x.dim() - 1))
    stored, fmt = encode(x, name, axis=axis), ScaledFormat.parse(name)
    assert stored.num_bytes == -(-fmt.storage_bits(x.shape, axis) // 8)
    assert stored.scales.numel() == fmt.num_scales(x.shape, axis)


@settings(deadline=None)
@given(st.integers(1, 32), st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_packing_is_a_stream_of_bits(bits: int, numbers: list[int]) -> None:
    """Packed codes are the bits of one large integer, lowest first, and come back."""
    numbers = [number % 2**bits for number in numbers]
    codes = torch.tensor(numbers, dtype=torch.int64)
    packed = pack(codes, bits)
    whole = sum(number << bits * i for i, number in enumerate(numbers))
    assert bytes(packed.tolist()) == whole.to_bytes(-(-bits * len(numbers) // 8), "little")
    assert torch.equal(unpack(packed, bits, len(numbers)), codes)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3", "float8_e3m4"])
def test_codes_are_those_of_the_dtype(name: str) -> None:
    """All 256 codes mean what ml_dtypes says, NaN and infinities too, and encode back."""
    fmt, codes = parse(name), np.arange(256, dtype=np.uint8)
    values = codes.view(getattr(ml_dtypes, name)).astype(np.float64)
    ours = fmt.decode(torch.from_numpy(codes))
    np.testing.assert_array_equal(ours.numpy(), values)
    finite = np.isfinite(values)
    assert torch.equal(fmt.encode(ours[finite]), torch.from_numpy(codes[finite]).long())


def test_integers_are_in_twos_complement() -> None:
    """INT8 codes are those of int8 over 64; -128 is read, and never written."""
    fmt = parse("int8")
    codes = torch.arange(256)
    assert torch.equal(fmt.decode(codes) * 64, codes.to(torch.int8).double())
    x = torch.tensor([-2.0, -1.984375, -0.0, 0.5, 1.984375])
    stored = encode(x, "mxint8")
    # The largest magnitude is 2: the scale is 2^1, and -2 is -64 / 64 times that.
    assert stored.scales.tolist() == [128]
    assert stored.codes.view(torch.int8).tolist() == [-64, -64, 0, 16, 64]


def test_groups_that_are_not_finite_come_back_as_nan() -> None:
    """Each kind of scale has a code for what is not a number; other blocks do not suffer."""
    x = torch.ones(2, 32)
    x[0, 5] = torch.inf
    for name in ("mxfp4", "e4m3@32", "e2m1@32/bfloat16"):
        got = encode(x, name).decode()
        assert got[0].isnan().all()
        assert torch.equal(got[1], torch.ones(32))
    assert (
        encode(x[:1], "nvfp4").scales.tolist() == [[0x7F, 0x40]]
        or encode(x, "nvfp4").decode().isnan().all()
    )
    assert encode(x, "mxfp4").scales.tolist() == [[255], [125]]


def test_sixteen_bits_and_empty_tensors() -> None:
    """The dtype of the tensor comes back, or the one asked for; no elements are no special case."""
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    stored = encode(x, "nvfp4")
    assert stored.decode().dtype == torch.bfloat16
    assert torch.equal(stored.decode(), fake_quantize(x, "nvfp4"))
    assert stored.decode(torch.float32).dtype == torch.float32
    assert encode(torch.empty(0, 4), "mxfp4").decode().shape == (0, 4)


def test_wrong_arguments_are_refused() -> None:
    """Messages name the field, as in fake_quantize."""
    with pytest.raises(ValueError, match="axis in -1 to 0, got 1"):
        encode(torch.ones(3), "mxfp4", axis=1)
    with pytest.raises(ValueError, match="dtype float32"):
        encode(torch.ones(3).double(), "mxfp4")
    with pytest.raises(ValueError, match=r"Unknown number format 'mxfp5'.* mxfp4"):
        encode(torch.ones(3), "mxfp5")
    for name in ("mxfp4-up", "e4m3@32-ceil", "e4m3@0", "e4m3@rows", "e8m7@32/e8m0", "nvfp4-ceil"):
        with pytest.raises(ValueError, match=r"format|scale"):
            ScaledFormat.parse(name)


@pytest.mark.parametrize("name", [*NAMES, "mxint8-even", "e2m1@32/e8m0-rceil", "e2m1@8/e4m3"])
def test_names_round_trip(name: str) -> None:
    """A format is found again under the name that it gives itself."""
    fmt = ScaledFormat.parse(name)
    assert ScaledFormat.parse(fmt.name) == fmt
