"""Augmentation of one image on one core, beside torchvision and timm, and loading with workers.

    python weightwise/benchmarks/tinyvit_images.py [--repeats N]

``augment``  320 x 256 pixels to a tensor of 224: crop, flip, RandAugment, erasing, normalising.
             All contenders work on the same images; each draws its own random numbers, so a
             timing covers many images. The floor is Pillow's crop and resize with a flip and a
             conversion to float32, what no pipeline on Pillow can go without.
``decode``   a JPEG of 320 x 256 to RGB with all checks, beside Pillow's bare decoding.
``load``     batches of 64 JPEG files from a folder with two workers, images a second on the wall.

CPU time of the process on one thread, contenders in turns, medians. torchvision and timm are
measured where they can be imported.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from peers.clock import SEED, compare, emit, threads
from PIL import Image, __version__

from weightwise.images import (
    Decoding,
    ImageLoader,
    LoaderConfig,
    TrainTransform,
    View,
    decode,
    draw_plan,
    folder_images,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Way: TypeAlias = "Callable[[Image.Image], Tensor | None]"

SYSTEM = "tinyvit"
WIDTH, HEIGHT, SIZE = 320, 256, 224
IMAGES = 64  # of a timing
FILES, BATCH, WORKERS = 512, 64, 2
TRANSFORM = TrainTransform()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="repetitions of each timing")
    repeats = parser.parse_args().repeats
    with threads(1):
        measure_augmentation(repeats)
        measure_decoding(repeats)
        measure_loading()


def photos(count: int) -> list[Image.Image]:
    """Images of blurred noise at several scales, roughly as detailed as photographs."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(count):
        sum_HW3 = np.zeros((HEIGHT, WIDTH, 3))
        for cells in (4, 16, 64):
            noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            layer = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            sum_HW3 += np.asarray(layer) / cells
        sum_HW3 *= 255 / sum_HW3.max()
        found.append(Image.fromarray(sum_HW3.astype(np.uint8)))
    return found


def files(images: list[Image.Image]) -> list[bytes]:
    """The same as JPEG."""
    found = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def measure_augmentation(repeats: int) -> None:
    """Time of an image, and speedups over peers."""
    images = photos(IMAGES)
    ways: dict[str, Way] = {"floor": floor, **peers()}
    ours = times_of(ours_of(), images)
    works = {name: times_of(way, images) for name, way in ways.items()}
    found = compare(ours, works, repeats)
    plain = compare(works["floor"], {"ours": ours}, repeats)["ours"]
    milliseconds = float(np.median(plain.seconds)) / IMAGES * 1e3
    about = {"pixels": f"{WIDTH} x {HEIGHT} to {SIZE}", "images": IMAGES}
    emit(
        SYSTEM, name="augment_ms", value=round(milliseconds, 3), unit="ms", goal=("<=", 16.0),
        detail={**about, "over the floor": round(plain.ratio, 3), **plain.detail()},
    )  # fmt: skip
    for name, times in found.items():
        if name != "floor":
            emit(
                SYSTEM, name=f"augment_speedup_{name.split()[0]}", value=round(times.ratio, 3),
                unit="x", peer=name, goal=(">=", 1.0), detail={**about, **times.detail()},
            )  # fmt: skip


def times_of(way: Way, images: list[Image.Image]) -> Callable[[], None]:
    """Work of a timing."""

    def work() -> None:
        for image in images:
            way(image)

    return work


def ours_of() -> Way:
    """Our transform with a new seed for every image."""
    seeds = iter(range(10**9))
    return lambda image: TRANSFORM(image, next(seeds))[0]


def floor(image: Image.Image) -> Tensor:
    """The same crop for all: about half of the area."""
    image = image.crop((40, 30, 270, 210)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(View(size=SIZE).normalize(image))


def peers() -> dict[str, Way]:
    """What can be imported of torchvision's second transforms and timm's."""
    # On builds of torch without CUDA these need two operators declared before they load.
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    try:
        importlib.import_module("timm_shim").declare_operators()
        import timm
        import torchvision
        from timm.data import create_transform
        from torchvision.transforms import v2
    except (ImportError, RuntimeError) as error:
        print(f"without torchvision and timm: {error}", file=sys.stderr)
        return {}
    view = View(size=SIZE)
    bicubic = v2.InterpolationMode.BICUBIC
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, interpolation=bicubic),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(num_ops=2, magnitude=9, interpolation=bicubic),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(view.mean, view.std),
            v2.RandomErasing(0.25, value="random"),
        ]
    )
    timms = create_transform(
        SIZE, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic",
        re_prob=0.25, re_mode="pixel",
    )  # fmt: skip
    return {
        f"torchvision {torchvision.__version__} v2": theirs,
        f"timm {timm.__version__}": forgiving(timms),
    }


def forgiving(way: Way) -> Way:
    """Leave out an image in some hundreds: timm 1.0 posterizes to 0 bits, Pillow 13 refuses."""

    def work(image: Image.Image) -> Tensor | None:
        try:
            return way(image)
        except ValueError:
            return None

    return work


def measure_decoding(repeats: int) -> None:
    """Cost of the checks over bare decoding."""
    encoded = files(photos(IMAGES))
    config = Decoding()

    def bare() -> None:
        for data in encoded:
            Image.open(io.BytesIO(data)).convert("RGB")

    def checked() -> None:
        for data in encoded:
            decode("key", data, config)

    times = compare(bare, {"ours": checked}, repeats)["ours"]
    emit(
        SYSTEM, name="decode_over_pillow", value=round(times.ratio, 3), unit="x",
        peer=f"Pillow {__version__}", goal=("<=", 1.25),
        detail={"pixels": f"{WIDTH} x {HEIGHT}", "images": IMAGES, **times.detail()},
    )  # fmt: skip


def measure_loading() -> None:
    """Images a second from files with workers; and the share of time that draws take."""
    encoded = files(photos(IMAGES))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "0").mkdir()
        for i in range(FILES):
            (Path(folder) / "0" / f"{i}.jpg").write_bytes(encoded[i % IMAGES])
        config = LoaderConfig(batch_size=BATCH, num_workers=min(WORKERS, os.cpu_count() or 1))
        loader = ImageLoader(folder_images(Path(folder)), TRANSFORM, config)
        start = time.perf_counter()
        count = sum(len(batch) for batch in loader.epoch(0))
        seconds = time.perf_counter() - start
    start = time.process_time()
    for seed in range(FILES):
        draw_plan(TRANSFORM.augmentation, seed, WIDTH, HEIGHT)
    drawn_us = (time.process_time() - start) / FILES * 1e6
    emit(
        SYSTEM, name="load_images_per_s", value=round(count / seconds, 1), unit="images/s",
        detail={
            "workers": config.num_workers, "batch": BATCH, "images": count,
            "drawing_us": round(drawn_us, 1),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
