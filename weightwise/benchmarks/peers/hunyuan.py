"""Hugging Face's mixture-of-experts model of the same family, on the memory of one of ours."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import torch
import transformers
from transformers import HunYuanMoEV1Config, HunYuanMoEV1ForCausalLM

from weightwise.lm.hunyuan import INNER, OUTER, STACKED, config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weightwise.lm import LanguageModel

NAME = f"transformers {transformers.__version__} HunYuanMoEV1"
EXPERTS = ("eager", "grouped_mm", "batched_mm")  # its ways to compute experts on a CPU


def twin(ours: LanguageModel, *, is_checked: bool = True) -> HunYuanMoEV1ForCausalLM:
    """Build their model with our settings; its parameters are our tensors, not copies."""
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings(), ours.embed.weight.device:
        warnings.simplefilter("ignore")
        theirs = HunYuanMoEV1ForCausalLM(HunYuanMoEV1Config.from_dict(config_of(ours.config)))
    share(ours, theirs)
    if is_checked:
        check(ours, theirs)
    return theirs


def share(ours: LanguageModel, theirs: HunYuanMoEV1ForCausalLM) -> None:
    """Let their parameters be our tensors, in whatever type those are now."""
    parameters = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        other = parameters.pop(_their_name(name))
        other.grad, other.data = None, weight.data
    assert not parameters


def check(ours: LanguageModel, theirs: HunYuanMoEV1ForCausalLM) -> None:
    """Make sure that both compute the same, so that times compare the same work."""
    token_BT = torch.arange(32, device=ours.embed.weight.device).view(1, -1)
    was_training = ours.training, theirs.training
    ours.eval(), theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(token_BT), theirs(token_BT).logits, rtol=0, atol=1e-3)
    ours.train(was_training[0]), theirs.train(was_training[1])


def fastest(
    theirs: HunYuanMoEV1ForCausalLM, work: Callable[[], object], experts: Sequence[str] = EXPERTS
) -> str:
    """Choose its way to compute experts that takes the least time for some work, and set it."""
    seconds = {}
    for name in experts:
        theirs.set_experts_implementation(name)
        start = time.perf_counter()
        work()
        seconds[name] = time.perf_counter() - start
    best = min(seconds, key=lambda name: seconds[name])
    theirs.set_experts_implementation(best)
    return best


def _their_name(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    _, layer, inner = name.split(".", 2)
    return f"model.layers.{layer}.{(INNER | STACKED)[inner]}"
