"""From a trained model to a small cache and back to its quality: convert, uptrain, distillation."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from weightwise.cli import main
from weightwise.lm import GQAConfig, ModelConfig, SwiGLUConfig, train_tokenizer
from weightwise.optim import ScheduleConfig
from weightwise.recipes import tiny
from weightwise.recipes.uptrain import uptrain
from weightwise.train import (
    DataConfig,
    FileSource,
    Recipe,
    TrainConfig,
    load_model,
    read_metrics,
    to_dict,
    train,
)
from weightwise.train.cache_conversion import CacheBudget, convert_cache
from weightwise.train.distillation import DistilledExamples
from weightwise.train.post_config import DistillationConfig
from weightwise.train.recipe import from_dict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

KEYS, VALUES, PAIRS, ROUNDS = "abcdefgh", "01234567", 4, 3
# With mark, line end and end of document: a window of text is one line, from its beginning.
LENGTH = 2 * PAIRS * (1 + ROUNDS) + 3


def needle(rng: random.Random) -> str:
    """Pairs of keys and values, and behind a mark the same pairs in other orders."""
    pairs = [key + rng.choice(VALUES) for key in rng.sample(KEYS, PAIRS)]
    asked = [pair for _ in range(ROUNDS) for pair in rng.sample(pairs, PAIRS)]
    return "".join(pairs) + "=" + "".join(asked)


def accuracy(checkpoint: Path) -> float:
    """Share of the values behind the mark that the likeliest token gets right."""
    model, words, _ = load_model(checkpoint)
    rng = random.Random(99)
    token_BT = torch.tensor([words.encode(needle(rng)) for _ in range(200)])
    with torch.no_grad():
        guess_BT = model(token_BT[:, :-1]).argmax(-1)
    places = slice(2 * PAIRS + 1, None, 2)
    return float((guess_BT == token_BT[:, 1:])[:, places].float().mean())


def needle_recipe(folder: Path) -> Recipe:
    """A small model with grouped-query attention that learns to find values by their keys."""
    rng = random.Random(0)
    lines = [needle(rng) for _ in range(30_000)]
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    train_tokenizer(lines[:10], 257).save(folder / "tokenizer.json")
    source = FileSource(paths=(str(folder / "lines.txt"),), document_bytes=1)
    return Recipe(
        name="needle",
        model=ModelConfig(
            vocab_size=257,
            width=64,
            num_layers=2,
            max_length=128,
            attention=GQAConfig(num_heads=4, num_kv_heads=2),
            ffn=SwiGLUConfig(hidden=128),
            init_std=0.1,
        ),
        data=DataConfig(
            source=source, tokenizer=str(folder / "tokenizer.json"), valid_fraction=0.03
        ),
        schedule=ScheduleConfig(peak_lr=5e-3, warmup_steps=20, min_lr_ratio=0.1),
        train=TrainConfig(
            steps=600, batch_size=32, seq_length=LENGTH, eval_every=300, save_every=600
        ),
    )


@pytest.fixture
def call(monkeypatch, capsys, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run a command within this process, in an empty folder; gives code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEIGHTWISE_CACHE", str(tmp_path / "cache"))

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.slow
def test_a_model_keeps_its_needles_at_an_eighth_of_the_cache(call, tmp_path: Path) -> None:
    """Converted to 4-bit latents and uptrained for 200 steps, it finds as much and loses < 1 %."""
    train(needle_recipe(tmp_path), "run", cache_dir="cache", console=Console(quiet=True))
    before = accuracy(tmp_path / "run")
    assert before > 0.99, "the task must be learnt for the comparison to mean anything"
    code, out, _ = call(
        "convert", "run", "--out", "small", "--cache", "12%", "--tokens", "14000", "--json"
    )
    told = json.loads(out)
    assert (code, told["percent"] <= 12.0, told["attention"]["codes"]["bits"]) == (0, True, 4)
    for group in told["groups"]:
        assert 0.0 <= group["sharing_error"] < 1e-3, "no layer shares with another here"
        assert 0.0 < group["rope_error"] < 0.2
        assert max(group["output_error"]) < max(group["coded_error"]) < 0.3
    code, out, _ = call("uptrain", "small", "--steps", "200", "--out", "up", "--json")
    assert code == 0
    held_out = json.loads(out)["held_out"]
    assert held_out["after"]["divergence"] < held_out["before"]["divergence"] / 10
    assert accuracy(tmp_path / "up") >= 0.99 * before
    original = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["valid_loss"]
    assert held_out["after"]["loss"] <= 1.01 * original


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of a few steps with four layers."""
    folder, base = tmp_path_factory.mktemp("uptrain"), tiny()
    recipe = replace(
        base,
        model=replace(base.model, num_layers=4),
        train=replace(base.train, steps=6),
    )
    train(recipe, folder / "run", cache_dir=folder / "cache", console=Console(quiet=True))
    return folder / "run"


