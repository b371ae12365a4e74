"""Layers split into groups of unequal size by what sharing loses."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from rich.console import Console

from weightwise.cli import main
from weightwise.lm import GQAConfig, LanguageModel, LatentConfig, ModelConfig, SwiGLUConfig
from weightwise.lm.latent.budget import cache_bytes_per_token
from weightwise.lm.latent.conversion import convert_to_latent
from weightwise.lm.latent.grouping import best_sizes, sharing_errors, unequal
from weightwise.recipes import tiny
from weightwise.train import load_model, train

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = ModelConfig(
    vocab_size=61,
    width=32,
    num_layers=4,
    max_length=64,
    attention=GQAConfig(num_heads=4),
    ffn=SwiGLUConfig(hidden=64),
    init_std=0.3,
)
LAYOUT = LatentConfig(num_heads=4, latent_width=16, rope_width=4, share_factor=2)


def texts(count: int, seed: int = 0) -> list[torch.Tensor]:
    """Random calibration text."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(61, (8, 40), generator=generator) for _ in range(count)]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Layer 0 adds so much to the stream that layers 1 to 3 read almost the same."""
    model = LanguageModel(CONFIG).eval()
    model.initialize(torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.get_parameter("blocks.0.ffn.down.weight").mul_(1000)
    return model


def test_a_first_layer_that_tells_nothing_stays_alone(model: LanguageModel) -> None:
    """Two pairs would put it in front of layer 1; one and three are as many latents."""
    error_LL = sharing_errors(model, texts(4))
    assert (error_LL[0, 1:] > 0.1).all()
    assert (error_LL[1, 1:] < 1e-3).all()
    assert np.isinf(error_LL[np.tril_indices(4, -1)]).all()
    assert best_sizes(error_LL, 2) == (1, 3)
    layout = unequal(LAYOUT, error_LL)
    sizes = {}
    for one in (LAYOUT, layout):
        found = convert_to_latent(model, one, texts(4), texts(1, seed=9)[0])
        sizes[one] = cache_bytes_per_token(found.model.config)
        lost = max(group.sharing_error for group in found.groups)
        assert lost > 0.05 if one is LAYOUT else lost < 1e-3
    assert sizes[LAYOUT] == sizes[layout]


def test_groups_are_no_longer_than_measured(model: LanguageModel) -> None:
    """With pairs at most, one group of four layers is refused and a layout of it stays."""
    error_LL = sharing_errors(model, texts(1), longest=2)
    assert best_sizes(error_LL, 1) is None
    assert best_sizes(error_LL, 2) == (2, 2)
    whole = replace(LAYOUT, share_factor=4)
    assert unequal(whole, error_LL) is whole


@pytest.mark.parametrize("num_layers", range(1, 7))
def test_no_other_split_loses_less(num_layers: int) -> None:
    """Every way to cut the layers is tried one by one, some pairs being forbidden."""
    rng = np.random.default_rng(num_layers)
    for _ in range(20):
        error = np.triu(rng.random((num_layers, num_layers)))
        error[np.tril_indices(num_layers, -1)] = np.inf
        error[np.triu_indices(num_layers, int(rng.integers(1, num_layers + 1)))] = np.inf
        for num_groups in range(1, num_layers + 1):
            loss = {}
            for cuts in combinations(range(1, num_layers), num_groups - 1):
                ends = (0, *cuts, num_layers)
                sizes = tuple(end - at for at, end in pairwise(ends))
                loss[sizes] = sum(error[at, at:end].sum() for at, end in pairwise(ends))
            got = best_sizes(error, num_groups)
            least = min(loss.values())
            assert (got is None) == np.isinf(least)
            if got is not None:
                assert loss[got] == pytest.approx(least)


@pytest.mark.slow
def test_the_command_tries_and_tells_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unequal groups stand among what was tried, take no more bytes, and can be decided against."""
    base = tiny()
    recipe = replace(
        base,
        model=replace(base.model, num_layers=4),
        train=replace(base.train, steps=6),
    )
    monkeypatch.setenv("WEIGHTWISE_CACHE", str(tmp_path / "cache"))
    train(recipe, tmp_path / "run", cache_dir=tmp_path / "cache", console=Console(quiet=True))
    capsys.readouterr()
    words = ["convert", str(tmp_path / "run"), "--cache", "16%", "--tokens", "1000"]
    assert main([*words, "--out", str(tmp_path / "small")]) == 0
    summary = capsys.readouterr().out
    told = json.loads((tmp_path / "small" / "conversion.json").read_text())
    assert told["percent"] <= 16.0
    tried = {tuple(sizes): size for sizes, size, _ in told["tried"]}
    others = set(tried) - {(1, 1, 1, 1), (2, 2), (3, 1), (4,)}
    assert others
    for sizes in others:
        assert tried[sizes] == tried[2, 2]
        assert f"tried: groups of {', '.join(map(str, sizes))} layers, " in summary
    attention = load_model(tmp_path / "small")[2].model.attention
    sizes = [group["end"] - group["first"] for group in told["groups"]]
    assert list(attention.sizes(4)) == sizes
    assert main([*words, "--out", str(tmp_path / "pairs"), "--set", "share_factor=2"]) == 0
    assert "tried: 2 layers share" in capsys.readouterr().out
