"""Progress of long commands whose work has named parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.progress import TaskID


class Bars:
    """A bar for each part in terminals, a line for each that is done elsewhere; on standard error.

    Parameters
    ----------
    unit
        What is counted.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def update(self, part: str, done: int, count: int) -> None:
        """Show that so many of a part's units are done."""
        if part not in self._tasks:
            self._tasks[part] = self._progress.add_task(part, total=count)
        self._progress.update(self._tasks[part], completed=done)

    def close(self, part: str, count: int) -> None:
        """Tell that a part is done, and how many units it has."""
        if not self._console.is_terminal:
            self._console.print(f"{part}: {count} {self._unit}", markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
