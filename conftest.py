"""What every test run needs, whichever library it looks at."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from hypothesis import settings

# The folders wardwise/ and weightwise/ would pass for namespace packages of the same names;
# importing the real ones first settles it.
import wardwise  # noqa: F401
import weightwise  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A busy machine must not fail a test; speed is measured in benchmarks/. What passed once must
# pass again, so properties are tried on the same examples; `make explore` draws new ones.
settings.register_profile("workspace", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile("workspace")

FORKED = Path(__file__).parent / "tests" / "forked.py"
# What takes small commands most of their time; loading it starts no thread.
LOADED = [
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "wardwise.cli",
    "weightwise.cli",
    "weightwise.train",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process ends long after the others."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


class Started:
    """A process of its own, with words of Python's command line and variables."""

    def __init__(self, words: tuple[str, ...], variables: dict[str, str], stem: Path) -> None:
        self._files = {1: stem.with_suffix(".out"), 2: stem.with_suffix(".err")}
        for file in self._files.values():
            file.touch()
        job = {"words": words, "environment": {**os.environ, **variables}, "files": self._files}
        # Forked from a process that has no threads and loads the libraries once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        self._process = context.Process(
            target=runpy.run_path, args=(str(FORKED), {"JOB": job}, "__main__")
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its number, which is that of its process group as well."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def out(self) -> str:
        """What it has written to standard output up to now."""
        return self._files[1].read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """What it has written to standard error up to now."""
        return self._files[2].read_text(encoding="utf-8")

    def poll(self) -> int | None:
        """Its exit code, minus the number of the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it, but not its children, a signal."""
        os.kill(self.pid, number)

    def until(self, pattern: str, stream: int = 2) -> re.Match[str]:
        """The first place in one of its streams that has a pattern, as soon as it is there."""
        while not (found := re.search(pattern, self._files[stream].read_text("utf-8"))):
            code = self.poll()
            assert code is None, f"ended with {code} before it said {pattern}: {self.err}"
            time.sleep(0.01)
        return found

    def wait(self, timeout: float = 200.0) -> int:
        """Exit code at its end, which must come within some seconds."""
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, f"still runs after {timeout:g} s: {self.err}"
        return code

    def finish(self, timeout: float = 200.0) -> str:
        """Standard output at its end, which must be a good one."""
        assert self.wait(timeout) == 0, self.err
        return self.out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it and its children, if they still run."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it may not yet have a group of its own
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Started]]:
    """Start Python with words of its command line, and with variables of the environment."""
    folder = tmp_path_factory.mktemp("started")
    all_started: list[Started] = []

    def begin(*words: object, **variables: object) -> Started:
        texts = {name: str(value) for name, value in variables.items()}
        stem = folder / str(len(all_started))
        all_started.append(Started(tuple(map(str, words)), texts, stem))
        return all_started[-1]

    yield begin
    for each in all_started:
        with each:
            pass
