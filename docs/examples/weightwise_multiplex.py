"""Weight multiplexing of a model of torch: a plan, the start, sizes, files and diagnosis."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from weightwise.multiplex import (
    Plan,
    SizeReport,
    StagePlan,
    Transforms,
    block_similarity,
    find_stages,
    gradient_norms,
    load_multiplexed,
    multiplex,
    save_multiplexed,
    transform_macs,
)


def original(seed: int = 0) -> nn.TransformerEncoder:
    """Six equal blocks; in practice a trained model."""
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    for number, block in enumerate(encoder.layers):
        for weight in block.parameters():  # torch copies one layer: make them differ
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.05 + 0.01 * (number // 2))
    return encoder.eval()


images = torch.randn(4, 16, 64, generator=torch.Generator().manual_seed(1))
for stage in find_stages(original()):
    print(f"{stage.name}: {stage.length} blocks, {stage.num_shared:,} parameters to share in each")

# Half of the parameters: groups by sensitivity, weights that fit the outputs on a few batches best,
# and for each execution its own norms, a convolution over the 4 x 4 map and a part of rank 4.
model = original()
plan = multiplex(
    model,
    0.5,
    by="sensitivity",
    start="data",
    transforms=Transforms(kernel=3, rank=4),
    batches=[images],
)
print("\ngroups:", plan.stages[0].groups)
print(SizeReport.of(model).text())
print(f"transforms add {transform_macs(model, num_tokens=16, num_keys=16):,} multiply-adds")

# The nearer to the original, the less there is to tune.
print("\nerror at the start, relative to the outputs:")
with torch.inference_mode():
    wanted = original()(images)
    for title, start, transforms in (
        ("first block's weights", "first", Transforms()),
        ("mean", "mean", Transforms()),
        ("data", "data", Transforms()),
        ("data and rank 4", "data", Transforms(rank=4)),
    ):
        other = original()
        multiplex(other, 0.56, start=start, transforms=transforms, batches=[images])
        print(f"{title:22} {((other(images) - wanted).norm() / wanted.norm()).item():.2f}")

with TemporaryDirectory() as folder:
    save_multiplexed(model, Path(folder, "model"))
    again = original(seed=2)
    load_multiplexed(again, Path(folder, "model"))
    with torch.inference_mode():
        print("\nfrom disk: the same bits:", torch.equal(again(images), model(images)))

# A plan by hand, and what sharing does to gradients and features.
shared = original()
stage = StagePlan(name="layers", first=0, groups=(1, 2, 3))
multiplex(shared, plan=Plan(stages=(stage,), transforms=Transforms()))
norms = gradient_norms(shared, lambda one: one(images).square().mean())
alike = block_similarity(shared, original(), [images])
print("\nblock      gradient  alignment with the original")
for name, norm in norms.items():
    print(f"{name} {norm:10.2f} {alike[name]:10.2f}")
