"""What every run has, whatever it trains: a folder, processes, a console, and a pace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from weightwise.train.checkpoint import (
    CheckpointFolder,
    RunState,
    list_checkpoints,
    read_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightwise.train.parallel import World

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long a run is, and what it writes when.

    Parameters
    ----------
    steps
        Steps of the run.
    units_per_step
        Tokens or images of a step.
    log_every, eval_every, save_every
        Steps between rows, evaluations and checkpoints.
    unit
        What is counted: the name of it in rows.
    patience
        Steps in a row that may be left out because their gradient is not finite.
    is_judged_first
        Whether a new run begins with an evaluation.
    tensorboard
        Also write TensorBoard files.
    remedy
        What to try where a run diverges.
    """

    steps: int
    units_per_step: int
    log_every: int
    eval_every: int
    save_every: int
    unit: str = "tokens"
    patience: int = 0
    is_judged_first: bool = False
    tensorboard: bool = False
    remedy: str = (
        "a lower schedule.peak_lr, more schedule.warmup_steps, a smaller train.grad_clip, or a "
        "format with more bits"
    )


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    Parameters
    ----------
    run_dir, checkpoint
        Folder of the run and of its newest checkpoint.
    step, num_steps
        Steps made and wanted.
    train_loss, valid_loss
        Loss of the last step's batch and of the last evaluation, nats per token or image.
    """

    run_dir: Path
    checkpoint: Path
    step: int
    num_steps: int
    train_loss: float
    valid_loss: float | None

    @property
    def is_complete(self) -> bool:
        """Whether all steps are made; else a signal stopped the run."""
        return self.step == self.num_steps


class Session:
    """The folder, the processes and the console of a run, at its start or newest checkpoint.

    Parameters
    ----------
    run_dir
        Folder of the run; made if missing.
    keep
        Newest checkpoints that stay.
    world
        Processes of the run.
    console
        Where to talk; standard error by default, nowhere in all processes but the main one.
    resume
        Go on from the newest checkpoint; if False, refuse a folder that has one.

    Attributes
    ----------
    checkpoint
        Newest checkpoint; ``None`` for a new run.

    Raises
    ------
    ValueError
        If there are checkpoints and all are damaged, or none was expected.
    """

    def __init__(
        self, run_dir: Path | str, keep: int, world: World, console: Console | None, *, resume: bool
    ) -> None:
        if not world.is_main:
            console = Console(quiet=True)
        elif console is None:
            console = Console(stderr=True)
        self.run_dir, self.world, self.console = Path(run_dir), world, console
        self.folder = CheckpointFolder(self.run_dir, keep, world)
        self.checkpoint = self._starting_point(resume=resume)

    def _starting_point(self, *, resume: bool) -> Path | None:
        """Find the checkpoint to go on from; the main process looks, the others follow."""
        if self.world.is_main:
            existing = list_checkpoints(self.run_dir / "checkpoints")
            if existing and not resume:
                raise ValueError(
                    f"--no-resume: expected a folder without checkpoints, {self.run_dir} has "
                    f"{existing[-1].name}; choose another --out"
                )
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self.folder.clean()
            self.folder.newest(self.say)
        self.world.barrier()
        whole = list_checkpoints(self.run_dir / "checkpoints")
        return whole[-1] if whole else None

    def say(self, text: str) -> None:
        """Tell one line, from the main process only."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def prepare_once(self, prepare: Callable[[], T]) -> T:
        """Let one process per machine prepare the data before the others open them."""
        data = prepare() if self.world.local_rank == 0 else None
        self.world.barrier()
        return prepare() if data is None else data

    def state(
        self, fingerprint: str, what: str, conflict: Callable[[Path, int], str | None]
    ) -> RunState:
        """How far the run is, after a check that it can go on.

        Parameters
        ----------
        fingerprint
            Of the data.
        what
            What they are.
        conflict
            Says why a run with the recipe in a file cannot go on from a step, if so.
        """
        if self.checkpoint is None:
            return RunState(
                step=0, tokens=0, train_loss=math.inf, valid_loss=None, best_valid_loss=None,
                best_step=None, data=fingerprint,
            )  # fmt: skip
        state = read_state(self.checkpoint)
        path = self.checkpoint / "recipe.toml"
        found = conflict(path, state.step)
        if found:
            raise ValueError(f"{path}: {found}; or start a new run with another --out")
        if state.data != fingerprint:
            raise ValueError(
                f"{self.checkpoint / 'state.json'}: data: expected {what} {state.data} as in the "
                f"run so far, got {fingerprint}; restore them or start a new run with another --out"
            )
        return state

    def is_finished(self, state: RunState, pace: Pace) -> bool:
        """Whether all steps are made; else it says from where the run goes on."""
        if self.checkpoint is None:
            return False
        if state.step < pace.steps:
            self.say(f"going on from step {state.step} ({self.checkpoint})")
        return state.step == pace.steps

    def result(self, state: RunState, pace: Pace) -> TrainResult:
        """How the run has ended, after a checkpoint."""
        assert self.checkpoint is not None
        return TrainResult(
            run_dir=self.run_dir,
            checkpoint=self.checkpoint,
            step=state.step,
            num_steps=pace.steps,
            train_loss=state.train_loss,
            valid_loss=state.valid_loss,
        )
