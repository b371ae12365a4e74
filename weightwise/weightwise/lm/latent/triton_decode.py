"""Attention of a few queries over kept latents on GPUs, in Triton, straight from the codes.

Absorbed (sheet CLLA, 3.5), all heads look at the same row of a token, [latent; rotary key], and mix
the same latents. So a program takes a block of tokens for all of its query rows, whichever head
they are of: every code is read once and unpacked once, in registers. The tokens of a sequence are
cut into parts that programs take at the same time; each keeps the highest score so far, the sum
of the weights below it and the mixed latent (online softmax), and a second kernel puts the parts
together.

Tokens are the rows of both products and queries their columns: tensor cores of the newer kinds
take 64 rows or more at a time, which tokens fill and few heads would not.

What decides the time is how many instructions a code costs: at the bandwidth of the newest memory
a multiprocessor gets a token of 4-bit codes every 22 clocks, five instructions a feature. Codes
become float16 two at a time, with one instruction each for cutting out, offset and scale, and are
multiplied in float16: a code times its scale is rounded to 11 bits there, finer than bfloat16
would. Queries are divided by their largest magnitude first, and symmetric codes saturate at the end
of the range; asymmetric ones must stay within half of it, magnitudes below 32752.
Features stay in the order in which codes come out of a word; queries and results are put into
it where they are read and written.

Latents that are not coded are multiplied in their own type, so float32 ones in float32. Codes that
do not fill 32-bit words (3 bits) are decoded first. Other types and widths that shared memory
cannot hold are left to `weightwise.lm.latent.attend`. Tests run the kernels in Triton's interpreter
where no GPU is.
"""

# Shapes: B batch, H heads, T queries, S tokens so far, K key features without rotation, V value
# features, C latent width, R rotary width

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from weightwise.lm.latent import triton_blocks
from weightwise.lm.latent.codes import Codes

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm.latent.cache import LatentView, Vectors

WIDEST = 512  # features of a latent: what registers hold for `MOST_ROWS` of them
MOST_ROWS = 32  # of a program: their mixed latents are kept in registers
TOKENS = 64  # of a block: the least that tensor cores take at a time
STAGES = 2  # blocks that are fetched at the same time
WARPS = 4
LEAST_SHARED_BYTES = 64 << 10
LEAST_ROWS = LEAST_WIDTH = 16  # of a product on tensor cores
LEAST_TOKENS = 512  # of a part, so that its result costs little beside its codes
PROGRAMS_PER_PROCESSOR = 2
WORD_BITS = (2, 4, 8)  # codes that fill 32-bit words
TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class Stored(NamedTuple):
    """One kind of vector as the kernels see it: memory, steps between its tokens, and shape.

    Parameters
    ----------
    code
        Vectors, or 32-bit words of codes.
    scale, least
        Scale and least value of each group; any tensor where there are none.
    batch_stride, token_stride
        Steps of ``code``, from row to row and from token to token.
    scale_batch, scale_token
        Steps of ``scale`` and ``least``.
    width, coded, padded
        Features, those with codes, and the power of two that holds them.
    bits, group, is_symmetric
        How they are coded; 16 bits for vectors that are not.
    kind
        Type of the products.
    """

    code: Tensor
    scale: Tensor
    least: Tensor
    batch_stride: int
    token_stride: int
    scale_batch: int
    scale_token: int
    width: Any
    coded: Any
    padded: Any
    bits: Any
    group: Any
    is_symmetric: Any
    kind: Any


def is_possible(query_BHTK: Tensor, view: LatentView) -> bool:
    """Whether the kernels can take these queries.

    Parameters
    ----------
    query_BHTK
        Queries.
    view
        Tokens so far.
    """
    if query_BHTK.dtype not in TYPES or view.latent.dtype != query_BHTK.dtype:
        return False
    if min(view.latent.width, view.rope.width) < 1 or view.latent.width > WIDEST:
        return False
    if query_BHTK.device.type != "cuda":
        return True
    properties: Any = torch.cuda.get_device_properties(query_BHTK.device)
    # AMD's GPUs do not tell.
    room: int = getattr(properties, "shared_memory_per_block_optin", LEAST_SHARED_BYTES)
    return shared_bytes(view) <= room


def shared_bytes(view: LatentView) -> int:
    """Most shared memory that a program takes: blocks, their codes on the way, and queries."""
    total = TOKENS * MOST_ROWS * 4
    for vectors in (view.latent, view.rope):
        width = triton.next_power_of_2(max(vectors.width, LEAST_WIDTH))
        bits = _bits_of(vectors)
        num_blocks = STAGES if bits == 16 else 1
        total += (num_blocks * TOKENS + MOST_ROWS) * width * vectors.dtype.itemsize
        if bits < 16:
            total += STAGES * TOKENS * width * (bits + 1) // 8
    return total


