"""Latent attention whose latents are shared by the layers of a group: MLA and CLLA.

For each group of layers only the leader computes what is kept of a token t (sheet CLLA, 3.2),

    c_t = rms(W_DKV h_t)        k_t = rope_t(W_KR h_t)

a latent of C features and one rotary key of R. Every layer of the group, the leader included, asks
with queries of its own and makes of the latents keys and values of its own,

    score = (q . (U_K c_j) + rope_t(q_R) . k_j) / sqrt(K + R)        out = sum of a_j (U_V c_j)

so two layers share bytes, but neither keys nor values. Positions sit in the rotary key alone: a
rotation between U_K and q would forbid to take U_K to the side of the query, which is what makes
decoding cheap (`weightwise.lm.latent.attend`).

With codes, attention sees what the codes of c and k decode to, also those of the newest token: in
training by `fake_quantize`, whose gradient passes straight through, and with a cache by what the
cache gives back. Both go through the same functions: equal latents have equal codes, and one pass
over the same tokens has the same bits whether it trains, judges or fills a cache. A token that
comes alone or in another piece of a prompt goes through matrix products of another shape, whose
sums run in another order. Its latents may then differ in their last bits, and where one of them
stands at the edge between two codes, so does the code.

The up-projection of a layer is one matrix (H (K + V), C), for each head first the rows of its key
and then those of its value, as in DeepSeek's checkpoints.
"""

# Shapes: B batch, T new tokens, S tokens so far, D model width, H heads, K key features without
# rotation, V value features, R rotary features, C latent width, F = K + R

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.lm.attention import rotate
from weightwise.lm.latent.attend import attend_latent
from weightwise.lm.latent.cache import LatentGroupCache, LatentView, RopeKeyCache, Vectors
from weightwise.lm.latent.codes import fake_quantize
from weightwise.lm.latent.rotation import rotate_features
from weightwise.lm.products import project

if TYPE_CHECKING:
    from weightwise.lm.attention import Pass
    from weightwise.lm.config import LayerGroup
    from weightwise.lm.latent.config import CodeConfig, LatentConfig


