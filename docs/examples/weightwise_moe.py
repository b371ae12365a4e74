"""A mixture of experts: the size of Hunyuan-Large, and a small one with a cache half as large."""

from dataclasses import replace

import torch

from weightwise.laws.moe import HUNYUAN_BUDGET, HUNYUAN_COST
from weightwise.lm import LanguageModel, num_active_parameters, num_stored_parameters
from weightwise.lm.flops import training_flop
from weightwise.optim import expert_ratio
from weightwise.recipes import hunyuan_large, moe

large = hunyuan_large()
print(f"{num_stored_parameters(large):,} parameters, {num_active_parameters(large):,} for a token")
print(f"{training_flop(large, 8192):.3e} FLOP a training token at 8,192 tokens")
compute = float(HUNYUAN_BUDGET.compute_of_size(58.1e9))
print(f"58.1e9 are best for {compute:.2e} FLOP and {HUNYUAN_BUDGET.best_data(compute):.2e} tokens")
print(f"52e9 on 7e12 tokens cost {HUNYUAN_COST.flop(52e9, 7e12):.2e} FLOP")
print(f"learning rate of experts at a quarter of the noise batch: {expert_ratio(16, 0.25):.2f}")

config = moe().model
for share_factor in (1, 2):
    model = LanguageModel(
        replace(config, attention=replace(config.attention, share_factor=share_factor))
    )
    cache = model.new_cache(1, 256, dtype=torch.bfloat16)
    print(f"keys shared by {share_factor}: {cache.num_bytes // 256} bytes a token")

model.initialize(torch.Generator().manual_seed(0))
torch.manual_seed(0)
model.train()(torch.randint(config.vocab_size, (4, 128)))
told = model.routing_statistics()
names = ", ".join(name for name in told if not name.startswith("load_"))
print(f"{names}; dropped: {told['dropped']:.0%}")
