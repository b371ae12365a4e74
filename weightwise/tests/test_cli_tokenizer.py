"""Tokenizers at the command line: trained, extended, shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from weightwise.cli import main
from weightwise.lm import Tokenizer, train_tokenizer
from weightwise.lm.tiktoken import read_ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENGLISH = "the whale sang and the sea was calm, the whale was not.\n" * 40
CHINESE = "混合专家模型把每个词送到一个专家，专家的容量有限。\n" * 40


@pytest.fixture
def call(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Run a command within this process, in a folder with two texts; code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "english.txt").write_text(ENGLISH, encoding="utf-8")
    (tmp_path / "chinese.txt").write_text(CHINESE, encoding="utf-8")

    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_train_extend_and_show(call, tmp_path: Path) -> None:
    """One learns English, its extension Chinese; what was there keeps its ids."""
    code, out, err = call(
        "tokenizer", "train", "texts", "--out", "a.tiktoken", "a.json", "--vocab-size", "480"
    )
    assert (code, err) == (0, "")
    assert "480 token ids, 2,240 characters in" in out
    assert "saved in a.tiktoken and a.json" in out
    old = read_ranks(tmp_path / "a.tiktoken")
    assert Tokenizer.load(tmp_path / "a.json").ranks() == old
    assert len(old) == 480 - 209
    code, out, _ = call(
        "tokenizer", "extend", "a.json", "chinese.txt", "--out", "b.tiktoken", "--add", "40",
        "--json",
    )  # fmt: skip
    told = json.loads(out)
    new = read_ranks(tmp_path / "b.tiktoken")
    assert (code, told["num_added"], told["vocab_size"]) == (0, 40, 520)
    assert new[: len(old)] == old
    assert told["before"]["num_characters"] == len(CHINESE)
    assert told["after"]["characters_per_token"] > 2 * told["before"]["characters_per_token"]
    code, out, _ = call("tokenizer", "show", "b.tiktoken", "--text", "专家", "--json")
    told = json.loads(out)
    ids = Tokenizer.from_ranks(new).encode("专家")
    assert (told["ids"], "".join(told["tokens"])) == (ids, "专家")
    assert told["special_tokens"]["<|endoftext|>"] == len(new)
    code, out, _ = call("tokenizer", "show", "a.json", "--text", "whale", "--files", "texts")
    assert code == 0
    assert "special ones: <|endoftext|> 271, <|startoftext|> 272" in out
    assert "characters and" in out


def test_the_same_text_gives_the_same_file(call, tmp_path: Path) -> None:
    """Byte for byte, and as many tokens as the text has pairs for."""
    for name in ("a", "b"):
        words = ("tokenizer", "train", "texts", "chinese.txt", "--out", f"{name}.tiktoken")
        assert call(*words)[0] == 0
    first = (tmp_path / "a.tiktoken").read_bytes()
    assert first == (tmp_path / "b.tiktoken").read_bytes()
    assert 300 < len(read_ranks(tmp_path / "a.tiktoken")) < 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "texts", "--out", "a.txt"), "out: expected names that end in .json or"),
        (("train", "--out", "a.json"), "files: expected at least one file, folder or pattern"),
        (("train", "nowhere", "--out", "a.json"), "found none at 'nowhere'"),
        (("train", "texts", "--out", "a.json", "--vocab-size", "464"), "at least 465, got 464"),
        (("extend", "bad.tiktoken", "texts", "--out", "a.json", "--add", "1"), "line 1: expected"),
        (("extend", "gone.json", "texts", "--out", "a.json", "--add", "1"), "gone.json: expected"),
        (("extend", "bad.tiktoken", "texts", "--out", "a.json", "--add", "0"), "add: expected at"),
        (("show", "bad.tiktoken"), "bad.tiktoken: line 1: expected a token"),
    ],
)
def test_bad_input_gets_one_line(call, tmp_path: Path, words, message: str) -> None:
    """It names what is wrong, and no file is written."""
    (tmp_path / "bad.tiktoken").write_text("nothing\n")
    code, out, err = call("tokenizer", *words)
    assert (code, out) == (2, "")
    assert err.startswith("weightwise: ")
    assert message in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"texts", "chinese.txt", "bad.tiktoken"}


def test_a_tokenizer_of_another_kind_is_not_extended(call, tmp_path: Path) -> None:
    """Its rule for words is not that of rank files."""
    train_tokenizer([ENGLISH], 300).save(tmp_path / "gpt.json")
    code, _, err = call("tokenizer", "extend", "gpt.json", "texts", "--out", "a.json", "--add", "1")
    assert code == 2
    assert "gpt.json: tokenizer: normalizer: expected that of Hunyuan-Large" in err