class LatentAttention(nn.Module):
    """Causal attention over the latents of a group of layers.

    Parameters
    ----------
    config
        Settings of this layer.
    width
        Model width D.
    layer
        Index of the layer, which finds its cache.
    group
        Layers that share latents with this one.

    Attributes
    ----------
    key_width, value_width, latent_width, rope_width
        Features K, V, C and R.
    up
        Up-projection; ``None`` if it is the leader's.
    outer_scale
        Scales of latents and rotary keys, shape (C + R,), if ``config.outer_scale``; the
        leader's.
    is_quantized_in_training
        Whether training sees what the codes decode to, see `set_progress`.
    """

    def __init__(self, config: LatentConfig, width: int, layer: int, group: LayerGroup) -> None:
        super().__init__()
        self.config = config = config.resolved(width)
        self.layer = layer
        self.group = group
        self.is_leader = layer == group.first
        widths = config.widths(width)
        self.key_width, self.value_width, self.latent_width, self.rope_width = widths
        self.rope_base = config.rope_base(width)
        features = self.key_width + self.rope_width
        self.scale = float(config.score_factor * features**-0.5)
        self.set_progress(0.0)
        self._build_queries(width)
        if self.is_leader:
            self.latent = nn.Linear(width, self.latent_width + self.rope_width, bias=False)
        elif config.rope_key == "layer":
            self.rope = nn.Linear(width, self.rope_width, bias=False)
        if config.latent_norm == "layer" or (config.latent_norm == "leader" and self.is_leader):
            self.latent_gain = nn.Parameter(torch.ones(self.latent_width))
        rows = config.num_heads * (self.key_width + self.value_width)
        has_up = self.is_leader or not config.share_up
        self.up = nn.Parameter(torch.empty(rows, self.latent_width)) if has_up else None
        if self.up is not None:
            nn.init.normal_(self.up, std=0.02)
        self.output = nn.Linear(config.num_heads * self.value_width, width, bias=False)
        if self.is_leader and config.outer_scale:
            ones = torch.ones(self.latent_width + self.rope_width)
            self.outer_scale = nn.Parameter(ones, requires_grad=False)

    def forward(self, x_BTD: Tensor, current: Pass) -> Tensor:
        """Let every new token attend to itself and all tokens before it.

        Parameters
        ----------
        x_BTD
            Normed input of the layer.
        current
            Positions and cache of this pass.

        Returns
        -------
        Tensor
            Shape (B, T, D).
        """
        query_BHTF = self.queries(x_BTD).transpose(1, 2)
        query_BHTK, query_rope_BHTR = query_BHTF.split((self.key_width, self.rope_width), dim=-1)
        query_rope_BHTR = rotate(query_rope_BHTR, *self._rotary(current))
        view = self._view(x_BTD, current)
        leader: LatentAttention = current.shared["leader", self.group.index]
        up_key_HKC, up_value_HVC = self.up_projections(leader)
        if self.config.outer_scale:
            scale_C, scale_R = leader.scales(x_BTD.dtype)
            up_key_HKC, up_value_HVC = up_key_HKC * scale_C, up_value_HVC * scale_C
            query_rope_BHTR = query_rope_BHTR * scale_R
        if self.config.latent_norm == "layer":
            view = self._normed(view, current)
            gain_C = self.latent_gain
            up_key_HKC, up_value_HVC = up_key_HKC * gain_C, up_value_HVC * gain_C
        mixed_BHTV = attend_latent(
            query_BHTK,
            query_rope_BHTR,
            view,
            up_key_HKC.to(query_BHTK.dtype),
            up_value_HVC.to(query_BHTK.dtype),
            current.mask(view.num_tokens),
            self.scale,
            dropout=self.config.dropout if self.training else 0.0,
        )
        return project(self.output, mixed_BHTV.transpose(1, 2).flatten(2))

    def queries(self, x_BTD: Tensor) -> Tensor:
        """Queries before their rotation, shape (B, T, H, F): first K features, then R."""
        config = self.config
        if config.query_latent_width is None:
            query_BTI = project(self.query, x_BTD)
        else:
            down = project(self.query_down, x_BTD)
            query_BTI = project(self.query_up, self._rms(down, self.query_gain))
        query_BTHF: Tensor = query_BTI.unflatten(-1, (config.num_heads, -1))
        return self._rms(query_BTHF, self.query_head_gain) if config.query_norm else query_BTHF

    def latent_and_rope(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Latents as the up-projections see them, and rotary keys before their rotation.

        Parameters
        ----------
        x_BTD
            Normed input of the leader, which this must be.

        Returns
        -------
        tuple
            Shapes (B, T, C) and (B, T, R). Norms that are each layer's own are not taken yet.
        """
        both = project(self.latent, x_BTD)
        latent_BTC, rope_BTR = both.split((self.latent_width, self.rope_width), dim=-1)
        if self.config.latent_norm == "leader":
            latent_BTC = self._rms(latent_BTC, self.latent_gain)
        if self.config.rotate_latent:
            latent_BTC = rotate_features(latent_BTC)
        return latent_BTC, rope_BTR

    def up_projections(self, leader: LatentAttention | None = None) -> tuple[Tensor, Tensor]:
        """Up-projections as views, shapes (H, K, C) and (H, V, C).

        Parameters
        ----------
        leader
            First layer of the group, whose weights count if ``config.share_up``.
        """
        up = self.up if leader is None or self.up is not None else leader.up
        assert up is not None, "followers that share need their leader"
        up_HXC = up.unflatten(0, (self.config.num_heads, -1))
        up_key_HKC, up_value_HVC = up_HXC.split((self.key_width, self.value_width), dim=1)
        return up_key_HKC, up_value_HVC

    def scales(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The leader's scales of latents and of rotary keys, shapes (C,) and (R,)."""
        scale = self.outer_scale.to(dtype)
        return scale[: self.latent_width], scale[self.latent_width :]

    def set_progress(self, share: float) -> None:
        """Say how much of the training is over, 0 to below 1, see ``config.quantize_from``."""
        start = self.config.quantize_from
        self.is_quantized_in_training = start < 1.0 and share >= start

    def new_cache(
        self, batch: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> LatentGroupCache | RopeKeyCache | None:
        """Allocate what this layer keeps for ``batch`` sequences of ``capacity`` tokens.

        A layer that uses everything of its leader keeps nothing.
        """
        if not self.is_leader and self.config.rope_key == "leader":
            return None
        kind = LatentGroupCache if self.is_leader else RopeKeyCache
        return kind.new(
            batch=batch, capacity=capacity, config=self.config, dtype=dtype, device=device
        )

    def _build_queries(self, width: int) -> None:
        config, features = self.config, self.key_width + self.rope_width
        inner, latent = config.num_heads * features, config.query_latent_width
        if latent is None:
            self.query = nn.Linear(width, inner, bias=False)
        else:
            self.query_down = nn.Linear(width, latent, bias=False)
            self.query_gain = nn.Parameter(torch.ones(latent))
            self.query_up = nn.Linear(latent, inner, bias=False)
        if config.query_norm:
            self.query_head_gain = nn.Parameter(torch.ones(features))

    def _view(self, x_BTD: Tensor, current: Pass) -> LatentView:
        """Latents and rotary keys of all tokens so far."""
        key = ("latents", self.group.index)
        if self.is_leader:
            current.shared["leader", self.group.index] = self
            current.shared[key] = self._led(x_BTD, current)
        view: LatentView = current.shared[key]
        if self.is_leader or self.config.rope_key == "leader":
            return view
        leader: LatentAttention = current.shared["leader", self.group.index]
        rope_BTR = self._rope_keys(project(self.rope, x_BTD), leader, current)
        if current.cache is None:
            rope_BTR = self._seen(rope_BTR, self.config.stored_rope_codes)
            return LatentView(latent=view.latent, rope=Vectors.plain(rope_BTR))
        cache = current.cache.layers[self.layer]
        assert isinstance(cache, RopeKeyCache)
        return cache.write(current.span, rope_BTR, view)

    def _led(self, x_BTD: Tensor, current: Pass) -> LatentView:
        """What this leader gives to its group."""
        latent_BTC, rope_BTR = self.latent_and_rope(x_BTD)
        if self.config.outer_scale:
            latent_BTC = latent_BTC / self.scales(latent_BTC.dtype)[0]
        latent_BTC = self._averaged(latent_BTC)
        rope_BTR = self._averaged(self._rope_keys(rope_BTR, self, current))
        if current.cache is None:
            return LatentView.plain(
                self._seen(latent_BTC, self.config.codes),
                self._seen(rope_BTR, self.config.stored_rope_codes),
            )
        cache = current.cache.layers[self.layer]
        assert isinstance(cache, LatentGroupCache)
        return cache.write(current.span, latent_BTC, rope_BTR)

    def _rope_keys(self, rope_BTR: Tensor, leader: LatentAttention, current: Pass) -> Tensor:
        """Rotary keys as they are kept: rotated, and divided by the outer scales."""
        rope_BTR = rotate(rope_BTR.unsqueeze(1), *self._rotary(current)).squeeze(1)
        return rope_BTR / leader.scales(rope_BTR.dtype)[1] if self.config.outer_scale else rope_BTR

    def _rotary(self, current: Pass) -> tuple[Tensor, ...]:
        return current.rotary(self.rope_width, self.rope_base, self.config.rope_scaling)

    def _seen(self, x_BTW: Tensor, codes: CodeConfig | None) -> Tensor:
        """What attention sees without a cache: what codes decode to, if there are any."""
        if codes is None or (self.training and not self.is_quantized_in_training):
            return x_BTW
        return fake_quantize(x_BTW, codes)

    def _averaged(self, x_BTW: Tensor) -> Tensor:
        """The same, with the mean of the layers' gradients in the place of their sum if asked."""
        size = self.group.num_layers
        if self.config.latent_grad == "mean" and size > 1 and x_BTW.requires_grad:
            x_BTW.register_hook(lambda gradient: gradient / size)
        return x_BTW

    def _normed(self, view: LatentView, current: Pass) -> LatentView:
        """Latents normed without gains, once for all layers of the group."""
        key = ("normed latents", self.group.index)
        if self.is_leader:
            latent_BSC = self._rms(view.latent.tensor, None)
            current.shared[key] = Vectors.plain(latent_BSC)
        return LatentView(latent=current.shared[key], rope=view.rope)

    def _rms(self, x: Tensor, gain: Tensor | None) -> Tensor:
        """RMSNorm over the last features, in the type of the input."""
        gain = None if gain is None else gain.to(x.dtype)
        return F.rms_norm(x, x.shape[-1:], gain, eps=self.config.norm_eps)
