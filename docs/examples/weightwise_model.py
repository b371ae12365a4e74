"""A small language model: its size, its text, its cache."""

import torch

from weightwise.lm import (
    GQAConfig,
    LanguageModel,
    ModelConfig,
    SwiGLUConfig,
    generate,
    num_parameters,
    num_stored_parameters,
    train_tokenizer,
)

tokenizer = train_tokenizer(["def add(a, b):\n    return a + b\n"] * 20, vocab_size=270)
config = ModelConfig(
    vocab_size=tokenizer.vocab_size,
    width=64,
    num_layers=2,
    max_length=128,
    attention=GQAConfig(num_heads=4, num_kv_heads=2),
    ffn=SwiGLUConfig(hidden=192),
)
print(f"{num_parameters(config):,} weights in the blocks, {num_stored_parameters(config):,} in all")

model = LanguageModel(config)
model.initialize(torch.Generator().manual_seed(0))
prompt = torch.tensor([tokenizer.encode("def add(")])
tokens = generate(
    model,
    prompt,
    max_new_tokens=20,
    temperature=0.8,
    top_p=0.95,
    generator=torch.Generator().manual_seed(0),
)
print(f"{prompt.shape[1]} tokens of prompt, {tokens.shape[1]} with what was added")

cache = model.new_cache(batch=1)
print(f"cache for {cache.capacity} tokens: {cache.num_bytes:,} bytes")
with torch.no_grad():
    whole = model(tokens)
    parts = torch.cat([model(piece, cache) for piece in tokens.split(7, dim=1)], dim=1)
print(f"in pieces as in one pass: {torch.allclose(whole, parts, atol=1e-5)}")
