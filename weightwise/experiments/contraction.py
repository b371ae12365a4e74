"""Contraction under a bound on latency, against random models of the same latency.

Claim (TinyViT, arXiv 2207.10666, section 3.2, which prints no ablation): searching in steps finds a
better model than chance does at the same cost.

Here: two digits in an image of 32 pixels, a hundred classes, from a model of a million weights to
two thirds of its latency, measured here. A search scores candidates by short trainings, the
better half by longer ones, judged on a tenth of the training images; it counts its trainings.
Random models are drawn uniformly from a box of the same factors until their latency is within 5 %
of the bound. Eight of them, the searched one, and the best of as many random ones as the search
has trained, found by the same trainings, are trained equally long and judged on the test images,
once for each seed. Rows with a goal are the claim. The others say what the scores are worth on
random models: rank correlations with the accuracy at the end.

Command   python weightwise/experiments/contraction.py [FOLDER] [--seeds N ...] [--tiny]
          keeps all trainings in FOLDER and goes on where it was stopped; --tiny is to see it run
Cost      about half an hour on one idle CPU core, 360 epochs of 3000 images
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr
from study.rows import claim, differences, figure

from weightwise.cli.contract import ShortTraining, held_out
from weightwise.images import RandAugment, composites
from weightwise.train import read_metrics
from weightwise.train.vision_config import AugmentationConfig, StudentConfig
from weightwise.train.vision_images import FolderSource, ImagesConfig
from weightwise.train.vision_recipe import (
    VisionRecipe,
    VisionScheduleConfig,
    VisionTrainConfig,
)
from weightwise.vision import (
    Bounds,
    Latency,
    Plan,
    Space,
    TinyViTConfig,
    contract,
    expressivity,
    num_parameters,
)
from weightwise.vision.contract_latency import guessed_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from study.rows import Row

    from weightwise.images.sources import ArrayImages
    from weightwise.vision import Candidate

SYSTEM = "tinyvit"
SEEDS = (1, 2, 3)
START = TinyViTConfig(
    widths=(32, 64, 96, 160), depths=(2, 2, 3, 2), windows=(4, 2, 1), head_width=16,
    image_size=32, num_classes=100,
)  # fmt: skip
SPACE = Space(width_step=16, width_reach=2, windows=(1, 2, 4), expansions=(2.0, 3.0, 4.0))
BAND = 0.05  # how far a random model's latency may be from the bound
HELD_OUT = 0.1
# A model whose guessed latency is further off than this is not measured.
FAR = 0.15
DRAWN_TOGETHER = 4
EXPANSIONS = ("conv_expansion", "mlp_expansion")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done.

    Parameters
    ----------
    num_train, num_test
        Images.
    epochs
        Of the trainings at the end.
    rungs
        Epochs of the trainings that score.
    limit
        Candidates of a step.
    num_random
        Random models that are trained to the end, for each seed.
    latency
        The bound, over the latency of the start.
    """

    num_train: int = 3000
    num_test: int = 2000
    epochs: int = 5
    rungs: tuple[int, ...] = (1, 2)
    limit: int = 6
    num_random: int = 8
    latency: float = 0.65


TINY = Size(num_train=400, num_test=200, epochs=2, rungs=(1,), limit=2, num_random=2)


class Relative:
    """Latency of models in units of that of the first one, which runs beside them."""

    identity = "CPU seconds of batches of 32 over those of the start"

    def __init__(self) -> None:
        self._latency = Latency(batch_size=32, rounds=9, clock="cpu")

    def __call__(self, configs: Sequence[TinyViTConfig]) -> list[float]:
        """Measure some models; searches put the start first."""
        first, *others = self._latency(configs)
        return [1.0, *(one / first for one in others)]


