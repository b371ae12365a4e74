"""The command ``weightwise distill contract``: a smaller model for a recipe, found by training.

A candidate's score is minus the validation loss after a short training of the recipe, with all
rates stretched over it. As in the paper (TinyViT, section 3.2), it is judged on a share of the
training images that is kept out of it, where the source is one of files; built-in tasks have images
of their own for that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import tyro
from rich.console import Console

from weightwise.cli.bars import Bars
from weightwise.cli.law_options import Json, print_json, require_positive
from weightwise.cli.train import Overrides, flat, say
from weightwise.recipes.vision import load_vision_recipe
from weightwise.sweep.journal import locked
from weightwise.train import DivergedError
from weightwise.train.files import write_text
from weightwise.train.vision import train_vision
from weightwise.train.vision_recipe import vision_from_dict, vision_to_dict, vision_to_toml
from weightwise.vision import Bounds, Latency, Plan, Space, TinyViTConfig, contract
from weightwise.vision.contract_pool import Processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.train.vision_recipe import VisionRecipe
    from weightwise.vision import Candidate, Progress

DONE = 0
FILE_SOURCES = ("folder", "list", "tar")
SPACE = Space()


@dataclass(frozen=True, kw_only=True)
class BoundOptions:
    """What the result may cost; at least one bound.

    Parameters
    ----------
    latency_ms
        Milliseconds of a forward pass, measured here.
    params
        Parameters, head included.
    macs
        Multiply-accumulates for one image.
    """

    latency_ms: float | None = None
    params: float | None = None
    macs: float | None = None

    def bounds(self) -> Bounds:
        """In the units of searches."""
        require_positive(latency_ms=self.latency_ms, params=self.params, macs=self.macs)
        if self == BoundOptions():
            raise ValueError("bounds: expected at least one of --latency-ms, --params, --macs")
        seconds = None if self.latency_ms is None else self.latency_ms / 1e3
        return Bounds(latency_s=seconds, num_params=self.params, macs=self.macs)


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How latency is measured.

    Parameters
    ----------
    device
        Where models run.
    dtype
        Type of weights and images.
    batch_size
        Images at a time.
    rounds
        Runs of each model; the median counts.
    """

    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = 1
    rounds: int = 15

    def latency(self) -> Latency:
        """The measure."""
        return Latency(
            device=self.device, dtype=getattr(torch, self.dtype), batch_size=self.batch_size,
            rounds=self.rounds,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How the search goes.

    Parameters
    ----------
    steps
        Steps from the recipe's model to the bounds.
    keep
        Models of a step whose neighbours make up the next one.
    limit
        Candidates of a step that are trained.
    epochs
        Epochs of the trainings; of several numbers each is for the best ones of the number before.
    survivors
        Share of the candidates that gets the next number of epochs.
    held_out
        Share of the training images that candidates are judged on, where images are files.
    jobs
        Trainings at a time, each in a process with one thread where there are several.
    """

    steps: int = 3
    keep: int = 1
    limit: int = 12
    epochs: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N [N ...]")] = (1,)
    survivors: float = 0.5
    held_out: float = 0.01
    jobs: int = 1

    def plan(self, space: Space) -> Plan:
        """What searches take."""
        return Plan(
            space=space, steps=self.steps, keep=self.keep, limit=self.limit,
            survivors=self.survivors,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShortTraining:
    """Score of a model: minus its validation loss after some epochs of a recipe.

    A training that was stopped goes on from its newest checkpoint. What has ended leaves its score
    and its metrics; weights are removed.

    Parameters
    ----------
    recipe
        What to do, but for the model.
    epochs
        How long.
    folder
        Of the trainings.
    """

    recipe: VisionRecipe
    epochs: int
    folder: Path

    @property
    def identity(self) -> str:
        """What journals call this score; the recipe's name makes no difference."""
        table = vision_to_dict(replace(self.recipe, name="any"))
        return f"{_digest(json.dumps(table, sort_keys=True))}-{self.epochs}"

    def run_dir(self, config: TinyViTConfig) -> Path:
        """Folder of a training."""
        return self.folder / f"{self.epochs}-{_digest(repr(config))}"

    def __call__(self, config: TinyViTConfig) -> float:
        """Train a model; more is better, minus infinity for one that diverges.

        Raises
        ------
        KeyboardInterrupt
            If the training was asked to stop; it has saved what there is.
        """
        run_dir = self.run_dir(config)
        kept = run_dir / "score.json"
        if kept.is_file():
            return float(json.loads(kept.read_text(encoding="utf-8")))
        recipe = shortened(with_model(self.recipe, config, run_dir.name), self.epochs)
        try:
            result = train_vision(recipe, run_dir, console=Console(quiet=True))
        except DivergedError:
            score = -inf
        else:
            if not result.is_complete:
                raise KeyboardInterrupt
            assert result.valid_loss is not None  # the last step is always judged
            score = -result.valid_loss
        write_text(kept, json.dumps(score))
        shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
        return score


def contract_command(
    recipe: tyro.conf.Positional[str],
    /,
    limits: tyro.conf.OmitArgPrefixes[BoundOptions] = BoundOptions(),
    search: tyro.conf.OmitArgPrefixes[SearchOptions] = SearchOptions(),
    measure: tyro.conf.OmitArgPrefixes[MeasureOptions] = MeasureOptions(),
    space: tyro.conf.OmitArgPrefixes[Space] = SPACE,
    out: Path | None = None,
    overrides: Overrides = (),
    as_json: Json = False,
) -> int:
    """Shrink the model of a recipe step by step until it is within bounds.

    The same command again goes on where it was stopped. The result is a recipe, ready for
    weightwise distill train.

    Args:
        recipe: Built-in recipe (composites-teacher, tinyvit-21m-distill, ...) or path of a TOML
            file; its model is where the search begins.
        limits: What the result may cost.
        search: How the search goes.
        measure: How latency is measured.
        space: What may change at a time.
        out: Folder of the search. Default: out/NAME-contract, after the recipe's name.
        overrides: Change settings of the recipe, such as model.image_size=64.
        as_json: Print one JSON object.
    """
    wanted, bounds = load_vision_recipe(recipe, flat(overrides)), limits.bounds()
    start = _start(wanted, search.epochs)
    plan, latency = search.plan(space), measure.latency()
    out = Path("out") / f"{wanted.name}-contract" if out is None else out
    judged = held_out(wanted, search.held_out)
    scores = [
        ShortTraining(recipe=judged, epochs=epochs, folder=out / "runs")
        for epochs in search.epochs
    ]  # fmt: skip
    with locked(out), Bars("trainings") as bars:
        found = contract(
            start, bounds, score=scores, plan=plan, journal=out / "journal.jsonl",
            measure=latency if bounds.latency_s is not None else None,
            map=map if search.jobs == 1 else Processes(jobs=search.jobs),
            on_progress=lambda now: _show(bars, now),
        )  # fmt: skip
        best, path = found[-1][0], out / "recipe.toml"
        result = with_model(wanted, best.config, f"{wanted.name}-contracted")
        write_text(path, vision_to_toml(result))
    num_trained = sum(trainings_by_score(found))
    if as_json:
        print_json(
            recipe=str(path), num_params=best.num_params, macs=best.macs,
            latency_ms=None if best.latency_s is None else 1e3 * best.latency_s,
            valid_loss=-best.score, trainings=num_trained, model=vision_to_dict(result)["model"],
        )  # fmt: skip
    else:
        print(f"{_told(best)}, after {num_trained} trainings: {path}")
        say(f"train it with: weightwise distill train {path}")
    return DONE


def trainings_by_score(found: Sequence[Sequence[Candidate]]) -> list[int]:
    """How many different trainings a search has asked each of its scores for."""
    rungs = {(one.config, rung) for step in found for one in step for rung in range(one.rung + 1)}
    most = max(rung for _, rung in rungs)
    return [sum(rung == one for _, one in rungs) for rung in range(most + 1)]


def with_model(recipe: VisionRecipe, config: TinyViTConfig, name: str) -> VisionRecipe:
    """The recipe for another model, under another name."""
    table = vision_to_dict(recipe)
    others = {key: value for key, value in table["model"].items() if key != "variant"}
    table |= {"name": name, "model": others | asdict(config)}
    return vision_from_dict(table, origin=recipe.name)


def shortened(recipe: VisionRecipe, epochs: int) -> VisionRecipe:
    """The recipe with its schedule compressed into some epochs; judged at the end only."""
    share = epochs / recipe.train.epochs
    schedule = replace(recipe.schedule, warmup_epochs=share * recipe.schedule.warmup_epochs)
    rare = replace(recipe.train, epochs=epochs, eval_every=10**9, keep_checkpoints=1)
    return replace(recipe, schedule=schedule, train=rare)


def held_out(recipe: VisionRecipe, share: float) -> VisionRecipe:
    """The recipe judged on a share of the training images instead of on the images for that."""
    if not 0 < share < 1:
        raise ValueError(f"held_out: expected above 0 and below 1, got {share}")
    images = recipe.images
    if images.source.kind not in FILE_SOURCES or images.valid_share is not None:
        return recipe
    table = vision_to_dict(recipe)
    table["images"]["source"].pop("valid")
    table["images"]["valid_share"] = share
    return vision_from_dict(table, origin=recipe.name)


def _start(recipe: VisionRecipe, epochs: tuple[int, ...]) -> TinyViTConfig:
    """The model that a search begins with."""
    config = recipe.model.build()
    if not isinstance(config, TinyViTConfig):
        raise ValueError(  # noqa: TRY004, a user has chosen it
            f"model: expected a TinyViT, got {type(config).__name__}"
        )
    if recipe.start is not None:
        raise ValueError(
            f"start: expected none, since candidates begin with new weights, got "
            f"{recipe.start.path}"
        )
    most = recipe.train.epochs
    if not epochs or not all(1 <= one <= most for one in epochs):
        raise ValueError(f"epochs: expected 1 to train.epochs {most} each, got {epochs}")
    return config


def _show(bars: Bars, now: Progress) -> None:
    step = f"step {now.step}/{now.steps}"
    bars.update(step, now.done, now.total)
    if now.done == now.total:
        bars.close(step, now.total)
        if now.best is not None:
            say(f"{step}: {_told(now.best)}")


def _told(one: Candidate) -> str:
    """A model in words."""
    costs = [f"{one.num_params / 1e6:.4g} M parameters", f"{one.macs / 1e6:.4g} M MACs"]
    if one.latency_s is not None:
        costs.append(f"{1e3 * one.latency_s:.4g} ms")
    return f"{', '.join(costs)}, validation loss {-one.score:.4f}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
