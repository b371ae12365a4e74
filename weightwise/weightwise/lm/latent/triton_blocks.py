# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
"""The compiled kernels of attention over a kept latent; see `triton_decode` for the method.

Triton reads annotations: arguments that it knows at run time only must have none.
"""

# Shapes: M query rows of a program, N tokens of a block, C latent width, R rotary width, W width
# of either, all rounded up to powers of two; P parts of a sequence

from __future__ import annotations

import triton
import triton.language as tl

UNSEEN = tl.constexpr(float("-inf"))  # score of a token that a query does not see
LARGEST = tl.constexpr(65000.0)  # of float16 is 65504; a scale is rounded
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def mix_part(
    query_ptr, rope_query_ptr, mask_ptr, mixed_ptr, top_ptr, total_ptr, latent, rope,
    num_rows, num_queries, num_tokens, part_tokens, scale, mask_batch, mask_query,
    IS_MASKED: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Attention of some query rows over one part of a sequence's tokens, not yet divided.

    Stores the mixed latent, the highest score and the sum of the weights of every row.
    """
    part, batch = tl.program_id(0), tl.program_id(2).to(tl.int64)
    row_M = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    place_M = batch * num_rows + row_M
    query_CM, rope_query_RM, factor_M = queries(
        query_ptr, rope_query_ptr, place_M, row_M < num_rows, latent, rope
    )
    factor_M = factor_M * (scale * LOG2_E)
    first = part * part_tokens
    end = tl.minimum(first + part_tokens, num_tokens)
    mask_ptr += batch * mask_batch
    if IS_MASKED:
        end = last_seen(mask_ptr, mask_query, num_queries, first, end, TOKENS)

    top_M = tl.full((ROWS,), UNSEEN, tl.float32)
    total_M = tl.zeros((ROWS,), tl.float32)
    mixed_CM = tl.zeros((latent.padded, ROWS), tl.float32)
    IS_CODED: tl.constexpr = latent.bits < 16
    if IS_CODED:
        latent_NC, rope_NR = blocks(latent, rope, batch, first, end, TOKENS)
    for start in tl.range(first, end, TOKENS, num_stages=STAGES):
        if not IS_CODED:
            latent_NC, rope_NR = blocks(latent, rope, batch, start, end, TOKENS)
        score_NM = tl.dot(latent_NC, query_CM, input_precision="ieee")
        score_NM = tl.dot(rope_NR, rope_query_RM, score_NM, input_precision="ieee")
        is_seen_NM = seen(mask_ptr, mask_query, row_M, num_queries, start, end, IS_MASKED, TOKENS)
        score_NM = tl.where(is_seen_NM, score_NM * factor_M[None, :], UNSEEN)
        weight_NM, decay_M, top_M = weights(score_NM, top_M)
        total_M = total_M * decay_M + tl.sum(weight_NM, axis=0)
        mixed_CM = tl.dot(
            tl.trans(latent_NC), weight_NM.to(latent_NC.dtype), mixed_CM * decay_M[None, :],
            input_precision="ieee",
        )  # fmt: skip
        if IS_CODED:
            # A block that is handed on from turn to turn goes to shared memory once, where both
            # products read it; the compiler makes it twice in the turn that uses it.
            latent_NC, rope_NR = blocks(latent, rope, batch, start + TOKENS, end, TOKENS)
    out_M = (batch * tl.num_programs(0) + part) * num_rows + row_M
    tl.store(top_ptr + out_M, top_M, mask=row_M < num_rows)
    tl.store(total_ptr + out_M, total_M, mask=row_M < num_rows)
    feature_C = features(latent.padded, latent.bits)
    is_kept_CM = (feature_C < latent.width)[:, None] & (row_M < num_rows)[None, :]
    tl.store(
        mixed_ptr + out_M[None, :] * latent.width + feature_C[:, None], mixed_CM, mask=is_kept_CM
    )


@triton.jit
def weights(score_NM, top_M):
    """Weights below a new highest score, what earlier ones shrink by, and that score."""
    new_top_M = tl.maximum(top_M, tl.max(score_NM, axis=0))
    base_M = tl.where(new_top_M == UNSEEN, 0.0, new_top_M)
    return tl.exp2(score_NM - base_M[None, :]), tl.exp2(top_M - base_M), new_top_M


@triton.jit
def merge_parts(
    mixed_ptr, top_ptr, total_ptr, out_ptr, num_rows, num_parts,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Put together the parts of one query row; zero where it sees nothing."""
    batch, row = tl.program_id(1).to(tl.int64), tl.program_id(0)
    part_P = tl.arange(0, PARTS)
    is_part_P = part_P < num_parts
    place_P = (batch * num_parts + part_P) * num_rows + row
    top_P = tl.load(top_ptr + place_P, mask=is_part_P, other=UNSEEN)
    top = tl.max(top_P, axis=0)
    share_P = tl.exp2(top_P - tl.where(top == UNSEEN, 0.0, top))
    total_P = tl.load(total_ptr + place_P, mask=is_part_P, other=0.0)
    total = tl.sum(share_P * total_P, axis=0)
    total = tl.where(total == 0.0, 1.0, total)
    feature_C = tl.arange(0, PADDED)
    mixed_C = tl.zeros((PADDED,), tl.float32)
    for part in range(num_parts):
        place = (batch * num_parts + part) * num_rows + row
        share = tl.exp2(tl.load(top_ptr + place) - tl.where(top == UNSEEN, 0.0, top))
        part_C = tl.load(mixed_ptr + place * WIDTH + feature_C, mask=feature_C < WIDTH, other=0.0)
        mixed_C += share * part_C
    out_C = (mixed_C / total).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + (batch * num_rows + row) * WIDTH + feature_C, out_C, mask=feature_C < WIDTH)


