"""One set of weights for several blocks of a model, and what tells the executions apart."""

from weightwise.multiplex.diagnose import block_similarity, gradient_norms, linear_cka
from weightwise.multiplex.export import save_onnx
from weightwise.multiplex.files import (
    load_unique,
    num_unique_parameters,
    num_unrolled_parameters,
    unique_state_dict,
)
from weightwise.multiplex.local import LocalMix
from weightwise.multiplex.mixing import HeadAttention, HeadMix
from weightwise.multiplex.plan import Attention, Branch, Plan, StagePlan, Transforms
from weightwise.multiplex.report import SizeReport, transform_macs
from weightwise.multiplex.share import multiplex, share
from weightwise.multiplex.stages import Stage, differences, find_stages
from weightwise.multiplex.storage import load_multiplexed, save_multiplexed

__all__ = [
    "Attention",
    "Branch",
    "HeadAttention",
    "HeadMix",
    "LocalMix",
    "Plan",
    "SizeReport",
    "Stage",
    "StagePlan",
    "Transforms",
    "block_similarity",
    "differences",
    "find_stages",
    "gradient_norms",
    "linear_cka",
    "load_multiplexed",
    "load_unique",
    "multiplex",
    "num_unique_parameters",
    "num_unrolled_parameters",
    "save_multiplexed",
    "save_onnx",
    "share",
    "transform_macs",
    "unique_state_dict",
]