class Study:
    """Trainings of one seed, and the models that are compared.

    Parameters
    ----------
    folder
        Where everything stays.
    size
        How much is done.
    seed
        Of weights, order of images and random models.
    """

    def __init__(self, folder: Path, size: Size, seed: int) -> None:
        self._size, self._folder, self._seed = size, folder / f"seed-{seed}", seed
        recipe = recipe_of(folder / "images", size, seed)
        judged = held_out(recipe, HELD_OUT)
        self.rungs = [
            ShortTraining(recipe=judged, epochs=one, folder=self._folder / "scored")
            for one in size.rungs
        ]
        self._final = ShortTraining(
            recipe=recipe, epochs=size.epochs, folder=self._folder / "final"
        )
        self._measure = Relative()

    def searched(self) -> tuple[Candidate, list[int]]:
        """What the search finds, and how many trainings it has asked each score for."""
        found = contract(
            START, Bounds(latency_s=self._size.latency), score=self.rungs, measure=self._measure,
            plan=Plan(space=SPACE, steps=3, limit=self._size.limit),
            journal=self._folder / "journal.jsonl",
        )  # fmt: skip
        trained = {
            (one.config, rung) for step in found for one in step for rung in range(one.rung + 1)
        }
        counts = [sum(rung == one for _, one in trained) for rung in range(len(self.rungs))]
        return found[-1][0], counts

    def random(self, count: int) -> list[TinyViTConfig]:
        """Different random models whose latency is near the bound; kept, since it is measured."""
        path = self._folder / f"random-{count}.json"
        if not path.exists():
            drawn = [asdict(one) for one in self._draw(count)]
            path.write_text(json.dumps(drawn), encoding="utf-8")
        return [config_of(one) for one in json.loads(path.read_text(encoding="utf-8"))]

    def _draw(self, count: int) -> list[TinyViTConfig]:
        rng = np.random.default_rng(self._seed)
        known, near = {START: 1.0}, dict[TinyViTConfig, None]()
        while len(near) < count:
            group: list[TinyViTConfig] = []
            while len(group) < DRAWN_TOGETHER:
                one = random_model(rng)
                guess = guessed_seconds([one], known)[0]
                if one not in known and abs(guess / self._size.latency - 1) <= FAR:
                    group.append(one)
            _, *ratios = self._measure([START, *group])
            known.update(zip(group, ratios, strict=True))
            near |= {one: None for one in group if abs(known[one] / self._size.latency - 1) <= BAND}
        return list(near)[:count]

    def best_of(self, configs: Sequence[TinyViTConfig]) -> TinyViTConfig:
        """The best of some models by the scores of the search, halved as it does."""
        left = list(configs)
        for score, count in zip(self.rungs, Plan().counts(len(left), len(self.rungs)), strict=True):
            left = sorted(left[:count], key=score, reverse=True)
        return left[0]

    def top1(self, config: TinyViTConfig) -> float:
        """Accuracy on the test images after a whole training, in percent."""
        self._final(config)
        rows = read_metrics(self._final.run_dir(config) / "metrics.jsonl")
        return 100 * rows[-1]["valid_top1"]


