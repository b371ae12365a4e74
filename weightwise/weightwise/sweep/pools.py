"""Where the runs of a sweep are made: in processes of this machine, or on Ray.

Both give the same records: a run depends on its recipe alone, and each is made by one process
with one thread. Both yield a record when a run has ended, in any order, and None when some time
has passed without one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Protocol

import torch

from weightwise.sweep.work import Task, failure, work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from weightwise.sweep.journal import Record
    from weightwise.train.interrupt import StopRequest

POLL_S = 0.5


class Pool(Protocol):
    """Makes runs."""

    def __call__(self, tasks: Sequence[Task], stop: StopRequest) -> Iterator[Record | None]:
        """Make runs until all have ended or, once ``stop`` is set, none is under way."""


@contextmanager
def open_pool(jobs: int, ray_address: str | None) -> Iterator[Pool]:
    """Choose a pool.

    Parameters
    ----------
    jobs
        Runs at a time in processes of this machine; with the Ray address ``local`` the size of
        the cluster.
    ray_address
        Ray cluster, ``local`` to start one on this machine; None for processes.

    Raises
    ------
    ValueError
        If Ray is wanted and not installed.
    """
    if ray_address is None:
        yield lambda tasks, stop: _in_processes(tasks, stop, jobs)
        return
    try:
        import ray
    except ImportError:
        raise ValueError("ray: Ray is not installed; pip install 'weightwise[ray]'") from None
    is_ours = not ray.is_initialized()
    if is_ours:
        size = jobs if ray_address == "local" else None
        ray.init(address=ray_address, num_cpus=size, log_to_driver=False, include_dashboard=False)
    try:
        yield _on_ray
    finally:
        if is_ours:
            ray.shutdown()


def _in_processes(tasks: Sequence[Task], stop: StopRequest, jobs: int) -> Iterator[Record | None]:
    waiting = list(reversed(tasks))
    workers = [_Worker(number) for number in range(min(jobs, len(tasks)))]
    is_stopping = False
    try:
        while True:
            if stop.is_set and not is_stopping:
                is_stopping = True
                waiting.clear()
                for worker in workers:
                    worker.process.terminate()  # a run finishes its step and saves
            for worker in workers:
                if worker.task is None and waiting:
                    worker.give(waiting.pop())
            busy = {worker.pipe: worker for worker in workers if worker.task is not None}
            if not busy:
                return
            ready = wait(list(busy), timeout=POLL_S)
            if not ready:
                yield None
            for pipe in ready:
                worker = busy[pipe]  # type: ignore[index]
                task, record = worker.take()
                if record is not None:
                    yield record
                elif not is_stopping:
                    yield failure(task.recipe, worker.obituary())
                    workers[workers.index(worker)] = _Worker(worker.number)
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that makes one run after another."""

    def __init__(self, number: int) -> None:
        # Started afresh: a fork would copy locks that threads of this process may hold.
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.task: Task | None = None
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, number), daemon=True)
        with _ctrl_c_ignored():  # from its first moment on, the worker has inherited that
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def give(self, task: Task) -> None:
        self.task = task
        with suppress(OSError):  # it has died, which `take` will find
            self.pipe.send(task)

    def take(self) -> tuple[Task, Record | None]:
        """The task at hand and its record, None if the process has died."""
        task, self.task = self.task, None
        assert task is not None
        try:
            record: Record = self.pipe.recv()
        except (EOFError, OSError):
            return task, None
        return task, record

    def obituary(self) -> str:
        self.process.join()
        return f"its process ended with exit code {self.process.exitcode}"

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, number: int) -> None:
    """Body of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if torch.cuda.is_available():
        os.environ["LOCAL_RANK"] = str(number % torch.cuda.device_count())
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(work(task))


def _end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, even by a kill."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _on_ray(tasks: Sequence[Task], stop: StopRequest) -> Iterator[Record | None]:
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    remote = ray.remote(num_cpus=1, num_gpus=min(1, int(resources.get("GPU", 0))))(work)
    pending = {remote.remote(task): task for task in tasks}
    is_stopping = False
    while pending:
        if stop.is_set and not is_stopping:
            is_stopping = True
            for future in pending:
                ray.cancel(future)  # Ctrl-C for the task: a run finishes its step and saves
        ready, _ = ray.wait(list(pending), timeout=POLL_S)
        if not ready:
            yield None
        for future in ready:
            task = pending.pop(future)
            try:
                yield ray.get(future)
            except ray.exceptions.RayError as error:
                if not is_stopping:
                    yield failure(task.recipe, f"{type(error).__name__}: {error}")
