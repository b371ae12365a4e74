"""What a cached token weighs in a model of a billion weights, and a layout for a budget."""

from dataclasses import replace

from weightwise.lm import CodeConfig, GQAConfig, LatentConfig, ModelConfig, SwiGLUConfig
from weightwise.lm.latent.budget import allocated_bytes_per_token, fit_cache

mha = GQAConfig(num_heads=16)
mla = LatentConfig(num_heads=16)
clla = replace(mla, share_factor=2)
model = ModelConfig(
    vocab_size=32_000,
    width=2048,
    num_layers=24,
    max_length=32_768,
    attention=mha,
    ffn=SwiGLUConfig(hidden=5472),
)
for name, attention in {
    "MHA": mha,
    "GQA, 4 key heads": replace(mha, num_kv_heads=4),
    "MLA": mla,
    "CLLA": clla,
    "CLLA, 8 bits": replace(clla, codes=CodeConfig(bits=8)),
    "CLLA, 4 bits": replace(clla, codes=CodeConfig(bits=4)),
}.items():
    size = allocated_bytes_per_token(replace(model, attention=attention))
    print(f"{name:<18}{size:>9,.0f} bytes {size / 1966.08:>7.2f} %")

fit = fit_cache(model, percent=1)
layout = fit.attention
print(
    f"\nfor 1 %: {layout.share_factor} layers share a latent of {layout.latent_width} features "
    f"in {layout.codes.bits} bits: {fit.bytes_per_token:,.0f} bytes"
)