def attend(
    query_BHTK: Tensor,
    query_rope_BHTR: Tensor,
    view: LatentView,
    up_key_HKC: Tensor,
    up_value_HVC: Tensor,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Let queries attend to latents; parameters as of `weightwise.lm.latent.attend.absorbed`.

    The kernels are queued; nothing waits for the device. A query that sees nothing gets zeros.
    """
    mixed_BHTC = mix(query_BHTK @ up_key_HKC, query_rope_BHTR, view, mask, scale)
    return mixed_BHTC @ up_value_HVC.transpose(1, 2)


def mix(
    query_BHTC: Tensor,
    query_rope_BHTR: Tensor,
    view: LatentView,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Mix the latents of the tokens that each query sees by its attention to them.

    Parameters
    ----------
    query_BHTC
        Queries that have absorbed the up-projection of the keys.
    query_rope_BHTR
        Their rotary part.
    view
        Tokens so far.
    mask
        Which tokens a query sees, shape (T, S) or (B, 1, T, S); all without one.
    scale
        Factor of the scores.

    Returns
    -------
    Tensor
        Shape (B, H, T, C); zero for a query that sees nothing.
    """
    batch, num_heads, num_queries, width = query_BHTC.shape
    num_rows = num_heads * num_queries
    rows = min(max(triton.next_power_of_2(num_rows), LEAST_ROWS), MOST_ROWS)
    num_blocks = ceil(num_rows / rows)
    num_parts, part_tokens = parts_of(view.num_tokens, batch * num_blocks, query_BHTC.device)
    options: dict[str, Any] = {"dtype": torch.float32, "device": query_BHTC.device}
    mixed = torch.empty(batch, num_parts, num_rows, width, **options)
    top, total = (torch.empty(batch, num_parts, num_rows, **options) for _ in range(2))
    seen = query_BHTC if mask is None else _bytes_of(mask, batch, num_queries)
    steps = (0, 0) if mask is None else (seen.stride(0), seen.stride(2))
    out_BHTC = torch.empty_like(query_BHTC, memory_format=torch.contiguous_format)
    with torch.cuda.device_of(query_BHTC):
        triton_blocks.mix_part[(num_parts, num_blocks, batch)](
            query_BHTC.contiguous(), query_rope_BHTR.contiguous(), seen, mixed, top, total,
            stored(view.latent), stored(view.rope), num_rows, num_queries, view.num_tokens,
            part_tokens, scale, *steps, IS_MASKED=mask is not None, ROWS=rows, TOKENS=TOKENS,
            STAGES=STAGES, num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
        triton_blocks.merge_parts[(num_rows, batch)](
            mixed, top, total, out_BHTC, num_rows, num_parts, WIDTH=width,
            PADDED=triton.next_power_of_2(width), PARTS=triton.next_power_of_2(num_parts),
            enable_fp_fusion=True,
        )  # fmt: skip
    return out_BHTC


def parts_of(num_tokens: int, num_others: int, device: torch.device) -> tuple[int, int]:
    """Parts of a sequence, and tokens of each, that keep all processors of a GPU at work."""
    processors = 1
    if device.type == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
    wanted = max(PROGRAMS_PER_PROCESSOR * processors // num_others, 1)
    tokens = max(ceil(num_tokens / wanted), LEAST_TOKENS)
    tokens = ceil(tokens / TOKENS) * TOKENS
    return ceil(num_tokens / tokens), tokens


def _bytes_of(mask: Tensor, batch: int, num_queries: int) -> Tensor:
    """The mask for every row, of shape (B, 1, T, S), as bytes side by side."""
    seen = mask if mask.ndim == 4 else mask[None, None]
    seen = seen.expand(batch, 1, num_queries, -1)
    return (seen if seen.stride(3) == 1 else seen.contiguous()).view(torch.uint8)


def stored(vectors: Vectors) -> Stored:
    """Describe vectors to the kernels; those whose codes fill no words are decoded first."""
    content, config, width = vectors.content, vectors.config, vectors.width
    shape: tuple[int, ...]
    how: tuple[Any, ...]
    if isinstance(content, Codes) and config is not None and _bits_of(vectors) < 16:
        code, scale = content.code.view(torch.int32), content.scale
        least = scale if content.minimum is None else content.minimum
        coded = content.code.shape[-1] * 8 // config.bits
        shape = (width, coded, triton.next_power_of_2(max(coded, LEAST_WIDTH)), config.bits)
        kind = tl.float32 if vectors.dtype == torch.float32 else tl.float16
        how = (config.group_width, config.is_symmetric, kind)
    else:
        code = scale = least = vectors.tensor
        shape = (width, width, triton.next_power_of_2(max(width, LEAST_WIDTH)), 16)
        how = (1, True, TYPES[code.dtype])
    assert code.stride(2) == scale.stride(2) == 1
    strides = (code.stride(0), code.stride(1), scale.stride(0), scale.stride(1))
    return Stored(code, scale, least, *strides, *map(tl.constexpr, (*shape, *how)))


def _bits_of(vectors: Vectors) -> int:
    """Bits of the codes that the kernels read; 16 where they read vectors."""
    config = vectors.config
    return config.bits if config is not None and config.bits in WORD_BITS else 16
