"""Start a module or script in several processes as torchrun does, but load torch only once.

torchrun loads it in a process of its own and again in every worker, which takes most of the time of
a small run. Here workers are forked from a process that has it. Each is told its place in the same
environment variables. When one fails, the others are ended and the exit code is 1.

    python launch.py 2 -m weightwise train tiny --out runs/two
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
from pathlib import Path

# What runs of several processes need; loading them starts no thread.
import torch.distributed.checkpoint
import torch.distributed.fsdp


def main() -> int:
    """Start the workers and wait for all."""
    size, words = int(sys.argv[1]), sys.argv[2:]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    os.environ |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    workers = set()
    for rank in range(size):
        worker = os.fork()
        if worker == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            work(words)
            return 0
        workers.add(worker)
    return wait(workers)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def work(words: list[str]) -> None:
    """Run the module or script as if Python had been started with it."""
    if words[0] == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(words[0]).parent))
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def wait(workers: set[int]) -> int:
    """Exit code once all workers have ended, 1 if any failed."""
    code = 0
    while workers:
        worker, status = os.wait()
        workers.discard(worker)
        if status and not code:
            code = 1
            for other in workers:
                os.kill(other, signal.SIGTERM)
    return code


if __name__ == "__main__":
    sys.exit(main())
