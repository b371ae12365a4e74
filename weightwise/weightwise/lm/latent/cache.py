"""Latents and rotary keys kept once for all layers of a group.

The leader of a group writes; every layer of the group reads what it wrote (sheet CLLA, 3.6). Where
the configuration asks for codes, a token is encoded when it comes and never again: a code depends
on its own token alone, so prompts read in pieces, beams, and tokens taken back leave the codes of
all other tokens as they were. Attention sees what the codes decode to, also for the newest token,
as it does in training.

A `LatentView` is what the layers of the group share during one pass. It decodes at the first
asking and keeps the result for the layers that follow.
"""

# Shapes: B batch, T new tokens, S tokens so far, C latent width, R rope width, W either

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import torch

from weightwise.lm.cache import LayerCache
from weightwise.lm.latent.append import append
from weightwise.lm.latent.codes import Codes, decode, encode
from weightwise.lm.store import RowStore

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm.cache import Span
    from weightwise.lm.latent.config import CodeConfig, LatentConfig
    from weightwise.lm.store import Store


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """One vector per token, plain or as codes.

    Parameters
    ----------
    content
        The vectors, shape (B, S, W), or their codes.
    config
        How they are coded; ``None`` for plain ones.
    width
        Features W.
    dtype
        Of the decoded vectors.
    """

    content: Tensor | Codes
    config: CodeConfig | None
    width: int
    dtype: torch.dtype

    @classmethod
    def plain(cls, x_BSW: Tensor) -> Self:
        """Vectors that are stored as they are."""
        return cls(content=x_BSW, config=None, width=x_BSW.shape[-1], dtype=x_BSW.dtype)

    @cached_property
    def tensor(self) -> Tensor:
        """The vectors, shape (B, S, W): decoded once, or the stored ones themselves."""
        if not isinstance(self.content, Codes):
            return self.content
        assert self.config is not None
        return decode(self.content, self.config, self.width, self.dtype)


@dataclass(frozen=True, kw_only=True)
class LatentView:
    """Latents and rotary keys of all tokens so far, for the layers of a group.

    Parameters
    ----------
    latent, rope
        Shapes (B, S, C) and (B, S, R); each plain or coded.
    """

    latent: Vectors
    rope: Vectors

    @classmethod
    def plain(cls, latent_BSC: Tensor, rope_BSR: Tensor) -> Self:
        """View of tensors, as in training, where nothing is kept."""
        return cls(latent=Vectors.plain(latent_BSC), rope=Vectors.plain(rope_BSR))

    @property
    def num_tokens(self) -> int:
        """Tokens S of the longest row."""
        content = self.latent.content
        return (content.code if isinstance(content, Codes) else content).shape[1]

    @property
    def codes(self) -> tuple[Codes, Codes] | None:
        """Codes of latents and rotary keys for kernels that read them; only if both are coded."""
        latent, rope = self.latent.content, self.rope.content
        return (latent, rope) if isinstance(latent, Codes) and isinstance(rope, Codes) else None

    def latent_and_rope(self) -> tuple[Tensor, Tensor]:
        """Both as tensors, shapes (B, S, C) and (B, S, R); the first call decodes."""
        return self.latent.tensor, self.rope.tensor


