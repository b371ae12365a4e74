"""The long-context stage: a trained model goes on with longer sequences.

Command   weightwise long-context out/moe --seq-length 1024 --tokens 2e5 > long.toml
          weightwise train long.toml
Cost      that of so many tokens, and of attention over the longer sequences
Expect    the loss of the run before on short text, and less far into long documents

After annealing Hunyuan-Large went on with sequences of 32K and then 256K tokens, about ten billion
each, a quarter of them from naturally long documents such as books and code, and with a rotary base
of 1e9 in the second stage (arXiv 2411.02265, section 2.3.3). No learning rate is printed for it;
here it stays at a tenth of the peak, where annealing ends.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from weightwise.lm.rope import ntk_alpha
from weightwise.optim import ScheduleConfig
from weightwise.train import DataConfig, Recipe, read_recipe
from weightwise.train.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from weightwise.lm import GQAConfig, LatentConfig

MOST_WARMUP_STEPS = 100


def long_context(
    checkpoint: Path | str,
    *,
    seq_length: int,
    tokens: float,
    rope_base: float | None = None,
    long_share: float | None = 0.25,
    lr_ratio: float = 0.1,
) -> Recipe:
    """Recipe of a stage that begins with the weights of a checkpoint.

    Tokens a step stay as they were, or become one sequence if that is longer.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of a run, whose newest checkpoint is taken.
    seq_length
        Tokens T of a sequence, at least that of the run before.
    tokens
        Tokens of the stage, above 0.
    rope_base
        Base of the rotary wavelengths, at least that of the model; 1e9 for 256K in the paper.
        ``None`` multiplies the factor alpha by the growth of the sequences, so that the slowest
        pair of features turns as far over the new length as it did over the old one.
    long_share
        Share of sequences from inside of documents that fill one; ``None`` for text as it comes.
    lr_ratio
        Constant learning rate over the peak of the run before, above 0.

    Raises
    ------
    ValueError
        If there is no checkpoint, its run did not learn from text, or an argument is out of range.
    """
    folder = find_checkpoint(Path(checkpoint))
    before = read_recipe(folder / "recipe.toml")
    if not isinstance(before.data, DataConfig):
        raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
            f"{folder}: expected a run that learnt from text, got {before.data.kind}"
        )
    old = before.train.seq_length
    if seq_length < old:
        raise ValueError(f"seq_length: expected at least {old} as before, got {seq_length}")
    if not tokens > 0 or not lr_ratio > 0:
        raise ValueError(f"tokens, lr_ratio: expected above 0, got {tokens:g}, {lr_ratio:g}")
    batch = max(1, before.train.batch_size * old // seq_length)
    fitting = max(1, (before.train.micro_batch_size or 1) * old // seq_length)
    steps = ceil(tokens / (batch * seq_length))
    model, ratio = before.model, seq_length / old
    model = model.with_attention(
        lambda one: replace(one, rope_alpha=_alpha(one, model.width, rope_base, ratio))
    )
    length = max(seq_length, model.max_length)
    return replace(
        before,
        name=f"{before.name}-{seq_length}",
        start=str(folder),
        model=replace(model, max_length=length),
        data=replace(before.data, long_share=long_share),
        schedule=ScheduleConfig(
            kind="constant",
            peak_lr=before.schedule.peak_lr * lr_ratio,
            # The optimizer begins anew; its first moments are rough.
            warmup_steps=min(MOST_WARMUP_STEPS, steps // 10),
        ),
        train=replace(
            before.train,
            steps=steps,
            batch_size=batch,
            micro_batch_size=max(m for m in range(1, fitting + 1) if batch % m == 0),
            seq_length=seq_length,
        ),
    )


def _alpha(
    attention: GQAConfig | LatentConfig, width: int, rope_base: float | None, ratio: float
) -> float:
    if rope_base is None:
        return attention.rope_alpha * ratio
    base, rotated = attention.rope_base(width), attention.rope_features(width)
    if rope_base < base:
        raise ValueError(f"rope_base: expected at least {base:.4g} as before, got {rope_base:g}")
    return ntk_alpha(rope_base, rotated, attention.rope_theta)
