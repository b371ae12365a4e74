"""Shares of long documents and of other sources, before and after annealing begins."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weightwise.lm import LanguageModel
from weightwise.optim.schedule import ScheduleConfig, annealing_start
from weightwise.recipes import tiny
from weightwise.train import DataConfig, FileSource, MixedSource, from_dict, prepare, to_dict, train
from weightwise.train.batches import BatchOrder, Windows
from weightwise.train.checkpoint import load_weights
from weightwise.train.mix import (
    MixedOrder,
    MixedWindows,
    Part,
    training_order,
    training_windows,
    windows_inside,
)
from weightwise.train.recipe import read_recipe, to_toml
from weightwise.train.shards import ShardWriter, TokenStore

if TYPE_CHECKING:
    from pathlib import Path

    from weightwise.train import Recipe

EOS = 0


def store_of(folder: Path, tokens: list[int], tokens_per_shard: int = 2**20) -> TokenStore:
    """Write tokens and open them again."""
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, "train", 1000, tokens_per_shard)
    writer.append(tokens)
    return TokenStore(folder, "train", writer.index())


def mix_of(folder: Path, counts: list[int], shares: list[float], late: list[float]) -> MixedWindows:
    """Parts of so many windows of two tokens; the last one takes the rest."""
    return MixedWindows(
        [
            Part(
                windows=Windows(store_of(folder / str(i), list(range(2 * n + 1))), 2, "train"),
                share=share, late_share=late_share,
            )
            for i, (n, share, late_share) in enumerate(
                zip(counts, [*shares, 1.0], [*late, 1.0], strict=True)
            )
        ]
    )  # fmt: skip


@given(
    st.lists(st.integers(1, 30), min_size=0, max_size=12),
    st.integers(2, 6),
    st.integers(3, 50),
)
def test_long_windows_lie_inside_of_documents(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, per_shard: int
) -> None:
    """Brute force: starts at T apart from each document's begin, as long as the document lasts."""
    lengths = [*lengths, 40]  # at least one long document
    tokens = [token for n in lengths for token in [*range(1, n + 1), EOS]]
    store = store_of(tmp_path_factory.mktemp("s"), tokens, per_shard)
    inside = windows_inside(store, EOS, length)
    begins = np.cumsum([0, *(n + 1 for n in lengths)])
    wanted = [
        tokens[start : start + length + 1]
        for begin, n in zip(begins, lengths, strict=False)
        for start in range(begin, begin + n + 1 - length, length)
    ]
    assert [inside.row(i).tolist() for i in range(inside.count)] == wanted
    assert all(EOS not in row[:-1] for row in wanted)


def test_text_without_long_documents_is_refused(tmp_path: Path) -> None:
    """The longest document is named, its end included."""
    short = store_of(tmp_path / "short", [1, 2, 3, EOS] * 10)
    with pytest.raises(ValueError, match=r"train\.seq_length 4 tokens, the longest has 4"):
        windows_inside(short, EOS, 4)
    assert windows_inside(short, EOS, 3).count == 10


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    draw=st.data(),
    batch_size=st.integers(1, 17),
    turn=st.one_of(st.none(), st.integers(0, 12)),
)
def test_every_part_keeps_its_share_and_its_epochs(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    draw: st.DataObject,
    batch_size: int,
    turn: int | None,
) -> None:
    """Counts within one sequence a part; windows of a part differ by one visit; no history."""
    num_shares = len(counts) - 1
    weights = st.lists(st.floats(0, 0.3), min_size=num_shares, max_size=num_shares)
    shares, late = draw.draw(weights), draw.draw(weights)
    windows = mix_of(tmp_path_factory.mktemp("m"), counts, shares, late)
    order = MixedOrder(windows, batch_size, 3, turn)
    steps = [order.windows(step) for step in range(1, 21)]
    seen = np.concatenate(steps)
    part_of = np.searchsorted(windows.starts, seen, side="right") - 1
    assert ((seen >= 0) & (seen < windows.count)).all()
    before = 20 if turn is None else min(turn, 20)
    for part, (share, late_share) in enumerate(zip(shares, late, strict=True)):
        wanted = batch_size * (share * before + late_share * (20 - before))
        assert abs((part_of == part).sum() - wanted) <= 1 + part + 1e-6
    visits = Counter(dict.fromkeys(range(windows.count), 0))
    visits.update(seen.tolist())
    for first, last in zip(windows.starts, windows.starts[1:], strict=False):
        of_part = [visits[i] for i in range(first, last)]
        assert max(of_part) - min(of_part) <= 1
    fresh = MixedOrder(windows, batch_size, 3, turn)
    assert (fresh.windows(17) == steps[16]).all()


