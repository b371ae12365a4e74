"""Language models: settings, model, generation and tokenizer."""

from weightwise.lm.cache import Cache
from weightwise.lm.chat import ChatTemplate, Message
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
from weightwise.lm.decoder import Continuation, Decoder, Request
from weightwise.lm.generate import complete, generate
from weightwise.lm.model import LanguageModel
from weightwise.lm.sampling import CHAT_SAMPLING, SamplingConfig
from weightwise.lm.tokenizer import Tokenizer, train_tokenizer

__all__ = [
    "CHAT_SAMPLING",
    "Cache",
    "ChatTemplate",
    "Continuation",
    "Decoder",
    "GQAConfig",
    "LanguageModel",
    "Message",
    "MoEConfig",
    "ModelConfig",
    "Request",
    "SamplingConfig",
    "SwiGLUConfig",
    "Tokenizer",
    "complete",
    "generate",
    "matrix_shapes",
    "num_active_parameters",
    "num_parameters",
    "num_stored_parameters",
    "train_tokenizer",
]
