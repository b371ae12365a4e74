"""What is done to the rows of a cache: copies, beams, taking back, other devices, files."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, SwiGLUConfig
from weightwise.lm.cache_file import load_cache, save_cache

CONFIG = ModelConfig(
    vocab_size=29,
    width=16,
    num_layers=4,
    max_length=40,
    attention=GQAConfig(num_heads=4, num_kv_heads=2, share_factor=2),
    ffn=SwiGLUConfig(hidden=24),
    init_std=0.4,
)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    built = LanguageModel(CONFIG).eval()
    built.initialize(torch.Generator().manual_seed(0))
    return built


def ids(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 29, (length,), generator=generator).tolist()


def filled(model: LanguageModel, lengths: list[int], capacity: int = 24):
    """Cache of texts of these lengths, and the texts."""
    texts = [ids(length, seed) for seed, length in enumerate(lengths)]
    cache = model.new_cache(len(texts), capacity)
    with torch.no_grad():
        for row, text in enumerate(texts):
            model(torch.tensor([text]), cache.rows(row, row + 1))
    return cache, texts


def assert_goes_on(model: LanguageModel, cache, texts: list[list[int]]) -> None:
    """Next tokens score as after the texts that the rows should hold."""
    new = ids(len(texts), 99)
    with torch.no_grad():
        got = model(torch.tensor(new)[:, None], cache)[:, -1]
        for row, (text, token) in enumerate(zip(texts, new, strict=True)):
            alone = model(torch.tensor([[*text, token]]))[0, -1]
            torch.testing.assert_close(got[row], alone, atol=1e-5, rtol=0)


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@settings(max_examples=20, deadline=None)
@given(lengths=lengths, data=st.data())
def test_rows_become_copies_of_others(model, lengths, data):
    """In place and into new memory, by any index: every row goes on with the text it was given."""
    cache, texts = filled(model, lengths)
    rows = st.integers(0, len(texts) - 1)
    index = data.draw(st.lists(rows, min_size=len(texts), max_size=len(texts)))
    cache.reorder(torch.tensor(index))
    texts = [texts[row] for row in index]
    chosen = data.draw(st.lists(rows, min_size=1, max_size=5))
    copied = cache.select(torch.tensor(chosen))
    assert_goes_on(model, copied, [texts[row] for row in chosen])
    assert_goes_on(model, cache, texts)


def test_repeated_rows_stand_side_by_side(model):
    """Two texts, three times each, with memory of their own."""
    cache, texts = filled(model, [5, 8])
    repeated = cache.repeat(3)
    assert repeated.num_bytes == 3 * cache.num_bytes
    cache.reset()
    assert_goes_on(model, repeated, [texts[0]] * 3 + [texts[1]] * 3)


@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 12), longer=st.integers(1, 12), data=st.data())
def test_row_begins_with_the_tokens_of_another(model, length, longer, data):
    """A row that held a longer or a shorter text goes on after the shared beginning."""
    cache, (first, _, third) = filled(model, [length, longer, 3])
    common = data.draw(st.integers(1, length))
    cache.copy(0, 1, common)
    assert_goes_on(model, cache, [first, first[:common], third])


@settings(max_examples=20, deadline=None)
@given(lengths=lengths, keep=st.integers(0, 12), data=st.data())
def test_taken_back_tokens_leave_no_trace(model, lengths, keep, data):
    """After a rollback of all rows, and of one row, texts go on from where they were cut."""
    cache, texts = filled(model, lengths)
    keep = min(keep, cache.length)
    cache.crop(keep)
    texts = [text[:keep] for text in texts]
    row = data.draw(st.integers(0, len(texts) - 1))
    less = data.draw(st.integers(0, len(texts[row])))
    cache.clear(row, less)
    texts[row] = texts[row][:less]
    assert cache.length_B.tolist() == [len(text) for text in texts]
    assert_goes_on(model, cache, texts)


def test_cache_goes_to_the_host_and_to_disk_and_back(model, tmp_path):
    """Moved and stored tokens go on as they would have; the file holds what is used, no more."""
    cache, texts = filled(model, [5, 8])
    path = tmp_path / "texts" / "cache.safetensors"
    save_cache(cache, path)
    # 2 layers with keys and values, 2 rows, 2 heads, 8 tokens, 4 features, float32.
    assert 2 * 2 * 2 * 2 * 8 * 4 * 4 < path.stat().st_size < 2 * 2 * 2 * 2 * 8 * 4 * 4 + 2048
    host = cache.to("cpu")
    assert_goes_on(model, host, texts)
    other, _ = filled(model, [11, 2], capacity=9 + 20)
    load_cache(other, path)
    assert_goes_on(model, other, texts)
    assert [file.name for file in path.parent.iterdir()] == ["cache.safetensors"]


@pytest.mark.parametrize(
    ("batch", "capacity", "dtype", "message"),
    [
        (3, 24, torch.float32, r"expected 3 rows, got length of shape \(2,\)"),
        (2, 7, torch.float32, r"expected 0 to 7 tokens a row, got \[5, 8\]"),
        (2, 8, torch.bfloat16, r"layers.0.key: expected torch.bfloat16 of shape \(2, 2, 8, 4\)"),
    ],
)
def test_file_that_does_not_fit_is_refused(model, tmp_path, batch, capacity, dtype, message):
    """Other rows, too many tokens, another type: the message names it, and nothing is taken."""
    save_cache(filled(model, [5, 8])[0], tmp_path / "a")
    cache = model.new_cache(batch, capacity, dtype=dtype)
    with pytest.raises(ValueError, match=f"a: {message}"):
        load_cache(cache, tmp_path / "a")
    assert cache.length == 0


def test_damaged_or_foreign_file_is_refused(model, tmp_path):
    """Missing, cut short, and of a model with other layers."""
    cache, _ = filled(model, [5])
    with pytest.raises(ValueError, match="gone: expected a whole file of a cache"):
        load_cache(cache, tmp_path / "gone")
    save_cache(cache, tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="b: expected a whole file of a cache"):
        load_cache(cache, tmp_path / "b")
    cache.layers = cache.layers[:2]
    save_cache(cache, tmp_path / "c")
    with pytest.raises(ValueError, match=r"same model, layers\.2\.key is missing"):
        load_cache(filled(model, [5])[0], tmp_path / "c")
    assert cache.length == 5


@pytest.mark.parametrize("index", [[0], [0, 2], [-1, 0], [0, 1, 1]])
def test_rows_that_are_not_there_are_refused(model, index):
    """Two rows: one index for each, 0 or 1."""
    cache, _ = filled(model, [5, 8])
    with pytest.raises(ValueError, match="index_B: expected"):
        cache.reorder(torch.tensor(index))
    with pytest.raises(ValueError, match="index_B: expected rows 0 to 1"):
        cache.select(torch.tensor([], dtype=torch.int64))
