"""The GPU kernels of latent attention against float64, in Triton's interpreter without a GPU."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch

from weightwise.lm.latent.attend import attend_latent, expanded
from weightwise.lm.latent.cache import LatentView, Vectors
from weightwise.lm.latent.codes import decode, encode
from weightwise.lm.latent.config import CodeConfig

if TYPE_CHECKING:
    from torch import Tensor

triton = pytest.importorskip("triton")

from weightwise.lm.latent import triton_blocks, triton_decode  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# A score that is not seen is infinite on purpose; numpy, in the interpreter, remarks on it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.usefixtures("bfloat16_of_gpus"),
]
runs = pytest.mark.skipif(
    DEVICE == "cpu" and not IS_INTERPRETED, reason="no GPU; runs in the interpreter, see the first"
)
compiles = pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")

PLAIN = None
# Latents, rotary keys.
CODINGS = [
    (PLAIN, PLAIN),
    (CodeConfig(), CodeConfig()),
    (CodeConfig(is_symmetric=False), CodeConfig(bits=8)),
    (CodeConfig(bits=8, group_width=64), PLAIN),
    (CodeConfig(bits=2, group_width=16, is_symmetric=False), CodeConfig(bits=4, group_width=16)),
    (CodeConfig(bits=3), CodeConfig(bits=3)),
    (PLAIN, CodeConfig(bits=8)),
]
SCALE = 0.3
# Bound on the error relative to the largest result: what the type and, beside codes, float16
# resolve.
TOLERANCES = {torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def vectors_of(x_BSW: Tensor, config: CodeConfig | None) -> Vectors:
    """Vectors as a cache keeps them, with room behind the tokens."""
    roomy = torch.cat((x_BSW, torch.full_like(x_BSW[:, :5], torch.nan)), dim=1)
    width, dtype, end = x_BSW.shape[2], x_BSW.dtype, x_BSW.shape[1]
    if config is None:
        return Vectors.plain(roomy[:, :end])
    codes = encode(roomy.nan_to_num(9.0), config)
    parts = (None if part is None else part[:, :end] for part in vars(codes).values())
    return Vectors(content=type(codes)(*parts), config=config, width=width, dtype=dtype)


def drawn(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def case(
    codings: tuple[CodeConfig | None, CodeConfig | None],
    dtype: torch.dtype = torch.float32,
    *,
    shape: tuple[int, int, int, int] = (2, 5, 1, 150),
    widths: tuple[int, int] = (32, 16),
) -> tuple[Tensor, Tensor, LatentView]:
    """Queries, their rotary part, and tokens so far, for B, H, T, S and C, R."""
    batch, heads, queries, tokens = shape
    latent, rope = (
        vectors_of(drawn(batch, tokens, width, dtype=dtype, seed=i), codings[i])
        for i, width in enumerate(widths)
    )
    query, query_rope = (
        drawn(batch, heads, queries, width, dtype=dtype, seed=2 + i)
        for i, width in enumerate(widths)
    )
    return query, query_rope, LatentView(latent=latent, rope=rope)


def mixed_in_float64(
    query_BHTC: Tensor, query_rope_BHTR: Tensor, view: LatentView, mask: Tensor | None = None
) -> Tensor:
    """The definition: softmax over the sum of both products, and the mean of the latents."""
    latent_BSC, rope_BSR = (
        part.content
        if part.config is None
        else decode(part.content, part.config, part.width, torch.float32)
        for part in (view.latent, view.rope)
    )
    score_BHTS = query_BHTC.double() @ latent_BSC.double().mT.unsqueeze(1)
    score_BHTS += query_rope_BHTR.double() @ rope_BSR.double().mT.unsqueeze(1)
    if mask is not None:
        score_BHTS = score_BHTS.masked_fill(~mask, -torch.inf)
    weight_BHTS = (SCALE * score_BHTS).softmax(-1).nan_to_num(0.0)
    return weight_BHTS @ latent_BSC.double().unsqueeze(1)


def assert_close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare by the largest difference over the largest expected magnitude."""
    error = (got.double() - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"{error:.1e} over {tolerance:.1e}"


def assert_mixes(
    query: Tensor, query_rope: Tensor, view: LatentView, mask: Tensor | None = None
) -> None:
    """The kernels give what the definition gives."""
    expected = mixed_in_float64(query, query_rope, view, mask)
    got = triton_decode.mix(query, query_rope, view, mask, SCALE)
    assert got.dtype == query.dtype
    assert_close(got, expected, TOLERANCES[query.dtype])


@compiles
@pytest.mark.skipif(DEVICE == "cuda", reason="runs on the GPU itself")
@pytest.mark.slow
def test_all_of_this_in_the_interpreter(said_in_the_interpreter: str) -> None:
    """Without a GPU the tests below pass in Triton's interpreter, in a process of their own."""
    assert re.search(r"\d\d passed", said_in_the_interpreter), said_in_the_interpreter


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("codings", CODINGS)
def test_mixes_as_defined(codings: Any, dtype: torch.dtype) -> None:
    """Every coding of latents and of rotary keys, in every type, gives the defined result."""
    assert_mixes(*case(codings, dtype))


@runs
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 40, 1, 65), (1, 7, 9, 130)])
@pytest.mark.parametrize("widths", [(40, 24), (17, 3)])
@pytest.mark.parametrize("codings", [CODINGS[0], CODINGS[2]])
def test_odd_shapes(
    monkeypatch: pytest.MonkeyPatch,
    codings: Any,
    widths: tuple[int, int],
    shape: tuple[int, int, int, int],
) -> None:
    """Any width, more rows than a program takes, and sequences of one or of several parts."""
    monkeypatch.setattr(triton_decode, "LEAST_TOKENS", 1)
    for processors in (1, 4):
        monkeypatch.setattr(triton_decode, "PROGRAMS_PER_PROCESSOR", processors)
        assert_mixes(*case(codings, shape=shape, widths=widths))


