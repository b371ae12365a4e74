"""Training of vision models: from labels, from a store of soft labels, or beside a teacher.

The loop is that of language models (`weightwise.train.loop`); here are the model and the arithmetic
of a step. With micro-batches, or several processes, the running statistics of batch normalization
move once a step, by the mean over all micro-batches; so they do not depend on the number of
processes either.
"""

# Shapes: B images of a batch, C classes

from __future__ import annotations

import hashlib
import math
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightwise.images import TrainTransform
from weightwise.optim.averaging import averaged, swap_average
from weightwise.train.checkpoint import load_weights
from weightwise.train.files import write_text
from weightwise.train.loop import PATIENCE, go
from weightwise.train.optimizer_state import load_optimizer
from weightwise.train.parallel import clip_gradients, gradient_sync, open_world, replicate
from weightwise.train.session import Pace, Session
from weightwise.train.trainer import Gradient
from weightwise.train.vision_batches import BatchPlan, MicroBatches
from weightwise.train.vision_images import open_images
from weightwise.train.vision_models import make_model
from weightwise.train.vision_optimizer import vision_optimizer, vision_rate
from weightwise.train.vision_recipe import read_vision_recipe, vision_conflict, vision_to_toml
from weightwise.train.vision_relations import open_relations
from weightwise.train.vision_scores import TOP, held_out, measured_on, scores
from weightwise.train.vision_start import plan_of, starting_model
from weightwise.train.vision_statistics import RunningStatistics
from weightwise.train.vision_targets import open_target
from weightwise.vision import freeze_batch_norm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console
    from torch import Tensor

    from weightwise.images import Batch
    from weightwise.train.checkpoint import CheckpointFolder, RunState
    from weightwise.train.parallel import World
    from weightwise.train.session import TrainResult
    from weightwise.train.vision_images import PreparedImages
    from weightwise.train.vision_recipe import VisionRecipe, VisionTrainConfig
    from weightwise.train.vision_targets import Target


def train_vision(
    recipe: VisionRecipe,
    run_dir: Path | str,
    *,
    resume: bool = True,
    console: Console | None = None,
) -> TrainResult:
    """Train a vision model, or go on with a run that was stopped.

    Under torchrun every process calls this with the same arguments.

    Parameters
    ----------
    recipe
        What to do.
    run_dir
        Folder for metrics and checkpoints; made if missing.
    resume
        Go on from the newest checkpoint in ``run_dir``; if False, refuse a folder that has one.
    console
        Where to show progress; standard error by default.

    Returns
    -------
    TrainResult
        How the run ended. After Ctrl-C or SIGTERM the current step is finished and saved first.

    Raises
    ------
    ValueError
        If images, targets, recipe, checkpoint and number of processes do not fit each other.
    DivergedError
        If loss or gradient stop being finite.
    """
    keep = recipe.train.keep_checkpoints
    with open_world() as world:
        return _train(recipe, Session(run_dir, keep, world, console, resume=resume))


def _train(recipe: VisionRecipe, session: Session) -> TrainResult:
    """Do the work of `train_vision` in one process; see `weightwise.train.loop`."""

    def conflict(path: Path, _: int) -> str | None:
        saved = read_vision_recipe(path)
        if recipe.start is not None and recipe.sharing is None:
            saved = replace(saved, sharing=None)  # what the start has been found to share
        return vision_conflict(saved, recipe)

    num_classes = recipe.model.build().num_classes
    images = open_images(recipe.images, num_classes, needs_labels=recipe.needs_labels)
    target = open_target(recipe)
    fingerprint = hashlib.blake2b(
        f"{images.fingerprint} {target.identity}".encode(), digest_size=8
    ).hexdigest()
    state = session.state(fingerprint, "images and targets", conflict)
    plan = batch_plan(recipe, session.world)
    pace = _pace(recipe, plan.steps_per_epoch(len(images.train)))
    if session.is_finished(state, pace):
        return session.result(state, pace)
    trainer = VisionTrainer(recipe, images, target, plan, session.world, session.checkpoint)
    result = go(session, trainer, pace, state, vision_to_toml(recipe))
    if trainer.unreadable:
        path = session.run_dir / f"unreadable-{session.world.rank}.txt"
        write_text(path, "\n".join((*trainer.unreadable, "")))
        session.say(f"{len(trainer.unreadable)} images could not be read, see {path}")
    return result


