"""Rules of quality, and overlap with evaluation sets."""

import json

import pytest

from weightwise.lm.post.contamination import EvaluationSets
from weightwise.lm.post.quality import broken_rule
from weightwise.lm.post.synthesize import balance

RIVER = (
    "The river that runs through the old town is crossed by seven bridges and each of them "
    "was built in another century"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "format"),
        (" \n...", "format"),
        ("Use this:\n```python\nprint(1)\n", "format"),
        ("Sure.<|eos|>", "format"),
        ("A caf\ufffd in town", "garbled"),
        ("A cafÃ© and a bÃ¼cher", "garbled"),
        ("bell\x07", "garbled"),
        ("private \ue000 use", "garbled"),
        ("no " * 40, "repetitive"),
        ("\n".join(["I am sorry, I cannot answer that."] * 6), "repetitive"),
        ("ha" * 60, "repetitive"),
    ],
)
def test_broken_rules_are_named(text, reason):
    """Each rule has a text that breaks it."""
    assert broken_rule(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "42",
        "Ça coûte 3 € à Ålesund.",
        "这是一个句子。",
        "```python\nfor i in range(3):\n    print(i)\n```",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
        "no no no, not again",
        "\n".join(["}"] * 20),
        "Sort the numbers 3, 1, 2.\n\n" + RIVER,
    ],
)
def test_sound_texts_pass(text):
    """Code, tables, other languages and short answers break no rule."""
    assert broken_rule(text) is None


def test_thirteen_words_in_a_row_are_an_overlap(tmp_path):
    """Twelve are not, wherever they stand and however they are set."""
    path = tmp_path / "river.txt"
    path.write_text(RIVER + "\n")
    sets = EvaluationSets([path])
    words = RIVER.split()
    assert sets.overlap("He said: " + ", ".join(words[4:17]).upper() + " and left.") == "river.txt"
    assert sets.overlap("He said: " + " ".join(words[4:16]) + " and left them all behind.") is None
    assert sets.overlap(" ".join(reversed(words))) is None


def test_short_items_count_as_a_whole(tmp_path):
    """An item of fewer words is found again as it is, and not as a part."""
    path = tmp_path / "short.jsonl"
    rows = [{"question": "What is 17 + 25?", "choices": ["42", {"text": "the forty-third"}]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    sets = EvaluationSets([path])
    assert sets.overlap("what is 17 + 25") == "short.jsonl"
    assert sets.overlap("The forty-third.") == "short.jsonl"
    assert sets.overlap("What is 17 + 25 and why?") is None
    assert EvaluationSets().overlap("What is 17 + 25?") is None


def test_bad_evaluation_files_are_named(tmp_path):
    """File and line stand in the message."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "a"}\n{"question": \n')
    with pytest.raises(ValueError, match=r"broken\.jsonl:2: expected a JSON object"):
        EvaluationSets([broken])
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(ValueError, match=r"empty\.txt: expected evaluation texts, found none"):
        EvaluationSets([empty])
    with pytest.raises(ValueError, match=r"none\.txt: expected a readable file"):
        EvaluationSets([tmp_path / "none.txt"])


def test_balance_caps_labels_at_the_median():
    """Of 9, 3 and 1 records the median is 3: with factor 2 six of the first stay, by their ids."""
    labels = ["a"] * 9 + ["b"] * 3 + ["c"]
    ids = [f"{(7 * k) % 13:02}" for k in range(13)]
    kept = balance(labels, ids, 2.0)
    assert [sum(k for k, label in zip(kept, labels, strict=True) if label == c) for c in "abc"] == [
        6, 3, 1,
    ]  # fmt: skip
    first = sorted(ids[:9])
    assert {ids[k] for k in range(9) if kept[k]} == set(first[:6])
    assert balance([], [], 2.0) == []
