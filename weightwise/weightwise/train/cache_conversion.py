"""A checkpoint turned into one with a small cache: its attention becomes latents that layers share.

Calibration text comes from the training documents of the run and the text that measures errors
from its held-out ones, as prepared for the run; other text can be named. What comes out is a
checkpoint at step 0 that can be used at once or trained on (`weightwise.recipes.uptrain`), and
beside it ``conversion.json`` with what each group of layers has lost.
"""

# Shapes: B sequences, T tokens

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from weightwise.lm import LanguageModel
from weightwise.lm.latent.budget import (
    allocated_bytes_per_token,
    cache_bytes_per_token,
    fit_cache,
    mha_bytes_per_token,
)
from weightwise.lm.latent.conversion import (
    ConvertedModel,
    GroupReport,
    check_layout,
    convert_to_latent,
)
from weightwise.lm.latent.grouping import sharing_errors, unequal
from weightwise.lm.tensor_file import fresh_folder
from weightwise.train.calibration import calibration_text, text_loss
from weightwise.train.checkpoint import MODEL_FILES, find_checkpoint, load_weights, verify
from weightwise.train.data import DataConfig
from weightwise.train.exchange import write_start, write_weights
from weightwise.train.recipe import from_dict, override, read_recipe, to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from weightwise.lm import LatentConfig
    from weightwise.train.recipe import Recipe

REPORT = "conversion.json"  # shrunk checkpoints have one too
SHARES = (1, 2, 3, 4)  # layers that share, to be tried


@dataclass(frozen=True, kw_only=True)
class CacheBudget:
    """What a token may cost in the cache.

    Parameters
    ----------
    bytes_per_token, percent
        See `weightwise.lm.latent.budget.fit_cache`; one of them.
    """

    bytes_per_token: float | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> CacheBudget:
        """Read ``2%``, or bytes such as ``4096``.

        Raises
        ------
        ValueError
            If it is neither.
        """
        number, is_percent = text.strip().removesuffix("%"), text.strip().endswith("%")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise ValueError(f"cache: expected a share such as 2% or bytes a token, got {text!r}")
        return cls(percent=value) if is_percent else cls(bytes_per_token=value)


@dataclass(frozen=True, kw_only=True)
class CacheConversion:
    """What has been converted, and what that changed.

    Parameters
    ----------
    source, folder
        The old checkpoint and the new one.
    attention
        Layout of the new cache.
    bytes_before, bytes_per_token
        What a token takes in the cache, before in bfloat16 and now in buffers as allocated.
    percent
        The new bytes in percent of multi-head attention in bfloat16.
    loss_before, loss_after
        Mean loss on held-out text, nats per token; after the conversion without any training.
    tried
        Layers of each group, bytes a token and loss of all layouts that were tried.
    groups
        What each group of layers has lost.
    """

    source: Path
    folder: Path
    attention: LatentConfig
    bytes_before: float
    bytes_per_token: float
    percent: float
    loss_before: float
    loss_after: float
    tried: tuple[tuple[tuple[int, ...], float, float], ...]
    groups: tuple[GroupReport, ...]


