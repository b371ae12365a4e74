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

from .arms import SEEDS
from .needle import LENGTHS, accuracy, model_config, trained
from .stored import stored_otherwise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs

PLAIN = LatentConfig(num_heads=4, share_factor=2)
STORED = {
    "CLLA": PLAIN,
    **{f"int{bits}": replace(PLAIN, codes=CodeConfig(bits=bits)) for bits in (8, 4, 3, 2)},
}
NUM_TEXTS = 16
LEAST_KEPT = 0.99


def retrieval(runs: Runs, figures: Path) -> Iterator[Row]:
    """Share of right answers at each length, with the cache of one model stored in all ways."""
    found = {arm: _table() for arm in STORED}
    for seed in SEEDS:
        model = _model(runs, seed)
        for arm, attention in STORED.items():
            _add(found[arm], stored_otherwise(model, attention))
    for arm, table in found.items():
        for length, values in table.items():
            yield figure(f"needle_{arm.lower()}_{length}", values, "right")
    for length in LENGTHS:
        pairs = zip(found["int4"][length], found["CLLA"][length], strict=True)
        kept = [coded / plain if plain else 0.0 for coded, plain in pairs]
        yield claim(
            f"needle_int4_kept_{length}",
            f"four bits find as much as sixteen among {length} tokens",
            "lossless on most tasks", kept, "of the answers", goal=(">=", LEAST_KEPT),
        )  # fmt: skip
    lines = {
        arm: {length: mean(values) for length, values in table.items()}
        for arm, table in found.items()
    }
    write_text(figures / "clla-needle.svg", needle_figure(lines))


def _table() -> dict[int, list[float]]:
    return {length: [] for length in LENGTHS}


def _add(table: dict[int, list[float]], model: LanguageModel) -> None:
    for length, values in table.items():
        values.append(accuracy(model, length, NUM_TEXTS))


def _model(runs: Runs, seed: int) -> LanguageModel:
    """A trained model, kept beside the runs."""
    path = runs.folder / f"needle-s{seed}.pt"
    if not path.exists():
        runs.folder.mkdir(parents=True, exist_ok=True)
        torch.save(trained(PLAIN, seed).state_dict(), path)
    model = LanguageModel(model_config(PLAIN))
    model.load_state_dict(torch.load(path))
    return model.eval()
