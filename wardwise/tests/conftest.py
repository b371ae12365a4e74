"""The command line as a fixture."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from wardwise.cli import main

if TYPE_CHECKING:
    from pathlib import Path

SOLOMON = """SMALL

VEHICLE
NUMBER     CAPACITY
  2          10

CUSTOMER
CUST NO.  XCOORD.  YCOORD.  DEMAND  READY TIME  DUE DATE  SERVICE TIME

    0      0   0   0     0   200   0
    1     10   0   4     0    50   5
    2     20   0   4     0    80   5
    3      0  30   4    40   120   5
"""


class Result:
    """Exit code, stdout and stderr of one call."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Call the command line inside this process, in an empty folder with `small.txt`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.txt").write_text(SOLOMON)

    def call(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["wardwise", *args])
        with pytest.raises(SystemExit) as exit_info:
            main()
        captured = capsys.readouterr()
        return Result(int(exit_info.value.code or 0), captured.out, captured.err)

    return call
