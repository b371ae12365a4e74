"""The command that proposes the next runs, as people call it."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from weightwise.cli import main
from weightwise.laws import CAPYBARA, Quantity, Settings, next_runs, read_runs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Call = Callable[..., tuple[int, str, str]]

ASKED = ("params=1e9", "format=e4m3")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Run the command in a folder with a table of runs; gives code, stdout and stderr."""
    rng = np.random.default_rng(0)
    with (tmp_path / "runs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["N", "D", "format", "B", "L"])
        for size in (4e7, 1.6e8, 6e8):
            for tokens in (1e10, 1e11):
                for name, block in (("bf16", ""), ("e1m1", 32), ("e2m1", 64), ("e3m2", 32)):
                    fmt = None if name == "bf16" else name
                    loss = CAPYBARA.loss(Settings.of(size, tokens, fmt, block or 1))[0]
                    noise = 0.002 * rng.standard_normal()
                    rows.writerow([size, tokens, name, block, loss + noise])
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(("law", "next", "runs.csv", *words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_proposals_from_a_grid(call: Call, tmp_path: Path) -> None:
    """The same as the library gives, from the sizes, lengths and formats of the options."""
    code, out, _ = call(
        "--quantity", "critical-tokens", *ASKED, "--params", "4e7", "3e8", "--tokens", "1e11",
        "--formats", "bf16", "e2m1", "e4m3", "--blocks", "32", "128", "--count", "2", "--json",
    )  # fmt: skip
    answer = json.loads(out)
    assert code == 0
    # Two sizes, one length; 16 bits once, two formats with two blocks each.
    assert (answer["num_runs"], answer["num_candidates"]) == (24, 10)
    runs = read_runs(tmp_path / "runs.csv")
    cases = ((None, 1), ("e2m1", 32), ("e2m1", 128), ("e4m3", 32), ("e4m3", 128))
    pool = Settings.join([Settings.of(n, 1e11, *case) for n in (4e7, 3e8) for case in cases])
    asked = Quantity.critical_tokens(Settings.of(1e9, 1e12, "e4m3", 128))
    expected = next_runs("capybara", runs.settings, runs.losses, pool, asked, count=2)
    assert answer["value"] == expected.value
    for row, one in zip(answer["runs"], expected.proposals, strict=True):
        assert (row["num_params"], row["before"], row["after"]) == (
            one.settings.num_params[0], one.before, one.after,
        )  # fmt: skip
    assert answer["runs"][0]["after"] < answer["runs"][0]["before"]


def test_without_a_grid_the_runs_themselves_are_candidates(call: Call) -> None:
    """Three sizes, two lengths, four formats with their blocks: each once more."""
    code, out, _ = call("--quantity", "delta", "--json")
    answer = json.loads(out)
    assert (code, answer["num_candidates"], len(answer["runs"])) == (0, 24, 3)
    assert {(one["format"], one["block_size"]) for one in answer["runs"]} <= {
        ("bf16", None), ("E1M1", "32"), ("E2M1", "64"), ("E3M2", "32"),
    }  # fmt: skip


def test_candidates_from_a_table_with_costs(call: Call, tmp_path: Path) -> None:
    """A cost where one is given, 6 N D where not; the answer's rows are such a table again."""
    (tmp_path / "next.csv").write_text(
        "N,D,format,B,cost\n1e9,1e11,e1m1,32,5\n1e9,1e11,e1m1,channel,\n"
    )
    words = ("--quantity", "loss", *ASKED, "tokens=1e12", "--candidates", "next.csv")
    code, out, _ = call(*words, "--per", "flop", "--count", "2", "--json")
    answer = json.loads(out)
    assert code == 0
    assert [row["cost"] for row in answer["runs"]] == [5.0, 6e20]
    (tmp_path / "next.jsonl").write_text("\n".join(map(json.dumps, answer["runs"])))
    code, again, _ = call(*words[:-1], "next.jsonl", "--per", "flop", "--count", "2", "--json")
    assert json.loads(again)["runs"] == answer["runs"]


def test_table_for_people(call: Call) -> None:
    """The best bits for a given compute, and all constants at once."""
    code, out, err = call("--quantity", "bits", "compute=1e22", "--count", "1")
    assert code == 0
    assert "->" in out
    assert "24 runs, 24 candidates; optimal bits 4." in out
    assert err == ""
    code, out, _ = call("--criterion", "d", "--count", "1")
    assert code == 0
    assert "1 ->" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "quantity: expected one"),
        (("--quantity", "rho"), "constant: expected one of n, alpha"),
        (("--quantity", "delta", "params=1"), "quantity: delta takes no more words"),
        (("--quantity", "loss", "size=1"), "loss takes params= tokens= format= block=, got"),
        (("--quantity", "loss", "params=1e9"), "quantity: loss: tokens=: expected a number"),
        (("--quantity", "bits"), "quantity: bits: compute=: expected a number, got none"),
        (("--quantity", "bits", "compute=x"), "compute=: expected a number, got 'x'"),
        (
            ("--quantity", "critical-tokens", *ASKED, "block=tensor"),
            "critical-tokens: tokens=: expected a number",
        ),
        (("--quantity", "critical-tokens", "params=1e9"), "expected a finite number"),
        (("--quantity", "delta", "--count", "99"), "count: expected 1 to 24, got 99"),
        (("--quantity", "delta", "--blocks", "32"), "blocks: expected formats beside them"),
        (("--quantity", "delta", "--candidates", "none.csv"), "none.csv"),
        (
            ("--quantity", "delta", "--candidates", "runs.csv", "--tokens", "1e9"),
            "expected a table or a grid",
        ),
        (("--quantity", "delta", "--law", "qat"), "qat: expected runs of one number format"),
    ],
)
def test_wrong_usage_is_told_in_one_line(call: Call, words: tuple[str, ...], message: str) -> None:
    """Exit code 2 and a line that names the option."""
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_runs_that_leave_constants_open_are_refused(call: Call, tmp_path: Path) -> None:
    """With the names of the constants."""
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    kept = [line for line in lines if "e1m1" not in line and "e3m2" not in line]
    (tmp_path / "runs.csv").write_text("\n".join(kept))
    code, _, err = call("--quantity", "delta")
    assert code == 2
    assert "do not determine delta, nu, gamma" in err


@pytest.mark.parametrize("cost", ["0", "-1", "x", "nan"])
def test_costs_that_make_no_sense_are_refused_by_line(
    call: Call, tmp_path: Path, cost: str
) -> None:
    """The file, the line and the column are named."""
    (tmp_path / "next.csv").write_text(f"N,D,format,B,cost\n1e9,1e11,e1m1,32,{cost}\n")
    code, _, err = call("--quantity", "delta", "--candidates", "next.csv")
    assert code == 2
    assert "next.csv, line 2: column cost: expected a number above 0" in err
