"""The law of quantization-aware training in four bits of Chen et al., arXiv 2505.14302.

With groups of G elements that share a scale::

    L(N, D, G) = n / N^alpha + d / D^beta + epsilon + k D^gamma_d (log2 G)^gamma_g / N^gamma_n

The law is about one number format: for another, fit again. Its penalty was fitted three times,
with both operands of the forward products in four bits (W4A4), with the weights alone (W4A16) and
with the activations alone (W16A4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from weightwise.laws.dense import BESIROGLU
from weightwise.laws.law import Hull

if TYPE_CHECKING:
    from weightwise.laws.law import Floats, Settings

QAT_CAVEAT = (
    "of this law's constants only those of the penalty are at hand: losses are those of Besiroglu "
    "et al. plus the penalty of Chen et al., so trust differences more than losses"
)


@dataclass(frozen=True, kw_only=True)
class QAT:
    """Chinchilla's law and a penalty that grows with the data and with the groups.

    Parameters
    ----------
    n, alpha, d, beta, epsilon
        The part without quantization, as in `Chinchilla`; all above 0.
    k, gamma_n, gamma_d, gamma_g
        The penalty: its scale, and the powers of 1 / N, D and log2 G; all above 0.
    hull
        Where it was fitted.
    """

    title: ClassVar[str] = "QAT"

    n: float
    alpha: float
    d: float
    beta: float
    epsilon: float
    k: float
    gamma_n: float
    gamma_d: float
    gamma_g: float
    hull: Hull | None = None

    def loss(self, settings: Settings) -> Floats:
        """Losses in nats a token, shape (R,).

        Raises
        ------
        ValueError
            If one scale is shared by a channel or a tensor: the law knows groups alone.
        """
        return self.baseline(settings) + self.penalty(settings)

    def baseline(self, settings: Settings) -> Floats:
        """Losses of the same runs without quantization."""
        size, data = settings.num_params, settings.num_tokens
        return self.n / size**self.alpha + self.d / data**self.beta + self.epsilon

    def penalty(self, settings: Settings) -> Floats:
        """What quantization adds; 0 without it and for groups of one element."""
        data = settings.num_tokens**self.gamma_d
        return np.asarray(data * self._coarseness(settings))

    def effective_params(self, settings: Settings) -> Floats:
        """N that reaches the same loss without quantization."""
        drag = self.penalty(settings) * settings.num_params**self.alpha / self.n
        return np.asarray(settings.num_params * (1 + drag) ** (-1 / self.alpha))

    def critical_tokens(self, settings: Settings) -> Floats:
        """D beyond which more tokens raise the loss, for the N of each row.

        Where ``beta d / D^(beta + 1)`` meets the slope of the penalty; infinite without
        quantization and for groups of one element.
        """
        with np.errstate(divide="ignore"):
            inverse = self.beta * self.d / (self.gamma_d * self._coarseness(settings))
        return np.asarray(inverse ** (1 / (self.beta + self.gamma_d)))

    def _coarseness(self, settings: Settings) -> Floats:
        """The penalty over ``D^gamma_d``; 0 without quantization."""
        rate = log2_groups(settings) ** self.gamma_g
        return self.k * rate / settings.num_params**self.gamma_n


def log2_groups(settings: Settings) -> Floats:
    """log2 G of each row, 0 without quantization.

    Raises
    ------
    ValueError
        If one scale is shared by a channel or a tensor.
    """
    is_other = np.isin(settings.granularity, ("channel", "tensor"))
    if is_other.any():
        row = int(np.flatnonzero(is_other)[0])
        raise ValueError(
            f"row {row + 1}: granularity: expected blocks for the law of quantization-aware "
            f"training, got {settings.granularity[row]}"
        )
    return np.log2(np.where(settings.is_quantized, settings.block_size, 1.0))


def _published(setup: str, k: float, gamma_n: float, gamma_d: float, gamma_g: float) -> QAT:
    base = BESIROGLU
    return QAT(
        n=base.n, alpha=base.alpha, d=base.d, beta=base.beta, epsilon=base.epsilon,
        k=k, gamma_n=gamma_n, gamma_d=gamma_d, gamma_g=gamma_g,
        hull=Hull(
            num_params=(7.4e7, 5.95e8), num_tokens=(1e10, 1e11), formats=frozenset({(1, 2)}),
            setup=setup,
        ),
    )  # fmt: skip


QAT_W4A4 = _published("INT4 weights and activations", 0.1582, 0.2186, 0.0745, 0.7779)
"""arXiv 2505.14302, 268 runs, by way of a summary; INT4 is E1M2. Its 16-bit part is `BESIROGLU`."""

QAT_W4A16 = _published("INT4 weights", 0.2522, 0.3589, 0.1610, 0.3533)
"""The same with four bits for the weights alone."""

QAT_W16A4 = _published("INT4 activations", 0.1004, 0.1816, 0.0331, 0.9812)
"""The same with four bits for the activations alone."""
