"""Memory, traffic and operations of a training step, for any model and layout.

The formulas of a GPT under data, tensor and pipeline parallelism, from which the published tables
of FP8-LM (arXiv 2310.18313, tables 5, 7 and 8) come out: L layers of width d, sequences of s
tokens, a vocabulary of V with tied embeddings, E = V d, linear weights P = 12 L d^2.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Precision = Literal["bf16", "fp8"]
GIB = 2**30
# Bytes of a gradient and a weight that travel for each linear weight; embeddings always have 6.
WEIGHT_BYTES: dict[Precision, int] = {"bf16": 6, "fp8": 2}
# Two gathers forward, two backward, two scatters: 2 bytes each, or gathers of 1.
ACTIVATION_BYTES: dict[Precision, int] = {"bf16": 12, "fp8": 8}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Layout:
    """A GPT and how it is spread.

    Parameters
    ----------
    layers, width, seq_length, vocab_size
        L, d, s and V, at least 1.
    data, tensor, pipeline
        Processes in each kind of parallelism, at least 1.
    micro_batch
        Sequences in a pass, at least 1.
    """

    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    seq_length: int = Field(default=2048, ge=1)
    vocab_size: int = Field(default=100_352, ge=1)
    data: int = Field(default=1, ge=1)
    tensor: int = Field(default=1, ge=1)
    pipeline: int = Field(default=1, ge=1)
    micro_batch: int = Field(default=1, ge=1)

    @property
    def linear_weights(self) -> int:
        """P, of the whole model."""
        return 12 * self.layers * self.width**2

    @property
    def embedding_weights(self) -> int:
        """E, of the whole model."""
        return self.vocab_size * self.width

    def flops_per_sample(self) -> float:
        """Operations of a step for one sequence, forward and backward."""
        s, d = self.seq_length, self.width
        shape = 1 + s / (6 * d) + self.vocab_size / (16 * self.layers * d)
        return 72.0 * s * self.layers * d**2 * shape

    def weight_traffic_gib(self, precision: Precision) -> float:
        """GiB of weights and gradients that a process sends in a step (ZeRO-1)."""
        linear = self.linear_weights / (self.tensor * self.pipeline) * WEIGHT_BYTES[precision]
        embedding = self.embedding_weights / self.tensor * WEIGHT_BYTES["bf16"]
        return (self.data - 1) / self.data * (linear + embedding) / GIB

    def activation_traffic_gib(self, precision: Precision) -> float:
        """GiB of activations that a process sends for a micro-batch under sequence parallelism."""
        elements = self.seq_length * self.micro_batch * self.width * self.layers / self.pipeline
        share = (self.tensor - 1) / self.tensor
        return elements * share * ACTIVATION_BYTES[precision] / GIB

    def state_gib(self, precision: Precision) -> float:
        """GiB of weights, gradients, masters and moments of a process (ZeRO-1)."""
        parts = self.tensor * self.pipeline
        linear = self.linear_weights / parts
        embedding = self.embedding_weights / self.tensor
        plain = 6 + 12 / self.data
        small = 2 + 5 / self.data
        return (linear * (plain if precision == "bf16" else small) + embedding * plain) / GIB
