"""How many parameters a model has, counted from its settings.

The parameter count that scaling laws use is the closed form

    N = layers * (4 d^2 + 3 d d_ff)

for full-width attention and SwiGLU: the matrices inside the blocks, without embeddings, head
and norm gains. It reproduces the sizes of Table 3 of arXiv 2501.02423 exactly. With experts, N
counts what one token goes through: the shared and the chosen ones (arXiv 2411.02265).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightwise.lm.config import layer_groups

if TYPE_CHECKING:
    from weightwise.lm.attention_config import Shape
    from weightwise.lm.config import ModelConfig


def matrix_shapes(config: ModelConfig) -> list[Shape]:
    """Rows and columns of every matrix inside the blocks, all experts included.

    Parameters
    ----------
    config
        Settings of the model.
    """
    in_ffn = [ffn.matrix_shapes(config.width) for ffn in config.ffns]
    return [
        shape
        for group in layer_groups(config)
        for layer in range(group.first, group.end)
        for shape in (
            *group.attention.matrix_shapes(config.width, layer == group.first),
            *in_ffn[layer],
        )
    ]


def num_parameters(config: ModelConfig) -> int:
    """Count N, the non-embedding parameters that scaling laws speak of.

    Parameters
    ----------
    config
        Settings of the model.

    Returns
    -------
    int
        Weights of the matrices inside the blocks that one token goes through.

    References
    ----------
    arXiv 2501.02423, Table 3; arXiv 2411.02265, section 2.3.1.
    """
    in_blocks = sum(rows * columns for rows, columns in matrix_shapes(config))
    return in_blocks - _num_idle(config)


def num_stored_parameters(config: ModelConfig) -> int:
    """Count every parameter of the model: embedding, blocks, norm gains and an untied head.

    Parameters
    ----------
    config
        Settings of the model.
    """
    in_blocks = sum(rows * columns for rows, columns in matrix_shapes(config))
    others = sum(ffn.num_other(config.width) for ffn in config.ffns) + sum(
        group.attention.num_other(config.width, layer == group.first)
        for group in layer_groups(config)
        for layer in range(group.first, group.end)
    )
    gains = (2 * config.num_layers + 1) * config.width
    tables = 1 if config.tie_embeddings else 2
    table = tables * config.vocab_size * config.width
    return in_blocks + others + gains + table


def num_active_parameters(config: ModelConfig) -> int:
    """Count the parameters that one token uses, embedding, router, gains and head included.

    Parameters
    ----------
    config
        Settings of the model.
    """
    return num_stored_parameters(config) - _num_idle(config)


def _num_idle(config: ModelConfig) -> int:
    """Weights of all experts that a token does not go through."""
    width = config.width
    return sum(
        sign * rows * columns
        for ffn in config.ffns
        for sign, shapes in ((1, ffn.matrix_shapes(width)), (-1, ffn.active_shapes(width)))
        for rows, columns in shapes
    )
