"""Language models: settings, model, generation and tokenizer."""

from weightwise.lm.attention_config import GQAConfig
from weightwise.lm.cache import Cache
from weightwise.lm.chat import ChatTemplate, Message
from weightwise.lm.config import (
    LayerGroup,
    LayersConfig,
    ModelConfig,
    MoEConfig,
    SwiGLUConfig,
    check_cut,
    layer_groups,
)
from weightwise.lm.decoder import Continuation, Decoder, Request
from weightwise.lm.generate import complete, generate
from weightwise.lm.latent.config import CodeConfig, LatentConfig
from weightwise.lm.model import LanguageModel
from weightwise.lm.parameters import (
    matrix_shapes,
    num_active_parameters,
    num_parameters,
    num_stored_parameters,
)
from weightwise.lm.sampling import CHAT_SAMPLING, SamplingConfig
from weightwise.lm.tokenizer import Tokenizer, train_tokenizer

__all__ = [
    "CHAT_SAMPLING",
    "Cache",
    "ChatTemplate",
    "CodeConfig",
    "Continuation",
    "Decoder",
    "GQAConfig",
    "LanguageModel",
    "LatentConfig",
    "LayerGroup",
    "LayersConfig",
    "Message",
    "MoEConfig",
    "ModelConfig",
    "Request",
    "SamplingConfig",
    "SwiGLUConfig",
    "Tokenizer",
    "check_cut",
    "complete",
    "generate",
    "layer_groups",
    "matrix_shapes",
    "num_active_parameters",
    "num_parameters",
    "num_stored_parameters",
    "train_tokenizer",
]
