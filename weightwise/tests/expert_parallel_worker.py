"""Small runs with experts, looked at closely; started by `test_expert_parallel.py`.

Arguments: file to write, folder of prepared data, recipes. What is written holds, by the name of
the recipe, losses, norms, gradients of the first step and all routing decisions.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from weightwise.distributed import answers_of_group
from weightwise.lm.moe import MixtureOfExperts, Router
from weightwise.train import read_recipe
from weightwise.train.data import prepare
from weightwise.train.parallel import full, open_world
from weightwise.train.trainer import Trainer


def main():
    """Measure every recipe in all processes; the main one writes."""
    out, cache, *paths = map(Path, sys.argv[1:])
    with open_world() as world:
        found = {"travel": 0.0 if world.size == 1 else travel_error(world)}
        for path in paths:
            recipe = read_recipe(path)
            data = prepare(recipe.data, recipe.model.vocab_size, cache)
            found[recipe.name] = measure(recipe, data, world)
        if world.is_main:
            torch.save(found, out)


def measure(recipe, data, world):
    """Train for a few steps; the name of the recipe may ask for routers that all agree."""
    trainer = Trainer(recipe, data, world, None)
    flatten_routers(trainer.model, recipe.name)
    decisions = record(trainer.model)
    steps = []
    gradient_of = {}
    for step in range(1, recipe.train.steps + 1):
        gradient = trainer.gradient(step)
        if step == 1:
            named = trainer.model.named_parameters()
            gradient_of = {name: full(weight.grad).clone() for name, weight in named}
        steps.append((gradient.loss, gradient.norm))
        trainer.move(step)
    valid_loss = trainer.evaluate()["loss"]
    return {
        "steps": torch.tensor(steps),
        "valid_loss": valid_loss,
        "gradient": gradient_of,
        "routing": numbered(decisions, world),
        "recomputed": recomputation_error(recipe, data, world, gradient_of),
    }


def flatten_routers(model, name):
    """Let routers score all experts alike, so that all tokens go to one of them."""
    for module in model.modules():
        if isinstance(module, Router) and name.startswith("lopsided"):
            torch.nn.init.zeros_(module.weight)


def record(model):
    """Note the experts of every training pass, a list for each layer."""
    decisions = []
    for module in model.modules():
        if isinstance(module, MixtureOfExperts):
            decisions.append([])
            module.register_forward_hook(
                lambda module, _args, _out, noted=decisions[-1]: (
                    noted.append(module.routing.experts.clone()) if module.training else None
                )
            )
    return decisions


def numbered(decisions, world):
    """Decisions of all processes by layer and number of the micro-batch within the run."""
    own = {
        (layer, number * world.size + world.rank): experts
        for layer, noted in enumerate(decisions)
        for number, experts in enumerate(noted)
    }
    everyone = [own]
    if world.size > 1:
        everyone = [None] * world.size
        dist.all_gather_object(everyone, own)
    return {key: experts for one in everyone for key, experts in one.items()}


def recomputation_error(recipe, data, world, gradient_of):
    """Largest difference of a gradient once blocks are computed again in the backward pass."""
    wanted = replace(recipe, train=replace(recipe.train, recompute=True))
    trainer = Trainer(wanted, data, world, None)
    flatten_routers(trainer.model, recipe.name)
    trainer.gradient(1)
    return max(
        (full(weight.grad) - gradient_of[name]).abs().max().item()
        for name, weight in trainer.model.named_parameters()
    )


def travel_error(world):
    """Largest error of answers and gradients; one process sends nothing, one expert gets nothing.

    Expert e multiplies its rows by e + 1. At last nobody sends anything.
    """
    num_experts = 3 * world.size
    error = 0.0
    for is_empty in (False, True):
        count_E = (torch.arange(num_experts) + 3 * world.rank) % 4
        count_E[2] = 0
        if world.rank == 1 or is_empty:
            count_E.zero_()
        expert_R = torch.arange(num_experts).repeat_interleave(count_E)
        x_RD = torch.randn(len(expert_R), 5, requires_grad=True)
        weight_RD = torch.randn(len(expert_R), 5)

        def answers(rows, counts):
            own = torch.arange(3 * world.rank, 3 * world.rank + 3)
            return rows * (own.repeat_interleave(counts).unsqueeze(1) + 1)

        answer_RD = answers_of_group(answers, x_RD, count_E, dist.group.WORLD)
        (answer_RD * weight_RD).sum().backward()
        factor_R1 = expert_R.unsqueeze(1) + 1
        for got, wanted in ((answer_RD, x_RD * factor_R1), (x_RD.grad, weight_RD * factor_R1)):
            if len(got):
                error = max(error, (got - wanted).abs().max().item())
    errors = torch.tensor(error)
    dist.all_reduce(errors, dist.ReduceOp.MAX)
    return errors.item()


if __name__ == "__main__":
    main()