def random_model(rng: np.random.Generator) -> TinyViTConfig:
    """Uniform over a box: up to what one step from the start reaches, no stage narrowing."""
    step, reach = SPACE.width_step, SPACE.width_reach
    while True:
        widths = [step * int(rng.integers(1, one // step + reach + 1)) for one in START.widths]
        if widths == sorted(widths):
            break
    choices = {name: float(rng.choice(SPACE.expansions)) for name in EXPANSIONS}
    return replace(
        START, widths=tuple(widths),
        depths=tuple(int(rng.integers(1, one + 2)) for one in START.depths),
        windows=tuple(int(rng.choice(SPACE.windows)) for _ in range(3)), **choices,
    )  # fmt: skip


def config_of(table: dict[str, Any]) -> TinyViTConfig:
    """A model out of JSON, which knows no tuples."""
    return TinyViTConfig(
        **{name: tuple(value) if isinstance(value, list) else value
           for name, value in table.items()}
    )  # fmt: skip


def recipe_of(folder: Path, size: Size, seed: int) -> VisionRecipe:
    """Training on composites in class folders, which are made if missing."""
    for part, count in (("train", size.num_train), ("test", size.num_test)):
        if not (folder / part).exists():
            write_images(folder / part, composites(part, count, 0))
    return VisionRecipe(
        name="contraction", seed=seed,
        model=StudentConfig(**asdict(START)),
        images=ImagesConfig(
            source=FolderSource(path=str(folder / "train"), valid=str(folder / "test")),
        ),
        augmentation=AugmentationConfig(
            scale=(0.8, 1.0), flip_prob=0.0, erase_prob=0.0, rand_augment=RandAugment(num_ops=0)
        ),
        schedule=VisionScheduleConfig(base_lr=2e-2, min_lr=2e-5, warmup_epochs=1),
        train=VisionTrainConfig(
            epochs=size.epochs, batch_size=50, eval_batch_size=250, log_every=50,
            keep_checkpoints=1, eval_every=10**9, save_every=10**9,
        ),
    )  # fmt: skip


def write_images(folder: Path, source: ArrayImages) -> None:
    """Images in a folder for each class; the folder appears when all are there."""
    partial = folder.with_name(f"{folder.name}.partial")
    for number in range(len(source)):
        path = partial / f"{source.label(number):02d}" / f"{source.key(number)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.pixels[number]).save(path)
    partial.rename(folder)


def compare(study: Study, size: Size) -> dict[str, Any]:
    """All that one seed has to say."""
    best, counts = study.searched()
    random = study.random(max(size.num_random, counts[0]))
    some = random[: size.num_random]
    accuracies = [study.top1(one) for one in some]
    searched = study.top1(best.config)
    final = {
        "searched": searched, "random": accuracies,
        "best_of": study.top1(study.best_of(random[: counts[0]])),
        "trainings": counts, "config": asdict(best.config),
        "latency": best.latency_s, "num_params": best.num_params,
        "random_params": [num_parameters(one) for one in some],
        "wins": mean((searched > one) + 0.5 * (searched == one) for one in accuracies),
        "expressivity": rank_correlation([expressivity(one) for one in some], accuracies),
        "short": rank_correlation([study.rungs[0](one) for one in some], accuracies),
    }  # fmt: skip
    print(final, file=sys.stderr)
    return final


def rank_correlation(scores: Sequence[float], accuracies: Sequence[float]) -> float:
    """Spearman's, 0 where one side has no order."""
    if len(set(scores)) == 1 or len(set(accuracies)) == 1:
        return 0.0
    return float(spearmanr(scores, accuracies).statistic)


def rows(found: Sequence[dict[str, Any]], size: Size) -> Iterator[Row]:
    """What is printed."""
    searched = [one["searched"] for one in found]
    means = [mean(one["random"]) for one in found]
    words = "a searched model is better than random ones of the same latency"
    paper = "no ablation"
    detail = {"size": asdict(size), "start": asdict(START), "found": list(found)}
    yield figure("contraction_searched_top1", searched, "%", detail=detail)
    yield figure("contraction_random_top1", means, "%")
    yield claim("contraction_gain", words, paper, differences(searched, means), "points")
    wins = [one["wins"] for one in found]
    yield claim(
        "contraction_win_share", "and better than most of them", paper, wins, "share",
        goal=(">=", 0.75),
    )  # fmt: skip
    best = [one["best_of"] for one in found]
    yield figure("contraction_gain_over_best_of_as_many", differences(searched, best), "points")
    yield figure(
        "contraction_trainings", [float(sum(one["trainings"])) for one in found], "trainings",
        detail={"by_score": [one["trainings"] for one in found], "epochs": list(size.rungs)},
    )  # fmt: skip
    for name in ("expressivity", "short"):
        yield figure(
            f"contraction_{name}_rank_correlation", [one[name] for one in found], "Spearman"
        )


def main(arguments: Sequence[str]) -> int:
    """Train what is missing and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of trainings; a temporary one else")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--tiny", action="store_true", help="a minute, to see that it runs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = TINY if options.tiny else Size()
    with tempfile.TemporaryDirectory(prefix="contraction-") as temporary:
        folder = options.folder or Path(temporary)
        found = [compare(Study(folder, size, seed), size) for seed in options.seeds]
    for row in rows(found, size):
        print(json.dumps({"system": SYSTEM, **row, "seed": options.seeds[0]}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
