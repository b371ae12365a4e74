"""Rows out of a pool of pages: the tokens of rows with memory of their own, for less of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm.cache import Cache, KeyValueCache, Span
from weightwise.lm.cache_file import load_cache, save_cache
from weightwise.lm.latent.cache import LatentGroupCache
from weightwise.lm.latent.config import CodeConfig, LatentConfig
from weightwise.lm.paged import PagedCache

CPU = torch.device("cpu")
LATENT = LatentConfig(
    num_heads=2, head_width=8, latent_width=40, rope_width=4, codes=CodeConfig(group_width=16)
)


def layers(batch: int, capacity: int):
    """Keys and values, a layer that shares them, and coded latents."""
    kept = KeyValueCache.new(
        batch=batch, heads=2, capacity=capacity, width=3, dtype=torch.float32, device=CPU
    )
    latents = LatentGroupCache.new(
        batch=batch, capacity=capacity, config=LATENT, dtype=torch.float32, device=CPU
    )
    return [kept, None, latents]


def paged(batch: int, pages: int, page_tokens: int = 4, capacity: int = 24) -> PagedCache:
    pool = Cache(layers(pages + 1, page_tokens), batch=pages + 1, capacity=page_tokens)
    return PagedCache(pool, batch=batch, capacity=capacity)


def write(caches, count: list[int], seed: int) -> None:
    """Write the same new tokens to caches, and require that both read the same."""
    generator = torch.Generator().manual_seed(seed)
    start = caches[0].length_B.tolist()
    span = Span(start=tuple(start), count=tuple(count), device=CPU)
    shape = len(count), max(count)
    key, value = (torch.randn(shape[0], 2, shape[1], 3, generator=generator) for _ in range(2))
    latent = torch.randn(*shape, 40, generator=generator)
    rope = torch.randn(*shape, 4, generator=generator)
    for cache in caches:
        cache.check_room(count)
        cache.layers[0].write(span, key, value)
        cache.layers[2].write(span, latent, rope)
        cache.advance(span)


def assert_same(caches) -> None:
    """All caches hold the same tokens."""
    first, second = caches
    assert first.length_B.tolist() == second.length_B.tolist()
    longest = first.length
    for one, other in zip(first.layers, second.layers, strict=True):
        for name in one.stores if one is not None else ():
            got, wanted = (cache.stores[name].read(longest) for cache in (one, other))
            for row, length in enumerate(first.length_B.tolist()):
                assert torch.equal(got[row][..., :length, :], wanted[row][..., :length, :]), name


def assert_pages_add_up(cache: PagedCache) -> None:
    """Every page is free or counts the rows that hold it; no row writes to another's page."""
    held = [page for pages in cache._pages for page in pages]
    assert 0 not in held
    for page in range(1, len(cache._users)):
        assert cache._users[page] == held.count(page)
        assert (page in cache._free) == (page not in held)
    for pages, length in zip(cache._pages, cache.length_B.tolist(), strict=True):
        assert all(cache._users[page] == 1 for page in pages[length // cache.page_tokens :])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_history_gives_the_tokens_of_plain_rows(data):
    """Writes, swaps, copies, beams, rollbacks and ends: read as from memory of each row's own."""
    batch = 3
    both = paged(batch, pages=24), Cache(layers(batch, 24), batch=batch, capacity=24)
    pages, plain = both
    row = st.integers(0, batch - 1)
    for step in range(12):
        action = data.draw(st.sampled_from(["write", "write", "swap", "copy", "crop", "clear",
                                            "reorder"]))  # fmt: skip
        length = pages.length_B.tolist()
        if action == "write":
            count = [data.draw(st.integers(0, min(6, 24 - held))) for held in length]
            if not max(count):
                continue
            for number, (held, new) in enumerate(zip(length, count, strict=True)):
                assert pages.reserve(number, held + new)
            write(both, count, step)
        elif action == "reorder":
            index = torch.tensor(data.draw(st.lists(row, min_size=batch, max_size=batch)))
            for cache in both:
                cache.reorder(index)
        elif action == "crop":
            keep = data.draw(st.integers(0, max(length)))
            for cache in both:
                cache.crop(keep)
        elif action == "clear":
            one = data.draw(row)
            kept = pages.clear(one, data.draw(st.integers(0, length[one])))
            plain.clear(one, kept)
        else:
            first, second = data.draw(st.permutations(range(batch)))[:2]
            if action == "swap":
                for cache in both:
                    cache.swap(first, second)
            else:
                common = data.draw(st.integers(0, length[first]))
                pages.clear(second)
                assert pages.reserve(second, data.draw(st.integers(common, 24)))
                for cache in both:
                    cache.copy(first, second, common)
        assert_same(both)
        assert_pages_add_up(pages)


def test_rows_of_a_pass_find_their_pages():
    """Parts of a paged cache write where the whole reads, before and after a swap."""
    both = paged(3, pages=12), Cache(layers(3, 24), batch=3, capacity=24)
    for row in range(3):
        assert both[0].reserve(row, 12)
    write([cache.rows(0, 2) for cache in both], [5, 3], 0)
    write([cache.rows(2, 3) for cache in both], [4], 1)
    for cache in both:
        cache.swap(0, 2)
    write([cache.rows(0, 1) for cache in both], [6], 2)
    assert_same(both)
    with pytest.raises(ValueError, match="rows: expected some of 0 to 3, got 2 to 4"):
        both[0].rows(2, 4)


def test_shared_beginning_takes_no_pages():
    """Four rows with 10 common tokens in pages of 4: 2 pages for all, and one for each."""
    cache = paged(4, pages=20)
    assert cache.reserve(0, 12)
    write([cache.rows(0, 1)], [10], 0)
    for row in (1, 2, 3):
        assert cache.reserve(row, 12)
        cache.copy(0, row, 10)
    assert cache.free_tokens(4) == (20 - 2 - 4) * 4
    cache.clear(0)
    assert cache.free_tokens(4) == (20 - 2 - 3) * 4
    assert_pages_add_up(cache)


def test_pages_that_are_not_there_are_refused():
    """Five pages of 4 tokens: 20 tokens in all, and a row writes to pages that it has."""
    cache = paged(2, pages=5)
    assert cache.capacity == 20
    assert not cache.reserve(0, 21)
    assert cache.reserve(0, 16)
    assert not cache.reserve(1, 5)
    assert cache.reserve(1, 4)
    with pytest.raises(ValueError, match="at most 4 more tokens in row 1, whose pages hold 4"):
        cache.check_room([1, 5])
    write([cache], [1, 4], 0)
    with pytest.raises(ValueError, match="pages: expected a free one for every row, got too few"):
        cache.reorder(torch.tensor([0, 0]))


def test_bytes_are_those_of_the_pages_and_the_table():
    """Eleven pages of 4 tokens; 3 rows with 6 entries of 8 bytes."""
    # Keys and values: 2 x 2 heads x 3 features, float32. Latents: 3 groups of 16 codes and a
    # scale; rotary keys: 1 group.
    per_token = 2 * 2 * 3 * 4 + (3 + 1) * (8 + 2)
    assert paged(3, pages=10).num_bytes == 11 * 4 * per_token + 3 * 6 * 8


def test_no_infinity_of_an_earlier_text_is_left():
    """Pages are wiped when they are given away, and behind the tokens that a row keeps."""
    cache = paged(2, pages=5)
    assert cache.reserve(0, 20)
    write([cache.rows(0, 1)], [20], 0)
    key = cache.layers[0].stores["key"]
    key.memory[1:] = torch.inf
    cache.clear(0, 2)
    assert cache.reserve(1, 8)
    assert key.read(8)[1].isfinite().all()
    assert key.read(8)[0, :, 2:].isfinite().all()


def test_pages_go_to_a_file_and_come_back_as_rows(tmp_path):
    """From pages to rows and from rows to pages: the file is the same bit for bit."""
    both = paged(2, pages=12), Cache(layers(2, 24), batch=2, capacity=24)
    for row in range(2):
        assert both[0].reserve(row, 12)
    write(both, [9, 4], 0)
    for name, cache in zip("ab", both, strict=True):
        save_cache(cache, tmp_path / name)
    other = paged(2, pages=5), Cache(layers(2, 24), batch=2, capacity=10)
    load_cache(other[0], tmp_path / "b")
    load_cache(other[1], tmp_path / "a")
    assert_same(other)
    assert_same((other[1], both[1]))
    assert_same((both[0].select(torch.tensor([1])), both[1].select(torch.tensor([1]))))
    assert_same((both[0].to("cpu"), both[1]))
    with pytest.raises(ValueError, match="expected memory for 13 tokens, got too few free pages"):
        load_cache(paged(2, pages=3, capacity=12), tmp_path / "a")