@runs
@pytest.mark.parametrize("codings", [CODINGS[0], CODINGS[1]])
@pytest.mark.parametrize("programs", [1, 16])
def test_rows_of_different_lengths(
    monkeypatch: pytest.MonkeyPatch, codings: Any, programs: int
) -> None:
    """A mask hides what is behind a row's length, in every part; a row may see nothing at all."""
    monkeypatch.setattr(triton_decode, "LEAST_TOKENS", 1)
    monkeypatch.setattr(triton_decode, "PROGRAMS_PER_PROCESSOR", programs)
    query, query_rope, view = case(codings, shape=(4, 3, 2, 140))
    end_BT = torch.tensor([[140, 140], [64, 65], [1, 2], [0, 0]], device=DEVICE)
    mask = (torch.arange(140, device=DEVICE) < end_BT[..., None])[:, None]
    assert_mixes(query, query_rope, view, mask)
    got = triton_decode.mix(query, query_rope, view, mask, SCALE)
    assert not got[3].any()
    shared = torch.ones(2, 140, dtype=torch.bool, device=DEVICE).tril(137)
    assert_mixes(query, query_rope, view, shared)
    turned = torch.ones(140, 2, dtype=torch.bool, device=DEVICE).T
    assert_mixes(query, query_rope, view, turned)


@runs
def test_holes_in_the_mask() -> None:
    """Any mask is kept to, not only one that ends."""
    query, query_rope, view = case(CODINGS[1], shape=(2, 3, 3, 300))
    generator = torch.Generator().manual_seed(7)
    mask = torch.rand(2, 1, 3, 300, generator=generator).to(DEVICE) < 0.3
    mask[0, 0, 1, 64:192] = False
    assert_mixes(query, query_rope, view, mask)


@runs
@pytest.mark.parametrize("factor", [0.0, 1e-6, 1e6])
def test_queries_of_any_magnitude(factor: float) -> None:
    """Beside codes queries are scaled into the range of float16, however large they are."""
    query, query_rope, view = case(CODINGS[1], torch.bfloat16)
    query, query_rope = query * factor, query_rope * factor
    expected = mixed_in_float64(query, query_rope, view)
    got = triton_decode.mix(query, query_rope, view, None, SCALE)
    assert got.isfinite().all()
    # A huge score picks one token: which one, rounding decides where two are close.
    if factor < 1:
        assert_close(got, expected, TOLERANCES[torch.bfloat16])


@runs
@pytest.mark.parametrize(("is_symmetric", "largest"), [(True, 7e4), (False, 3.2e4)])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_latents_at_the_end_of_float16(bits: Any, is_symmetric: bool, largest: float) -> None:
    """Symmetric codes of huge numbers saturate early; asymmetric ones hold half of the range."""
    config = CodeConfig(bits=bits, is_symmetric=is_symmetric)
    latent = torch.linspace(-largest, largest, 64 * 32, device=DEVICE).view(1, 64, 32).bfloat16()
    query, query_rope, view = case((config, config), torch.bfloat16, shape=(1, 2, 1, 64))
    view = LatentView(latent=vectors_of(latent, config), rope=view.rope)
    got = triton_decode.mix(0 * query, 0 * query_rope, view, None, SCALE)
    expected = mixed_in_float64(0 * query, 0 * query_rope, view)
    assert (got.double() - expected).abs().max() <= 0.2 * largest


@runs
@pytest.mark.parametrize("codings", CODINGS[:3])
def test_attention_of_a_layer(codings: Any) -> None:
    """With up-projections it is what expanding the latents gives."""
    _, query_rope, view = case(codings, shape=(2, 5, 1, 150))
    query = drawn(2, 5, 1, 12, dtype=torch.float32, seed=5)
    up_key = drawn(5, 12, 32, dtype=torch.float32, seed=6)
    up_value = drawn(5, 9, 32, dtype=torch.float32, seed=7)
    assert triton_decode.is_possible(query, view)
    got = triton_decode.attend(query, query_rope, view, up_key, up_value, None, SCALE)
    latent, rope = view.latent_and_rope()
    expected = expanded(query, query_rope, latent, rope, up_key, up_value, None, SCALE)
    assert_close(got, expected.double(), 1e-5)


