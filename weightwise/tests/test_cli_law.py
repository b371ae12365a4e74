"""The law commands as people call them, from an empty folder."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import numpy as np
import pytest

from weightwise.cli import main
from weightwise.laws import CAPYBARA, QAT_W4A4, Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Call = Callable[..., tuple[int, str, str]]

FORMATS = ("bf16", "e1m1", "e2m1", "e3m2", "e4m3")


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Run a command in an empty folder; gives code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of Capybara's own making with a little noise, and one that diverged."""
    rng = np.random.default_rng(0)
    lines = ["num_params,num_tokens,format,block_size,loss,status"]
    for size in (4e7, 8e7, 1.6e8, 6e8):
        for tokens in (1e10, 3e10, 1e11):
            for name in FORMATS:
                fmt = None if name == "bf16" else name
                loss = CAPYBARA.loss(Settings.of(size, tokens, fmt, 32))[0]
                loss += 0.002 * rng.standard_normal()
                block = "" if fmt is None else "32"
                lines.append(f"{size},{tokens},{name},{block},{loss},done")
    lines.append("1e8,1e10,e1m1,32,,diverged")
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines))
    return path


def test_fit_then_predict_with_intervals(call: Call, runs: Path) -> None:
    """The fitted law finds the truth between the ends of its interval."""
    code, out, _ = call(
        "law", "fit", str(runs), "--samples", "50", "--out", "law.json", "--json", "--law",
        "capybara",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert (found["num_runs"], found["num_diverged"]) == (60, 1)
    low, high = found["intervals"]["delta"]
    assert low < found["constants"]["delta"] < high
    assert set(found["bias"]) == {"16 bits", "E1M1", "E2M1", "E3M2", "E4M3"}
    words = ("--params", "1e8", "--tokens", "5e10", "--format", "e2m1", "--block", "32")
    code, out, _ = call("law", "predict", "--law", "law.json", *words, "--level", "0.99", "--json")
    answer = json.loads(out)
    truth = CAPYBARA.loss(Settings.of(1e8, 5e10, "e2m1", 32))[0]
    assert answer["rows"][0]["low"] < truth < answer["rows"][0]["high"]
    assert answer["warnings"] == []
    code, out, _ = call("law", "plan", "--law", "law.json", "--compute", "1e21", "--json")
    assert json.loads(out)["bits"] == pytest.approx(4.2, abs=0.3)


def test_fit_for_people_shows_constants_and_bias(call: Call, runs: Path) -> None:
    """Without --json there are tables to read."""
    code, out, err = call("law", "fit", str(runs), "--samples", "5")
    assert code == 0
    assert "epsilon" in out
    assert "60 runs, 1 diverged and left out" in out
    assert "E1M1" in out
    assert "Traceback" not in err


@pytest.mark.slow
def test_compare_puts_the_right_law_first(call: Call, runs: Path) -> None:
    """Capybara made the runs, so it predicts unseen ones best."""
    code, out, _ = call("law", "compare", str(runs), "--folds", "3", "--json")
    answer = json.loads(out)
    laws = answer["laws"]
    assert code == 0
    assert answer["refused"] == [
        "qat: expected runs of one number format, got E1M1, E2M1, E3M2, E4M3"
    ]
    # Sixty runs and eight constants: log 60 for each, or 2.
    assert laws["capybara"]["bic"] - laws["capybara"]["aic"] == pytest.approx(8 * np.log(60) - 16)
    assert min(laws, key=lambda name: laws[name]["rmse_cross_validated"]) == "capybara"
    assert laws["capybara"]["rmse_largest_size"] < laws["kumar"]["rmse_largest_size"]
    code, out, _ = call("law", "compare", str(runs), "--folds", "2")
    assert out.index("capybara") < out.index("chinchilla")


@pytest.mark.slow
def test_compare_runs_without_quantization(call: Call, tmp_path: Path) -> None:
    """Laws that need quantized runs are named, the others compared."""
    lines = [
        f"{size},{tokens},{2 + 400 / size**0.34 + 400 / tokens**0.28}"
        for size in (1e7, 1e8, 1e9)
        for tokens in (1e9, 1e10, 1e11)
    ]
    (tmp_path / "runs.csv").write_text("\ufeffN,D,L\n" + "\n".join(lines), encoding="utf-8")
    code, out, _ = call("law", "compare", "runs.csv", "--folds", "3", "--json")
    answer = json.loads(out)
    assert code == 0
    refused = [
        f"{name}: expected runs with quantization, got none"
        for name in ("capybara", "qat", "kumar")
    ]
    assert answer["refused"] == refused
    assert answer["laws"]["chinchilla"]["rmse"] < 1e-6
    assert call("law", "fit", "runs.csv")[0] == 2


@pytest.mark.parametrize("law", ["qat-w4a4", "qat-w4a16", "qat-w16a4"])
def test_predict_with_the_law_of_quantization_aware_training(call: Call, law: str) -> None:
    """INT4 in groups is inside of its runs; where its 16-bit part comes from is told."""
    words = ("--params", "1e8", "--tokens", "5e10", "--format", "int4", "--block", "128")
    code, out, _ = call("law", "predict", "--law", law, *words, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["rows"][0]["critical_tokens"] > 5e10
    assert [one.split(":")[0] for one in answer["warnings"]] == [
        "of this law's constants only those of the penalty are at hand"
    ]
    code, _, err = call("law", "predict", "--law", law, *words[:-1], "channel")
    assert code == 2
    assert "expected blocks" in err


def test_fit_and_use_the_law_of_one_format(call: Call, tmp_path: Path) -> None:
    """From a table of INT4 runs to a file, and from the file to a prediction."""
    lines = ["N,D,format,B,L"]
    for size in (8e7, 2e8, 6e8):
        for tokens in (1e10, 3e10, 1e11):
            for block in (None, 32, 128):
                asked = Settings.of(size, tokens, block and "int4", block or 1)
                name = "int4" if block else ""
                lines.append(f"{size},{tokens},{name},{block or ''},{QAT_W4A4.loss(asked)[0]}")
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    code, out, _ = call("law", "fit", "runs.csv", "--law", "qat", "--samples", "0", "--out",
                        "law.json", "--json")  # fmt: skip
    assert code == 0
    assert json.loads(out)["constants"]["gamma_g"] == pytest.approx(QAT_W4A4.gamma_g, rel=1e-3)
    words = ("--params", "1e8", "--tokens", "5e10", "--format", "int4", "--block", "64")
    code, out, _ = call("law", "predict", "--law", "law.json", *words, "--json")
    answer = json.loads(out)
    truth = QAT_W4A4.loss(Settings.of(1e8, 5e10, "int4", 64))[0]
    assert (code, answer["warnings"]) == (0, [])
    assert answer["rows"][0]["loss"] == pytest.approx(truth, abs=1e-4)


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "RUNS", "--samples", "0"),
        pytest.param(("compare", "RUNS", "--folds", "2"), marks=pytest.mark.slow),
        ("predict", "--params", "1e9", "--tokens", "1e12", "--format", "e4m3"),
        ("plan", "--compute", "1e23"),
    ],
    ids=lambda words: words[0],
)
def test_every_answer_can_be_drawn(
    call: Call, runs: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """An SVG file in a new folder, nothing half-written beside it; other endings are refused."""
    words = ("law", *(str(runs) if word == "RUNS" else word for word in words))
    assert call(*words, "--figure", "new/figure.svg")[0] == 0
    assert ET.parse(tmp_path / "new" / "figure.svg").getroot().tag.endswith("svg")  # noqa: S314
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["figure.svg"]
    code, out, err = call(*words, "--figure", "figure.png")
    assert (code, out) == (2, "")
    assert "figure: expected a file name that ends in .svg, got 'figure.png'" in err


def test_predict_a_table_of_settings(call: Call, tmp_path: Path) -> None:
    """A table without losses gives one row each, and warnings where the law never was."""
    (tmp_path / "asked.csv").write_text("N,D,format,B\n1e8,5e10,e4m3,128\n7e10,1e13,bf16,\n")
    code, out, err = call("law", "predict", "--settings", "asked.csv", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["rows"][1]["critical_tokens"] is None
    assert len(answer["warnings"]) == 2
    code, out, err = call("law", "predict", "--settings", "asked.csv")
    assert code == 0
    assert "outside of the fitted" in err


def test_plan_with_a_table_of_costs(call: Call) -> None:
    """Where FP6 costs as much as FP8, FP8 is better."""
    words = ("law", "plan", "--compute", "1e24", "--cost", "6=0.5", "8=0.5", "16=1")
    code, out, err = call(*words)
    assert code == 0
    assert out.startswith("bits       8.000")
    assert "refit the law" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("law", "fit", "none.csv"), "none.csv"),
        (("law", "predict"), "params, tokens: expected both"),
        (("law", "predict", "--law", "x", "--params", "1", "--tokens", "1"), "law: expected"),
        (
            ("law", "predict", "--params", "1e8", "--tokens", "1e9", "--format", "e4m3",
             "--block", "row"),
            "block: expected a whole number",
        ),
        (("law", "plan", "--compute", "-1"), "compute: expected a finite number above 0"),
        (("law", "plan", "--compute", "1e21", "--law", "hoffmann"), "expected a Capybara law"),
        (("law", "plan", "--compute", "1e21", "--cost", "8"), "cost: expected BITS=COST"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_in_one_line(call: Call, words: tuple[str, ...], message: str) -> None:
    """Exit code 2 and a line that names the option."""
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_broken_law_files_are_refused(call: Call, tmp_path: Path) -> None:
    """Neither other JSON nor other text is taken for a law."""
    for text in ("{}", "[]", "no", '{"law": "capybara", "fitted": null, "constants": {}}'):
        (tmp_path / "law.json").write_text(text)
        code, _, err = call("law", "predict", "--law", "law.json", "--params", "1", "--tokens", "1")
        assert code == 2
        assert "law.json" in err
