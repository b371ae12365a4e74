"""A process of the soft-label tests, `STORE RANK`: writes its half, then replays some images."""

import hashlib
import json
import sys

import numpy as np
import torch

from weightwise.distill import SoftLabels, StoreConfig, StoreWriter, augmentation_seeds, top_k

CONFIG = StoreConfig(classes=40, k=5, base_seed=11, teacher="cosine")
NUM_KEYS = 4000
BATCH = 20


def images_of(keys, seeds):
    """Pictures of 8 numbers that depend on key and seed alone, as augmented images do."""
    drawn = [
        np.random.Generator(np.random.PCG64([int(key), int(seed)])).standard_normal(8)
        for key, seed in zip(keys, seeds, strict=True)
    ]
    return torch.from_numpy(np.stack(drawn)).float()


def teacher(images_B8):
    """Logits of 40 classes; each image's do not depend on its batch."""
    weight_8C = torch.cos(torch.arange(320.0)).reshape(8, 40)
    return (images_B8[:, :, None] * weight_8C).sum(1)


def append(writer, keys):
    """What a teacher's process does with a batch."""
    seeds = augmentation_seeds(11, writer.epoch, keys)
    writer.append(keys, seeds, *top_k(teacher(images_of(keys, seeds)), CONFIG))


def write(store, rank):
    """Write every other key, saying so after each batch; wait in the middle."""
    keys = np.arange(rank, NUM_KEYS, 2)
    with StoreWriter(store, CONFIG, epoch=0, shard=f"rank{rank}") as writer:
        for start in range(0, len(keys), BATCH):
            append(writer, keys[start : start + BATCH])
            print(start + BATCH, flush=True)
            if start + BATCH == NUM_KEYS // 4:
                sys.stdin.readline()


def replay(store, keys):
    """Digest of labels, and of images made again from their seeds."""
    batch = SoftLabels(store).gather(0, keys)
    image_B8 = images_of(keys, batch.seeds)
    parts = (batch.seeds, batch.indices, batch.values, image_B8.numpy())
    print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
    replay(sys.argv[1], json.loads(sys.stdin.readline()))