def small(run_dir: Path, name: str, budget: str = "16%", **more: Any) -> Any:
    cache = run_dir.parent / "cache"
    out = run_dir.parent / name
    return convert_cache(run_dir, out, CacheBudget.parse(budget), cache_dir=cache, **more)


@pytest.mark.slow
def test_a_converted_checkpoint_is_whole(run_dir: Path) -> None:
    """It loads with the settings that were told, its cache fits, and says where it came from."""
    report = small(run_dir, "whole", num_tokens=2000)
    model, _, recipe = load_model(report.folder)
    assert recipe.model.attention == report.attention
    assert report.bytes_per_token == model.new_cache(1, dtype=torch.bfloat16).num_bytes / 64
    assert report.percent <= 16.0
    assert {sum(sizes) for sizes, _, _ in report.tried} == {4}
    groups = tuple(group.end - group.first for group in report.groups)
    assert groups in {sizes for sizes, _, loss in report.tried if loss == report.loss_after}
    assert report.loss_after == min(loss for _, _, loss in report.tried)
    told = json.loads((report.folder / "conversion.json").read_text())
    assert told["groups"][0]["first"] == 0
    assert uptrain(report.folder, steps=5).distillation == DistillationConfig(
        teacher=str(report.source.resolve())
    )


def test_what_is_decided_stays(run_dir: Path) -> None:
    """Settings of the layout are kept, and the rest is found for them."""
    decided = ("share_factor=4", "codes.bits=8", "rope_width=4", "rope_theta=500.0")
    attention = small(run_dir, "decided", "30%", overrides=decided, num_tokens=500).attention
    assert (attention.share_factor, attention.rope_width, attention.rope_theta) == (4, 4, 500.0)
    assert attention.codes is not None
    assert attention.codes.bits == 8


