"""How large a mixture of experts should be for its compute, and what another size costs."""

import numpy as np

from weightwise.laws import BESIROGLU, Settings
from weightwise.laws.moe import DENSE_COST, fit_budgets
from weightwise.laws.moe_plan import plan_size
from weightwise.lm import num_parameters, num_stored_parameters
from weightwise.lm.family import ShapeCost, scale_model
from weightwise.lm.rope import ntk_alpha
from weightwise.optim import fit_noise
from weightwise.recipes import hunyuan_large

plan = plan_size(3.109e24)
print(f"published law: {plan.num_params:.3g} weights a token, {plan.num_tokens:.4g} tokens")
print(f"52e9 weights: {float(plan_size(3.492e24).tokens(52e9)):.3g} tokens for 3.492e24 FLOP")

# Runs at four budgets; here a known law stands for the training.
compute, share = map(np.ravel, np.meshgrid(np.geomspace(1e18, 1e20, 4), np.geomspace(0.4, 2.5, 7)))
size = share * [BESIROGLU.optimal(one)[0] for one in compute]
tokens = compute / (6 * size)
fit = fit_budgets(size, tokens, BESIROGLU.loss(Settings.of(size, tokens)), compute)
print(f"own runs: N = {fit.law.size_scale:.3g} C^{fit.law.size_power:.3f}")

shape = hunyuan_large()
cost = ShapeCost(base=shape, seq_length=4096)
plan = plan_size(1e22, law=fit.law, law_cost=DENSE_COST, cost=cost, curvature=fit.curvature(1e22))
low, high = plan.valley.flat_region(0.002)
print(f"1e22 FLOP: {plan.num_params:.3g} weights a token; {low:.3g} to {high:.3g} in 0.002 nats")
model = scale_model(shape, plan.num_params)
print(f"{model.num_layers} layers of width {model.width}, experts of {model.ffn.hidden}: ", end="")
print(f"{num_parameters(model):.3g} weights a token, {num_stored_parameters(model):.3g} stored")

steps, batches = [5900, 3400, 2200, 1550], [1024, 2048, 4096, 8192]
noise = fit_noise(steps, batches)
print(f"noise batch {noise.noise_batch:.0f} tokens, R^2 {noise.r_squared:.4f}")
print(f"a rotary base of 1e9 with heads of 80: alpha {ntk_alpha(1e9, 80):,.0f}")
