"""The parts of training in 8 bits, each alone: tensors, the optimizer, who owns what, estimates."""

import torch
from torch import nn

from weightwise.distributed import greedy_partition
from weightwise.fp8 import Layout
from weightwise.numerics import ScaledTensor
from weightwise.optim import AdamW8

torch.manual_seed(0)
x = torch.randn(1024, 1024)
small = ScaledTensor.of(x, torch.float8_e4m3fn)
error = ((small.decode() - x).norm() / x.norm()).item()
print(
    f"{small.num_bytes():,} bytes of {x.nbytes:,}, scale {small.scale:g}, error {100 * error:.1f} %"
)
codes = small.payload.clone()
small.mul_(0.125)
same = torch.equal(codes.view(torch.uint8), small.payload.view(torch.uint8))
print(f"times 1/8: scale {small.scale:g}, codes unchanged: {same}")

layer = nn.Linear(512, 512, bias=False)
optimizer = AdamW8(layer.parameters())
layer(torch.randn(4, 512)).square().sum().backward()
optimizer.step()
moments = [optimizer.state[layer.weight][name] for name in ("exp_avg", "exp_avg_sq")]
print("moments:", *(str(one.payload.dtype) for one in moments))
print(f"{sum(one.num_bytes() for one in moments) / layer.weight.numel():.2f} bytes a parameter")

layer.weight.grad[0, 0] = torch.inf
optimizer.step()
print("steps skipped:", optimizer.num_skipped)

sizes = [3 * 64, 64, 4 * 64, 4 * 64, 3 * 64, 64]
print("owners of six tensors among three processes:", greedy_partition(sizes, 3))

seven = Layout(layers=32, width=4096, data=32)
for precision in ("bf16", "fp8"):
    print(
        f"7B over 32 processes in {precision}: {seven.state_gib(precision):.1f} GiB of states, "
        f"{seven.weight_traffic_gib(precision):.1f} GiB sent a step"
    )
