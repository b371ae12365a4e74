"""Number formats, rounding to them, and a linear layer that trains through the rounding."""

import torch
from torch import nn

from weightwise.numerics import (
    PrecisionConfig,
    QuantizedLinear,
    ScaledFormat,
    fake_quantize,
    parse,
    quantize_model,
    round_to_format,
)

e4m3, ocp, fp4 = parse("e4m3"), parse("float8_e4m3fn"), parse("fp4")
print(f"{e4m3.name} ends at {e4m3.max:g}, {ocp.name} at {ocp.max:g}")
print(f"{fp4.name}: {fp4.levels().tolist()}")
for name in ("e2m1@32", "mxfp4", "nvfp4"):
    print(f"{name}: {ScaledFormat.parse(name).bits_per_element} bits an element with its scale")

x = torch.tensor([0.3, 1.25, -5.2, 100.0])
print("rounded:       ", round_to_format(x, fp4).tolist())
print("scaled by pair:", fake_quantize(x, "e2m1@2").tolist())

model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
print("swapped:", quantize_model(model, PrecisionConfig(format="e2m1")))
assert isinstance(model[0], QuantizedLinear)
print(model[0])
