"""Documents, packed tokens and the order of batches."""

import hashlib
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import train_tokenizer
from weightwise.train import (
    DataConfig,
    FileSource,
    HuggingFaceSource,
    prepare,
)
from weightwise.train.batches import BatchOrder, Windows, evaluation_windows, window_order
from weightwise.train.corpus import builtin_texts
from weightwise.train.data import is_held_out
from weightwise.train.shards import ShardWriter, TokenStore
from weightwise.train.source import open_documents

VOCAB = 300


@pytest.fixture
def texts(tmp_path):
    """A folder with 40 small documents, and what they say."""
    folder = tmp_path / "texts"
    folder.mkdir()
    documents = [f"document {i}: {'so it goes, ' * (i % 7)}{i * i}\n" for i in range(40)]
    for i, text in enumerate(documents):
        (folder / f"{i:02d}.txt").write_text(text, encoding="utf-8")
    return folder, documents


def config_of(folder):
    """Settings that hold out a quarter of a folder."""
    return DataConfig(source=FileSource(paths=(str(folder),)), valid_fraction=0.25)


def store_of(folder, tokens, vocab_size=1000, tokens_per_shard=2**20):
    """Write tokens and open them again."""
    writer = ShardWriter(folder, "train", vocab_size, tokens_per_shard)
    writer.append(tokens)
    return TokenStore(folder, "train", writer.index())


def test_builtin_corpus_is_fixed_and_leaves_tests_out():
    """Two readings agree; a small corpus is the beginning of the large one."""
    small = builtin_texts(300_000)
    assert small == builtin_texts(300_000)
    everything = builtin_texts(None)
    assert everything[: len(small)] == small
    assert 250_000 < sum(len(text.encode()) for text in small) <= 300_000
    assert sum(len(text.encode()) for text in everything) > 5_000_000
    assert not any("class BaseHTTPRequestHandlerTestCase" in text for text in everything)


def test_packed_tokens_spell_every_document_once_with_its_end(tmp_path, texts):
    """Decoded split by split, at the end-of-text token, the documents come back in order."""
    folder, documents = texts
    data = prepare(config_of(folder), VOCAB, tmp_path / "cache")
    for store, held_out in ((data.train, False), (data.valid, True)):
        ids = store.read(0, store.num_tokens)
        ends = np.flatnonzero(ids == data.tokenizer.eos_id)
        pieces = np.split(ids, ends + 1)
        assert len(pieces.pop()) == 0  # nothing after the last end
        got = [data.tokenizer.decode(piece[:-1].tolist()) for piece in pieces]
        assert got == [text for text in documents if is_held_out(text, 0.25) == held_out]
        assert got


def test_held_out_documents_stay_so_when_others_come(texts):
    """Whether a document is held out depends on its own text alone; about the share asked for."""
    held = [i for i in range(4000) if is_held_out(f"text {i}", 0.25)]
    # 1000 expected, standard deviation sqrt(4000 * 0.25 * 0.75) = 27.
    assert abs(len(held) - 1000) < 5 * 27
    assert {i for i in range(4000) if is_held_out(f"text {i}", 0.1)} < set(held)


def test_cache_is_used_again_and_follows_content_and_settings(tmp_path, texts):
    """The same input is not prepared twice; a changed byte or setting is."""
    folder, _ = texts
    cache = tmp_path / "cache"
    config = config_of(folder)
    first = prepare(config, VOCAB, cache)
    assert prepare(config, VOCAB, cache).fingerprint == first.fingerprint
    assert len(list(cache.iterdir())) == 1
    other = prepare(replace(config, valid_fraction=0.3), VOCAB, cache)
    (folder / "00.txt").write_text("changed\n", encoding="utf-8")
    changed = prepare(config, VOCAB, cache)
    wider = prepare(config, VOCAB + 1, cache)
    assert len({d.fingerprint for d in (first, other, changed, wider)}) == 4


def test_given_tokenizer_is_used_and_must_fit_the_model(tmp_path, texts):
    """A tokenizer file keeps its merges; more ids than the model has are refused."""
    folder, documents = texts
    path = tmp_path / "tokenizer.json"
    train_tokenizer(documents, 280).save(path)
    config = replace(config_of(folder), tokenizer=str(path))
    assert prepare(config, VOCAB, tmp_path / "cache").tokenizer.vocab_size == 280
    with pytest.raises(ValueError, match=r"model\.vocab_size = 279 token ids, got 280"):
        prepare(config, 279, tmp_path / "cache")


