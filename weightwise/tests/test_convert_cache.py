"""Models of other libraries straight to a small cache, and on to a trained one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from weightwise.cli import main
from weightwise.lm import LatentConfig, train_tokenizer
from weightwise.lm.convert import read_checkpoint
from weightwise.train import load_model

if TYPE_CHECKING:
    from pathlib import Path

transformers = pytest.importorskip("transformers")
TEXT = "".join(f"{n} whales sing {n * n} songs at night\n" for n in range(4000))
COMMON: dict[str, Any] = {
    "vocab_size": 290,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}
HUNYUAN = COMMON | {"head_dim": 12}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", COMMON),
    "qwen3": ("Qwen3Config", COMMON | {"head_dim": 12}),
    "hunyuan dense": ("HunYuanDenseV1Config", HUNYUAN),
    "hunyuan experts": ("HunYuanMoEV1Config", HUNYUAN | {"num_experts": 4, "moe_topk": 2}),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work goes on here, with a text to calibrate with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTWISE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pages.txt").write_text(TEXT)
    return tmp_path


def save(folder: Path, name: str) -> None:
    """A tiny model of a family with its tokenizer, as transformers saves it."""
    cls, settings = FAMILIES[name]
    torch.manual_seed(0)
    config = getattr(transformers, cls)(**settings)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / "theirs")
    train_tokenizer([TEXT[:500]], 280).save(folder / "theirs" / "tokenizer.json")


def convert(*more: str) -> int:
    words = ("theirs", "--out", "small", "--text", "pages.txt", "--tokens", "2000", "--json")
    return main(["convert", *words, *more])


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_comes_in_and_gets_a_small_cache_in_one_step(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """It fits the budget, its original beside it scores as theirs, and the report has its loss."""
    save(folder, name)
    capsys.readouterr()
    assert convert("--cache", "25%") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["percent"] <= 25.0
    assert told["source"] == str(folder / "small-original")
    small, _, recipe = load_model(folder / "small")
    original, _, _ = load_model(folder / "small-original")
    assert isinstance(recipe.model.attention, LatentConfig)
    token_BT = torch.randint(280, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(original(token_BT), read_checkpoint(folder / "theirs").eval()(token_BT))
        assert small(token_BT).shape == (1, 20, 290)
    assert abs(told["loss_after"] - told["loss_before"]) < 0.2


@pytest.mark.slow
def test_uptraining_finds_the_original(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint that came in is the teacher, without being named."""
    save(folder, "llama")
    assert convert("--cache", "25%") == 0
    few = ("--set", "train.batch_size=2", "train.seq_length=16")
    assert main(["uptrain", "small", "--steps", "2", "--out", "run", *few]) == 0
    teacher = load_model(folder / "run")[2].distillation
    assert teacher is not None
    assert teacher.teacher == str(folder / "small-original")
    capsys.readouterr()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--cache", "0.01%"), "bytes a token"),
        (("--cache", "25%", "--tokenizer", "none.json"), "none.json"),
        (("--cache", "25%", "--set", "num_heads=3"), "num_heads"),
    ],
)
def test_what_fails_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    """One line with code 2, and no folder of either kind."""
    save(folder, "llama")
    capsys.readouterr()
    before = sorted(path.name for path in folder.iterdir())
    assert convert(*more) == 2
    error = capsys.readouterr().err
    assert error.startswith("weightwise: ")
    assert message in error
    after = {path.name for path in folder.iterdir()} - {"cache"}
    assert sorted(after) == before