@pytest.mark.slow
def test_the_same_text_gives_the_same_weights(run_dir: Path) -> None:
    """Nothing in a conversion is drawn."""
    first, second = (small(run_dir, name, num_tokens=500) for name in ("first", "second"))
    one, other = (load_model(report.folder)[0].state_dict() for report in (first, second))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_other_text_and_the_figure(call, run_dir: Path, tmp_path: Path) -> None:
    """A file can be calibrated with, and a figure shows every group."""
    (tmp_path / "text.txt").write_text("".join(f"{n} is {n * n} and {n}\n" for n in range(8000)))
    words = ("convert", str(run_dir), "--out", "new", "--cache", "120", "--text", "text.txt")
    code, out, err = call(*words, "--tokens", "500", "--figure", "new.svg")
    assert (code, err) == (0, "")
    assert "bytes a token ->" in out
    assert "weightwise uptrain new" in out
    drawing = (tmp_path / "new.svg").read_text()
    assert drawing.startswith("<svg ")
    groups = json.loads((tmp_path / "new" / "conversion.json").read_text())["groups"]
    assert drawing.count(">layer") == len(groups)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "RUN", "--out", "x", "--cache", "2 percent"), "cache: expected a share"),
        (("convert", "RUN", "--out", "x", "--cache", "0.1%"), "cache: expected at least"),
        (("convert", "RUN", "--out", "RUN", "--cache", "50%"), "expected a new or an empty"),
        (("convert", "RUN", "--out", "x", "--set", "share_factor=2"), "expected only together"),
        (("convert", "RUN", "--out", "x", "--cache", "50%", "--set", "width=3"),
         "model.attention.width: expected one of"),
        (("convert", "RUN", "--out", "x", "--cache", "50%", "--set", "head_width=4"),
         "head_width: expected 8 as in the model, got 4"),
        (("convert", "RUN", "--out", "x", "--cache", "50%", "--set", "share_factor=9"),
         "share_factor: expected at most 4 layers, got 9"),
        (("convert", "RUN", "--out", "x", "--cache", "50%", "--tokens", "0"), "tokens: expected"),
        (("convert", "RUN", "--out", "x", "--cache", "50%", "--figure", "x.png"), "ends in .svg"),
        (("convert", "RUN", "--out", "x", "--cache", "50%", "--text", "none.txt"), "none.txt"),
        (("uptrain", "RUN"), "expected a checkpoint that weightwise convert --cache has made"),
        (("uptrain", "RUN", "--teacher", "none"), "none: expected a checkpoint or the folder of"),
        (("uptrain", "RUN", "--teacher", "RUN", "--steps", "0"), "train.steps: expected"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(
    call, run_dir: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    """The line names what was wrong, and nothing is left half-written."""
    code, out, err = call(*(str(run_dir) if word == "RUN" else word for word in words))
    assert (code, out) == (2, "")
    assert err.startswith("weightwise: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


class _Lines:
    """Two windows of four tokens."""

    count = 2

    def read(self, index_M: object) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]]), torch.tensor(
            [[1, 2, 0, 1], [2, 1, 0, 0]]
        )


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_the_mean_of_text_and_teacher(weight: float) -> None:
    """By hand: (1 - w) cross-entropy + w KL(teacher | student), in nats per token."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, 3, generator=generator) for _ in range(2))
    lines: Any = _Lines()
    plain: Any = type("Plain", (), {"windows": lines, "count": 2})()
    examples = DistilledExamples(plain, lambda *_: teacher, weight)
    student.requires_grad_()
    means = examples.measure(lambda *_: student, torch.arange(2).numpy())
    target_MT = lines.read(None)[1]
    text = F.cross_entropy(student.flatten(0, 1), target_MT.flatten())
    wanted, got = teacher.softmax(-1), student.softmax(-1)
    divergence = (wanted * (wanted / got).log()).sum(-1).mean()
    torch.testing.assert_close(means["text_loss"], text.detach())
    torch.testing.assert_close(means["divergence"], divergence.detach())
    torch.testing.assert_close(means["loss"], (1 - weight) * text + weight * divergence)
    assert means["loss"].requires_grad
    assert not means["divergence"].requires_grad


@pytest.mark.slow
def test_a_teacher_must_speak_the_same_tokens(run_dir: Path, tmp_path: Path) -> None:
    """Another tokenizer, or a context that is too short, is refused before a step is made."""
    report = small(run_dir, "student", num_tokens=500)
    base = tiny()
    other = replace(
        base, data=replace(base.data, valid_fraction=0.3), train=replace(base.train, steps=1)
    )
    train(other, tmp_path / "other", cache_dir=tmp_path / "cache", console=Console(quiet=True))
    recipe = uptrain(report.folder, steps=1, teacher=tmp_path / "other")
    with pytest.raises(ValueError, match="expected the tokenizer of the data"):
        train(recipe, tmp_path / "run", cache_dir=run_dir.parent / "cache")


def test_conversations_have_no_teacher(chat_model: Path) -> None:
    """Recipes of chats with a teacher are refused by the name of the field."""
    table = to_dict(tiny()) | {
        "start": str(chat_model),
        "data": {"kind": "chats", "path": "chats.jsonl"},
        "distillation": {"teacher": str(chat_model)},
    }
    with pytest.raises(ValueError, match="distillation: expected data of kind text, got chats"):
        from_dict(table, origin="recipe")