def test_two_threads_may_prepare_at_once(start, tmp_path, texts):
    """Both end with the same whole data, and leave nothing else behind."""
    folder, _ = texts
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(prepare, config_of(folder), VOCAB, tmp_path / "cache") for _ in range(2)
        ]
        assert len({job.result().fingerprint for job in jobs}) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_may_prepare_at_once(start, tmp_path, texts):
    """Both end with the same whole data, and leave nothing else behind."""
    folder, _ = texts
    program = tmp_path / "program.py"
    program.write_text(
        "import sys; from pathlib import Path; from weightwise.train import *\n"
        "config = DataConfig(source=FileSource(paths=(sys.argv[1],)), valid_fraction=0.25)\n"
        "data = prepare(config, 300, Path(sys.argv[2]))\n"
        "print(data.fingerprint, data.train.read(0, data.train.num_tokens).sum())"
    )
    both = [start(program, folder, tmp_path / "cache") for _ in range(2)]
    assert len({process.finish() for process in both}) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_folder_pattern_and_file_are_found_in_order(tmp_path, texts):
    """A folder by suffix and to the bottom, a pattern, a file: sorted within each."""
    folder, documents = texts
    (folder / "deep").mkdir()
    (folder / "deep" / "z.md").write_text("deep", encoding="utf-8")
    (folder / "skipped.bin").write_bytes(b"\xff")
    last = str(folder / "39.txt")
    source = FileSource(paths=(last, str(folder / "0*.txt"), str(folder)))
    assert list(open_documents(source)) == [
        documents[39],
        *documents[:10],
        *documents,
        "deep",
    ]


def test_one_long_file_is_cut_at_line_ends(tmp_path):
    """Lines of 6 bytes in documents of at least 10 bytes: two each, and the rest."""
    path = tmp_path / "all.txt"
    path.write_text("".join(f"line{i}\n" for i in range(5)), encoding="utf-8")
    whole = FileSource(paths=(str(path),))
    cut = replace(whole, document_bytes=10)
    assert list(open_documents(cut)) == ["line0\nline1\n", "line2\nline3\n", "line4\n"]
    assert list(open_documents(whole)) == ["".join(open_documents(cut))]
    assert open_documents(whole).fingerprint != open_documents(cut).fingerprint


def test_dataset_on_disk_is_read(tmp_path):
    """A saved Hugging Face dataset gives its text column, split by split."""
    datasets = pytest.importorskip("datasets")
    rows = [f"row {i}" for i in range(5)]
    dataset = datasets.Dataset.from_dict({"body": rows, "number": list(range(5))})
    datasets.DatasetDict({"part": dataset}).save_to_disk(str(tmp_path / "set"))
    source = HuggingFaceSource(name=str(tmp_path / "set"), split="part", column="body")
    assert list(open_documents(source)) == rows
    with pytest.raises(ValueError, match=r"data\.source\.column: expected one of body, number"):
        open_documents(replace(source, column="text"))
    with pytest.raises(ValueError, match=r"data\.source\.split: expected one of part, got 'train'"):
        open_documents(replace(source, split="train"))
    with pytest.raises(ValueError, match=r"expected text in 'number', got int in row 0"):
        list(open_documents(replace(source, column="number")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"data\.source\.paths: expected text files .* found none"),
        ({"a.txt": b""}, r"data\.source: expected documents with text, got none"),
        ({"a.txt": b"abc\xff"}, r"a\.txt: expected UTF-8 text, got byte 0xff at offset 3"),
        ({"a.txt": b"one document"}, r"data\.valid_fraction: expected a share"),
    ],
)
def test_unusable_text_is_refused_and_leaves_no_cache(tmp_path, content, message):
    """The line names the setting or the file; nothing half-written stays."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        prepare(config_of(folder), VOCAB, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*"))


def test_damaged_cache_is_named(tmp_path, texts):
    """A shard cut short is found when it is opened."""
    folder, _ = texts
    data = prepare(config_of(folder), VOCAB, tmp_path / "cache")
    shard = tmp_path / "cache" / f"data-{data.fingerprint}" / "train-00000.bin"
    os.truncate(shard, 10)
    with pytest.raises(ValueError, match=r"train-00000\.bin: expected \d+ bytes, got 10; remove"):
        prepare(config_of(folder), VOCAB, tmp_path / "cache")


@given(
    st.lists(st.integers(0, 999), min_size=1, max_size=60),
    st.integers(1, 7),
    st.data(),
)
def test_reading_across_shards_equals_one_flat_file(tmp_path_factory, tokens, per_shard, data):
    """Any range reads the same, however small the shards are."""
    store = store_of(tmp_path_factory.mktemp("shards"), tokens, tokens_per_shard=per_shard)
    assert store.num_tokens == len(tokens)
    start = data.draw(st.integers(0, len(tokens) - 1))
    count = data.draw(st.integers(0, len(tokens) - start))
    assert store.read(start, count).tolist() == tokens[start : start + count]


def test_large_vocabulary_gets_32_bits(tmp_path):
    """Ids above 65 535 survive; 2 bytes a token suffice for up to 65 536 ids."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert store_of(tmp_path / "a", [65_535], 65_536).read(0, 1).tolist() == [65_535]
    assert store_of(tmp_path / "b", [65_536], 65_537).read(0, 1).tolist() == [65_536]
    assert (tmp_path / "a" / "train-00000.bin").stat().st_size == 2
    assert (tmp_path / "b" / "train-00000.bin").stat().st_size == 4