@triton.jit
def queries(query_ptr, rope_query_ptr, place_M, is_row_M, latent, rope):
    """Queries of the rows in the types of the products, and the factors that scale them back.

    Beside codes they are divided by their largest magnitude, so that they fit into float16.
    """
    query_MC = query_of(query_ptr, place_M, is_row_M, latent)
    rope_query_MR = query_of(rope_query_ptr, place_M, is_row_M, rope)
    factor_M = tl.full(place_M.shape, 1.0, tl.float32)
    if latent.bits < 16 or rope.bits < 16:
        top_M = tl.maximum(tl.max(tl.abs(query_MC), axis=1), tl.max(tl.abs(rope_query_MR), axis=1))
        factor_M = tl.where(top_M == 0.0, 1.0, top_M)
        query_MC = query_MC / factor_M[:, None]
        rope_query_MR = rope_query_MR / factor_M[:, None]
    return tl.trans(query_MC.to(latent.kind)), tl.trans(rope_query_MR.to(rope.kind)), factor_M


@triton.jit
def query_of(query_ptr, place_M, is_row_M, stored):
    """Rows of a query in float32, their features in the order of `block`."""
    feature_W = features(stored.padded, stored.bits)
    is_kept_MW = is_row_M[:, None] & (feature_W < stored.width)[None, :]
    offset_MW = place_M[:, None] * stored.width + feature_W[None, :]
    return tl.load(query_ptr + offset_MW, mask=is_kept_MW, other=0.0).to(tl.float32)


@triton.jit
def last_seen(mask_ptr, mask_query, num_queries, first, end, TOKENS: tl.constexpr):
    """End of the tokens of a part that any query sees."""
    found = first
    for query in range(num_queries):
        for start in range(first, end, TOKENS):
            token_N = start + tl.arange(0, TOKENS)
            is_seen_N = tl.load(
                mask_ptr + query * mask_query + token_N, mask=token_N < end, other=0
            )
            found = tl.maximum(found, tl.max(tl.where(is_seen_N != 0, token_N + 1, first), axis=0))
    return found


