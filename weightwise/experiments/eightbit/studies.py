"""Levels, the optimizer's types, scaling of gradient sums, and fine-tuning."""

from __future__ import annotations

from math import log10
from typing import TYPE_CHECKING

import torch
from study.rows import claim, differences, figure
from torch.nn import functional as F

from weightwise.distributed.fp8_sum import simulated_sum
from weightwise.lm.post.calls import Router
from weightwise.lm.post.pipeline import SynthesisConfig
from weightwise.lm.post.synthesize import synthesize
from weightwise.lm.post.tasks import TaskGenerator, task_seeds
from weightwise.numerics.scaled_tensor import amax_of
from weightwise.numerics.stored import LARGEST, power_of_two_scale, quantize
from weightwise.recipes.post import sft
from weightwise.train import load_model
from weightwise.train.corpus import builtin_texts

from .runs import SEEDS, all_seeds, fine_tuned, small, with_chat_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs
    from torch import Tensor

E4M3 = torch.float8_e4m3fn
CORPUS_BYTES = 100_000
FOR_SFT = (
    "train.seq_length=64", "train.batch_size=16", "train.keep_checkpoints=1",
    "schedule.peak_lr=2e-3", "model.residual_dropout=0.0", "model.attention.dropout=0.0",
)  # fmt: skip


def levels(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Loss at the end with each level, against float32."""
    plain = runs.losses(all_seeds("float32"))
    yield figure("loss_float32", plain, "nats")
    for level in ("O1", "O2", "O3"):
        found = runs.losses(all_seeds(level))
        yield figure(f"loss_{level}", found, "nats")
        share = [100 * (a - b) / b for a, b in zip(found, plain, strict=True)]
        yield claim(
            f"levels_{level}_over_float32", f"{level} ends within 0.3 % of float32's loss",
            "curves of 7B to 175B overlap", share, "%", goal=("<=", 0.3),
        )  # fmt: skip


def decoupling(runs: Runs, _figures: Path) -> Iterator[Row]:
    """What the optimizer may keep in few bits (table 6 and figure 8 of the paper)."""
    plain = runs.losses(all_seeds("float32"))
    more = {}
    for arm in ("2a", "2b", "3", "4", "4-e5m2", "unscaled", "bfloat16-v"):
        more[arm] = differences(runs.losses(all_seeds(arm)), plain)
        yield figure(f"arm_{arm}", more[arm], "nats over float32")
    yield claim(
        "decoupling_2a", "float16 master, E4M3 first and float16 second moment lose nothing",
        "#2a equals #0", more["2a"], "nats", goal=("<=", 0.01),
    )  # fmt: skip
    yield claim(
        "decoupling_8_bit_master", "an 8-bit master degrades",
        "#3 degrades", more["3"], "nats", goal=(">=", 0.05),
    )  # fmt: skip
    yield claim(
        "decoupling_8_bit_second", "an 8-bit second moment is worse than float16",
        "#4 diverges", differences(more["4"], more["2a"]), "nats", goal=(">=", 0.005),
    )  # fmt: skip
    yield claim(
        "decoupling_unscaled", "float16 second moments need a scale",
        "not in the paper", more["unscaled"], "nats", goal=(">=", 0.2),
    )  # fmt: skip


def scaling(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Underflow, overflow and error of 8-bit sums of real gradients (figure 7 of the paper)."""
    recipe = small("float32", SEEDS[0])
    runs.make([recipe])
    for size in (8, 32, 128):
        g_NE = gradients(runs.run_dir(recipe), size)
        exact = g_NE.double().mean(0)
        scale = power_of_two_scale(amax_of(g_NE), LARGEST[E4M3])
        ways = {
            "divided before": (1 / size, "ring"), "divided after": (1.0, "ring"),
            "1/sqrt(N)": (size**-0.5, "ring"), "exact sum": (1.0, "exact"),
        }  # fmt: skip
        for name, (mu, arithmetic) in ways.items():
            codes = torch.stack([quantize(g_E, E4M3, scale * mu) for g_E in g_NE])
            lost = (codes.view(torch.uint8) & 0x7F == 0) & (g_NE != 0)
            total, full = simulated_sum(codes, arithmetic)
            if arithmetic == "exact":
                full = torch.zeros(())  # the sum gets a scale of its own
            error = total.double() / (scale * mu) / size - exact
            snr = 10 * log10(exact.square().sum() / error.square().sum())
            row = {
                "processes": size, "scaling": name,
                "vanished %": round(100 * lost.float().mean().item(), 3),
                "at the largest %": round(100 * full.item(), 3), "dB": round(snr, 1),
            }  # fmt: skip
            slug = name.replace(" ", "_").replace("/", "_")
            yield figure(f"scaling_{size}_{slug}", [snr], "dB", detail={"columns": row})


def gradients(run_dir: Path, size: int) -> Tensor:
    """Gradients of all matrices of the blocks for one sample each, float32 of shape (N, E)."""
    model, tokenizer, recipe = load_model(run_dir)
    model.train()
    length = recipe.train.seq_length
    tokens = tokenizer.encode("\n".join(builtin_texts(CORPUS_BYTES)))
    data = torch.tensor(tokens[: size * (length + 1)])
    weights = [one for one in model.blocks.parameters() if one.dim() == 2]
    found = []
    for row in data.view(size, length + 1):
        loss = F.cross_entropy(model(row[None, :-1])[0], row[1:])
        parts = torch.autograd.grad(loss, weights)
        found.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(found)


def tuning(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Fine-tuning on chats in float32 and with O2, from the same checkpoint."""
    start = with_chat_tokens(small("float32", SEEDS[0]))
    runs.make([start])
    folder = runs.folder / "instructions"
    answers = Router(default=(TaskGenerator(0.0),), routes={})
    synthesize(
        task_seeds(600, 1), folder, router=answers, critic=TaskGenerator(),
        config=SynthesisConfig(held_out=0.15),
    )  # fmt: skip
    recipe = sft(
        runs.run_dir(start), folder / "chats.jsonl", valid=folder / "chats-held-out.jsonl",
        epochs=3.0, overrides=FOR_SFT,
    )  # fmt: skip
    found = {
        level: runs.losses([fine_tuned(recipe, level, seed) for seed in SEEDS])
        for level in (None, "O2")
    }
    for level, values in found.items():
        yield figure(f"tuning_loss_{level or 'float32'}", values, "nats")
    share = [100 * (a - b) / b for a, b in zip(found["O2"], found[None], strict=True)]
    yield claim(
        "tuning_O2_over_float32", "fine-tuning in 8 bits is as good",
        "AlpacaEval 66.15 and 67.20, MT-Bench 5.75 and 5.70", share, "%", goal=("<=", 1.0),
    )  # fmt: skip
