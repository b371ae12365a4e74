"""Small vision transformers."""

from weightwise.vision.adapt import map_logits, with_classes, with_mapped_classes, with_resolution
from weightwise.vision.checkpoint import load_tiny_vit, save_tiny_vit
from weightwise.vision.config import VARIANTS, TinyViTConfig
from weightwise.vision.contract import contract, ray_map
from weightwise.vision.contract_latency import Latency
from weightwise.vision.contract_plan import Bounds, Candidate, Plan, Progress
from weightwise.vision.contract_pool import Processes
from weightwise.vision.contract_score import expressivity
from weightwise.vision.contract_space import Space, neighbours
from weightwise.vision.counts import Macs, macs, num_parameters
from weightwise.vision.deit import DeiT
from weightwise.vision.deit_adapt import to_mini, with_image_size
from weightwise.vision.deit_checkpoint import load_deit, save_deit
from weightwise.vision.deit_config import DEIT_VARIANTS, DeiTConfig, mini_deit
from weightwise.vision.export import export, save_onnx
from weightwise.vision.fuse import fuse
from weightwise.vision.groups import freeze_batch_norm, vision_groups
from weightwise.vision.swin import Swin
from weightwise.vision.swin_checkpoint import load_swin, save_swin, with_window
from weightwise.vision.swin_config import SWIN_VARIANTS, SwinConfig, as_published, mini_swin
from weightwise.vision.swin_counts import num_swin_parameters, swin_macs
from weightwise.vision.tiny_vit import TinyViT

__all__ = [
    "DEIT_VARIANTS",
    "SWIN_VARIANTS",
    "VARIANTS",
    "Bounds",
    "Candidate",
    "DeiT",
    "DeiTConfig",
    "Latency",
    "Macs",
    "Plan",
    "Processes",
    "Progress",
    "Space",
    "Swin",
    "SwinConfig",
    "TinyViT",
    "TinyViTConfig",
    "as_published",
    "contract",
    "export",
    "expressivity",
    "freeze_batch_norm",
    "fuse",
    "load_deit",
    "load_swin",
    "load_tiny_vit",
    "macs",
    "map_logits",
    "mini_deit",
    "mini_swin",
    "neighbours",
    "num_parameters",
    "num_swin_parameters",
    "ray_map",
    "save_deit",
    "save_onnx",
    "save_swin",
    "save_tiny_vit",
    "swin_macs",
    "to_mini",
    "vision_groups",
    "with_classes",
    "with_image_size",
    "with_mapped_classes",
    "with_resolution",
    "with_window",
]
