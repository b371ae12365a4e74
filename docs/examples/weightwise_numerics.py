"""Number formats, rounding to them, and a linear layer that trains through the rounding."""

import torch
from torch import nn

from weightwise.numerics import (
    PrecisionConfig,
    QuantizedLinear,
    Scaling,
    fake_quantize,
    parse,
    quantize_model,
    round_to_format,
)

e4m3, ocp, fp4 = parse("e4m3"), parse("float8_e4m3fn"), parse("fp4")
print(f"{e4m3.name} ends at {e4m3.max:g}, {ocp.name} at {ocp.max:g}")
print(f"{fp4.name}: {fp4.levels().tolist()}")
print(f"with a 32-bit scale per 32: {fp4.storage_bits(block_size=32)} bits per element")

x = torch.tensor([0.3, 1.25, -5.2, 100.0])
print("rounded:       ", round_to_format(x, fp4).tolist())
blocks = Scaling(granularity="block", block_size=2)
print("scaled by pair:", fake_quantize(x, fp4, blocks).tolist())

model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
print("swapped:", quantize_model(model, PrecisionConfig(format="e2m1")))
assert isinstance(model[0], QuantizedLinear)
print(model[0])
