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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from weightwise.train.data import default_cache_dir
from weightwise.train.files import write_text
from weightwise.train.interrupt import StopRequest
from weightwise.train.log import RunLog
from weightwise.train.parallel import open_world
from weightwise.train.recipe import Recipe, read_recipe, to_toml
from weightwise.train.recipe_conflicts import resume_conflict
from weightwise.train.samples import PreparedSamples
from weightwise.train.session import Pace, Session, TrainResult
from weightwise.train.start import prepare_data
from weightwise.train.trainer import Trainer

if TYPE_CHECKING:
    from rich.console import Console

    from weightwise.train.checkpoint import CheckpointFolder, RunState
    from weightwise.train.recipe import TrainConfig
    from weightwise.train.trainer import Gradient

PATIENCE = 10


class Training(Protocol):
    """A model in training: what the loop turns."""

    @property
    def num_skipped(self) -> int:
        """Steps that were not made because a gradient was not finite."""

    def gradient(self, step: int) -> Gradient:
        """Compute the clipped gradient of a step's batch; steps count from 1."""

    def move(self, step: int) -> float:
        """Let the optimizer make a step with the gradient at hand; returns the learning rate."""

    def evaluate(self) -> dict[str, float]:
        """Means over held-out examples, the same in every process; one of them is ``loss``."""

    def save(self, folder: CheckpointFolder, state: RunState) -> Path:
        """Write a checkpoint; returns its folder."""


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
    cache = default_cache_dir() if cache_dir is None else Path(cache_dir)
    keep = recipe.train.keep_checkpoints
    with open_world() as world:
        return _train(recipe, cache, Session(run_dir, keep, world, console, resume=resume))


def _train(recipe: Recipe, cache: Path, session: Session) -> TrainResult:
    """Do the work of `train` in one process.

    The trainer is gone before the processes part. Its reducer would otherwise be the last to hold
    their group, and wait for a thread of it while that thread waits for the interpreter.
    """

    def conflict(path: Path, step: int) -> str | None:
        return resume_conflict(read_recipe(path), recipe, step)

    data = session.prepare_once(lambda: prepare_data(recipe, cache))
    state = session.state(data.fingerprint, "documents", conflict)
    pace = _pace(recipe.train, is_judged_first=recipe.start is not None)
    if session.is_finished(state, pace):
        return session.result(state, pace)
    if session.checkpoint is None and isinstance(data, PreparedSamples):
        session.say(data.summary)
    trainer = Trainer(recipe, data, session.world, session.checkpoint)
    return go(session, trainer, pace, state, to_toml(recipe))


def go(
    session: Session, trainer: Training, pace: Pace, state: RunState, recipe: str
) -> TrainResult:
    """Train to the last step, or until a signal comes.

    Parameters
    ----------
    session, trainer, pace
        The run.
    state
        How far it is.
    recipe
        TOML text that is kept with it.
    """
    if session.world.is_main:
        write_text(session.run_dir / "recipe.toml", recipe)
    with (
        RunLog(session.run_dir, state.step, pace, session.console, session.world) as log,
        StopRequest() as stop,
    ):
        return _Run(session, trainer, pace, log).finish(state, stop)


def _pace(config: TrainConfig, *, is_judged_first: bool) -> Pace:
    return Pace(
        steps=config.steps,
        units_per_step=config.batch_size * config.seq_length,
        log_every=config.log_every,
        eval_every=config.eval_every,
        save_every=config.save_every,
        patience=PATIENCE if config.fp8 else 0,
        is_judged_first=is_judged_first,
        tensorboard=config.tensorboard,
    )


class _Run:
    """What the loop needs at hand while it turns."""

    def __init__(self, session: Session, trainer: Training, pace: Pace, log: RunLog) -> None:
        self._session = session
        self._trainer = trainer
        self._pace = pace
        self._log = log
        self._unlogged_steps = 0
        self._unlogged_s = 0.0
        self._left_out = 0  # steps in a row

    def finish(self, state: RunState, stop: StopRequest) -> TrainResult:
        """Make steps until the last one, or until asked to stop."""
        pace, session = self._pace, self._session
        if state.step == 0 and pace.is_judged_first:
            state = self._evaluate(state)
        while True:
            state = self._step(state)
            is_last = state.step == pace.steps
            if is_last or state.step % pace.eval_every == 0:
                state = self._evaluate(state)
            is_stopped = session.world.any(stop.is_set)
            if is_last or is_stopped or state.step % pace.save_every == 0:
                self._log.sync()
                session.checkpoint = self._trainer.save(session.folder, state)
            if is_last or is_stopped:
                return session.result(state, pace)

    def _step(self, state: RunState) -> RunState:
        start = time.perf_counter()
        pace, step = self._pace, state.step + 1
        gradient = self._trainer.gradient(step)
        is_finite = math.isfinite(gradient.loss) and math.isfinite(gradient.norm)
        self._left_out = 0 if is_finite else self._left_out + 1
        if self._left_out > pace.patience:
            what = f"loss is {gradient.loss}, gradient norm is {gradient.norm}"
            raise self._diverged(step, what)
        lr = self._trainer.move(step)
        state = replace(state, step=step, tokens=step * pace.units_per_step)
        if not is_finite:
            self._log.write({"step": step, pace.unit: state.tokens, **self._skipped()})
            self._log.advance(step)
            return state
        state = replace(state, train_loss=gradient.loss)
        self._unlogged_steps += 1
        self._unlogged_s += time.perf_counter() - start
        self._log.advance(step)
        if step % pace.log_every == 0 or step == pace.steps:
            units = self._unlogged_steps * pace.units_per_step
            self._log.write(
                {
                    "step": step,
                    pace.unit: state.tokens,
                    "train_loss": gradient.loss,
                    "lr": lr,
                    "grad_norm": gradient.norm,
                    f"{pace.unit}_per_s": round(units / self._unlogged_s, 1),
                    **{f"train_{name}": mean for name, mean in gradient.measures.items()},
                    **gradient.routing,
                    **self._skipped(),
                }
            )
            self._unlogged_steps, self._unlogged_s = 0, 0.0
        return state

    def _skipped(self) -> dict[str, int]:
        """Steps left out so far; only in 8 bits are there any."""
        return {"skipped_steps": self._trainer.num_skipped} if self._pace.patience else {}

    def _evaluate(self, state: RunState) -> RunState:
        means = self._trainer.evaluate()
        loss = means["loss"]
        if not math.isfinite(loss):
            raise self._diverged(state.step, f"validation loss is {loss}")
        row = {f"valid_{name}": mean for name, mean in means.items()}
        self._log.write({"step": state.step, self._pace.unit: state.tokens, **row})
        if state.best_valid_loss is None or loss < state.best_valid_loss:
            state = replace(state, best_valid_loss=loss, best_step=state.step)
        return replace(state, valid_loss=loss)

    def _diverged(self, step: int, what: str) -> DivergedError:
        checkpoint = self._session.checkpoint
        saved = (
            "no checkpoint was written yet" if checkpoint is None else f"last good: {checkpoint}"
        )
        return DivergedError(
            f"step {step}: {what}; stopped before it could spoil the weights ({saved}). Try "
            f"{self._pace.remedy}",
            step,
        )
