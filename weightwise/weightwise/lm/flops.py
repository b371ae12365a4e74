"""Floating-point operations of training, counted exactly from the settings of a model.

A weight costs a multiplication and an addition for each token, and twice that again in the
backward pass; attention costs as much for each token that is looked at. Per token

    3 * (2 N + 2 P T' + 2 R + 2 d V)

with N the weights of the matrices that a token goes through, P the products that it takes with
every token it looks at (2 H E for each layer with H heads of E features), T' tokens looked at on
average ((T + 1) / 2 of T under a causal mask), R the weights of all routers, and d V those of the
head, tied or not; embeddings are looked up. Latent attention expands each latent once, which is
in N; decoding takes other ways, see `weightwise.lm.latent.attend`. With recomputed
activations the forward part counts once more. Norms, softmax and activations are left out, as
everybody does: they are below a percent. Published laws have constants of their own
(`weightwise.laws.moe`), which this count does not reproduce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightwise.lm.config import MoEConfig, layer_groups
from weightwise.lm.parameters import num_parameters

if TYPE_CHECKING:
    from weightwise.lm.config import ModelConfig


def training_flop(config: ModelConfig, seq_length: int, *, is_recomputed: bool = False) -> float:
    """FLOP of one training token.

    Parameters
    ----------
    config
        Settings of the model.
    seq_length
        Tokens T of a sequence, 1 to ``max_length``.
    is_recomputed
        Activations are computed again in the backward pass.

    Raises
    ------
    ValueError
        If the length is out of range.
    """
    return (4 if is_recomputed else 3) * forward_flop(config, seq_length)


def forward_flop(config: ModelConfig, seq_length: int) -> float:
    """FLOP of one token in a forward pass over ``seq_length`` tokens; see `training_flop`."""
    if not 1 <= seq_length <= config.max_length:
        raise ValueError(
            f"seq_length: expected 1 to max_length {config.max_length}, got {seq_length}"
        )
    width = config.width
    products = sum(
        group.num_layers * group.attention.features_per_pair(width)
        for group in layer_groups(config)
    )
    looked_at = (seq_length + 1) / 2
    routers = sum(ffn.num_experts * width for ffn in config.ffns if isinstance(ffn, MoEConfig))
    head = width * config.vocab_size
    return 2.0 * (num_parameters(config) + routers + head + products * looked_at)
