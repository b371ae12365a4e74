"""Rotary bases for long sequences, and the stage that trains with them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.cli import main
from weightwise.lm.rope import ntk_alpha, ntk_base
from weightwise.recipes import hunyuan_large, long_context, tiny
from weightwise.train import load_model, read_metrics, read_recipe, train

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("alpha", "head_width", "base"),
    [(1e3, 80, 1.194e7), (74_989, 80, 1e9), (1e5, 80, 1.343e9), (1e5, 128, 1.20e9), (1, 80, 1e4)],
)
def test_published_bases(alpha: float, head_width: int, base: float) -> None:
    """The pairs of the released checkpoints and of the 256K stage."""
    assert ntk_base(alpha, head_width) == pytest.approx(base, rel=1e-3)
    assert ntk_alpha(ntk_base(alpha, head_width), head_width) == pytest.approx(alpha)


def test_alpha_of_the_long_stage() -> None:
    """A base of 1e9 needs 74,989 with heads of 80; the released shape has 1.194e7."""
    assert round(ntk_alpha(1e9, 80)) == 74_989
    model = hunyuan_large()
    assert model.attention.rope_base(model.width) == pytest.approx(1.194e7, rel=1e-3)


@given(st.floats(1, 1e6), st.integers(2, 128), st.floats(1e3, 1e7))
def test_slowest_pair_slows_by_alpha(alpha: float, half: int, theta: float) -> None:
    """The rule leaves the first pair alone and divides the turn of the last by alpha."""
    width = 2 * half
    turn = [base ** -((width - 2) / width) for base in (theta, ntk_base(alpha, width, theta))]
    assert turn[0] / turn[1] == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ntk_base(0.5, 80), "alpha: expected at least 1, got 0.5"),
        (lambda: ntk_base(2.0, 2), "head_width: expected above 2, got 2"),
        (lambda: ntk_alpha(5e3, 80), "base: expected at least theta 10000, got 5000"),
        (lambda: ntk_alpha(math.inf, 80), "base: expected at least theta"),
        (lambda: ntk_base(2.0, 80, 0.5), "theta: expected above 1, got 0.5"),
    ],
)
def test_wrong_bases_are_named(call, message: str) -> None:
    """A value out of range is named with the range."""
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    base = tiny()
    recipe = replace(base, train=replace(base.train, steps=20, eval_every=20, save_every=20))
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(recipe, folder)
    return folder


def test_the_stage_keeps_tokens_a_step_and_stretches_positions(finished: Path) -> None:
    """Four times the length: a quarter of the sequences, alpha four, a tenth of the rate."""
    before = tiny()
    stage = long_context(finished, seq_length=128, tokens=10_000)
    assert stage.train.seq_length == 128
    assert stage.train.batch_size * 128 == before.train.batch_size * before.train.seq_length
    assert stage.train.steps == math.ceil(10_000 / 256)
    assert stage.model.max_length == 128
    assert stage.model.attention.rope_alpha == 4.0
    assert stage.schedule.kind == "constant"
    assert stage.schedule.peak_lr == pytest.approx(before.schedule.peak_lr / 10)
    assert stage.data.long_share == 0.25
    assert stage.start is not None
    other = long_context(finished, seq_length=1024, tokens=1e5, rope_base=1e9, long_share=None)
    assert other.train.batch_size == 1
    assert other.model.attention.rope_base(other.model.width) == pytest.approx(1e9)
    assert other.data.long_share is None


@pytest.mark.slow
def test_the_stage_is_trained_from_the_weights(finished: Path, tmp_path: Path) -> None:
    """At once as good as the run before, with long windows; its checkpoint reads on."""
    stage = long_context(finished, seq_length=64, tokens=20_000)
    stage = replace(stage, train=replace(stage.train, eval_every=1000, log_every=1))
    done = train(stage, tmp_path / "long")
    rows, before = (read_metrics(path / "metrics.jsonl") for path in (tmp_path / "long", finished))
    first = next(row["train_loss"] for row in rows if "train_loss" in row)
    last = [row["train_loss"] for row in before if "train_loss" in row][-1]
    assert first == pytest.approx(last, abs=0.25)

    assert done.valid_loss is not None
    assert done.valid_loss < rows[0]["valid_loss"]
    model, _, recipe = load_model(done.checkpoint)
    assert recipe == stage
    with torch.no_grad():
        assert model(torch.zeros((1, 64), dtype=torch.int64)).isfinite().all()


def test_command_writes_a_recipe(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output, a file, or JSON: the same recipe, ready for train."""
    words = ["long-context", str(finished), "--seq-length", "128", "--tokens", "1e4"]
    stage = long_context(finished, seq_length=128, tokens=1e4)
    path = tmp_path / "long.toml"
    assert main(words) == 0
    path.write_text(capsys.readouterr().out)
    assert read_recipe(path) == stage
    assert main([*words, "--out", str(tmp_path / "deep" / "long.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"]["seq_length"] == 128
    assert read_recipe(tmp_path / "deep" / "long.toml") == stage
    assert main([*words[:-1], "0"]) == 2
    assert "tokens, lr_ratio: expected above 0, got 0" in capsys.readouterr().err
    assert main(["long-context", str(tmp_path), "--seq-length", "128", "--tokens", "1e4"]) == 2
    assert "expected a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seq_length": 16}, "seq_length: expected at least 32 as before, got 16"),
        ({"rope_base": 5e3}, "rope_base: expected at least 1e\\+04 as before, got 5000"),
        ({"lr_ratio": 0.0}, "tokens, lr_ratio: expected above 0"),
    ],
)
def test_wrong_stages_are_named(finished: Path, options: dict[str, float], message: str) -> None:
    """A value out of range is named with the range."""
    with pytest.raises(ValueError, match=message):
        long_context(finished, **{"seq_length": 128, "tokens": 1e4, **options})