class _Kept:
    """Name, width and coding of the stores that hold one kind of vector."""

    def __init__(
        self, name: str, width: int, config: CodeConfig | None, dtype: torch.dtype
    ) -> None:
        self.name = name
        self.width = width
        self.config = config
        self.dtype = dtype
        ends = ("",) if config is None else ("_code", "_scale", "_minimum")
        is_symmetric = config is not None and config.is_symmetric
        self._names = [f"{name}{end}" for end in (ends[:2] if is_symmetric else ends)]

    def new_stores(self, batch: int, capacity: int, device: torch.device) -> dict[str, RowStore]:
        """Take memory."""
        row_1W = torch.zeros(1, self.width, dtype=self.dtype, device="cpu")
        return {
            name: RowStore(
                torch.zeros(batch, capacity, part.shape[-1], dtype=part.dtype, device=device)
            )
            for name, part in self._parts(row_1W).items()
        }

    def write(self, cache: LayerCache, span: Span, x_BTW: Tensor) -> Vectors:
        """Keep new vectors, and give those of all tokens so far."""
        config = self.config
        if config is None or not append(span, x_BTW, self._stores(cache), config):
            for name, part in self._parts(x_BTW).items():
                cache.stores[name].write(span, part)
        return self.read(cache, span.end)

    def read(self, cache: LayerCache, num_tokens: int) -> Vectors:
        """Vectors of the first tokens."""
        read = [store.read(num_tokens) for store in self._stores(cache)]
        content = read[0] if self.config is None else Codes(*read)
        return Vectors(content=content, config=self.config, width=self.width, dtype=self.dtype)

    def _stores(self, cache: LayerCache) -> list[Store]:
        """Memory of the vectors, or of codes, scales and minima."""
        return [cache.stores[name] for name in self._names]

    def _parts(self, x: Tensor) -> dict[str, Tensor]:
        """What is stored of vectors, by the names of the stores."""
        if self.config is None:
            return {self.name: x}
        codes = encode(x, self.config)
        parts = {"code": codes.code, "scale": codes.scale, "minimum": codes.minimum}
        return {f"{self.name}_{k}": part for k, part in parts.items() if part is not None}


class LatentGroupCache(LayerCache):
    """Latents and rotary keys of one group of layers; use `new`.

    Parameters
    ----------
    stores
        Memory, by name.
    latent, rope
        What the stores hold.
    """

    def __init__(self, stores: dict[str, RowStore], latent: _Kept, rope: _Kept) -> None:
        super().__init__(stores)
        self._latent = latent
        self._rope = rope

    @classmethod
    def new(
        cls,
        *,
        batch: int,
        capacity: int,
        config: LatentConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Self:
        """Take memory.

        Parameters
        ----------
        batch, capacity
            Sequences, and tokens of each.
        config
            Settings of the group, with all widths filled in.
        dtype
            Type of what is stored plain, and of what codes decode to.
        device
            Place of the memory.
        """
        assert config.latent_width is not None
        latent = _Kept("latent", config.latent_width, config.codes, dtype)
        rope = _rope_kept(config, dtype)
        stores = [kept.new_stores(batch, capacity, device) for kept in (latent, rope)]
        return cls(stores[0] | stores[1], latent, rope)

    def write(self, span: Span, latent_BTC: Tensor, rope_BTR: Tensor) -> LatentView:
        """Store new tokens and return all tokens so far.

        Parameters
        ----------
        span
            Where the new tokens stand.
        latent_BTC, rope_BTR
            Of the new tokens; the keys are rotated.

        Returns
        -------
        LatentView
            Everything up to the longest row's last token.
        """
        return LatentView(
            latent=self._latent.write(self, span, latent_BTC),
            rope=self._rope.write(self, span, rope_BTR),
        )

    def view(self, num_tokens: int) -> LatentView:
        """The first tokens of all rows."""
        return LatentView(
            latent=self._latent.read(self, num_tokens), rope=self._rope.read(self, num_tokens)
        )


class RopeKeyCache(LayerCache):
    """Rotary keys of a layer that shares its leader's latents and nothing else; use `new`.

    Parameters
    ----------
    stores
        Memory, by name.
    rope
        What the stores hold.
    """

    def __init__(self, stores: dict[str, RowStore], rope: _Kept) -> None:
        super().__init__(stores)
        self._rope = rope

    @classmethod
    def new(
        cls,
        *,
        batch: int,
        capacity: int,
        config: LatentConfig,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Self:
        """Take memory; parameters as for `LatentGroupCache.new`."""
        rope = _rope_kept(config, dtype)
        return cls(rope.new_stores(batch, capacity, device), rope)

    def write(self, span: Span, rope_BTR: Tensor, leader: LatentView) -> LatentView:
        """Store new keys; return all so far beside the leader's latents."""
        return LatentView(latent=leader.latent, rope=self._rope.write(self, span, rope_BTR))


def _rope_kept(config: LatentConfig, dtype: torch.dtype) -> _Kept:
    assert config.rope_width is not None
    codes = config.stored_rope_codes if config.rope_width else None
    return _Kept("rope", config.rope_width, codes, dtype)
