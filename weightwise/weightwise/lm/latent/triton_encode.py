# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
"""Codes on GPUs: one pass that measures a group, tries its grids, rounds and packs, in Triton.

A token that is decoded brings a few rows for each group of layers; the plain operations in
`weightwise.lm.latent.codes`, which holds the method, would be a hundred launches for them. The bits
are the same: divisions are rounded correctly, and no fused operation meets an inexact product.

Triton reads annotations: arguments that it knows at run time only must have none.
"""

# Shapes: N groups of a program, of all rows and one after the other, G features per scale

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm.latent.config import CodeConfig

ELEMENTS = 2048  # of a program
TO_WHOLE = tl.constexpr(12582912.0)  # added and taken away again, it leaves a whole number
LEAST_SCALE = tl.constexpr(2.0**-14)
LARGEST_HALF = tl.constexpr(65504.0)
RESOLUTION = tl.constexpr(2.0**-10)
ERROR_STEPS = tl.constexpr(65536.0)
LARGEST_ERROR = tl.constexpr(1048576.0)


def encode_into(
    x: Tensor, code: Tensor, scale: Tensor, minimum: Tensor | None, config: CodeConfig
) -> None:
    """Write codes, scales and minima of float32 rows of shape (..., W) to contiguous memory."""
    _launch(x, code, scale, scale if minimum is None else minimum, config, is_fake=False)


def fake_into(x: Tensor, out: Tensor, config: CodeConfig) -> None:
    """Write what the codes of float32 rows stand for to contiguous rows."""
    _launch(x, out, out, out, config, is_fake=True)


def _launch(
    x: Tensor, out: Tensor, scale: Tensor, minimum: Tensor, config: CodeConfig, *, is_fake: bool
) -> None:
    x = x.contiguous()
    width, group = x.shape[-1], config.group_width
    per_row = triton.cdiv(width, group)
    num_groups = x.shape[:-1].numel() * per_row
    block = ELEMENTS // group
    with torch.cuda.device_of(x):
        quantize[(triton.cdiv(num_groups, block),)](
            x, out, scale, minimum, num_groups, per_row, width,
            BITS=config.bits, GROUP=group, IS_SYMMETRIC=config.is_symmetric,
            IS_TRIED=config.scale_rule == "error", IS_FAKE=is_fake, BLOCK=block,
            enable_fp_fusion=False,
        )  # fmt: skip


