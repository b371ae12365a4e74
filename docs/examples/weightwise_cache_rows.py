"""One prompt, read once: several texts from it, a file of it, and the likeliest text."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from weightwise.lm import CodeConfig, LanguageModel, LatentConfig, ModelConfig, SwiGLUConfig
from weightwise.lm.beams import beam_search
from weightwise.lm.cache_file import load_cache, save_cache

config = ModelConfig(
    vocab_size=64,
    width=64,
    num_layers=4,
    max_length=128,
    attention=LatentConfig(num_heads=4, share_factor=2, codes=CodeConfig(bits=4)),
    ffn=SwiGLUConfig(hidden=128),
)
model = LanguageModel(config).eval()
model.initialize(torch.Generator().manual_seed(0))
prompt = torch.arange(40).unsqueeze(0)

with torch.no_grad(), TemporaryDirectory() as folder:
    cache = model.new_cache(batch=1)
    model(prompt, cache)
    print(f"40 tokens in a cache of {cache.num_bytes / cache.capacity:.0f} bytes a token")

    save_cache(cache, Path(folder) / "prompt")
    again = model.new_cache(batch=1)
    load_cache(again, Path(folder) / "prompt")
    print(f"{again.length} tokens from a file of {(Path(folder) / 'prompt').stat().st_size} bytes")

    three = again.repeat(3)
    model(torch.tensor([[1], [2], [3]]), three)
    three.reorder(torch.tensor([2, 2, 0]))
    three.crop(40)
    print(f"rows {three.length_B.tolist()} after a rollback")

best, second = beam_search(model, prompt[0].tolist(), num_beams=2, max_new_tokens=5)
print(f"best of two beams: {best.score > second.score}, {len(best.tokens)} tokens")
