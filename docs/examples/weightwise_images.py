"""One integer decides over everything random about an image; who loads it does not matter."""

import numpy as np
import torch

from weightwise.images import (
    CLIP_MEAN,
    CLIP_STD,
    ArrayImages,
    Augmentation,
    EvalTransform,
    ImageLoader,
    LoaderConfig,
    Mix,
    TrainTransform,
    View,
    corrupt_labels,
    draw_plan,
    fingerprint,
    sample_seed,
    split,
)

# A source is anything that has keys, labels and pixels or bytes by number.
rng = np.random.default_rng(0)
source = ArrayImages(
    pixels=rng.integers(0, 256, (10, 48, 64, 3), dtype=np.uint8),
    labels=np.arange(10) % 2,
    keys=tuple(f"image-{number}" for number in range(10)),
)

# What a seed stands for can be read, without any pixel.
seed = sample_seed(base=1, epoch=0, key="image-7")
plan = draw_plan(Augmentation(), seed, width=64, height=48)
print("seed", seed)
print("crop", plan.crop, "flipped", plan.is_flipped, "operations", [name for name, _ in plan.ops])

# Student and teacher: the same random part, at sizes and with statistics of their own.
views = (View(size=32), View(size=48, mean=CLIP_MEAN, std=CLIP_STD))
transform = TrainTransform(augmentation=Augmentation(), views=views)
config = LoaderConfig(batch_size=4, base_seed=1)
loader = ImageLoader(source, transform, config)
batches = list(loader.epoch(0))
print("\nviews", [tuple(view.shape) for view in batches[0].views])
print("steps", loader.num_steps, "sizes", [len(batch) for batch in batches])

# The third step again, as a run does that goes on from there; workers would not change it either.
(again,) = loader.epoch(0, start_step=2)
print("same:", all(map(torch.equal, again.views, batches[2].views)))

# Two processes share out an epoch.
parts = [
    ImageLoader(source, transform, LoaderConfig(base_seed=1, process=process, num_processes=2))
    for process in (0, 1)
]
print("parts", [len(part.order(0)) for part in parts])

# Mixing: neighbours 2i and 2i + 1 with each other, drawn from both seeds.
mixed = next(ImageLoader(source, transform, config, mix=Mix()).epoch(0))
print("\npartners", mixed.mixing.partner.tolist())
print("shares", [round(share, 3) for share in mixed.mixing.lam.tolist()])

# A fingerprint tells what decides over pixels; two of them tell what differs.
other = TrainTransform(augmentation=Augmentation(erase_prob=0.0), views=views)
print("\n" + "\n".join(fingerprint(transform).differences(fingerprint(other))[:1]))

# Evaluation draws nothing. A split goes by the hash of keys; labels can be made wrong on purpose.
judged = ImageLoader(source, EvalTransform(views=(View(size=32),)), LoaderConfig(is_shuffled=False))
print("\nevaluated", tuple(next(judged.epoch(0)).views[0].shape))
train, test = split(source, 0.3)
wrong = corrupt_labels(source, share=0.3, num_classes=2, seed=0)
changed = sum(wrong.label(number) != source.label(number) for number in range(10))
print("split", len(train), len(test), "wrong labels", changed)