def test_a_part_alone_is_visited_as_without_a_mix(tmp_path: Path) -> None:
    """One part and no share: the batches of `BatchOrder`, to the last number."""
    windows = mix_of(tmp_path, [7], [], [])
    plain, mixed = BatchOrder(7, 3, 5), MixedOrder(windows, 3, 5)
    assert all((plain.windows(step) == mixed.windows(step)).all() for step in range(1, 9))


def test_windows_of_all_parts_are_read(tmp_path: Path) -> None:
    """Numbers run through the parts; inputs and targets are one token apart."""
    windows = mix_of(tmp_path, [2, 3], [0.5], [0.5])
    token_BT, target_BT = windows.read(np.array([1, 2, 4]))
    assert token_BT.tolist() == [[2, 3], [0, 1], [4, 5]]
    assert target_BT.tolist() == [[3, 4], [1, 2], [5, 6]]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, FileSource]:
    """Plain documents, a few of them long, and better ones."""
    rng = np.random.default_rng(0)
    words = np.array(["the", "old", "wall", "of", "stones", "stands", "by", "our", "river"])
    texts = {
        "plain": [" ".join(rng.choice(words, 400 if i % 5 == 0 else 12)) for i in range(40)],
        "good": [" ".join(rng.choice(words[::-1], 30)) + "!" for _ in range(40)],
    }
    for name, documents in texts.items():
        (tmp_path / name).mkdir()
        for i, text in enumerate(documents):
            (tmp_path / name / f"{i:02d}.txt").write_text(f"{name} {i}: {text}")
    return {name: FileSource(paths=(str(tmp_path / name),)) for name in texts}


def recipe(sources: dict[str, FileSource], steps: int) -> Recipe:
    """A tiny run with long documents, and good ones that come in annealing only."""
    base = tiny()
    good = MixedSource(source=sources["good"], share=0.0, anneal_share=0.5)
    return replace(
        base,
        data=DataConfig(source=sources["plain"], valid_fraction=0.2, long_share=0.25, mix=(good,)),
        schedule=replace(base.schedule, decay_steps=20, anneal_from=0.5),
        train=replace(base.train, steps=steps, save_every=5, eval_every=5, eval_batches=1),
    )


def test_the_best_data_come_in_annealing(sources: dict[str, FileSource], tmp_path: Path) -> None:
    """Of 80 sequences before the turn none is good, of 80 after it half are; a quarter is long."""
    wanted = recipe(sources, 20)
    data = prepare(wanted.data, wanted.model.vocab_size, tmp_path / "cache")
    windows = training_windows(wanted.data, data, 32)
    assert isinstance(windows, MixedWindows)
    order = training_order(windows, wanted.schedule, batch_size=8, num_steps=20, seed=1)
    seen = np.stack([order.windows(step) for step in range(1, 21)])
    part = np.searchsorted(windows.starts, seen, side="right") - 1
    assert [int((part[:10] == p).sum()) for p in range(3)] == [0, 20, 60]
    assert [int((part[10:] == p).sum()) for p in range(3)] == [40, 20, 20]
    text = data.tokenizer.decode(windows.read(seen[part == 0])[0].flatten().tolist())
    assert "good" in text
    assert "plain" not in text


