"""Model, optimizer and data of a run in memory, and the arithmetic of one step.

The B sequences of a step are cut into micro-batches of m. With P processes, round a takes
micro-batches a*P to a*P + P - 1, one per process, so which sequences go through the model
together depends on m and not on P. Losses are means over equal numbers of tokens; the gradient
of the step is the mean over its micro-batches.
"""

# Shapes: B sequences of a step, M sequences of a micro-batch, T tokens, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from weightwise.lm import LanguageModel, MoEConfig
from weightwise.numerics import quantize_model
from weightwise.optim import learning_rate, make_optimizer
from weightwise.train.batches import BatchOrder, Windows, evaluation_windows
from weightwise.train.checkpoint import load_weights
from weightwise.train.optimizer_state import load_optimizer
from weightwise.train.parallel import full, gradient_sync, reshard, spread

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.train.checkpoint import CheckpointFolder, RunState
    from weightwise.train.data import PreparedData
    from weightwise.train.parallel import World
    from weightwise.train.recipe import Recipe, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What is known of a gradient that lies in the parameters.

    Parameters
    ----------
    loss
        Mean loss of the batch, nats per token.
    norm
        Norm before clipping. Both may be NaN or infinite and are the same in every process.
    routing
        See `weightwise.lm.LanguageModel.routing_statistics`; of this process's last micro-batch.
    """

    loss: float
    norm: float
    routing: dict[str, float]


class Trainer:
    """A model in training.

    Parameters
    ----------
    recipe
        Settings.
    data
        Tokens and tokenizer.
    world
        Processes that share the work.
    checkpoint
        Where to go on from; ``None`` draws new weights.

    Raises
    ------
    ValueError
        If the batch does not split over the processes, or a split is too short for a window.
    """

    def __init__(
        self, recipe: Recipe, data: PreparedData, world: World, checkpoint: Path | None
    ) -> None:
        config = recipe.train
        self._recipe = recipe
        self._world = world
        self._tokenizer = data.tokenizer
        self._micro = micro_batch_size(config, world.size)
        self._train = Windows(data.train, config.seq_length, "train")
        self._valid = Windows(data.valid, config.seq_length, "valid")
        self._order = BatchOrder(self._train.count, config.batch_size, recipe.seed)
        self._model = LanguageModel(recipe.model)
        if checkpoint is None:
            # On the CPU, so that every kind of device starts from the same numbers.
            self._model.initialize(torch.Generator().manual_seed(recipe.seed))
        else:
            load_weights(self._model, checkpoint)
        quantize_model(self._model, recipe.precision)
        self._module = spread(self._model, config.strategy, world)
        self._optimizer = make_optimizer(recipe.optimizer, self._model, expert_lr(recipe))
        if checkpoint is not None:
            load_optimizer(checkpoint / "optimizer", self._model, self._optimizer, world.size)

    def gradient(self, step: int) -> Gradient:
        """Compute the clipped gradient of a step's batch; steps count from 1."""
        self._seed_draws(step)
        window_B = self._order.windows(step)
        rounds = window_B.reshape(-1, self._world.size, self._micro)[:, self._world.rank]
        total = torch.zeros((), dtype=torch.float64, device=self._world.device)
        for number, window_M in enumerate(rounds, start=1):
            with gradient_sync(self._module, is_last=number == len(rounds)):
                loss = self._loss(self._train, window_M) / len(rounds)
                (loss + self._model.auxiliary_loss() / len(rounds)).backward()
            total += loss.detach()
        mean = self._world.sum(total).item() / self._world.size
        norm = torch.nn.utils.clip_grad_norm_(
            self._model.parameters(), self._recipe.train.grad_clip
        )
        routing = self._model.routing_statistics()
        return Gradient(loss=mean, norm=full(norm).item(), routing=routing)

    def move(self, step: int) -> float:
        """Let the optimizer make a step with the gradient at hand; returns the learning rate."""
        lr = learning_rate(self._recipe.schedule, step, self._recipe.train.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_ratio"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return lr

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss over held-out windows in nats per token, the same in every process."""
        config = self._recipe.train
        window_B = evaluation_windows(self._valid.count, config.eval_batches * config.batch_size)
        pieces = [window_B[i : i + self._micro] for i in range(0, len(window_B), self._micro)]
        total = torch.zeros((), dtype=torch.float64, device=self._world.device)
        self._seed_draws(0)
        self._module.eval()
        for first in range(0, len(pieces), self._world.size):
            number = first + self._world.rank
            # All processes must make the same number of passes; the last may not count.
            piece_M = pieces[min(number, len(pieces) - 1)]
            loss = self._loss(self._valid, piece_M)
            if number < len(pieces):
                total += loss.double() * len(piece_M)
        self._module.train()
        reshard(self._module)
        return self._world.sum(total).item() / len(window_B)

    def save(self, folder: CheckpointFolder, state: RunState) -> Path:
        """Write a checkpoint; returns its folder."""
        return folder.save(
            state,
            model=self._model,
            optimizer=self._optimizer,
            tokenizer=self._tokenizer,
            recipe=self._recipe,
        )

    def _seed_draws(self, step: int) -> None:
        """Make rounding and routing a matter of seed and step alone: runs resume exactly."""
        is_routed = isinstance(self._recipe.model.ffn, MoEConfig)
        if is_routed or self._recipe.precision.rounding == "stochastic":
            words = np.random.SeedSequence((self._recipe.seed, step)).generate_state(1, np.uint64)
            torch.manual_seed(int(words[0]))

    def _loss(self, windows: Windows, window_M: NDArray[np.int64]) -> Tensor:
        device = self._world.device
        token_MT, target_MT = (ids.to(device) for ids in windows.read(window_M))
        is_bfloat16 = self._recipe.train.dtype == "bfloat16"
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bfloat16):
            logits_MTV = self._module(token_MT)
        return F.cross_entropy(logits_MTV.float().flatten(0, 1), target_MT.flatten())


def expert_lr(recipe: Recipe) -> float:
    """Learning rate of specialised experts over that of all other weights."""
    ffn, batch = recipe.model.ffn, recipe.train.batch_size * recipe.train.seq_length
    if not isinstance(ffn, MoEConfig):
        return 1.0
    return recipe.optimizer.expert_ratio(batch, ffn.num_experts / ffn.top_k)


def micro_batch_size(config: TrainConfig, num_processes: int) -> int:
    """Sequences that one process takes through the model at a time.

    Raises
    ------
    ValueError
        If the batch does not split evenly over the processes.
    """
    micro = config.micro_batch_size or max(1, config.batch_size // num_processes)
    if config.batch_size % (micro * num_processes):
        raise ValueError(
            f"train.batch_size: expected a multiple of {micro} sequences x {num_processes} "
            f"processes, got {config.batch_size}"
        )
    return micro
