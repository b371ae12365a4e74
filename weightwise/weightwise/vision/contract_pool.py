"""Scores of models from several processes of this machine at a time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from weightwise.vision.config import TinyViTConfig


@dataclass(frozen=True, kw_only=True)
class Processes:
    """A map for `weightwise.vision.contract` that scores several models at a time.

    Scores and models are pickled. Latency is not measured meanwhile: a search does so before it
    scores the candidates of a step. Processes end with the one that started them.

    Parameters
    ----------
    jobs
        Processes, at least 1. On CUDA devices they take turns.
    threads
        Of each process, at least 1.
    """

    jobs: int
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("jobs", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def __call__(
        self, score: Callable[[TinyViTConfig], float], configs: Sequence[TinyViTConfig]
    ) -> Iterator[float]:
        """Scores of models, in their order.

        Raises
        ------
        ChildProcessError
            If a process has died, which too little memory often does.
        """
        if not configs:
            return
        # Started afresh: a fork would copy locks that threads of this process may hold.
        context = multiprocessing.get_context("spawn")
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(
            min(self.jobs, len(configs)), context, _begin, (context.Value("i", 0), self.threads)
        ) as executor:
            futures = [executor.submit(score, one) for one in configs]
            ours = set(multiprocessing.active_children()) - others
            try:
                for future in futures:
                    yield future.result()
            except BaseException as error:  # Ctrl-C, or nobody wants the rest
                for process in ours:
                    process.kill()
                executor.shutdown(cancel_futures=True)  # returns when they have ended
                if isinstance(error, BrokenProcessPool):
                    raise ChildProcessError(
                        "map: a process that scores has died; fewer jobs need less memory"
                    ) from None
                raise


def _begin(number: Any, threads: int) -> None:
    """What a process does first."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with number.get_lock():
        mine, number.value = number.value, number.value + 1
    if torch.cuda.is_available():
        os.environ["LOCAL_RANK"] = str(mine % torch.cuda.device_count())


def _end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, even by a kill."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
