"""Train and shrink neural networks with fewer bits, weights and cached bytes."""

from weightwise.lm import LanguageModel, ModelConfig, Tokenizer, generate
from weightwise.numerics import FloatFormat, PrecisionConfig, fake_quantize, quantize_model
from weightwise.recipes import load_recipe
from weightwise.train import Recipe, load_model

__version__ = "0.1.0"

__all__ = [
    "FloatFormat",
    "LanguageModel",
    "ModelConfig",
    "PrecisionConfig",
    "Recipe",
    "Tokenizer",
    "fake_quantize",
    "generate",
    "load_model",
    "load_recipe",
    "quantize_model",
]
