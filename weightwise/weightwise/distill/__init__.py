"""Distillation: what a teacher says of augmented images, kept on disk for any number of students.

====================================  ==========================================================
`StoreWriter`, `write`                labels into a store, from any number of processes
`SoftLabels`                          labels out of it, by number or name of an image
`augmentation_seeds`                  the seed of an image's augmentation in an epoch
`top_k`, `as_tensors`                 from logits to what is stored, and back to tensors
`SparseTarget`, `SoftLoss`            the student's loss, which never builds what is not stored
`Taps`, `RelationLoss`                relations within a teacher's layers, beside `PredictionLoss`
`check`, `verify`                     whether a store is the teacher's, whether it is whole
`merge`, `subset`, `pack`, `salvage`  new stores from old ones
`from_official`, `to_official`        the layout of TinyViT's own scripts
`from_reinforced`, `to_reinforced`    a pickle for each image
====================================  ==========================================================
"""

from weightwise.distill.analysis import (
    Saturation,
    class_correlation,
    hardness,
    resemblance,
    saturation_curve,
)
from weightwise.distill.apple import (
    ReinforcedSample,
    from_reinforced,
    read_reinforced,
    to_reinforced,
    write_reinforced,
)
from weightwise.distill.epoch import SoftBatch
from weightwise.distill.header import StoreConfig
from weightwise.distill.keys import augmentation_seeds
from weightwise.distill.losses import SoftLoss, soft_cross_entropy
from weightwise.distill.matching import MATCHES, LayerMatch, even_match
from weightwise.distill.official import from_official, to_official
from weightwise.distill.prediction import PredictionLoss
from weightwise.distill.relations import RelationConfig, RelationLoss
from weightwise.distill.replay import Replay, StoredSeeds, replay_of
from weightwise.distill.rows import top_k
from weightwise.distill.sparse_target import SparseTarget
from weightwise.distill.store import SoftLabels, StoredEpochsRepeatWarning
from weightwise.distill.taps import Heads, Taps
from weightwise.distill.targets import as_tensors, sparse_kl
from weightwise.distill.teach import CheckReport, WriteReport, check, write
from weightwise.distill.teachers import Teacher, TeacherConfig, load_teacher
from weightwise.distill.tools import (
    PackReport,
    StoreReport,
    merge,
    pack,
    salvage,
    subset,
    verify,
)
from weightwise.distill.writer import StoreWriter

__all__ = [
    "MATCHES",
    "CheckReport",
    "Heads",
    "LayerMatch",
    "PackReport",
    "PredictionLoss",
    "ReinforcedSample",
    "RelationConfig",
    "RelationLoss",
    "Replay",
    "Saturation",
    "SoftBatch",
    "SoftLabels",
    "SoftLoss",
    "SparseTarget",
    "StoreConfig",
    "StoreReport",
    "StoreWriter",
    "StoredEpochsRepeatWarning",
    "StoredSeeds",
    "Taps",
    "Teacher",
    "TeacherConfig",
    "WriteReport",
    "as_tensors",
    "augmentation_seeds",
    "check",
    "class_correlation",
    "even_match",
    "from_official",
    "from_reinforced",
    "hardness",
    "load_teacher",
    "merge",
    "pack",
    "read_reinforced",
    "replay_of",
    "resemblance",
    "salvage",
    "saturation_curve",
    "soft_cross_entropy",
    "sparse_kl",
    "subset",
    "to_official",
    "to_reinforced",
    "top_k",
    "verify",
    "write",
    "write_reinforced",
]
