"""Model, optimizer and data of a run in memory, and the arithmetic of one step.

The B sequences of a step are cut into micro-batches of m. With P processes, round a takes
micro-batches a*P to a*P + P - 1, one per process, so which sequences go through the model
together depends on m and not on P, and neither do the random numbers that they draw. The gradient
of the step is the mean over the targets of its examples.
"""

# Shapes: B examples of a step, M examples of a micro-batch, T tokens, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightwise.fp8 import clip_grad_norm_, gradient_statistics, prepare
from weightwise.lm import MoEConfig
from weightwise.numerics import quantize_model
from weightwise.optim import AdamW8, learning_rate, make_optimizer
from weightwise.optim.averaging import averaged, swap_average
from weightwise.train.batches import evaluation_windows
from weightwise.train.checkpoint import load_weights
from weightwise.train.examples import score_with
from weightwise.train.model import language_model
from weightwise.train.objectives import make_examples, make_order
from weightwise.train.optimizer_state import load_optimizer
from weightwise.train.parallel import clip_gradients, gradient_sync, reshard, spread
from weightwise.train.recipe import to_toml
from weightwise.train.start import starting_checkpoint

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from torch import Tensor, nn

    from weightwise.distributed import Fp8Gradients
    from weightwise.train.checkpoint import CheckpointFolder, RunState
    from weightwise.train.parallel import World
    from weightwise.train.recipe import Recipe, TrainConfig
    from weightwise.train.start import Prepared


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What is known of a gradient that lies in the parameters.

    Parameters
    ----------
    loss
        Mean loss of the batch, nats per token.
    norm
        Norm before clipping. Both may be NaN or infinite and are the same in every process.
    measures
        Other means over the batch, see `weightwise.train.examples.Examples`.
    routing
        See `weightwise.lm.LanguageModel.routing_statistics`; of this process's last micro-batch.
        With 8-bit gradients also what `weightwise.fp8.gradient_statistics` says.
    """

    loss: float
    norm: float
    measures: dict[str, float]
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
        Where to go on from; ``None`` begins with those of ``recipe.start``, or draws new ones.

    Raises
    ------
    ValueError
        If the batch or the experts do not split over the processes, or a split is too short for a
        window.

    Attributes
    ----------
    model
        The model as it is trained; its weights may be sharded.
    """

    def __init__(
        self, recipe: Recipe, data: Prepared, world: World, checkpoint: Path | None
    ) -> None:
        config = recipe.train
        self._recipe = recipe
        self._world = world
        self._tokenizer = data.tokenizer
        self._micro = micro_batch_size(config, world.size)
        self.model = language_model(recipe)
        start = starting_checkpoint(recipe) if checkpoint is None else checkpoint
        if start is None:
            # On the CPU, so that every kind of device starts from the same numbers.
            self.model.initialize(torch.Generator().manual_seed(recipe.seed))
        else:
            load_weights(self.model, start)
        quantize_model(self.model, recipe.precision)
        self.model.recompute_activations(config.recompute)
        self._module = self._spread(config)
        optimizer = make_optimizer(recipe.optimizer, self.model, expert_lr(recipe))
        self._optimizer: torch.optim.AdamW | AdamW8 = optimizer
        if config.fp8 is not None:
            _, self._optimizer = prepare(self.model, optimizer, config.fp8)
        if checkpoint is not None:
            load_optimizer(checkpoint / "optimizer", self.model, self._optimizer, world.size)
            # Where averages are kept, a checkpoint has them in the place of the weights.
            swap_average(self._optimizer)
        self._score = score_with(self._module, config.dtype)
        self._train, self._valid = make_examples(recipe, data, self.model, self._optimizer, world)
        self._order = make_order(recipe, self._train)

    def _spread(self, config: TrainConfig) -> nn.Module:
        """What to call in training; 8-bit models average their gradients by themselves."""
        if config.fp8 is None:
            return spread(self.model, config.strategy, config.expert_parallel, self._world)
        return self.model.to(self._world.device)

    def gradient(self, step: int) -> Gradient:
        """Compute the clipped gradient of a step's batch; steps count from 1."""
        index_B = self._order.windows(step)
        self.model.set_progress((step - 1) / self._recipe.train.steps)
        rounds = index_B.reshape(-1, self._world.size, self._micro)[:, self._world.rank]
        totals: dict[str, Tensor] = {}
        for number, index_M in enumerate(rounds):
            self._seed_draws(step, number)
            share = self._train.weight(index_M) / self._train.weight(index_B) * self._world.size
            with self._sync(is_last=number == len(rounds) - 1):
                means = self._train.measure(self._score, index_M)
                loss = means["loss"] * share
                auxiliary = self.model.auxiliary_loss(is_first=number == 0) / len(rounds)
                (loss + auxiliary).backward()
            _add(totals, means, share)
        measures = self._over_processes(totals, self._world.size)
        norm = self._clip(self._recipe.train.grad_clip)
        routing = self.model.routing_statistics()
        if self._recipe.train.fp8 is not None and step % self._recipe.train.log_every == 0:
            routing |= gradient_statistics(self.model.parameters())
        return Gradient(
            loss=measures.pop("loss"), norm=norm.item(), measures=measures, routing=routing
        )

    def _sync(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Average gradients over processes after the last micro-batch of a step only."""
        if isinstance(self._optimizer, AdamW8):
            gradients: Fp8Gradients = self._optimizer.fp8_gradients
            return gradients.sync(is_last=is_last)
        return gradient_sync(self._module, is_last=is_last)

    def _clip(self, max_norm: float) -> Tensor:
        if isinstance(self._optimizer, AdamW8):
            return clip_grad_norm_(self.model, self._optimizer, max_norm)
        return clip_gradients(self.model, max_norm)

    @property
    def num_skipped(self) -> int:
        """Steps that were not made because a gradient in 8 bits was not finite."""
        return getattr(self._optimizer, "num_skipped", 0)

    def move(self, step: int) -> float:
        """Let the optimizer make a step with the gradient at hand; returns the learning rate."""
        lr = learning_rate(self._recipe.schedule, step, self._recipe.train.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = lr * group["lr_ratio"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return lr

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Means over held-out examples, the same in every process; ``loss`` in nats per token.

        Where the optimizer averages the weights, the averages are judged.
        """
        with averaged(self._optimizer):
            return self._evaluate()

    def _evaluate(self) -> dict[str, float]:
        config = self._recipe.train
        index_B = evaluation_windows(self._valid.count, config.eval_batches * config.batch_size)
        pieces = [index_B[i : i + self._micro] for i in range(0, len(index_B), self._micro)]
        totals: dict[str, Tensor] = {}
        self._module.eval()
        for number in range(ceil(len(pieces) / self._world.size)):
            self._seed_draws(0, number)
            place = number * self._world.size + self._world.rank
            # All processes must make the same number of passes; the last may not count.
            index_M = pieces[min(place, len(pieces) - 1)]
            weight = self._valid.weight(index_M) if place < len(pieces) else 0.0
            _add(totals, self._valid.measure(self._score, index_M), weight)
        self._module.train()
        reshard(self._module)
        return self._over_processes(totals, self._valid.weight(index_B))

    def save(self, folder: CheckpointFolder, state: RunState) -> Path:
        """Write a checkpoint; returns its folder.

        Where the optimizer averages the weights, the averages are the model that is given away,
        and the weights lie in their place in the optimizer's state.
        """
        with averaged(self._optimizer):
            return folder.save(
                state,
                model=self.model,
                optimizer=self._optimizer,
                recipe=to_toml(self._recipe),
                tokenizer=self._tokenizer,
            )

    def _over_processes(self, totals: dict[str, Tensor], divisor: float) -> dict[str, float]:
        means = self._world.sum(torch.stack(list(totals.values()))) / divisor
        return dict(zip(totals, means.tolist(), strict=True))

    def _seed_draws(self, step: int, number: int) -> None:
        """Make all draws a matter of seed, step and micro-batch, so that runs resume exactly."""
        place = number * self._world.size + self._world.rank
        sequence = np.random.SeedSequence((self._recipe.seed, step, place))
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


def _add(totals: dict[str, Tensor], means: dict[str, Tensor], weight: float) -> None:
    """Add weighted means up, in double precision."""
    for name, value in means.items():
        new = value.detach().double() * weight
        totals[name] = totals[name] + new if name in totals else new


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
