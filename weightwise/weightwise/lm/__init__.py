"""Language models: settings, model, generation and tokenizer."""

from weightwise.lm.cache import Cache
from weightwise.lm.config import (
    GQAConfig,
    ModelConfig,
    MoEConfig,
    SwiGLUConfig,
    matrix_shapes,
    num_active_parameters,
    num_parameters,
    num_stored_parameters,
)
from weightwise.lm.generate import generate
from weightwise.lm.model import LanguageModel
from weightwise.lm.tokenizer import Tokenizer, train_tokenizer

__all__ = [
    "Cache",
    "GQAConfig",
    "LanguageModel",
    "MoEConfig",
    "ModelConfig",
    "SwiGLUConfig",
    "Tokenizer",
    "generate",
    "matrix_shapes",
    "num_active_parameters",
    "num_parameters",
    "num_stored_parameters",
    "train_tokenizer",
]
