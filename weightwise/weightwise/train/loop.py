"""The training loop: the only one, for every model, format and number of processes.

A step is: take the batch that belongs to (seed, step), compute the gradient, clip it, set the
learning rate, let the optimizer move. Nothing else is random, and no state outside of weights,
optimizer and step number matters; so a run that goes on from a checkpoint makes the same steps,
bit for bit, as one that was never stopped (same machine, threads and processes).

A gradient that is not finite ends a run. In 8 bits it may be one product that went beyond the
format, so the step is left out, up to `PATIENCE` times in a row.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from weightwise.train.checkpoint import (
    CheckpointFolder,
    RunState,
    list_checkpoints,
    read_state,
)
from weightwise.train.data import default_cache_dir
from weightwise.train.files import write_text
from weightwise.train.interrupt import StopRequest
from weightwise.train.log import RunLog
from weightwise.train.parallel import open_world
from weightwise.train.recipe import Recipe, read_recipe, to_toml
from weightwise.train.recipe_conflicts import resume_conflict
from weightwise.train.samples import PreparedSamples
from weightwise.train.start import prepare_data
from weightwise.train.trainer import Trainer

if TYPE_CHECKING:
    from weightwise.train.parallel import World
    from weightwise.train.start import Prepared

PATIENCE = 10


class DivergedError(RuntimeError):
    """Loss or gradient is no longer a finite number; the message says where and what to try.

    Parameters
    ----------
    message
        What happened.
    step
        In which step, counted from 1.
    """

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    Parameters
    ----------
    run_dir, checkpoint
        Folder of the run and of its newest checkpoint.
    step
        Steps made.
    train_loss, valid_loss
        Loss of the last step's batch and of the last evaluation, nats per token.
    is_complete
        False if a signal stopped the run before its last step.
    """

    run_dir: Path
    checkpoint: Path
    step: int
    train_loss: float
    valid_loss: float | None
    is_complete: bool


