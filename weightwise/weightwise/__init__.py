"""Train and shrink neural networks with fewer bits, weights and cached bytes."""

__version__ = "0.1.0"
