"""Trained multi-head models turned into CLLA: what is lost, and what a few steps take back."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from study.rows import claim, differences, figure

from weightwise.recipes.uptrain import uptrain
from weightwise.train import load_model
from weightwise.train.cache_conversion import REPORT, CacheBudget, convert_cache

from .arms import equal_shape
from .stored import validation_loss

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs

    from weightwise.train import Recipe

PERCENTS = (25.0, 12.5, 6.0)  # of the bytes of MHA
STEPS = 200
MOST_LOST = 1.01


def conversion(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Losses of MHA models before, after the conversion, and after 200 steps beside the old one."""
    originals = equal_shape("MHA")
    before = runs.losses(originals)
    scratch = runs.losses(equal_shape("CLLA-quant"))
    yield figure("conversion_loss_before", before, "nats")
    for percent in PERCENTS:
        folders = [_converted(runs, recipe, percent) for recipe in originals]
        converted = [_loss(folder, one) for folder, one in zip(folders, originals, strict=True)]
        trained = [_uptrained(folder, one) for folder, one in zip(folders, originals, strict=True)]
        runs.make(trained)
        after = [_loss(runs.run_dir(run), one) for run, one in zip(trained, originals, strict=True)]
        name = f"{percent:g}"
        yield figure(
            f"conversion_loss_{name}_converted", converted, "nats", detail=_told(folders[0])
        )
        yield figure(f"conversion_loss_{name}_uptrained", after, "nats")
        yield figure(
            f"conversion_{name}_over_before", [mean(after) / mean(before)], "x",
            goal=("<=", MOST_LOST),
        )  # fmt: skip
        yield claim(
            f"conversion_{name}_gain",
            f"{STEPS} steps repair a conversion to {name} % of the bytes",
            "a trained model recovers only partly (CLA's paper)", differences(converted, after),
            "nats",
        )  # fmt: skip
        if percent == PERCENTS[-1]:
            yield figure("conversion_scratch_minus_converted", differences(scratch, after), "nats")


def _converted(runs: Runs, recipe: Recipe, percent: float) -> Path:
    """Folder of a converted run, made if missing."""
    folder = runs.folder / "converted" / f"{recipe.name}-{percent:g}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        convert_cache(runs.run_dir(recipe), folder, CacheBudget(percent=percent))
    return folder


def _told(folder: Path) -> dict[str, Any]:
    """What the conversion itself says of the layout and of the errors of each group."""
    table = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return {name: table[name] for name in ("percent", "bytes_per_token", "groups")}


def _uptrained(folder: Path, original: Recipe) -> Recipe:
    """The run that goes on with a converted model."""
    recipe = uptrain(folder, steps=STEPS, overrides=["train.keep_checkpoints=1"])
    return replace(recipe, name=f"uptrained-{folder.name}", seed=original.seed)


def _loss(checkpoint: Path, original: Recipe) -> float:
    """Loss on the held-out text of the original run."""
    return validation_loss(load_model(checkpoint)[0], original)