def test_data_without_a_mix_are_what_they_were(
    sources: dict[str, FileSource], tmp_path: Path
) -> None:
    """Shares change neither tokens nor key of the source itself; a mix has a key of its own."""
    plain = DataConfig(source=sources["plain"], valid_fraction=0.2)
    good = MixedSource(source=sources["good"], share=0.1)
    first = prepare(plain, 384, tmp_path / "cache")
    shared = prepare(replace(plain, long_share=0.5), 384, tmp_path / "cache")
    assert shared.fingerprint == first.fingerprint
    assert isinstance(training_windows(plain, first, 32), Windows)
    mixed = prepare(replace(plain, mix=(good,)), 384, tmp_path / "cache")
    again = prepare(replace(plain, mix=(good,)), 384, tmp_path / "cache")
    assert mixed.fingerprint == again.fingerprint != first.fingerprint
    assert mixed.train.num_tokens == first.train.num_tokens
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.slow
def test_a_mixed_run_goes_on_bit_for_bit(sources: dict[str, FileSource], tmp_path: Path) -> None:
    """Stopped in annealing and resumed: the weights of a run that never stopped."""
    cache = tmp_path / "cache"
    whole = train(recipe(sources, 20), tmp_path / "whole", cache_dir=cache)
    train(recipe(sources, 15), tmp_path / "parts", cache_dir=cache)
    parts = train(recipe(sources, 20), tmp_path / "parts", cache_dir=cache)
    models = []
    for checkpoint in (whole.checkpoint, parts.checkpoint):
        model = LanguageModel(recipe(sources, 20).model)
        load_weights(model, checkpoint)
        models.append(model.state_dict())
    assert all(torch.equal(weight, models[1][name]) for name, weight in models[0].items())
    assert whole.valid_loss == parts.valid_loss


def test_a_recipe_with_a_mix_is_written_and_read(
    sources: dict[str, FileSource], tmp_path: Path
) -> None:
    """TOML keeps the list of sources."""
    wanted = recipe(sources, 20)
    path = tmp_path / "mix.toml"
    path.write_text(to_toml(wanted))
    assert read_recipe(path) == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"long_share": 1.5}}, r"data\.long_share"),
        ({"data": {"mix": [{"source": {"kind": "builtin"}, "share": 0.8}], "long_share": 0.25}},
         r"data\.mix: expected shares that leave something to source, got 0\.8"),
        ({"data": {"mix": [{"source": {"kind": "builtin"}, "share": 0.1, "anneal_share": 1.0}]}},
         r"data\.mix\.0\.anneal_share"),
        ({"data": {"mix": [{"source": {"kind": "builtin"}, "share": 0.1, "anneal_share": 0.5}]}},
         r"data\.mix\.0\.anneal_share: expected none without schedule\.anneal_from, got 0\.5"),
    ],
)  # fmt: skip
def test_wrong_shares_are_named(change: dict[str, dict[str, object]], message: str) -> None:
    """Field and range, in one line."""
    table = to_dict(tiny())
    for section, values in change.items():
        table[section] |= values
    with pytest.raises(ValueError, match=message):
        from_dict(table, origin="x.toml")


def test_a_source_of_the_mix_that_is_missing_is_named(
    sources: dict[str, FileSource], tmp_path: Path
) -> None:
    """Which one, and what is wrong with it."""
    gone = MixedSource(source=FileSource(paths=(str(tmp_path / "gone"),)), share=0.1)
    config = DataConfig(source=sources["plain"], valid_fraction=0.2, mix=(gone,))
    with pytest.raises(ValueError, match=r"data\.mix\.0: data\.source\.paths: expected text files"):
        prepare(config, 384, tmp_path / "cache")


@given(st.integers(1, 5000), st.floats(0.01, 0.99), st.integers(0, 20))
def test_annealing_starts_where_the_rate_turns(steps: int, share: float, warmup: int) -> None:
    """The nearest whole step to the share, never before the warm-up ends."""
    config = ScheduleConfig(warmup_steps=warmup, anneal_from=share)
    assert annealing_start(config, steps) == max(warmup, round(share * steps))
    assert annealing_start(ScheduleConfig(), steps) is None
