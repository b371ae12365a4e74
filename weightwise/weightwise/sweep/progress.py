"""How far a sweep is, for the person who waits for it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from weightwise.sweep.grid import num_flop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from weightwise.sweep.journal import Record
    from weightwise.sweep.work import Task

TAIL_BYTES = 4096
SPEED_PERIOD_S = 900.0


class SweepProgress:
    """A bar for terminals, a line for each finished run elsewhere.

    The bar moves with the arithmetic that is done (6 N D), since runs differ in size.

    Parameters
    ----------
    tasks
        Runs to be made.
    num_before
        Runs made by earlier calls.
    console
        Where to show it.
    """

    def __init__(self, tasks: Sequence[Task], num_before: int, console: Console) -> None:
        self._console = console
        self._left = {task.recipe.name: task for task in tasks}
        self._num_ended, self._num_all = num_before, num_before + len(tasks)
        self._flop_ended = 0.0
        self._bar = Progress(
            TextColumn("{task.fields[runs]} runs"),
            BarColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=SPEED_PERIOD_S,
        )
        self._task = self._bar.add_task(
            "", total=sum(num_flop(task.recipe) for task in tasks), runs=self._runs(), numbers=""
        )
        self._first = {name: self._step(task)[0] for name, task in self._left.items()}

    def end(self, record: Record) -> None:
        """Take note that a run has ended."""
        task = self._left.pop(record["name"])
        self._num_ended += 1
        self._flop_ended += num_flop(task.recipe)
        if not self._console.is_terminal:
            self._say(f"{self._runs()}  {record['name']}  {outcome(record)}")
        elif record["status"] != "done":
            self._say(f"{record['name']}: {outcome(record)}")
        self.refresh()

    def refresh(self) -> None:
        """Look at what the runs under way have written."""
        if not self._console.is_terminal:
            return
        flop, shown = self._flop_ended, ""
        for name, task in self._left.items():
            step, loss = self._step(task)
            flop += num_flop(task.recipe) * step / task.recipe.train.steps
            if step > self._first[name] and loss is not None:
                shown = f"loss {loss:.4f}  {name}"
        self._bar.update(self._task, completed=flop, runs=self._runs(), numbers=shown)

    def _step(self, task: Task) -> tuple[int, float | None]:
        """Newest step of a run and its training loss."""
        row = _last_row(task.run_dir / "metrics.jsonl")
        return int(row.get("step", 0)), row.get("train_loss", row.get("valid_loss"))

    def _runs(self) -> str:
        return f"{self._num_ended}/{self._num_all}"

    def _say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def outcome(record: Record) -> str:
    """How a run ended, in a few words."""
    if record["status"] == "done":
        return f"loss {record['loss']:.4f}  ({record['seconds']:.0f} s)"
    return f"{record['status']}: {record['message']}"


def _last_row(path: Path) -> dict[str, float]:
    """Last complete row of a file of metrics; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
        row: dict[str, float] = json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}
    return row
