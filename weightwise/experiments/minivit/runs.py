"""Runs of the study: each made once, kept, and found again."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from tinyvit.recipes import Scale as ImageScale
from tinyvit.runs import VisionRuns, top1

from weightwise.multiplex import load_unique, num_unique_parameters, unique_state_dict
from weightwise.train.checkpoint import find_checkpoint

from .digits import ARMS, Course, Lesson, Training, accuracy, load_parts, make, train
from .shrunk import language_original, language_shrunk, vision_original, vision_shrunk

if TYPE_CHECKING:
    from pathlib import Path

    from study.runs import Runs

    from weightwise.train import Recipe
    from weightwise.vision.deit import DeiT

    from .digits import Images

TUNING_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is trained.

    Parameters
    ----------
    seeds
        Of weights and order.
    rates
        To choose from.
    training
        Of digits; its rate is the teacher's.
    epochs
        Of shrunk vision models; their original has 12.
    steps
        Of shrunk language models; their original has 800.
    """

    seeds: tuple[int, ...] = (1, 2, 3)
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    training: Training = field(default_factory=Training)
    epochs: int = 6
    steps: int = 300


class MiniRuns:
    """Makes runs that are missing.

    Parameters
    ----------
    runs
        Those of language models, and where all stay.
    scale
        How much is trained.
    """

    def __init__(self, runs: Runs, scale: Scale) -> None:
        self._language = runs
        self._folder, self.scale = runs.folder, scale
        self._vision = VisionRuns(runs.folder, ImageScale())

    @cached_property
    def _parts(self) -> tuple[Images, Images, Images]:
        return load_parts()

    @property
    def test(self) -> Images:
        """Images to judge on."""
        return self._parts[2]

    def accuracies(self, arm: str, rate: float | None = None) -> list[float]:
        """Share of right answers of an arm, percent, seed by seed.

        Parameters
        ----------
        arm
            Key of `ARMS`.
        rate
            The common one if ``None``.
        """
        return [accuracy(self.model(arm, seed, rate), self.test) for seed in self.scale.seeds]

    @cached_property
    def common_rate(self) -> float:
        """The best rate of the model that shares nothing, on images for tuning and with a seed."""

        def tuned(rate: float) -> float:
            return accuracy(self.model("unshared", TUNING_SEED, rate), self._parts[1])

        return max(self.scale.rates, key=tuned)

    def model(self, arm: str, seed: int, rate: float | None = None) -> DeiT:
        """Trained model of an arm, in evaluation mode."""
        path = self._made(arm, seed, rate)
        model = make(ARMS[arm], seed)
        load_unique(model, load_file(path / "model.safetensors"))
        return model.eval()

    def course(self, arm: str, seed: int, rate: float | None = None) -> Course:
        """How the training of an arm went."""
        table = json.loads((self._made(arm, seed, rate) / "course.json").read_text("utf-8"))
        norms = {int(step): values for step, values in table["norms"].items()}
        return Course(losses=table["losses"], norms=norms)

    def _made(self, arm: str, seed: int, rate: float | None) -> Path:
        training = self.scale.training
        if arm != "teacher":
            training = replace(training, lr=self.common_rate if rate is None else rate)
        path = self._folder / "digits" / f"{arm}-lr{training.lr:g}-s{seed}"
        if not path.exists():
            model = make(ARMS[arm], seed)
            taught = ARMS[arm].taught
            teacher = model if taught == "labels" else self.model("teacher", seed)
            course = train(model, Lesson(taught, model, teacher), self._parts[0], seed, training)
            # Whole or not at all, so that what was stopped begins anew.
            partial = path.with_name(f"{path.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file(unique_state_dict(model), partial / "model.safetensors")
            (partial / "course.json").write_text(json.dumps(asdict(course)), "utf-8")
            partial.rename(path)
            right = accuracy(model, self.test)
            print(f"{path.name}: {right:.1f} %", file=sys.stderr, flush=True)
        return path

    def num_parameters(self, arm: str) -> int:
        """Weights of an arm, each counted once."""
        return num_unique_parameters(make(ARMS[arm], TUNING_SEED))

    def vision(self, way: str | None = None) -> list[float]:
        """Accuracies of vision models, percent, seed by seed.

        Parameters
        ----------
        way
            How the original was shrunk, see `minivit.shrunk`; ``None`` for the original.
        """
        return [top1(self._vision_run(seed, way)) for seed in self.scale.seeds]

    def _vision_run(self, seed: int, way: str | None) -> Path:
        original = self._vision.made(vision_original(seed))
        if way is None:
            return original
        start = self._start(f"vision-{way}-s{seed}")
        return self._vision.made(vision_shrunk(original, way, start, epochs=self.scale.epochs))

    def language(self, way: str | None = None) -> list[float]:
        """Validation losses of language models, nats a token, seed by seed; as in `vision`."""
        originals = [language_original(seed) for seed in self.scale.seeds]
        losses = self._language.losses(originals)
        if way is None:
            return losses
        return self._language.losses([self._small_language(one, way) for one in originals])

    def _small_language(self, original: Recipe, way: str) -> Recipe:
        start = self._start(f"language-{way}-s{original.seed}")
        folder = self._language.run_dir(original)
        return language_shrunk(folder, way, start, steps=self.scale.steps)

    def size(self, kind: str, way: str | None = None) -> int:
        """Weights of the first seed's original, or of what it was shrunk to; they are in a file.

        Parameters
        ----------
        kind
            ``vision`` or ``language``.
        way
            See `vision`.
        """
        seed = self.scale.seeds[0]
        if way is not None:
            folder = self._start(f"{kind}-{way}-s{seed}")
        else:
            folder = find_checkpoint(self._folder / "runs" / f"{kind}-s{seed}")
        return sum(one.numel() for one in load_file(folder / "model.safetensors").values())

    def _start(self, name: str) -> Path:
        return self._folder / "starts" / name
