"""Images that a vision model is judged and measured on, without a training run."""

# Shapes: B images of a batch, C classes, S side of an image, T most probable classes

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from weightwise.images import EvalTransform, ImageLoader, LoaderConfig

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.images import Batch, View
    from weightwise.train.vision_images import PreparedImages
    from weightwise.train.vision_recipe import VisionRecipe

TOP = 5


def held_out(
    recipe: VisionRecipe, images: PreparedImages, view: View, process: int = 0, count: int = 1
) -> ImageLoader:
    """Images to judge on, a share of them for each of ``count`` processes."""
    return ImageLoader(
        images.valid,
        EvalTransform(views=(view,), fit=recipe.images.fit),
        LoaderConfig(
            batch_size=recipe.train.eval_batch_size, is_shuffled=False, process=process,
            num_processes=count, num_workers=recipe.images.num_workers,
        ),
        decoding=recipe.images.decoding,
    )  # fmt: skip


def measured_on(
    recipe: VisionRecipe, images: PreparedImages, view: View, num_images: int
) -> list[Tensor]:
    """Training images as they are judged, the first of a drawn order; shape (B, 3, S, S) each."""
    loader = ImageLoader(
        images.train,
        EvalTransform(views=(view,), fit=recipe.images.fit),
        LoaderConfig(
            batch_size=min(num_images, recipe.train.eval_batch_size), base_seed=recipe.seed
        ),
        decoding=recipe.images.decoding,
    )
    batches, missing = [], num_images
    for batch in loader.epoch(0):
        batches.append(batch.views[0][:missing])
        missing -= len(batches[-1])
        if missing <= 0:
            break
    return [x_B3SS for x_B3SS in batches if len(x_B3SS)]


def scores(logits_BC: Tensor, batch: Batch) -> Tensor:
    """Number of images, and sums over them of loss, first and first five right; shape (4,)."""
    label_B = batch.labels.to(logits_BC.device)
    loss = nn.functional.cross_entropy(logits_BC, label_B, reduction="sum")
    best_BT = logits_BC.topk(min(TOP, logits_BC.shape[1]), dim=1).indices
    is_right_BT = best_BT == label_B[:, None]
    return torch.stack(
        [torch.full_like(loss, len(batch)), loss, is_right_BT[:, 0].sum(), is_right_BT.sum()]
    ).double()


@torch.no_grad()
def top1(model: nn.Module, loader: ImageLoader) -> float:
    """Share of images whose class a model in evaluation mode puts first."""
    device = next(model.parameters()).device
    totals = torch.zeros(4, dtype=torch.float64, device=device)
    for batch in loader.epoch(0):
        if len(batch):
            totals += scores(model(batch.views[0].to(device)).float(), batch)
    count, _, right, _ = totals.tolist()
    if not count:
        raise ValueError("images: expected some to judge on that can be read, got none")
    return float(right / count)
