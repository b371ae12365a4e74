"""Decoding over a long context on a GPU: bandwidth of the kernel, speed and room of whole models.

    python weightwise/benchmarks/clla_gpu.py [--parts kernel model] [--tiny]

The kernel attends to 32 texts of 32 768 tokens whose latents (512 features, 16 heads, rotary keys
of 64) are kept in several ways. Bandwidth counts each stored byte once, scales included, and is
compared with that of a copy, which reads and writes every byte; medians over CUDA events. What it
computes is checked against decoded latents and torch's own attention before.

The whole models have 24 layers, 2048 wide, with 16 heads of 128: about 1.2 billion parameters, in
bfloat16, which differ in their attention alone. Their caches are filled with drawn numbers and
decoding goes on behind 32 768 tokens: one text; as many as fit beside the weights in 9 tenths of
what is free; and for a fair comparison as many as the largest cache leaves room for. Nothing is
captured in graphs or compiled.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from peers import gpu

from weightwise.lm import (
    CodeConfig,
    GQAConfig,
    LanguageModel,
    LatentConfig,
    ModelConfig,
    SwiGLUConfig,
)
from weightwise.lm.latent.attend import absorbed
from weightwise.lm.latent.cache import LatentView, Vectors
from weightwise.lm.latent.codes import Codes, bytes_per_row
from weightwise.numerics.kernels import has_triton

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm.cache import Cache
    from weightwise.lm.config import AttentionConfig

SYSTEM = "clla"
PARTS = ("kernel", "model")
HEADS, LATENT, ROPE, HEAD = 16, 512, 64, 128
CODINGS = {
    "int4": CodeConfig(),
    "int4_asymmetric": CodeConfig(is_symmetric=False),
    "int8": CodeConfig(bits=8),
    "int2": CodeConfig(bits=2),
    "bfloat16": None,
}
MLA = LatentConfig(num_heads=HEADS, latent_width=LATENT, rope_width=ROPE)
VARIANTS: dict[str, AttentionConfig] = {
    "mha": GQAConfig(num_heads=HEADS),
    "gqa4": GQAConfig(num_heads=HEADS, num_kv_heads=4),
    "mla": MLA,
    "clla2": replace(MLA, share_factor=2),
    "clla2_int4": replace(MLA, share_factor=2, codes=CodeConfig()),
}
SHAPE = ModelConfig(
    vocab_size=32_000, width=HEADS * HEAD, num_layers=24, max_length=32_768 + 64, attention=MLA,
    ffn=SwiGLUConfig(hidden=5632),
)  # fmt: skip
TINY_SHAPE = replace(SHAPE, vocab_size=64, width=64, num_layers=2, ffn=SwiGLUConfig(hidden=32))
TEXTS, CONTEXT = 32, 32_768
STEPS, MOST_TEXTS, SHARE_FOR_CACHE = 8, 1024, 0.9
WORK_BYTES = 4 << 20  # of a text beside its cache, for what passes through the layers


def main() -> None:
    options = gpu.arguments(__doc__.splitlines()[0], PARTS, "clla_gpu")
    if options is None:
        return
    torch.manual_seed(1)
    texts, context = (2, 192) if options.tiny else (TEXTS, CONTEXT)
    with torch.inference_mode():
        if "kernel" in options.parts:
            measure_kernels(texts, context)
        if "model" in options.parts:
            measure_models(TINY_SHAPE if options.tiny else SHAPE, context)


def measure_kernels(texts: int, context: int) -> None:
    """Rows of the bandwidth of the kernel for every way to keep latents."""
    options = {"device": gpu.DEVICE, "dtype": torch.bfloat16}
    query = torch.randn(texts, HEADS, 1, HEAD, **options)
    rope_query = torch.randn(texts, HEADS, 1, ROPE, **options)
    up = torch.randn(HEADS, HEAD, LATENT, **options) / math.sqrt(LATENT)
    memory = torch.empty(texts * context * 1024, device=gpu.DEVICE, dtype=torch.uint8)
    copy_s = gpu.seconds(lambda: torch.clone(memory))
    copy_bytes_per_s = 2 * memory.numel() / copy_s
    for name, coding in CODINGS.items():
        view = LatentView(
            latent=drawn(texts, context, LATENT, coding), rope=drawn(texts, context, ROPE, coding)
        )
        work = (query, rope_query, view, up, up, None, 1 / math.sqrt(HEAD + ROPE))
        error = difference(view, absorbed(*work), query, rope_query, up)
        spent_s = gpu.seconds(lambda work=work: absorbed(*work))
        per_token = sum(
            2 * width if coding is None else bytes_per_row(width, coding)
            for width in (LATENT, ROPE)
        )
        bytes_per_s = texts * context * per_token / spent_s
        share = bytes_per_s / copy_bytes_per_s
        print(f"{name}: {bytes_per_s / 1e9:.0f} GB/s, {share:.2f} of a copy", file=sys.stderr)
        gpu.emit(
            SYSTEM, name=f"gpu_kernel_{name}_bandwidth_over_copy", value=round(share, 3), unit="x",
            peer="torch.clone", goal=(">=", 0.6) if name == "int4" else None,
            detail={
                "texts": texts, "context": context, "heads": HEADS, "latent": LATENT,
                "rope": ROPE, "bytes_per_token": per_token, "ms": round(spent_s * 1e3, 3),
                "gb_per_s": round(bytes_per_s / 1e9), "difference": round(error, 5),
                "copy_gb_per_s": round(copy_bytes_per_s / 1e9), "has_triton": has_triton(),
            },
        )  # fmt: skip


def drawn(texts: int, context: int, width: int, coding: CodeConfig | None) -> Vectors:
    """Random vectors, or random codes of such."""
    if coding is None:
        shape = (texts, context, width)
        x = torch.randn(shape, device=gpu.DEVICE, dtype=torch.bfloat16)
        return Vectors.plain(x)
    groups = width // coding.group_width
    code = torch.empty(
        texts, context, width * coding.bits // 8, device=gpu.DEVICE, dtype=torch.uint8
    )
    scale = torch.empty(texts, context, groups, device=gpu.DEVICE, dtype=torch.float16)
    code.random_()
    scale.uniform_(0.5, 1.5).mul_(2 / 2**coding.bits)
    minimum = None if coding.is_symmetric else -scale * 2 ** (coding.bits - 1)
    return Vectors(
        content=Codes(code, scale, minimum), config=coding, width=width, dtype=torch.bfloat16
    )


def difference(
    view: LatentView, got: Tensor, query: Tensor, rope_query: Tensor, up: Tensor
) -> float:
    """Largest difference of the first text from attention to decoded latents, relative."""
    first = [
        replace(
            part,
            content=part.content[:1]
            if isinstance(part.content, torch.Tensor)
            else Codes(*(None if x is None else x[:1] for x in vars(part.content).values())),
        )
        for part in (view.latent, view.rope)
    ]
    latent, rope = (part.tensor.float().unsqueeze(1) for part in first)
    asked = torch.cat((query[:1].float() @ up.float(), rope_query[:1].float()), dim=-1)
    mixed = F.scaled_dot_product_attention(
        asked, torch.cat((latent, rope), dim=-1).expand(-1, HEADS, -1, -1),
        latent.expand(-1, HEADS, -1, -1), scale=1 / math.sqrt(HEAD + ROPE),
    )  # fmt: skip
    expected = mixed @ up.float().mT
    return float((got[:1].float() - expected).abs().max() / expected.abs().max())


def measure_models(shape: ModelConfig, context: int) -> None:
    """Rows of tokens per second and of the texts that fit, for every kind of attention."""
    fair = None
    for name, attention in VARIANTS.items():
        model = build(replace(shape, attention=attention))
        row_bytes = model.new_cache(1, context + 64).num_bytes
        room = int(gpu.free_bytes() * SHARE_FOR_CACHE)
        largest = max(min(room // (row_bytes + WORK_BYTES), MOST_TEXTS), 1)
        rates, largest = fitting_rates(model, context, largest, fair)
        fair = largest if fair is None else fair
        detail = {
            "context": context, "layers": shape.num_layers, "width": shape.width, "heads": HEADS,
            "dtype": "bfloat16", "cache_bytes_per_token": row_bytes / (context + 64),
            "tokens_per_s": {str(texts): round(rate, 1) for texts, rate in rates.items()},
        }  # fmt: skip
        print(f"{name}: {detail['tokens_per_s']} tokens/s by texts", file=sys.stderr)
        gpu.emit(
            SYSTEM, name=f"gpu_largest_batch_32k_{name}", value=largest, unit="texts",
            detail=detail,
        )  # fmt: skip
        gpu.emit(
            SYSTEM, name=f"gpu_decode_32k_{name}", value=round(max(rates.values()), 1),
            unit="tokens/s", detail=detail,
        )  # fmt: skip
        del model
        gc.collect()


def build(config: ModelConfig) -> LanguageModel:
    """A model with drawn weights in bfloat16."""
    with gpu.DEVICE:
        model = LanguageModel(config).bfloat16().eval()
    model.initialize(torch.Generator(gpu.DEVICE).manual_seed(1))
    return model


def fitting_rates(
    model: LanguageModel, context: int, largest: int, fair: int | None
) -> tuple[dict[int, float], int]:
    """Tokens per second by texts at a time, and the most texts that turned out to fit."""
    while True:
        try:
            rates = {largest: rate(model, context, largest)}
            break
        except torch.OutOfMemoryError:
            if largest == 1:
                raise
            largest = largest * 9 // 10
    for texts in {1, min(fair or 1, largest)} - {largest}:
        rates[texts] = rate(model, context, texts)
    return rates, largest


def rate(model: LanguageModel, context: int, texts: int) -> float:
    """Tokens per second behind a context that was never read: its cache holds drawn numbers."""
    gpu.free_bytes()
    cache = model.new_cache(texts, context + 64)
    fill(cache, context)
    last_BT = torch.zeros(texts, 1, dtype=torch.int64, device=gpu.DEVICE)
    for step in range(2 + STEPS):
        if step == 2:
            gpu.synchronize()
            start_s = time.perf_counter()
        last_BT = model(last_BT, cache, last_only=True).argmax(-1)
    gpu.synchronize()
    return texts * STEPS / (time.perf_counter() - start_s)


def fill(cache: Cache, length: int) -> None:
    """Let a cache hold numbers that are drawn."""
    for layer in cache.layers:
        for store in () if layer is None else layer.stores.values():
            memory = store.memory
            if memory.dtype == torch.uint8:
                memory.random_()
            elif memory.dtype == torch.float16:
                memory.uniform_(0.1, 0.2)
            else:
                memory.normal_()
    cache.length_B.fill_(length)


if __name__ == "__main__":
    main()