def _pace(recipe: VisionRecipe, steps_per_epoch: int) -> Pace:
    config = recipe.train
    return Pace(
        steps=config.epochs * steps_per_epoch,
        units_per_step=config.batch_size,
        log_every=config.log_every,
        eval_every=config.eval_every or steps_per_epoch,
        save_every=config.save_every or steps_per_epoch,
        unit="images",
        patience=PATIENCE if recipe.optimizer.kind == "adamw8" else 0,
        is_judged_first=recipe.start is not None,
        tensorboard=config.tensorboard,
        remedy="a lower schedule.base_lr, more schedule.warmup_epochs or a smaller train.grad_clip",
    )


class VisionTrainer:
    """A vision model in training.

    Parameters
    ----------
    recipe
        Settings.
    images, target
        What it sees and is asked for.
    plan
        How images become micro-batches.
    world
        Processes that share the work.
    checkpoint
        Where to go on from; ``None`` begins with ``recipe.start``, or draws new weights.

    Attributes
    ----------
    model
        The model as it is trained.
    """

    def __init__(
        self, recipe: VisionRecipe, images: PreparedImages, target: Target, plan: BatchPlan,
        world: World, checkpoint: Path | None,
    ) -> None:  # fmt: skip
        self._world, self._target = world, target
        config = recipe.model.build()
        side = config.image_size
        view = recipe.images.view(side)
        if checkpoint is None:
            share = None if recipe.start is None else recipe.start.share
            seen = [] if share is None else measured_on(recipe, images, view, share.num_images)
            self.model = starting_model(recipe, seen)
        else:
            plan_of_run = read_vision_recipe(checkpoint / "recipe.toml").sharing
            self.model = make_model(config, plan_of_run)
            load_weights(self.model, checkpoint)
        # So that a checkpoint says all that its model needs.
        self._recipe = recipe = replace(recipe, sharing=plan_of(self.model))
        self._module = replicate(self.model.train(), torch.zeros(2, 3, side, side), world)
        self._optimizer = vision_optimizer(recipe, self.model)
        if checkpoint is not None:
            load_optimizer(checkpoint / "optimizer", self.model, self._optimizer, world.size)
            # Where averages are the model, a checkpoint has them in the place of the weights.
            if recipe.optimizer.uses_average:
                swap_average(self._optimizer)
        self._relations = open_relations(recipe, self.model, target)
        others = () if self._relations is None else self._relations.views
        transform = TrainTransform(
            augmentation=recipe.augmentation.build(), views=(view, *target.views, *others)
        )
        source = target.source(images)
        self._batches = MicroBatches(source, transform, target.seeds, plan, world)
        self._steps = recipe.train.epochs * self._batches.steps_per_epoch
        self._valid = held_out(recipe, images, view, world.rank, world.size)
        self._statistics = RunningStatistics(self.model)
        self._train_mode()

    def _train_mode(self) -> None:
        self._module.train()
        if self._recipe.train.batch_norm == "running":
            freeze_batch_norm(self.model)

    @property
    def unreadable(self) -> list[str]:
        """A line for each image that this process could not read up to now."""
        return sorted(set(self._batches.report.lines()))

    @property
    def num_skipped(self) -> int:
        """Steps that were not made because a gradient in 8 bits was not finite."""
        return getattr(self._optimizer, "num_skipped", 0)

    def gradient(self, step: int) -> Gradient:
        """Compute the clipped gradient of a step's batch; steps count from 1."""
        epoch, batches = self._batches.take(step)
        counts = torch.tensor([len(batch) for batch in batches], device=self._world.device)
        total = int(self._world.sum(counts.sum()))
        if not counts.all():
            raise ValueError(f"images: expected some that can be read in step {step}, got none")
        sums: dict[str, Tensor] = {}
        self._statistics.begin()
        for number, batch in enumerate(batches):
            self._seed_draws(step, number)
            share = len(batch) * self._world.size / total
            with gradient_sync(self._module, is_last=number == len(batches) - 1):
                losses = self._losses(batch, epoch)
                (losses["loss"] * share).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach().double() * len(batch)
            self._statistics.add()
        self._statistics.end(len(batches) * self._world.size, self._world)
        norm = clip_gradients(self.model, self._recipe.train.grad_clip or math.inf)
        means = (self._world.sum(torch.stack(list(sums.values()))) / total).tolist()
        measures = dict(zip(sums, means, strict=True))
        skipped = self._recipe.train.batch_size - total
        odd = {"skipped_images": float(skipped)} if skipped else {}
        return Gradient(loss=measures.pop("loss"), norm=norm.item(), measures=measures, routing=odd)

    def _losses(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Mean losses of a micro-batch: ``loss``, and its parts where it has any."""
        relations = self._relations
        with self._precision(), nullcontext() if relations is None else relations.taps:
            logits_BC = self._module(self._on_device(batch.views[0])).float()
        if relations is None:
            return {"loss": self._target.loss(logits_BC, batch, epoch)}
        return relations.losses(logits_BC, batch, epoch)

    def _precision(self) -> AbstractContextManager[object]:
        if self._recipe.train.dtype == "float32":
            return nullcontext()
        return torch.autocast(self._world.device.type, torch.bfloat16)

    def _on_device(self, x_B3SS: Tensor) -> Tensor:
        return x_B3SS.to(self._world.device, non_blocking=True)

    def move(self, step: int) -> float:
        """Let the optimizer make a step with the gradient at hand; returns the learning rate."""
        lr = vision_rate(self._recipe, step, self._batches.steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_ratio"]
        self._optimizer.step()
        # Fused optimizers leave the versions of weights as they were, by which models know whether
        # what they have worked out from weights still holds.
        torch.autograd.graph.increment_version(list(self.model.parameters()))
        self._optimizer.zero_grad(set_to_none=True)
        return lr

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy with labels, and shares of images whose class is the first or among five.

        The same in every process.
        """
        with torch.no_grad(), self._given_away():
            return self._evaluate()

    @contextmanager
    def _given_away(self) -> Iterator[None]:
        """Averages in the place of the weights for a while, where they are the model."""
        with averaged(self._optimizer) if self._recipe.optimizer.uses_average else nullcontext():
            yield

    def _evaluate(self) -> dict[str, float]:
        totals = torch.zeros(4, dtype=torch.float64, device=self._world.device)
        self.model.eval()
        for batch in self._valid.epoch(0):
            if len(batch):
                with self._precision():
                    logits_BC = self.model(self._on_device(batch.views[0])).float()
                totals += scores(logits_BC, batch)
        self._train_mode()
        count, *sums = self._world.sum(totals).tolist()
        if not count:
            raise ValueError("images: expected some to judge on that can be read, got none")
        return dict(zip(("loss", "top1", f"top{TOP}"), (one / count for one in sums), strict=True))

    def save(self, folder: CheckpointFolder, state: RunState) -> Path:
        """Write a checkpoint; returns its folder."""
        with self._given_away():
            return folder.save(
                state,
                model=self.model,
                optimizer=self._optimizer,
                recipe=vision_to_toml(self._recipe),
            )

    def _seed_draws(self, step: int, number: int) -> None:
        """Make all draws a matter of seed, step and micro-batch, so that runs resume exactly."""
        place = number * self._world.size + self._world.rank
        sequence = np.random.SeedSequence((self._recipe.seed, step, place))
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


def batch_plan(recipe: VisionRecipe, world: World) -> BatchPlan:
    """How a recipe's images become micro-batches with so many processes.

    Raises
    ------
    ValueError
        If the batch does not split evenly over the processes.
    """
    config: VisionTrainConfig = recipe.train
    micro = config.micro_batch_size or max(1, config.batch_size // world.size)
    if config.batch_size % (micro * world.size):
        raise ValueError(
            f"train.batch_size: expected a multiple of {micro} images x {world.size} processes, "
            f"got {config.batch_size}"
        )
    return BatchPlan(
        seed=recipe.seed, batch_size=config.batch_size, micro_batch_size=micro,
        repeats=config.repeats, num_workers=recipe.images.num_workers, mix=recipe.mixing,
        decoding=recipe.images.decoding,
    )  # fmt: skip
