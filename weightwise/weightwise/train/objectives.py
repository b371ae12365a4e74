"""Which examples a recipe asks for, and the models that they need beside the trained one.

The reference of preference training is frozen, so its log-probabilities of the pairs are computed
once and kept beside the prepared samples. The name of the samples' folder is a hash of the pairs,
that of the file a hash of the reference: weights, model, precision and type.
"""

# Shapes: P pairs

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightwise.lm.chat import ChatTemplate
from weightwise.lm.post.dpo import read_preferences
from weightwise.lm.post.online import ExactAnswer, Judge, import_reward
from weightwise.numerics import quantize_model
from weightwise.optim.averaging import averaged
from weightwise.train.batches import BatchOrder, Windows
from weightwise.train.checkpoint import load_model, load_weights
from weightwise.train.data import SPLITS, DataConfig, PreparedData
from weightwise.train.distillation import DistilledExamples, with_teacher
from weightwise.train.examples import Examples, TextExamples, score_with
from weightwise.train.mix import MixedOrder, training_order, training_windows
from weightwise.train.model import language_model
from weightwise.train.post import DPOExamples, OnlinePairs, Pair, SFTExamples, pair_logps
from weightwise.train.post_config import PreferenceConfig
from weightwise.train.recipe import to_dict
from weightwise.train.start import starting_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.lm import LanguageModel
    from weightwise.lm.post.dpo import Preference
    from weightwise.lm.post.online import Reward
    from weightwise.train.examples import Score
    from weightwise.train.parallel import World
    from weightwise.train.recipe import Recipe
    from weightwise.train.samples import PreparedSamples, SampleStore
    from weightwise.train.start import Prepared

# Pairs that the reference scores at a time if the recipe does not say.
PAIRS_PER_PASS = 8


def make_examples(
    recipe: Recipe,
    data: Prepared,
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    world: World,
) -> tuple[Examples, Examples]:
    """Examples to learn from and held-out ones; every process must call this.

    Parameters
    ----------
    recipe
        Settings.
    data
        As `weightwise.train.start.prepare_data` prepared it.
    model, optimizer
        What is trained.
    world
        The processes.

    Raises
    ------
    ValueError
        If a split is too short for a window, or a reward cannot be found.
    """
    length = recipe.train.seq_length
    if isinstance(data, PreparedData):
        assert isinstance(recipe.data, DataConfig), "such data belong to such a recipe"
        train = TextExamples(training_windows(recipe.data, data, length))
        valid = TextExamples(Windows(data.valid, length, "valid"))
        if recipe.distillation is None:
            return train, valid
        return with_teacher(recipe, recipe.distillation, data.tokenizer, train, valid, world.device)
    if isinstance(recipe.data, PreferenceConfig):
        return _preferences(recipe, recipe.data, data, model, optimizer, world)
    return SFTExamples(data.train, length), SFTExamples(data.valid, length)


def make_order(recipe: Recipe, examples: Examples) -> BatchOrder | MixedOrder:
    """The order in which a run sees its examples."""
    size = recipe.train.batch_size
    if isinstance(examples, TextExamples | DistilledExamples):
        return training_order(
            examples.windows, recipe.schedule,
            batch_size=size, num_steps=recipe.train.steps, seed=recipe.seed,
        )  # fmt: skip
    return BatchOrder(examples.count, size, recipe.seed)


def frozen_start(recipe: Recipe, device: torch.device) -> LanguageModel:
    """The model that a run begins with, not to be trained."""
    checkpoint = starting_checkpoint(recipe)
    assert checkpoint is not None, "recipes with preferences have a start"
    model = language_model(recipe)
    load_weights(model, checkpoint)
    quantize_model(model, recipe.precision)
    return model.to(device).eval().requires_grad_(False)


