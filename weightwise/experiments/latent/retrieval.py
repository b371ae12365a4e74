"""Whether a cache in few bits still finds the needle: right answers by bits and length."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING

import torch
from study.rows import claim, figure

from weightwise.lm import CodeConfig, LanguageModel, LatentConfig
from weightwise.report.latent_figures import needle_figure
from weightwise.train.files import write_text

from .arms import CODES_FROM, SEEDS
from .needle import LENGTHS, ROPE_THETA, accuracy, model_config, sharpened, trained
from .stored import stored_otherwise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs

    from weightwise.lm.config import AttentionConfig

    Table = dict[int, list[float]]

PLAIN = LatentConfig(num_heads=4, share_factor=2, rope_theta=ROPE_THETA)
STORED = {
    "CLLA": PLAIN,
    **{f"int{bits}": replace(PLAIN, codes=CodeConfig(bits=bits)) for bits in (8, 4, 3, 2)},
}
# It has weights of its own. Multi-head attention is no arm: it does not learn the task in these
# steps at the base that latents need, and another base would make it another task.
TRAINED = replace(PLAIN, codes=CodeConfig(bits=4), quantize_from=CODES_FROM)
NUM_TEXTS = 32
LEAST_KEPT = 0.99


def retrieval(runs: Runs, figures: Path) -> Iterator[Row]:
    """Share of right answers at each length, with the cache of one model stored in all ways."""
    found = {arm: _table() for arm in STORED}
    for seed in SEEDS:
        model = _model(runs, "CLLA", PLAIN, seed)
        for arm, attention in STORED.items():
            _add(found[arm], stored_otherwise(model, attention))
    yield from _figures(found)
    yield from _kept("int4", "four bits find as much as sixteen", found["CLLA"], found["int4"])
    arm = "int4-trained"
    found[arm] = _table()
    for seed in SEEDS:
        _add(found[arm], _model(runs, arm, TRAINED, seed))
    yield from _figures({arm: found[arm]})
    words = "four bits in training find as much as sixteen"
    yield from _kept("int4_trained", words, found["CLLA"], found[arm])
    lines = {
        arm: {length: mean(values) for length, values in table.items()}
        for arm, table in found.items()
    }
    write_text(figures / "clla-needle.svg", needle_figure(lines))


def _figures(found: Mapping[str, Table]) -> Iterator[Row]:
    for arm, table in found.items():
        for length, values in table.items():
            yield figure(f"needle_{arm.lower().replace('-', '_')}_{length}", values, "right")


def _kept(name: str, words: str, before: Table, after: Table) -> Iterator[Row]:
    """Right answers over those of another arm, at each length."""
    for length in LENGTHS:
        pairs = zip(after[length], before[length], strict=True)
        kept = [coded / plain if plain else 0.0 for coded, plain in pairs]
        yield claim(
            f"needle_{name}_kept_{length}", f"{words} among {length} tokens",
            "lossless on most tasks", kept, "of the answers", goal=(">=", LEAST_KEPT),
        )  # fmt: skip


def _table() -> Table:
    return {length: [] for length in LENGTHS}


def _add(table: Table, model: LanguageModel) -> None:
    for length, values in table.items():
        values.append(accuracy(sharpened(model, length), length, NUM_TEXTS))


def _model(runs: Runs, arm: str, attention: AttentionConfig, seed: int) -> LanguageModel:
    """A trained model, kept beside the runs."""
    path = runs.folder / f"needle-{arm.lower()}-s{seed}.pt"
    if not path.exists():
        runs.folder.mkdir(parents=True, exist_ok=True)
        torch.save(trained(attention, seed).state_dict(), path)
    model = LanguageModel(model_config(attention))
    model.load_state_dict(torch.load(path))
    return model.eval()
