"""The family of TinyViT: sizes, a pyramid, fusing, export, checkpoints and a smaller relative."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from weightwise.vision import (
    VARIANTS,
    Bounds,
    TinyViT,
    contract,
    export,
    fuse,
    load_tiny_vit,
    macs,
    map_logits,
    num_parameters,
    save_tiny_vit,
    vision_groups,
    with_classes,
    with_mapped_classes,
    with_resolution,
)

print("variant       parameters      MACs")
for name, config in VARIANTS.items():
    print(f"{name:8} {num_parameters(config):15,} {macs(config).total / 1e9:8.3f} G")

generator = torch.Generator().manual_seed(0)
model = TinyViT(VARIANTS["5m"]).eval()
model.initialize(generator)
images = torch.randn(2, 3, 224, 224, generator=generator)

with torch.inference_mode():
    logits = model(images)
    print("\nlogits", tuple(logits.shape))
    for stage, maps in enumerate(model.pyramid(torch.randn(1, 3, 320, 416)), start=1):
        print(f"stage {stage}: {tuple(maps.shape[1:])}")

    # For inference: normalization folded into convolutions; for other programs: torch.export.
    fused, program = fuse(model), export(model)
    for title, other in (("fused", fused), ("exported", program.module())):
        difference = (other(images) - logits).abs().max().item()
        print(f"{title}: the same logits to 1e-4: {difference < 1e-4}")

with TemporaryDirectory() as folder:
    for layout, file in (("timm", "timm.safetensors"), ("official", "official.pth")):
        save_tiny_vit(model, Path(folder, file), layout)
        again = load_tiny_vit(Path(folder, file)).eval()
        with torch.inference_mode():
            print(f"{layout}: the same bits: {torch.equal(again(images), logits)}")

# Fine-tuning: larger images, other classes, or some of the old ones; a rate for each depth.
large = with_resolution(model, 384)
print("\nat 384:", large.config.windows, f"{num_parameters(large.config):,} parameters")
print("new head:", with_classes(model, 10, generator).config.num_classes, "classes")
mapped = with_mapped_classes(model, [7, -1, 8])
print("mapped head:", mapped.config.num_classes, "classes")
print("without training:", tuple(map_logits(logits, [7, -1, 8]).shape))
groups = vision_groups(model, weight_decay=0.05, layer_decay=0.8)
print(
    f"{len(groups)} groups; the stem learns at {min(g['lr_ratio'] for g in groups):.3f} of the rate"
)

# Contraction: half the parameters of the smallest model, by a score that needs no data.
half = num_parameters(VARIANTS["5m"]) / 2
found = contract(VARIANTS["5m"], Bounds(num_params=half))
best = found[-1][0]
print("\ncontracted:", best.config.widths, best.config.depths, best.config.windows)
print(f"{best.num_params:,} parameters, {best.macs / 1e9:.3f} G MACs")
print("candidates of each step:", [len(step) for step in found])
