"""What a run writes and shows while it works.

``metrics.jsonl`` has one JSON object per row: training rows (``step``, ``tokens``,
``train_loss``, ``lr``, ``grad_norm``, ``tokens_per_s``, with experts ``busiest_expert``,
``load_LAYER_EXPERT``, ``balance_loss``, ``overflow``, ``dropped``) and evaluation rows (``step``,
``tokens``, ``valid_loss``). Preference training adds ``margin``, ``accuracy``, ``ranking``,
``nll`` and ``online`` to both, behind ``train_`` or ``valid_`` (`weightwise.lm.post.dpo.dpo_loss`).
Vision models count ``images`` in the place of tokens and add ``valid_top1`` and ``valid_top5``.
Each row is on disk as soon as it is measured. A run that goes on from a checkpoint first drops the
rows of later steps, so that no step is there twice.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from weightwise.train.parallel import World
    from weightwise.train.session import Pace

Row = dict[str, float]


class Recorder:
    """Appends rows to ``metrics.jsonl`` and, if asked for, to TensorBoard files.

    Parameters
    ----------
    run_dir
        Folder of the run.
    last_step
        Step of the checkpoint that the run goes on from, 0 for a new run.
    tensorboard
        Also write TensorBoard files to ``run_dir/tensorboard``.

    Raises
    ------
    ValueError
        If TensorBoard is asked for and not installed.
    """

    def __init__(self, run_dir: Path, last_step: int, *, tensorboard: bool) -> None:
        path = run_dir / "metrics.jsonl"
        # A run that goes on from nothing makes its evaluation at step 0 again too.
        rows = [row for row in read_metrics(path) if last_step and row["step"] <= last_step]
        partial = path.with_name(".partial-" + path.name)
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8")
        self._board = _summary_writer(run_dir, last_step) if tensorboard else None

    def write(self, row: Row) -> None:
        """Write one row and flush it."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))

    def sync(self) -> None:
        """Make sure that all rows survive a power failure; called before a checkpoint."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> list[Row]:
    """All complete rows of a ``metrics.jsonl``, oldest first.

    Parameters
    ----------
    path
        The file; it need not exist. A last line that a crash cut short is left out.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


class RunLog:
    """Everything that a run writes and shows; silent in all processes but the main one.

    Parameters
    ----------
    run_dir
        Folder of the run.
    last_step
        Step that the run goes on from, 0 for a new run.
    pace
        Number of steps, and whether to write TensorBoard files.
    console
        Where to show progress.
    world
        Processes of the run.
    """

    def __init__(
        self, run_dir: Path, last_step: int, pace: Pace, console: Console, world: World
    ) -> None:
        self._display = make_display(console, last_step, pace.steps)
        self._recorder = (
            Recorder(run_dir, last_step, tensorboard=pace.tensorboard) if world.is_main else None
        )

    def write(self, row: Row) -> None:
        """Write and show a row of metrics."""
        if self._recorder is not None:
            self._recorder.write(row)
        self._display.show(row)

    def advance(self, step: int) -> None:
        """Show that a step is done."""
        self._display.advance(step)

    def sync(self) -> None:
        """Force the rows to disk."""
        if self._recorder is not None:
            self._recorder.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()
        if self._recorder is not None:
            self._recorder.close()


class Display(Protocol):
    """Shows how a run is going."""

    def show(self, row: Row) -> None:
        """Take note of a row of metrics."""

    def advance(self, step: int) -> None:
        """Take note that a step is done."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class ProgressBar:
    """A bar with loss, speed and time left, for terminals.

    Parameters
    ----------
    console
        Terminal.
    step, num_steps
        Steps done and wanted.
    """

    def __init__(self, console: Console, step: int, num_steps: int) -> None:
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", total=num_steps, completed=step, numbers="")
        self._row: Row = {}
        self._progress.start()

    def show(self, row: Row) -> None:
        """Put the newest numbers beside the bar."""
        self._row |= row
        self._progress.update(self._task, numbers=_numbers(self._row))

    def advance(self, step: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=step)

    def close(self) -> None:
        """Stop redrawing."""
        self._progress.stop()


class PlainLines:
    """One line per row of metrics, for logs and pipes.

    Parameters
    ----------
    console
        Where to print.
    num_steps
        Steps wanted.
    """

    def __init__(self, console: Console, num_steps: int) -> None:
        self._console = console
        self._num_steps = num_steps

    def show(self, row: Row) -> None:
        """Print the row."""
        text = f"step {row['step']:.0f}/{self._num_steps}  {_numbers(row)}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, step: int) -> None:
        """Print nothing: rows come often enough."""

    def close(self) -> None:
        """Nothing to undo."""


def make_display(console: Console, step: int, num_steps: int) -> Display:
    """Choose the display that suits the console."""
    if console.is_terminal:
        return ProgressBar(console, step, num_steps)
    return PlainLines(console, num_steps)


def _numbers(row: Row) -> str:
    """The numbers of a row that people look at."""
    shown = (
        ("train_loss", "loss {:.4f}"),
        ("valid_loss", "validation {:.4f}"),
        ("valid_accuracy", "accuracy {:.3f}"),
        ("valid_margin", "margin {:.4f}"),
        ("valid_top1", "top-1 {:.3f}"),
        ("tokens_per_s", "{:.0f} tokens/s"),
        ("images_per_s", "{:.0f} images/s"),
    )
    return "  ".join(form.format(row[name]) for name, form in shown if name in row)


def _summary_writer(run_dir: Path, last_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "train.tensorboard: needs the extra: pip install 'weightwise[track]'"
        ) from error
    # Steps after the checkpoint are hidden: they are about to be made again.
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=last_step + 1)
