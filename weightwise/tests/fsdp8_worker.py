"""What processes with sharded parameters find, for `test_fp8_fsdp.py`. Arguments: file, folder."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from weightwise.numerics import ScaledTensor
from weightwise.optim import AdamW8


def main():
    """Train in one piece and in two; the first process writes what it found."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = {"plain": train(network(), 8)[0]}
    model = sharded()
    found["sharded"], optimizer = train(model, 8)
    state = optimizer.state[next(model.parameters())]
    found["kinds"] = [type(state[name].to_local()).__name__ for name in ("exp_avg", "exp_avg_sq")]
    found["scaled"] = [train(sharded(network_of_few_bits()), 8)[0]]
    found["scaled"].append(train(network_of_few_bits(), 8)[0])
    found["resumed"] = resumed(Path(sys.argv[2]))
    found["skipped"] = not_finite(rank)
    if rank == 0:
        found["alone"] = read(network(), Path(sys.argv[2]), no_dist=True)
        torch.save(found, sys.argv[1])
    dist.barrier()
    dist.destroy_process_group()


def network():
    """Rows that two processes cannot share evenly, and a bias of one."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(13, 7), nn.GELU(), nn.Linear(7, 1))


def network_of_few_bits():
    """The same with a float16 matrix that has a scale, as at level O2."""
    model = network()
    model[0].weight = nn.Parameter(ScaledTensor.of(model[0].weight.detach(), torch.float16))
    return model


def sharded(model=None):
    """A network, a part on each process."""
    model = model or network()
    return fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def train(model, steps, optimizer=None, first=0):
    """Losses of steps on the same data everywhere, and the optimizer."""
    optimizer = optimizer or AdamW8(model.parameters(), lr=1e-2)
    losses = []
    for step in range(first, first + steps):
        x = torch.randn(16, 13, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - x[:, :1] * x[:, 1:2]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, optimizer


def resumed(folder):
    """Losses of four steps, a checkpoint, and four steps of a new model that reads it."""
    model = sharded()
    losses, optimizer = train(model, 4)
    states = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.save(states, checkpoint_id=folder)
    return losses + read(sharded(), folder)


def read(model, folder, **how):
    """Losses of four steps after the checkpoint of another model."""
    optimizer = AdamW8(model.parameters(), lr=1e-2)
    states = {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.load(states, checkpoint_id=folder, **how)
    model.load_state_dict(states["model"])
    set_optimizer_state_dict(model, optimizer, states["optimizer"])
    return train(model, 4, optimizer, first=4)[0]


def not_finite(rank):
    """Whether weights stay, and the count of skipped steps, if one process has an infinity."""
    model = sharded()
    _, optimizer = train(model, 1)
    weight = model[0].weight
    before = weight.to_local().detach().clone()
    if rank == 0:
        weight.grad.to_local()[0, 0] = torch.inf
    optimizer.step()
    flag = torch.tensor([torch.equal(before, weight.to_local()), optimizer.num_skipped == 1])
    parts = [torch.empty_like(flag) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, flag)
    return torch.stack(parts).all(0).tolist()


if __name__ == "__main__":
    main()