@triton.jit
def seen(
    mask_ptr, mask_query, row_M, num_queries, start, end,
    IS_MASKED: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Which tokens of a block each row sees, shape (N, M); rows of a head are its queries."""
    token_N = start + tl.arange(0, TOKENS)
    is_seen_NM = (token_N < end)[:, None] & (row_M >= 0)[None, :]
    query_M = row_M % num_queries
    if IS_MASKED:
        offset_NM = query_M[None, :] * mask_query + token_N[:, None]
        is_seen_NM &= tl.load(mask_ptr + offset_NM, mask=is_seen_NM, other=0) != 0
    return is_seen_NM


@triton.jit
def blocks(latent, rope, batch, start, end, TOKENS: tl.constexpr):
    """Latents and rotary keys of the tokens from a start on, zero from an end on."""
    token_N = start + tl.arange(0, TOKENS)
    return block(latent, batch, token_N, token_N < end), block(rope, batch, token_N, token_N < end)


@triton.jit
def block(stored, batch, token_N, is_kept_N):
    """One of them, shape (N, W), with its features in the order of `features`."""
    offset_N1 = (batch * stored.batch_stride + token_N * stored.token_stride)[:, None]
    if stored.bits == 16:
        feature_1W = tl.arange(0, stored.padded)[None, :]
        is_kept_NW = is_kept_N[:, None] & (feature_1W < stored.width)
        x_NW = tl.load(stored.code + offset_N1 + feature_1W, mask=is_kept_NW, other=0.0)
    else:
        word_1W = tl.arange(0, stored.padded * stored.bits // 32)[None, :]
        is_word_NW = is_kept_N[:, None] & (word_1W < stored.coded * stored.bits // 32)
        words_NW = tl.load(stored.code + offset_N1 + word_1W, mask=is_word_NW, other=0)
        code_NGW = tl.reshape(
            codes_of(words_NW, stored.bits, stored.is_symmetric),
            (token_N.shape[0], stored.padded // stored.group, stored.group),
        )
        group_1G = tl.arange(0, stored.padded // stored.group)[None, :]
        is_group_NG = is_kept_N[:, None] & (group_1G < stored.coded // stored.group)
        offset_NG = (batch * stored.scale_batch + token_N * stored.scale_token)[:, None] + group_1G
        scale_NG = tl.load(stored.scale + offset_NG, mask=is_group_NG, other=0.0)
        if stored.is_symmetric:
            # The largest code stays in float16. Scales have a sign.
            LIMIT: tl.constexpr = LARGEST / 2 ** (stored.bits - 1)
            scale_NG = tl.minimum(tl.maximum(scale_NG, -LIMIT), LIMIT)
            x_NGW = code_NGW.to(stored.kind) * scale_NG.to(stored.kind)[:, :, None]
        else:
            least_NG = tl.load(stored.least + offset_NG, mask=is_group_NG, other=0.0)
            x_NGW = code_NGW.to(stored.kind) * scale_NG.to(stored.kind)[:, :, None]
            x_NGW += least_NG.to(stored.kind)[:, :, None]
        x_NW = tl.reshape(x_NGW, (token_N.shape[0], stored.padded))
    return x_NW.to(stored.kind)


@triton.jit
def codes_of(words_NW, BITS: tl.constexpr, IS_SYMMETRIC: tl.constexpr):
    """Codes of 32-bit words as whole numbers in float16, shape (N, words, ...), see `features`."""
    codes = pairs(words_NW, 0, BITS, BITS, IS_SYMMETRIC)
    # The halves of a word stay neighbours.
    if BITS == 8:
        codes = tl.permute(codes, (0, 1, 3, 2))
    elif BITS == 4:
        codes = tl.permute(codes, (0, 1, 3, 4, 2))
    else:
        codes = tl.permute(codes, (0, 1, 3, 4, 5, 2))
    return codes


@triton.jit
def pairs(
    words_NW, SHIFT: tl.constexpr, STEP: tl.constexpr, BITS: tl.constexpr,
    IS_SYMMETRIC: tl.constexpr,
):  # fmt: skip
    """Codes of both halves of each word from a bit on, one every so many bits.

    Put behind the leading bit of 1024, a code is the float16 number 1024 + code; the difference is
    exact.
    """
    if STEP == 16:
        BOTH: tl.constexpr = (2**BITS - 1) * 0x00010001
        OFFSET: tl.constexpr = 1024.0 + 2 ** (BITS - 1) * IS_SYMMETRIC
        both = words_NW >> SHIFT & BOTH | 0x64006400
        low = both.to(tl.int16).to(tl.float16, bitcast=True) - OFFSET
        high = (both >> 16).to(tl.int16).to(tl.float16, bitcast=True) - OFFSET
        codes = tl.join(low, high)
    else:
        codes = tl.join(
            pairs(words_NW, SHIFT, 2 * STEP, BITS, IS_SYMMETRIC),
            pairs(words_NW, SHIFT + STEP, 2 * STEP, BITS, IS_SYMMETRIC),
        )
    return codes


@triton.jit
def features(PADDED: tl.constexpr, BITS: tl.constexpr):
    """Feature at each place of a block: the codes of both halves of a word take turns."""
    place = tl.arange(0, PADDED)
    if BITS < 16:
        HALF: tl.constexpr = 16 // BITS
        place = place // (2 * HALF) * (2 * HALF) + place % 2 * HALF + place % (2 * HALF) // 2
    return place
