"""Laws of training without quantization: Chinchilla's and OpenAI's form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from weightwise.laws.law import Hull

if TYPE_CHECKING:
    from weightwise.laws.law import Floats, Settings

_CHINCHILLA_HULL = Hull(num_params=(4.4e7, 1.6e10), num_tokens=(2e8, 5e11), setup="16-bit training")


@dataclass(frozen=True, kw_only=True)
class Chinchilla:
    """``L = n / N^alpha + d / D^beta + epsilon`` (Hoffmann et al., arXiv 2203.15556).

    Parameters
    ----------
    n, alpha, d, beta, epsilon
        Constants, all above 0; the source calls them A, alpha, B, beta, E.
    hull
        Where it was fitted.
    standard_errors
        Of the constants by name, where the source gives them.
    """

    title: ClassVar[str] = "Chinchilla"

    n: float
    alpha: float
    d: float
    beta: float
    epsilon: float
    hull: Hull | None = None
    standard_errors: tuple[tuple[str, float], ...] = ()

    def loss(self, settings: Settings) -> Floats:
        """Losses in nats a token, shape (R,); number formats are ignored."""
        size, data = settings.num_params, settings.num_tokens
        return self.n / size**self.alpha + self.d / data**self.beta + self.epsilon

    def optimal(self, compute: float) -> tuple[float, float]:
        """N and D of least loss for ``C = 6 N D`` FLOP.

        Raises
        ------
        ValueError
            If `compute` is not above 0.
        """
        if not compute > 0:
            raise ValueError(f"compute: expected a number above 0, got {compute}")
        a, b = self.alpha, self.beta
        scale = (a * self.n / (b * self.d)) ** (1 / (a + b))
        size = scale * (compute / 6) ** (b / (a + b))
        return size, compute / (6 * size)


HOFFMANN = Chinchilla(
    n=math.exp(6.0073404), alpha=0.33917084, d=math.exp(6.0179186), beta=0.2849083,
    epsilon=math.exp(0.5267228), hull=_CHINCHILLA_HULL,
)  # fmt: skip
"""Hoffmann et al. 2022, arXiv 2203.15556, approach 3, with unrounded constants."""

BESIROGLU = Chinchilla(
    n=482.00572, alpha=0.34781, d=2085.4342, beta=0.36585, epsilon=1.81686, hull=_CHINCHILLA_HULL,
    standard_errors=(
        ("n", 124.52232), ("alpha", 0.0154), ("d", 1293.2841), ("beta", 0.0206),
        ("epsilon", 0.02566),
    ),
)  # fmt: skip
"""Besiroglu et al. 2024, arXiv 2404.10102: the same runs fitted again."""


@dataclass(frozen=True, kw_only=True)
class OpenAI:
    """``L = ((n / N)^(alpha / beta) + d / D)^beta + epsilon``.

    Kaplan et al., arXiv 2001.08361, with the constant that arXiv 2501.02423, equation 3, adds.
    Published constants for the present kind of runs are not known: fit your own.

    Parameters
    ----------
    n, alpha, d, beta, epsilon
        Constants, all above 0; `epsilon` may be 0.
    hull
        Where it was fitted.
    """

    title: ClassVar[str] = "OpenAI"

    n: float
    alpha: float
    d: float
    beta: float
    epsilon: float
    hull: Hull | None = None

    def loss(self, settings: Settings) -> Floats:
        """Losses in nats a token, shape (R,); number formats are ignored."""
        size, data = settings.num_params, settings.num_tokens
        inner = (self.n / size) ** (self.alpha / self.beta) + self.d / data
        return inner**self.beta + self.epsilon
