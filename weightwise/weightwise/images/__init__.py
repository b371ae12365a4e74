"""Images: sources, decoding, augmentation that one integer repeats, and batches."""

from weightwise.images.augment import Augmentation, Erasing, Plan, RandAugment, draw_plan
from weightwise.images.decode import Decoding, Note, Report, decode
from weightwise.images.fingerprints import Fingerprint, canary, fingerprint
from weightwise.images.loader import Batch, BatchMaker, ImageLoader, LoaderConfig, stream_batches
from weightwise.images.mix import Mix, Mixing, draw_mix, mix_pairs
from weightwise.images.randomness import sample_seed, sample_seeds
from weightwise.images.shards import Sample, TarImages, TarStream, stream_tar
from weightwise.images.sources import (
    ArrayImages,
    FileImages,
    HuggingFaceImages,
    Source,
    folder_images,
    hugging_face_images,
    listed_images,
)
from weightwise.images.subsets import Subset, corrupt_labels, split
from weightwise.images.tasks import composites, digits
from weightwise.images.transform import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    TrainTransform,
    Transform,
    View,
)

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArrayImages",
    "Augmentation",
    "Batch",
    "BatchMaker",
    "Decoding",
    "Erasing",
    "EvalTransform",
    "FileImages",
    "Fingerprint",
    "HuggingFaceImages",
    "ImageLoader",
    "LoaderConfig",
    "Mix",
    "Mixing",
    "Note",
    "Plan",
    "RandAugment",
    "Report",
    "Sample",
    "Source",
    "Subset",
    "TarImages",
    "TarStream",
    "TrainTransform",
    "Transform",
    "View",
    "canary",
    "composites",
    "corrupt_labels",
    "decode",
    "digits",
    "draw_mix",
    "draw_plan",
    "fingerprint",
    "folder_images",
    "hugging_face_images",
    "listed_images",
    "mix_pairs",
    "sample_seed",
    "sample_seeds",
    "split",
    "stream_batches",
    "stream_tar",
]