def train(
    recipe: Recipe,
    run_dir: Path | str,
    *,
    resume: bool = True,
    cache_dir: Path | str | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train a model, or go on with a run that was stopped.

    Under torchrun every process calls this with the same arguments.

    Parameters
    ----------
    recipe
        What to do.
    run_dir
        Folder for metrics and checkpoints; made if missing.
    resume
        Go on from the newest checkpoint in ``run_dir``; if False, refuse a folder that has one.
    cache_dir
        Folder of prepared data, see `weightwise.train.data.default_cache_dir`.
    console
        Where to show progress; standard error by default.

    Returns
    -------
    TrainResult
        How the run ended. After Ctrl-C or SIGTERM the current step is finished and saved first.

    Raises
    ------
    ValueError
        If data, recipe, checkpoint and number of processes do not fit each other.
    DivergedError
        If loss or gradient stop being finite (in 8 bits: for good); the step is not made and the
        last checkpoint stays.
    """
    run_dir = Path(run_dir)
    cache = default_cache_dir() if cache_dir is None else Path(cache_dir)
    with open_world() as world:
        if not world.is_main:
            console = Console(quiet=True)
        elif console is None:
            console = Console(stderr=True)
        return _train(recipe, run_dir, cache, world, console, resume=resume)


def _train(
    recipe: Recipe, run_dir: Path, cache: Path, world: World, console: Console, *, resume: bool
) -> TrainResult:
    """Do the work of `train` in one process.

    The trainer is gone before the processes part. Its reducer would otherwise be the last to hold
    their group, and wait for a thread of it while that thread waits for the interpreter.
    """
    folder = CheckpointFolder(run_dir, recipe.train.keep_checkpoints, world)
    checkpoint = _starting_point(run_dir, folder, world, console, resume=resume)
    data = _prepare_once(recipe, cache, world)
    state = _initial_state(data) if checkpoint is None else read_state(checkpoint)
    if checkpoint is not None:
        _check_same_run(recipe, checkpoint, state, data)
    if checkpoint is not None and state.step == recipe.train.steps:
        return _result(run_dir, checkpoint, state, is_complete=True)
    if checkpoint is not None:
        _say(console, f"going on from step {state.step} ({checkpoint})")
    elif isinstance(data, PreparedSamples):
        _say(console, data.summary)
    trainer = Trainer(recipe, data, world, checkpoint)
    if world.is_main:
        write_text(run_dir / "recipe.toml", to_toml(recipe))
    with (
        RunLog(run_dir, state.step, recipe.train, console, world) as log,
        StopRequest() as stop,
    ):
        return _Run(recipe, run_dir, trainer, folder, log, world).finish(state, checkpoint, stop)


class _Run:
    """What the loop needs at hand while it turns."""

    def __init__(
        self,
        recipe: Recipe,
        run_dir: Path,
        trainer: Trainer,
        folder: CheckpointFolder,
        log: RunLog,
        world: World,
    ) -> None:
        self._config = recipe.train
        self._run_dir = run_dir
        self._trainer = trainer
        self._folder = folder
        self._log = log
        self._world = world
        self._has_start = recipe.start is not None
        self._tokens_per_step = recipe.train.batch_size * recipe.train.seq_length
        self._unlogged_steps = 0
        self._unlogged_s = 0.0
        self._left_out = 0  # steps in a row

    def finish(self, state: RunState, checkpoint: Path | None, stop: StopRequest) -> TrainResult:
        """Make steps until the last one, or until asked to stop."""
        if state.step == 0 and self._has_start:
            state = self._evaluate(state, checkpoint)
        while True:
            state = self._step(state, checkpoint)
            is_last = state.step == self._config.steps
            if is_last or state.step % self._config.eval_every == 0:
                state = self._evaluate(state, checkpoint)
            is_stopped = self._world.any(stop.is_set)
            if is_last or is_stopped or state.step % self._config.save_every == 0:
                self._log.sync()
                checkpoint = self._trainer.save(self._folder, state)
            if checkpoint is not None and (is_last or is_stopped):
                return _result(self._run_dir, checkpoint, state, is_complete=is_last)

    def _step(self, state: RunState, checkpoint: Path | None) -> RunState:
        start = time.perf_counter()
        step = state.step + 1
        gradient = self._trainer.gradient(step)
        is_finite = math.isfinite(gradient.loss) and math.isfinite(gradient.norm)
        self._left_out = 0 if is_finite else self._left_out + 1
        if self._left_out > (PATIENCE if self._config.fp8 else 0):
            what = f"loss is {gradient.loss}, gradient norm is {gradient.norm}"
            raise _diverged(step, what, checkpoint)
        lr = self._trainer.move(step)
        tokens = step * self._tokens_per_step
        state = replace(state, step=step, tokens=tokens)
        if not is_finite:
            self._log.write({"step": step, "tokens": tokens, **self._skipped()})
            self._log.advance(step)
            return state
        state = replace(state, train_loss=gradient.loss)
        self._unlogged_steps += 1
        self._unlogged_s += time.perf_counter() - start
        self._log.advance(step)
        if step % self._config.log_every == 0 or step == self._config.steps:
            tokens = self._unlogged_steps * self._tokens_per_step
            self._log.write(
                {
                    "step": step,
                    "tokens": state.tokens,
                    "train_loss": gradient.loss,
                    "lr": lr,
                    "grad_norm": gradient.norm,
                    "tokens_per_s": round(tokens / self._unlogged_s, 1),
                    **{f"train_{name}": mean for name, mean in gradient.measures.items()},
                    **gradient.routing,
                    **self._skipped(),
                }
            )
            self._unlogged_steps, self._unlogged_s = 0, 0.0
        return state

    def _skipped(self) -> dict[str, int]:
        """Steps left out so far; only in 8 bits are there any."""
        return {"skipped_steps": self._trainer.num_skipped} if self._config.fp8 else {}

    def _evaluate(self, state: RunState, checkpoint: Path | None) -> RunState:
        means = self._trainer.evaluate()
        loss = means["loss"]
        if not math.isfinite(loss):
            raise _diverged(state.step, f"validation loss is {loss}", checkpoint)
        row = {f"valid_{name}": mean for name, mean in means.items()}
        self._log.write({"step": state.step, "tokens": state.tokens, **row})
        if state.best_valid_loss is None or loss < state.best_valid_loss:
            state = replace(state, best_valid_loss=loss, best_step=state.step)
        return replace(state, valid_loss=loss)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _starting_point(
    run_dir: Path, folder: CheckpointFolder, world: World, console: Console, *, resume: bool
) -> Path | None:
    """Find the checkpoint to go on from; the main process looks, the others follow."""
    if world.is_main:
        existing = list_checkpoints(run_dir / "checkpoints")
        if existing and not resume:
            raise ValueError(
                f"--no-resume: expected a folder without checkpoints, {run_dir} has "
                f"{existing[-1].name}; choose another --out"
            )
        run_dir.mkdir(parents=True, exist_ok=True)
        folder.clean()
        folder.newest(lambda text: _say(console, text))
    world.barrier()
    whole = list_checkpoints(run_dir / "checkpoints")
    return whole[-1] if whole else None


def _prepare_once(recipe: Recipe, cache_dir: Path, world: World) -> Prepared:
    """Let one process per machine prepare the data before the others open them."""
    data = None
    if world.local_rank == 0:
        data = prepare_data(recipe, cache_dir)
    world.barrier()
    return prepare_data(recipe, cache_dir) if data is None else data


def _initial_state(data: Prepared) -> RunState:
    return RunState(
        step=0,
        tokens=0,
        train_loss=math.inf,
        valid_loss=None,
        best_valid_loss=None,
        best_step=None,
        data=data.fingerprint,
    )


def _check_same_run(recipe: Recipe, checkpoint: Path, state: RunState, data: Prepared) -> None:
    """Refuse to go on with a run under other conditions."""
    path = checkpoint / "recipe.toml"
    conflict = resume_conflict(read_recipe(path), recipe, state.step)
    if conflict:
        raise ValueError(f"{path}: {conflict}; or start a new run with another --out")
    if state.data != data.fingerprint:
        raise ValueError(
            f"{checkpoint / 'state.json'}: data: expected documents {state.data} as in the run so "
            f"far, got {data.fingerprint}; restore them or start a new run with another --out"
        )


def _diverged(step: int, what: str, checkpoint: Path | None) -> DivergedError:
    saved = "no checkpoint was written yet" if checkpoint is None else f"last good: {checkpoint}"
    return DivergedError(
        f"step {step}: {what}; stopped before it could spoil the weights ({saved}). Try a lower "
        "schedule.peak_lr, more schedule.warmup_steps, a smaller train.grad_clip, or a format "
        "with more bits",
        step,
    )


def _result(run_dir: Path, checkpoint: Path, state: RunState, *, is_complete: bool) -> TrainResult:
    return TrainResult(
        run_dir=run_dir,
        checkpoint=checkpoint,
        step=state.step,
        train_loss=state.train_loss,
        valid_loss=state.valid_loss,
        is_complete=is_complete,
    )
