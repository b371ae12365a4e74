"""Words of Python's command line, in a process forked from one that has loaded the libraries.

Loading takes seconds, most small commands less than one. The root's `conftest.py` has this file run
in a new process, with ``JOB``: the words, the environment and a file for each of the two streams.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import torch

JOB: dict[str, Any] = globals()["JOB"]  # given by who runs the file


def main() -> None:
    """Become what Python started with these words would be, in a session of its own."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(JOB["files"][stream], os.O_WRONLY), stream)
    os.environ.clear()
    os.environ.update(JOB["environment"])
    torch.set_num_threads(1)  # the only number that forks are sure to survive
    first, *others = JOB["words"]
    if first == "-m":
        sys.path.insert(0, str(Path.cwd()))
        sys.argv = others
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(first).parent))
        sys.argv = [first, *others]
        runpy.run_path(first, run_name="__main__")


main()