def _preferences(
    recipe: Recipe,
    config: PreferenceConfig,
    data: PreparedSamples,
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    world: World,
) -> tuple[Examples, Examples]:
    frozen = frozen_start(recipe, world.device)
    known = _known_logps(recipe, data, frozen, world)
    reference: Score | None = None
    if config.reference == "average":
        reference = _average_score(recipe, model, optimizer)
    elif config.online is not None:
        reference = score_with(frozen, recipe.train.dtype)
    online = None
    if config.online is not None:
        template = ChatTemplate(data.tokenizer)
        preferences = [one for _, one in read_preferences(data.folder / "train.jsonl")]
        reward = find_reward(config.online.reward, preferences, frozen, template)
        online = OnlinePairs(
            preferences,
            model,
            data.tokenizer,
            template,
            reward,
            config.online,
            recipe.train.seq_length,
        )
    train_P2 = known["train"] if config.reference == "start" else None
    return (
        DPOExamples(data.train, config, train_P2, reference, online),
        DPOExamples(data.valid, config, known["valid"]),
    )


def find_reward(
    name: str, preferences: list[Preference], reference: LanguageModel, template: ChatTemplate
) -> Reward:
    """Find a reward by the name that a recipe gives it.

    Parameters
    ----------
    name
        See `weightwise.train.post_config.OnlineConfig`.
    preferences
        Prompts with their right answers.
    reference
        What a judge is compared with.
    template
        Writes conversations for a judge.

    Raises
    ------
    ValueError
        If there is no such function or checkpoint, or the judge has another vocabulary.
    """
    if name == "exact":
        return ExactAnswer(preferences)
    if ":" in name:
        return import_reward(name)
    judge, tokenizer, _ = load_model(Path(name))
    probe = [*preferences[0].prompt]
    if ChatTemplate(tokenizer).encode(probe) != template.encode(probe):
        raise ValueError(
            f"data.online.reward: expected a judge with the same tokenizer, got {name}"
        )
    return Judge(judge.to(reference.embed.weight.device), reference, template)


def _average_score(recipe: Recipe, model: LanguageModel, optimizer: torch.optim.Optimizer) -> Score:
    """Scores by the moving average of the weights, as it stands at the time."""
    score = score_with(model, recipe.train.dtype)

    def by_average(token_MT: Tensor, segment_MT: Tensor | None = None) -> Tensor:
        model.eval()
        with averaged(optimizer):
            logits_MTV = score(token_MT, segment_MT)
        model.train()
        return logits_MTV

    return by_average


def _known_logps(
    recipe: Recipe, data: PreparedSamples, frozen: LanguageModel, world: World
) -> dict[str, Tensor]:
    """Log-probabilities of all pairs by the frozen start, by split; shape (P, 2) each."""
    checkpoint = starting_checkpoint(recipe)
    assert checkpoint is not None
    path = data.folder / f"reference-{_reference_key(recipe, checkpoint)}.npz"
    stores = {"train": data.train, "valid": data.valid}
    if world.local_rank == 0 and not path.exists():
        score = score_with(frozen, recipe.train.dtype)
        micro = recipe.train.micro_batch_size or PAIRS_PER_PASS
        tables = {split: _score_all(stores[split], score, micro) for split in SPLITS}
        partial = path.with_name(f".partial-{world.rank}-{path.name}")
        np.savez(partial, train=tables["train"], valid=tables["valid"])
        partial.rename(path)
    world.barrier()
    with np.load(path) as tables:
        return {split: torch.from_numpy(tables[split]) for split in SPLITS}


@torch.no_grad()
def _score_all(store: SampleStore, score: Score, micro: int) -> NDArray[np.float32]:
    samples = [store.read(number) for number in range(len(store))]
    pairs = [
        Pair(chosen=chosen, rejected=rejected, reference_2=None)
        for chosen, rejected in zip(samples[::2], samples[1::2], strict=True)
    ]
    pieces = [pairs[i : i + micro] for i in range(0, len(pairs), micro)]
    return torch.cat([pair_logps(score, piece).cpu() for piece in pieces]).numpy()


def _reference_key(recipe: Recipe, checkpoint: Path) -> str:
    with (checkpoint / "model.safetensors").open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    table = to_dict(recipe)
    parts = [weights, table["model"], table["precision"], recipe.train.dtype]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
