"""Latents in codes for models of transformers: a `Cache` that its `generate` takes.

The DeepSeek models of transformers give their cache latents and rotary keys and read both back,
so they can keep them as we do, group by group and in few bits. `transformers.QuantizedCache`
leaves the newest tokens plain and, each time it has collected some, decodes and encodes all the
earlier ones again; here a token is encoded once, when it comes, and attention sees what it
decodes to from then on.

Layers of a group share one entry (sheet CLLA, 3.6): its leader writes, the others read it with
``cache[layer]``. Left padding needs nothing: a column is a column, and the mask hides it.
"""

# Shapes: B batch, T new tokens, S tokens so far, C latent width, R rope width

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from weightwise.lm.cache import Cache, Span
from weightwise.lm.config import LayerGroup
from weightwise.lm.latent.cache import LatentGroupCache
from weightwise.lm.latent.config import LatentConfig

try:
    from transformers import cache_utils
except ImportError as error:
    raise ImportError(
        f"expected the packages of the extra hf ({error}); pip install 'weightwise[hf]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from weightwise.lm.latent.config import CodeConfig

# Types of its classes come and go with its releases.
CacheBase: Any = cache_utils.Cache
LayerBase: Any = cache_utils.CacheLayerMixin
FIRST_CAPACITY = 64  # tokens; doubled when it is full


class LatentCache(CacheBase):
    """Latents of all layers of a model of transformers.

    Parameters
    ----------
    groups
        Layers that share latents, from first to last, with all widths filled in; see
        `weightwise.lm.layer_groups`.

    Raises
    ------
    ValueError
        If a group has another kind of attention or keeps rotary keys for each layer.
    """

    def __init__(self, groups: Sequence[LayerGroup]) -> None:
        layers: list[LeaderLayer | FollowerLayer] = []
        for group in groups:
            config = group.attention
            if not isinstance(config, LatentConfig) or config.rope_key != "leader":
                raise ValueError(
                    f"groups[{group.index}]: expected latent attention with the leader's rotary "
                    f"keys, got kind {config.kind}"
                )
            leader = LeaderLayer(config)
            layers += [leader, *(FollowerLayer(leader) for _ in range(group.num_layers - 1))]
        super().__init__(layers=layers)

    @classmethod
    def of_deepseek(cls, config: Any, *, codes: CodeConfig | None = None) -> Self:
        """Cache for a DeepSeek-V2 or -V3 model: an entry for each layer.

        Parameters
        ----------
        config
            Settings of the model, with ``kv_lora_rank`` and ``qk_rope_head_dim``.
        codes
            How latents and rotary keys are kept; ``None`` keeps them as they are.

        Raises
        ------
        ValueError
            If the settings know no latents.
        """
        latent_width = getattr(config, "kv_lora_rank", None)
        rope_width = getattr(config, "qk_rope_head_dim", None)
        if latent_width is None or rope_width is None:
            raise ValueError("config: expected kv_lora_rank and qk_rope_head_dim, as DeepSeek has")
        attention = LatentConfig(
            num_heads=config.num_attention_heads,
            latent_width=latent_width,
            rope_width=rope_width,
            share_factor=1,
            codes=codes,
        )
        num_layers = config.num_hidden_layers
        return cls(
            [
                LayerGroup(index=i, first=i, end=i + 1, attention=attention)
                for i in range(num_layers)
            ]
        )

    @property
    def num_bytes(self) -> int:
        """Bytes allocated, scales and padding included."""
        return sum(layer.num_bytes for layer in self.layers if isinstance(layer, LeaderLayer))

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        """Latents and rotary keys of a layer's group, shapes (B, 1, S, C) and (B, 1, S, R)."""
        one = self.layers[layer]
        leader = one.leader if isinstance(one, FollowerLayer) else one
        found: tuple[Tensor, Tensor] = leader.read()
        return found


class LeaderLayer(LayerBase):
    """What the first layer of a group writes.

    Parameters
    ----------
    config
        Settings of the group.
    """

    is_croppable = True
    is_sliding = False
    supports_early_init = False  # sizes are known when the first tokens come

    def __init__(self, config: LatentConfig) -> None:
        self.config = config
        self.is_initialized = False

    @property
    def num_bytes(self) -> int:
        """Bytes allocated."""
        return self._cache.num_bytes if self.is_initialized else 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:  # noqa: ARG002
        """Take memory for these rows."""
        self.dtype, self.device = key_states.dtype, key_states.device
        batch, capacity = key_states.shape[0], FIRST_CAPACITY
        layer = LatentGroupCache.new(
            batch=batch,
            capacity=capacity,
            config=self.config,
            dtype=self.dtype,
            device=self.device,
        )
        self._cache = Cache([layer], batch=batch, capacity=capacity)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Keep new latents (B, 1, T, C) and rotary keys (B, 1, T, R); return all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        batch, _heads, num_new, _width = key_states.shape
        start = self.get_seq_length()
        self._make_room(start + num_new)
        span = Span(start=(start,) * batch, count=(num_new,) * batch, device=self.device)
        view = self._layer.write(span, key_states.squeeze(1), value_states.squeeze(1))
        self._cache.advance(span)
        latent_BSC, rope_BSR = view.latent_and_rope()
        return latent_BSC.unsqueeze(1), rope_BSR.unsqueeze(1)

    def read(self) -> tuple[Tensor, Tensor]:
        """All latents and rotary keys so far, shapes (B, 1, S, C) and (B, 1, S, R)."""
        if not self.is_initialized:
            raise ValueError("cache: expected tokens before it is read, got none")
        latent_BSC, rope_BSR = self._layer.view(self.get_seq_length()).latent_and_rope()
        return latent_BSC.unsqueeze(1), rope_BSR.unsqueeze(1)

    def get_seq_length(self) -> int:
        """Tokens so far."""
        return self._cache.length if self.is_initialized else 0

    def get_max_length(self) -> int:
        """No limit, as transformers writes it."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns of the mask, and the first one's position."""
        return self.get_seq_length() + query_length, 0

    def reset(self) -> None:
        """Forget all tokens and keep the memory."""
        if self.is_initialized:
            self._cache.reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Take back so many tokens, given as a number below 0."""
        if self.is_initialized and tokens_to_remove:
            self._cache.crop(self.get_seq_length() + tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let rows become copies of others."""
        if self.is_initialized:
            self._cache.reorder(beam_idx.cpu())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Have every row so many times, side by side."""
        if self.is_initialized:
            self._cache = self._cache.repeat(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        if self.is_initialized:
            self._cache = self._cache.select(indices.cpu())

    def offload(self) -> None:
        """Move everything to the host."""
        if self.is_initialized:
            self._cache = self._cache.to("cpu")

    def prefetch(self) -> None:
        """Move everything back to where the model computes."""
        if self.is_initialized:
            self._cache = self._cache.to(self.device)

    @property
    def _layer(self) -> LatentGroupCache:
        (layer,) = self._cache.layers
        assert isinstance(layer, LatentGroupCache)
        return layer

    def _make_room(self, num_tokens: int) -> None:
        capacity = self._cache.capacity
        if num_tokens > capacity:
            capacity = max(2 * capacity, num_tokens)
            self._cache = self._cache.grown(capacity)


class FollowerLayer(LayerBase):
    """A layer that reads what its leader wrote, and keeps nothing.

    Parameters
    ----------
    leader
        First layer of its group.
    """

    is_croppable = True
    is_sliding = False
    supports_early_init = False

    def __init__(self, leader: LeaderLayer) -> None:
        self.leader = leader
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to take."""

    def update(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Refuse: only the leader of a group writes."""
        raise ValueError(
            "cache: expected tokens from the first layer of a group only; the others read "
            "them with cache[layer]"
        )

    def get_seq_length(self) -> int:
        """Tokens so far."""
        return self.leader.get_seq_length()

    def get_max_length(self) -> int:
        """No limit, as transformers writes it."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns of the mask, and the first one's position."""
        return self.leader.get_mask_sizes(query_length)

    def reset(self) -> None:
        """The leader does it."""

    def crop(self, tokens_to_remove: int) -> None:
        """The leader does it."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """The leader does it."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """The leader does it."""

    def batch_select_indices(self, indices: Tensor) -> None:
        """The leader does it."""

    def offload(self) -> None:
        """The leader does it."""

    def prefetch(self) -> None:
        """The leader does it."""
