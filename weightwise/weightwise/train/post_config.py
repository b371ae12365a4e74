"""What a recipe learns from: text, or with fine-tuning and preferences what comes after it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from weightwise.train.data import DataConfig

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecordsConfig:
    """Files of records, one a line.

    Parameters
    ----------
    path
        JSON lines.
    valid_path
        File of held-out records; ``None`` holds out a share of ``path``.
    valid_fraction
        That share, above 0 and below 1; records that begin with the same question stay together.
    too_long
        What to do with records beyond ``train.seq_length``: ``cut`` their end, or ``refuse`` them.
    """

    path: str = Field(min_length=1)
    valid_path: str | None = None
    valid_fraction: float = Field(default=0.05, gt=0.0, lt=1.0)
    too_long: Literal["cut", "refuse"] = "cut"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ChatConfig(RecordsConfig):
    """Chats to learn the answers of (supervised fine-tuning).

    A line is ``{"messages": [{"role": ..., "content": ...}, ...]}``; see `RecordsConfig` for the
    other settings.

    Parameters
    ----------
    kind
        Tells this class from other kinds of data.
    """

    kind: Literal["chats"] = "chats"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OnlineConfig:
    """Pairs of the policy's own answers, one for every pair of the file.

    Parameters
    ----------
    reward
        ``exact`` compares with the right answer (``reference`` in the file, else ``chosen``);
        ``module:function`` is one of your own, see `weightwise.lm.post.online.Reward`; anything
        else is the folder of a checkpoint that judges, see `weightwise.lm.post.online.Judge`.
    num_answers
        Answers to a prompt, at least 2.
    max_new_tokens
        Longest answer, at least 1.
    temperature
        Of sampling, above 0.
    top_p
        Sample from the likeliest tokens that together have this probability, above 0, at most 1.
    """

    reward: str = Field(default="exact", min_length=1)
    num_answers: int = Field(default=4, ge=2)
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PreferenceConfig(RecordsConfig):
    """Pairs of answers to prefer one of (direct preference optimization).

    A line is ``{"prompt": ..., "chosen": "...", "rejected": "..."}``; see `RecordsConfig` for
    the settings that are not listed here.

    Parameters
    ----------
    kind
        Tells this class from other kinds of data.
    beta
        Strength of the pull towards the reference, above 0.
    nll_coef
        Weight of the chosen answer's negative log-likelihood per token, at least 0.
    reference
        ``start`` is the model that the run begins with; ``average`` is the moving average of the
        weights, which ``optimizer.average_decay`` turns on. Evaluations compare with the start.
    online
        Also learn from the policy's own answers, as often as from the file; ``None`` does not.
    """

    kind: Literal["preferences"] = "preferences"
    beta: float = Field(default=0.1, gt=0.0, allow_inf_nan=False)
    nll_coef: float = Field(default=0.2, ge=0.0, allow_inf_nan=False)
    reference: Literal["start", "average"] = "start"
    online: OnlineConfig | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DistillationConfig:
    """A teacher beside text, see `weightwise.train.distillation`.

    Parameters
    ----------
    teacher
        Checkpoint, or folder of a run, of a model with the same tokenizer.
    weight
        Share of the teacher in the loss, above 0 and at most 1.
    """

    teacher: str = Field(min_length=1)
    weight: float = Field(default=0.5, gt=0.0, le=1.0)


def _kind_of(data: Any) -> str | None:
    """What is learnt from; text where settings do not say."""
    return data.get("kind", "text") if isinstance(data, dict) else getattr(data, "kind", None)


TrainingData: TypeAlias = Annotated[
    Annotated[DataConfig, Tag("text")]
    | Annotated[ChatConfig, Tag("chats")]
    | Annotated[PreferenceConfig, Tag("preferences")],
    Discriminator(_kind_of),
]
