"""Soft labels by hand: a teacher's answers into a store, and a student that learns from them."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from weightwise.distill import (
    SoftLabels,
    SoftLoss,
    StoreConfig,
    as_tensors,
    augmentation_seeds,
    check,
    pack,
    verify,
    write,
)
from weightwise.distill.replay import Replay, StoredSeeds
from weightwise.images import (
    ArrayImages,
    Augmentation,
    Decoding,
    ImageLoader,
    LoaderConfig,
    TrainTransform,
    View,
)

CLASSES, EPOCHS = 50, 2
rng = np.random.default_rng(0)
source = ArrayImages(
    pixels=rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8),
    labels=np.zeros(200, dtype=np.int64),
    keys=tuple(f"image-{number}" for number in range(200)),
)
replay = Replay(augmentation=Augmentation(), decoding=Decoding())
transform = TrainTransform(augmentation=replay.augmentation, views=(View(size=16),))
weight = torch.from_numpy(rng.standard_normal((3 * 16 * 16, CLASSES), dtype=np.float32) / 8)


def teacher(x_BCSS: torch.Tensor) -> torch.Tensor:
    """Any function from images to logits."""
    return x_BCSS.flatten(1) @ weight


def batches(epoch, seeds_of):
    """Keys and images."""
    config = LoaderConfig(batch_size=50, base_seed=7)
    for batch in ImageLoader(source, transform, config, seeds_of=seeds_of).epoch(epoch):
        yield batch.keys, batch.views[0]


def train(labels):
    """A student that never sees the teacher."""
    student = torch.nn.Linear(3 * 16 * 16, CLASSES)
    torch.nn.init.zeros_(student.weight)
    torch.nn.init.zeros_(student.bias)
    optimizer, loss_of = torch.optim.Adam(student.parameters(), lr=1e-3), SoftLoss()
    for epoch in range(8 * EPOCHS):
        losses, stored = [], epoch % EPOCHS
        for keys, x_BCSS in batches(stored, StoredSeeds(labels=labels)):
            index_BK, value_BK, stored_BK = as_tensors(labels.gather(stored, keys))
            logits_BC = student(x_BCSS.flatten(1))
            loss = loss_of(logits_BC, index_BK, value_BK, stored_BK=stored_BK)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if epoch in (0, 8 * EPOCHS - 1):
            print(f"epoch {epoch}: loss {np.mean(losses):.2f} nats")


with TemporaryDirectory() as folder:
    path = Path(folder, "labels")
    fingerprint, canary = replay.identity()
    config = StoreConfig(
        classes=CLASSES, k=10, keys="name", base_seed=7, teacher="a linear map",
        fingerprint=fingerprint, canary=canary,
    )  # fmt: skip
    for epoch in range(EPOCHS):
        print(write(path, config, teacher, batches(epoch, augmentation_seeds), epoch=epoch))
    print("sound:", not verify(path).problems, verify(path).num_images)

    # A student opens the store with its own augmentation; another one would be refused.
    labels = SoftLabels(path, fingerprint=fingerprint, canary=canary)
    batch = labels.gather(1, ["image-5", "image-3"])
    print("classes", batch.indices.shape, "mass", np.round(batch.values.sum(1, dtype=float), 2))
    found = check(labels, teacher, batches(1, StoredSeeds(labels=labels)), epoch=1)
    print(f"{found.num_images} images, other classes: {found.index_share:.3f}")

    train(labels)

    report = pack(path, Path(folder, "packed"))
    print(f"{report.bytes_before:.0f} -> {report.bytes_after:.1f} bytes an image,", end=" ")
    print(f"KL {report.kl_mean:.4f} nats")