@triton.jit
def quantize(
    x_ptr, out_ptr, scale_ptr, minimum_ptr, num_groups, per_row, width,
    BITS: tl.constexpr, GROUP: tl.constexpr, IS_SYMMETRIC: tl.constexpr,
    IS_TRIED: tl.constexpr, IS_FAKE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Quantise some groups, and store codes and scales or what they stand for."""
    group_N = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    feature_NG = (group_N % per_row)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    is_group_N = group_N < num_groups
    is_kept_NG = feature_NG < width
    place_NG = (group_N // per_row)[:, None] * width + feature_NG
    x_NG = tl.load(x_ptr + place_NG, mask=is_group_N[:, None] & is_kept_NG, other=0.0)
    high_N = tl.max(tl.where(is_kept_NG, x_NG, float("-inf")), axis=1)
    low_N = tl.min(tl.where(is_kept_NG, x_NG, float("inf")), axis=1)
    if IS_SYMMETRIC:
        start_N, step_N, least_N = symmetric_grid(x_NG, is_kept_NG, high_N, low_N, BITS, IS_TRIED)
        most = (1 << (BITS - 1)) - 1.0
    else:
        start_N, step_N, least_N = asymmetric_grid(x_NG, is_kept_NG, high_N, low_N, BITS, IS_TRIED)
        most = (1 << BITS) - 1.0
    has_nan_N = tl.max((x_NG != x_NG).to(tl.int32), axis=1) > 0
    step_N = tl.where(has_nan_N, float("nan"), step_N)
    code_NG = codes_of(x_NG, start_N, step_N, least_N, most)
    if IS_FAKE:
        value_NG = code_NG * step_N[:, None] + start_N[:, None]
        tl.store(out_ptr + place_NG, value_NG, mask=is_group_N[:, None] & is_kept_NG)
    else:
        tl.store(scale_ptr + group_N, step_N.to(tl.float16), mask=is_group_N)
        offset = 1 << (BITS - 1)
        if not IS_SYMMETRIC:
            offset = 0
            start_N = tl.where(has_nan_N, float("nan"), start_N)
            tl.store(minimum_ptr + group_N, start_N.to(tl.float16), mask=is_group_N)
        stored_NG = tl.where(is_kept_NG & (code_NG == code_NG), code_NG, 0.0).to(tl.int32) + offset
        pack(stored_NG, out_ptr, group_N, is_group_N, BITS, GROUP, BLOCK)


@triton.jit
def symmetric_grid(x_NG, is_kept_NG, high_N, low_N, BITS: tl.constexpr, IS_TRIED: tl.constexpr):
    """Values of code 0, scales and smallest codes of grids around 0."""
    most = (1 << (BITS - 1)) - 1.0
    top_N, other_N = tl.maximum(high_N, -low_N), tl.minimum(high_N, -low_N)
    start_N = tl.zeros_like(top_N)
    step_N = half_scale(tl.div_rn(top_N, start_N + most))
    least_N = start_N - most
    if IS_TRIED:
        unit_N = tl.div_rn(start_N + ERROR_STEPS, step_N * step_N)
        best_N = error_of(x_NG, is_kept_NG, start_N, step_N, least_N, most, unit_N)
        sign_N = tl.where(high_N > -low_N, -1.0, 1.0)
        for i in tl.static_range(4):
            excess = 0.4375 if i == 0 else (1.0 if i == 1 else (1.25 if i == 2 else 1.4375))
            end = most if i == 0 else most + 1.0  # the largest magnitude of a code
            trial_N = half_scale(tl.div_rn(top_N, start_N + (most + excess)))
            inverse_N = tl.div_rn(start_N + 1.0, trial_N)
            is_fit_N = (top_N * inverse_N > end - 0.5) & (top_N * inverse_N <= end + 0.5)
            if i > 0:
                is_fit_N = is_fit_N & (other_N * inverse_N <= most + 0.5)
                trial_N = trial_N * sign_N
            error_N = error_of(x_NG, is_kept_NG, start_N, trial_N, start_N - end, most, unit_N)
            is_better_N = is_fit_N & (error_N < best_N)
            best_N = tl.where(is_better_N, error_N, best_N)
            step_N = tl.where(is_better_N, trial_N, step_N)
            least_N = tl.where(is_better_N, -end, least_N)
    return start_N, step_N, least_N


@triton.jit
def asymmetric_grid(x_NG, is_kept_NG, high_N, low_N, BITS: tl.constexpr, IS_TRIED: tl.constexpr):
    """Values of code 0, scales and smallest codes of grids from the smallest element on."""
    most = (1 << BITS) - 1.0
    zero_N = tl.zeros_like(low_N)
    first_N = half(low_N)
    coarsest_N = tl.abs(first_N) * RESOLUTION
    range_N = high_N - first_N
    start_N = first_N
    step_N = half_scale(tl.maximum(tl.div_rn(range_N, zero_N + most), coarsest_N))
    if IS_TRIED:
        unit_N = tl.div_rn(zero_N + ERROR_STEPS, step_N * step_N)
        best_N = error_of(x_NG, is_kept_NG, start_N, step_N, zero_N, most, unit_N)
        for i in tl.static_range(7):
            excess = 0.0 if i < 2 else (0.3125 if i < 4 else (0.625 if i < 6 else 0.875))
            shift = (
                0.25 if i == 0 else -0.25 if i == 1 else 0.0 if i == 2 else 0.3125 if i == 3
                else 0.1875 if i == 4 else 0.375 if i == 5 else 0.4375
            )  # fmt: skip
            steps_N = tl.div_rn(range_N, zero_N + (most + excess))
            trial_N = half_scale(tl.maximum(steps_N, coarsest_N))
            inverse_N = tl.div_rn(zero_N + 1.0, trial_N)
            shifted_N = half(first_N + shift * trial_N)
            begin_N, end_N = (low_N - shifted_N) * inverse_N, (high_N - shifted_N) * inverse_N
            is_fit_N = (begin_N >= -0.5) & (begin_N <= 0.5) & (end_N > most - 0.5)
            is_fit_N = is_fit_N & (end_N <= most + 0.5)
            is_fit_N = is_fit_N & (trial_N >= tl.abs(shifted_N) * RESOLUTION)
            error_N = error_of(x_NG, is_kept_NG, shifted_N, trial_N, zero_N, most, unit_N)
            is_better_N = is_fit_N & (error_N < best_N)
            best_N = tl.where(is_better_N, error_N, best_N)
            step_N = tl.where(is_better_N, trial_N, step_N)
            start_N = tl.where(is_better_N, shifted_N, start_N)
    return start_N, step_N, zero_N


@triton.jit
def codes_of(x_NG, start_N, step_N, least_N, most):
    """Codes of numbers, in float32; ties to even."""
    inverse_N = tl.div_rn(tl.zeros_like(step_N) + 1.0, step_N)
    steps_NG = (x_NG - start_N[:, None]) * inverse_N[:, None]
    steps_NG = tl.maximum(tl.minimum(steps_NG, most), least_N[:, None])
    return (steps_NG + TO_WHOLE) - TO_WHOLE


@triton.jit
def error_of(x_NG, is_kept_NG, start_N, step_N, least_N, most, unit_N):
    """Sums of squared errors in whole units, rounded up; the same in any order."""
    code_NG = codes_of(x_NG, start_N, step_N, least_N, most)
    error_NG = (code_NG * step_N[:, None] + start_N[:, None]) - x_NG
    unit_NG = tl.minimum(error_NG * error_NG * unit_N[:, None], LARGEST_ERROR).to(tl.int32)
    return tl.sum(tl.where(is_kept_NG, unit_NG + (error_NG != 0.0).to(tl.int32), 0), axis=1)


@triton.jit
def half(x):
    """The nearest float16 number, or its largest one, in float32; there is one zero."""
    return (
        tl.minimum(tl.maximum(x, -LARGEST_HALF), LARGEST_HALF).to(tl.float16).to(tl.float32) + 0.0
    )


@triton.jit
def half_scale(step):
    """A scale in float16, as float32."""
    return half(tl.maximum(step, LEAST_SCALE))


@triton.jit
def pack(
    stored_NG, out_ptr, group_N, is_group_N,
    BITS: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Store the bytes of groups: as many codes at a time as fill whole bytes."""
    BYTES: tl.constexpr = 3 if BITS == 3 else 1
    CODES: tl.constexpr = 8 * BYTES // BITS
    WORDS: tl.constexpr = GROUP // CODES
    shift_C = tl.arange(0, CODES) * BITS
    stored_NWC = tl.reshape(stored_NG, (BLOCK, WORDS, CODES))
    word_NW = tl.sum(stored_NWC << shift_C[None, None, :], axis=2)
    place_NW = (group_N[:, None] * WORDS + tl.arange(0, WORDS)[None, :]) * BYTES
    for byte in tl.static_range(BYTES):
        part_NW = (word_NW >> (8 * byte)) & 255
        tl.store(out_ptr + place_NW + byte, part_NW.to(tl.uint8), mask=is_group_N[:, None])