@runs
def test_what_is_left_to_others() -> None:
    """No rotary part, widths that fit nowhere, and types of several kinds are not taken."""
    query, _, view = case(CODINGS[0])
    assert triton_decode.is_possible(query, view)
    assert not triton_decode.is_possible(query.double(), view)
    assert not triton_decode.is_possible(query.half(), view)
    none = LatentView(latent=view.latent, rope=Vectors.plain(view.rope.tensor[..., :0]))
    assert not triton_decode.is_possible(query, none)
    wide = Vectors.plain(torch.zeros(1, 1, triton_decode.WIDEST + 1, device=DEVICE))
    assert not triton_decode.is_possible(query, LatentView(latent=wide, rope=view.rope))


@compiles
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_the_path_of_tensors_on_a_gpu() -> None:
    """A few queries on a GPU read the codes themselves: nothing is decoded for them."""
    _, query_rope, view = case(CODINGS[1], torch.bfloat16, shape=(2, 5, 1, 700))
    query = drawn(2, 5, 1, 12, dtype=torch.bfloat16, seed=5)
    up_key = drawn(5, 12, 32, dtype=torch.bfloat16, seed=6)
    with torch.no_grad():
        got = attend_latent(query, query_rope, view, up_key, up_key, None, SCALE)
        assert "tensor" not in vars(view.latent)
        expected = expanded(query, query_rope, *view.latent_and_rope(), up_key, up_key, None, SCALE)
    assert_close(got, expected.double(), TOLERANCES[torch.bfloat16])


def compiled(view: LatentView, rows: int) -> Any:
    """The main kernel for GPUs of compute capability 9.0, in bfloat16."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, names = triton_blocks.mix_part, triton_decode.Stored._fields
    types = dict.fromkeys(kernel.arg_names, "i32")
    types |= {name: "constexpr" for name in kernel.arg_names if name.isupper()}
    types |= dict.fromkeys(("mixed_ptr", "top_ptr", "total_ptr"), "*fp32") | {"scale": "fp32"}
    types |= dict.fromkeys(("query_ptr", "rope_query_ptr"), "*bf16") | {"mask_ptr": "*u8"}
    values: dict[Any, Any] = {"IS_MASKED": False, "ROWS": rows, "TOKENS": 64, "STAGES": 2}
    hints = {(kernel.arg_names.index(name),): 16 for name in types if name.endswith("_ptr")}
    for name, vectors in (("latent", view.latent), ("rope", view.rope)):
        stored, place = triton_decode.stored(vectors), kernel.arg_names.index(name)
        memory = ["*i32", "*fp16", "*fp16"] if vectors.config else ["*bf16"] * 3
        fields = [*memory, *["i32"] * 4, *["constexpr"] * (len(names) - 7)]
        types[name] = triton_decode.Stored(*fields)  # type: ignore[assignment, call-arg]
        values |= {(place, i): stored[i].value for i in range(7, len(names))}
        hints |= {(place, i): 16 for i in range(7)}
    attrs = {place: [["tt.divisibility", value]] for place, value in hints.items()}
    source = ASTSource(kernel, types, constexprs=values, attrs=attrs)
    options = {"num_warps": triton_decode.WARPS, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("coding", [PLAIN, CodeConfig(), CodeConfig(bits=2, is_symmetric=False)])
def test_compiled_code_is_as_intended(coding: CodeConfig | None) -> None:
    """Tensor cores take 64 tokens at a time from shared memory; codes are fetched ahead of use."""
    latent, rope = (
        vectors_of(torch.zeros(1, 1, width, dtype=torch.bfloat16), coding) for width in (512, 64)
    )
    view = LatentView(latent=latent, rope=rope)
    kernel = compiled(view, 16)
    assert kernel.metadata.shared <= triton_decode.shared_bytes(view) <= 227 << 10
    code = kernel.asm["ptx"]
    products = re.findall(r"wgmma\.mma_async\S*m64n16k16\.f32\.(\w+)", code)
    assert set(products) == {"bf16" if coding is None else "f16"}
    # 36 steps of 16 features for the scores and 8 times 4 of 64 features and 16 tokens; made twice
    # if a block were unpacked once for each product.
    assert len(products) == 36 + 32
    assert "cp.async.cg.shared.global" in code
    if coding is not None:
        assert re.search(r"(mul|fma)\.(rn\.)?f16", code)
        # All arithmetic of codes is done in pairs or is left to float16; none becomes float32.
        assert not re.search(r"cvt\.f32\.f16", code)
