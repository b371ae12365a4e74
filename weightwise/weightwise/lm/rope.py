"""Bases of rotary positions for long sequences, and the factor alpha that stands for them.

A pair of features i of e turns by base^(-2i/e) a token; a larger base makes the slow pairs slower,
so that positions beyond those of training are told apart. The dynamic NTK rule of Hunyuan's
checkpoints writes the base as

    base = theta * alpha^(e / (e - 2))

which leaves the fastest pair alone and divides the turn of the slowest by alpha. With heads of 80
and theta 10,000, alpha 1000 is a base of 1.194e7, and the base of 1e9 of the 256K stage (arXiv
2411.02265, section 2.3.3) an alpha of 74,989.
"""

from __future__ import annotations

from math import inf


def ntk_base(alpha: float, head_width: int, theta: float = 10_000.0) -> float:
    """Base of the rotary wavelengths for a factor.

    Parameters
    ----------
    alpha
        Factor, at least 1.
    head_width
        Features e per head, above 2 unless alpha is 1.
    theta
        Base without a factor, above 1.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    if alpha == 1.0:
        return theta
    _require(alpha, head_width, theta)
    base: float = theta * alpha ** (head_width / (head_width - 2))
    return base


def ntk_alpha(base: float, head_width: int, theta: float = 10_000.0) -> float:
    """Factor for a base; the inverse of `ntk_base`.

    Raises
    ------
    ValueError
        If the base is below theta, or another argument out of range.
    """
    if not theta <= base < inf:
        raise ValueError(f"base: expected at least theta {theta:g}, got {base}")
    _require(1.0, head_width, theta)
    alpha: float = (base / theta) ** ((head_width - 2) / head_width)
    return alpha


def _require(alpha: float, head_width: int, theta: float) -> None:
    if not 1.0 <= alpha < inf:
        raise ValueError(f"alpha: expected at least 1, got {alpha}")
    if head_width <= 2:
        raise ValueError(f"head_width: expected above 2, got {head_width}")
    if not 1.0 < theta < inf:
        raise ValueError(f"theta: expected above 1, got {theta}")