def test_windows_overlap_by_the_one_token_that_is_predicted(tmp_path):
    """Of 0..10 with T = 5: inputs 0-4 and 5-9, targets 1-5 and 6-10; 10 tokens give one window."""
    windows = Windows(store_of(tmp_path, list(range(11))), 5, "train")
    assert windows.count == 2
    token_BT, target_BT = windows.read(np.array([1, 0]))
    assert token_BT.tolist() == [[5, 6, 7, 8, 9], [0, 1, 2, 3, 4]]
    assert target_BT.tolist() == [[6, 7, 8, 9, 10], [1, 2, 3, 4, 5]]


def test_too_few_tokens_for_a_window_are_refused(tmp_path):
    """Six tokens hold one window of five, and none of six."""
    store = store_of(tmp_path, list(range(6)))
    assert Windows(store, 5, "train").count == 1
    with pytest.raises(ValueError, match=r"train\.seq_length: expected at most 5, .*got 6"):
        Windows(store, 6, "train")


@given(st.integers(1, 200), st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_an_epoch_is_a_permutation(num_windows, seed, epoch):
    """Every window once, the same order each time."""
    order = window_order(num_windows, seed, epoch)
    assert sorted(order) == list(range(num_windows))
    assert (order == window_order(num_windows, seed, epoch)).all()


@given(st.integers(1, 50), st.integers(1, 70), st.integers(0, 9), st.integers(1, 12))
def test_batches_cover_every_epoch_and_need_no_history(num_windows, batch_size, seed, steps):
    """Counts differ by at most one, and any step can be asked for first."""
    order = BatchOrder(num_windows, batch_size, seed)
    batches = [order.windows(step) for step in range(1, steps + 1)]
    counts = Counter(dict.fromkeys(range(num_windows), 0))
    counts.update(np.concatenate(batches).tolist())
    assert max(counts.values()) - min(counts.values()) <= 1
    fresh = BatchOrder(num_windows, batch_size, seed)
    assert (fresh.windows(steps) == batches[-1]).all()


def test_epochs_and_seeds_differ():
    """Otherwise the shuffle would be worth nothing."""
    orders = [tuple(window_order(50, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_evaluation_windows_are_spread_evenly():
    """3 of 10: 0, 3, 6; and no more than there are."""
    assert evaluation_windows(10, 3).tolist() == [0, 3, 6]
    assert evaluation_windows(2, 8).tolist() == [0, 1]


def test_chat_tokens_change_the_key_only_where_they_are_wanted(tmp_path, texts):
    """Caches from before the setting stay valid; with it the tokenizer has the tokens."""
    plain = prepare(config_of(texts[0]), VOCAB, tmp_path / "cache")
    chatty = prepare(replace(config_of(texts[0]), chat_tokens=True), VOCAB, tmp_path / "cache")
    parts = {
        "layout": 1,
        "documents": open_documents(config_of(texts[0]).source).fingerprint,
        "valid_fraction": 0.25,
        "vocab_size": VOCAB,
        "tokenizer": None,
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    assert plain.fingerprint == key != chatty.fingerprint
    assert list(plain.tokenizer.special_tokens) == ["<|endoftext|>"]
    assert "<|extra_0|>" in chatty.tokenizer.special_tokens
