"""Training: recipes, data, the loop and its checkpoints."""

from weightwise.train.checkpoint import CheckpointError, load_model
from weightwise.train.data import (
    DataConfig,
    MixedSource,
    PreparedData,
    default_cache_dir,
    prepare,
)
from weightwise.train.exchange import export_hunyuan, import_checkpoint
from weightwise.train.log import read_metrics
from weightwise.train.loop import DivergedError, train
from weightwise.train.recipe import Recipe, TrainConfig, from_dict, read_recipe, to_dict, to_toml
from weightwise.train.session import TrainResult
from weightwise.train.source import BuiltinSource, FileSource, HuggingFaceSource

__all__ = [
    "BuiltinSource",
    "CheckpointError",
    "DataConfig",
    "DivergedError",
    "FileSource",
    "HuggingFaceSource",
    "MixedSource",
    "PreparedData",
    "Recipe",
    "TrainConfig",
    "TrainResult",
    "default_cache_dir",
    "export_hunyuan",
    "from_dict",
    "import_checkpoint",
    "load_model",
    "prepare",
    "read_metrics",
    "read_recipe",
    "to_dict",
    "to_toml",
    "train",
]
