"""Small vision transformers."""

from weightwise.vision.adapt import map_logits, with_classes, with_mapped_classes, with_resolution
from weightwise.vision.checkpoint import load_tiny_vit, save_tiny_vit
from weightwise.vision.config import VARIANTS, TinyViTConfig
from weightwise.vision.contract import Bounds, Candidate, Plan, Progress, contract, ray_map
from weightwise.vision.contract_latency import Latency
from weightwise.vision.contract_score import expressivity
from weightwise.vision.contract_space import Space, neighbours
from weightwise.vision.counts import Macs, macs, num_parameters
from weightwise.vision.export import export, save_onnx
from weightwise.vision.fuse import fuse
from weightwise.vision.groups import freeze_batch_norm, vision_groups
from weightwise.vision.tiny_vit import TinyViT

__all__ = [
    "VARIANTS",
    "Bounds",
    "Candidate",
    "Latency",
    "Macs",
    "Plan",
    "Progress",
    "Space",
    "TinyViT",
    "TinyViTConfig",
    "contract",
    "export",
    "expressivity",
    "freeze_batch_norm",
    "fuse",
    "load_tiny_vit",
    "macs",
    "map_logits",
    "neighbours",
    "num_parameters",
    "ray_map",
    "save_onnx",
    "save_tiny_vit",
    "vision_groups",
    "with_classes",
    "with_mapped_classes",
    "with_resolution",
]