def convert_cache(
    checkpoint: Path | str,
    out: Path | str,
    budget: CacheBudget,
    *,
    overrides: Sequence[str] = (),
    text: Path | None = None,
    num_tokens: int = 65_536,
    cache_dir: Path | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> CacheConversion:
    """Turn a checkpoint into one whose cache fits a budget.

    For 1, 2, 3 and 4 layers that share, the best layout by `weightwise.lm.latent.budget.fit_cache`
    is tried, and beside it as many groups of unequal size that lose the least by sharing
    (`weightwise.lm.latent.grouping`). The one that loses the least on held-out text is kept.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
    out
        Folder of the new checkpoint; must be new or empty.
    budget
        What a token may cost.
    overrides
        Settings of the layout that are decided, such as ``"share_factor=1"``.
    text
        UTF-8 file, or folder of such files, to calibrate with instead of the run's documents.
    num_tokens
        Tokens of calibration text, at least 1.
    cache_dir
        Folder of prepared data, see `weightwise.train.default_cache_dir`.
    on_batch
        Told how many batches of calibration text have been read, of how many.

    Raises
    ------
    ValueError
        If the checkpoint is damaged, no layout fits the budget or the model, ``out`` is taken or
        the disk too full. Nothing is written then.
    """
    start, out = find_checkpoint(Path(checkpoint)), Path(out)
    verify(start, MODEL_FILES)
    if num_tokens < 1:
        raise ValueError(f"tokens: expected at least 1, got {num_tokens}")
    recipe = read_recipe(start / "recipe.toml")
    if recipe.sharing is not None:
        raise ValueError(f"{start}: sharing: expected a model without, convert before shrinking")
    layouts = _layouts(recipe, budget, overrides)
    model = LanguageModel(recipe.model)
    load_weights(model, start)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    with fresh_folder(out, sum(weight.nbytes for weight in model.parameters())) as partial:
        trial = _Trial(model, recipe, start, text, num_tokens, cache_dir)
        found, loss, tried = trial.best(layouts, on_batch, is_open=_are_groups_open(overrides))
        config = found.model.config
        size = allocated_bytes_per_token(config)
        report = CacheConversion(
            source=start,
            folder=out,
            attention=config.attention,  # type: ignore[arg-type]
            bytes_before=cache_bytes_per_token(recipe.model),
            bytes_per_token=size,
            percent=100 * size / mha_bytes_per_token(recipe.model),
            loss_before=trial.loss(model),
            loss_after=loss,
            tried=tuple(tried),
            groups=found.groups,
        )
        write_weights(partial, found.model, start)
        (partial / REPORT).write_text(json.dumps(report_table(report), indent=1) + "\n", "utf-8")
        data = recipe.data if isinstance(recipe.data, DataConfig) else DataConfig()
        name = f"{recipe.name}-latent"
        write_start(
            partial,
            replace(recipe, name=name, start=None, model=config, data=data),
            trial.data.tokenizer,
        )
    return report


class _Trial:
    """A model to convert, text to calibrate with and text to measure with."""

    def __init__(
        self,
        model: LanguageModel,
        recipe: Recipe,
        start: Path,
        text: Path | None,
        num_tokens: int,
        cache_dir: Path | None,
    ) -> None:
        self._model = model
        device = model.embed.weight.device
        found = calibration_text(recipe, start, text=text, cache_dir=cache_dir)
        self._batches = [one.to(device) for one in found.batches(num_tokens)]
        self.data = found.data
        self._token_BT, self._target_BT = (one.to(device) for one in found.held_out())

    def best(
        self,
        layouts: Sequence[tuple[LatentConfig, float | None]],
        on_batch: Callable[[int, int], None] | None,
        *,
        is_open: bool,
    ) -> tuple[ConvertedModel, float, list[tuple[tuple[int, ...], float, float]]]:
        """The conversion that loses the least, its loss, and what all layouts came to."""
        best: tuple[ConvertedModel, float] | None = None
        tried = []
        num_layers, num_batches = self._model.config.num_layers, len(self._batches)
        for layout, _ in layouts:
            check_layout(self._model.config, layout)
        is_open = is_open and any(1 < len(one.sizes(num_layers)) < num_layers for one, _ in layouts)
        if is_open:
            layouts = self._with_unequal(layouts, on_batch)
        # Measuring takes as long as a trial.
        total = (len(layouts) + is_open) * num_batches
        for number, (layout, rope_theta) in enumerate(layouts, int(is_open)):
            batches = _told(self._batches, number * num_batches, total, on_batch)
            found = convert_to_latent(
                self._model, layout, batches, self._token_BT, rope_theta=rope_theta
            )
            loss = self.loss(found.model)
            sizes = layout.sizes(num_layers)
            tried.append((sizes, cache_bytes_per_token(found.model.config), loss))
            if best is None or loss < best[1]:
                best = found, loss
        assert best is not None
        return *best, tried

    def _with_unequal(
        self,
        layouts: Sequence[tuple[LatentConfig, float | None]],
        on_batch: Callable[[int, int], None] | None,
    ) -> list[tuple[LatentConfig, float | None]]:
        """The layouts, and beside them those with groups of the best sizes."""
        num_batches = len(self._batches)
        batches = _told(self._batches, 0, (len(layouts) + 1) * num_batches, on_batch)
        error_LL = sharing_errors(self._model, batches)
        more = [(unequal(layout, error_LL), rope_theta) for layout, rope_theta in layouts]
        return [*layouts, *(one for one in dict.fromkeys(more) if one not in layouts)]

    def loss(self, model: LanguageModel) -> float:
        """Mean loss on the held-out text, nats per token."""
        return text_loss(model, self._token_BT, self._target_BT)


def report_table(report: CacheConversion) -> dict[str, object]:
    """The same as plain values, for JSON."""
    table = asdict(report)
    return table | {"source": str(report.source.resolve()), "folder": str(report.folder)}


def original_of(checkpoint: Path) -> Path | None:
    """Where a converted checkpoint came from; ``None`` if it says nothing of that.

    Parameters
    ----------
    checkpoint
        Folder of the checkpoint.
    """
    try:
        table = json.loads((checkpoint / REPORT).read_text(encoding="utf-8"))
        return Path(table["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _layouts(
    recipe: Recipe, budget: CacheBudget, overrides: Sequence[str]
) -> list[tuple[LatentConfig, float | None]]:
    """Layouts to try, and the bases of their rope keys where these are decided.

    Raises
    ------
    ValueError
        If no layout fits the budget.
    """
    decided = {key.strip(): value for key, _, value in (one.partition("=") for one in overrides)}
    known = {key: _number(decided, key) for key in ("latent_width", "rope_width", "codes.bits")}
    share = _number(decided, "share_factor")
    found, problem = [], None
    for factor in SHARES if share is None else (share,):
        if factor > recipe.model.num_layers:
            continue
        try:
            fit = fit_cache(
                recipe.model,
                bytes_per_token=budget.bytes_per_token,
                percent=budget.percent,
                share_factor=factor,
                latent_width=known["latent_width"],
                rope_width=known["rope_width"],
                bits=known["codes.bits"],  # type: ignore[arg-type]
            )
        except ValueError as error:
            problem = error
            continue
        layout = _changed(recipe, fit.attention, overrides)
        found.append((layout, layout.rope_theta if "rope_theta" in decided else None))
    if not found:
        raise problem or ValueError(
            f"share_factor: expected at most {recipe.model.num_layers} layers, got {share}"
        )
    return found


def _are_groups_open(overrides: Sequence[str]) -> bool:
    """Whether it is not decided which layers share."""
    decided = {one.partition("=")[0].strip() for one in overrides}
    return decided.isdisjoint({"share_factor", "group_sizes", "keep_ends"})


def _number(decided: dict[str, str], key: str) -> int | None:
    """A whole number among the settings that are decided; anything else is refused later."""
    text = decided.get(key, "").strip()
    return int(text) if text.isdecimal() else None


def _changed(recipe: Recipe, attention: LatentConfig, overrides: Sequence[str]) -> LatentConfig:
    """The layout with changes, checked as those of a recipe are."""
    model = replace(recipe.model, attention=attention, attention_of=())
    changes = [f"model.attention.{change}" for change in overrides]
    changed = from_dict(override(to_dict(replace(recipe, model=model)), changes), origin="--set")
    return changed.model.attention  # type: ignore[return-value]


def _told(
    batches: Sequence[Tensor],
    done: int,
    total: int,
    on_batch: Callable[[int, int], None] | None,
) -> Iterator[Tensor]:
    for number, token_BT in enumerate(batches, done + 1):
        yield token_BT
        if on_batch is not None:
            on_batch(number, total)
