"""What an 8-bit run needs to go on with the same bits, in any number of processes.

Payloads, scales and largest magnitudes stand beside each other as plain tensors under the name of
the parameter, whoever owns it: a process reads what it owns now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightwise.fp8.zero import ZeroAdamW8
from weightwise.numerics.fp8_linear import Scaler
from weightwise.numerics.scaled_tensor import ScaledTensor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weightwise.distributed import Fp8Gradients
    from weightwise.optim import AdamW8


def live_state(model: nn.Module, optimizer: AdamW8) -> dict[str, Any]:
    """Nested tables of tensors that are the run's own: read into, they change it.

    Parameters
    ----------
    model, optimizer
        As `weightwise.fp8.prepare` returned them, or with gradients as they are; after at least
        one step.

    Returns
    -------
    dict
        By name of the parameter its step, moments and weight, if that is kept in few bits; by name
        of the layer delayed scales; and the factors of gradient sums.
    """
    table: dict[str, Any] = {}
    for name, parameter in _held(model, optimizer).items():
        entry = {key: _parts(value) for key, value in optimizer.state[parameter].items()}
        if isinstance(parameter, ScaledTensor):
            entry["weight"] = _parts(parameter.detach())
        table[name] = entry
    for name, module in model.named_modules():
        if isinstance(module, Scaler) and module.config.scaling == "delayed":
            table[f"scales.{name}"] = dict(module.named_buffers())
    if optimizer.fp8_gradients is not None and not isinstance(optimizer, ZeroAdamW8):
        table |= _factors(model, optimizer.fp8_gradients)
    return table


def settle(optimizer: AdamW8) -> None:
    """After `live_state` was read into: give all processes the weights of the new masters."""
    if isinstance(optimizer, ZeroAdamW8):
        optimizer.whole.publish()


def _held(model: nn.Module, optimizer: AdamW8) -> dict[str, nn.Parameter]:
    """Parameters whose state this process has, by name; masters under their weight's."""
    named = {name: one for name, one in model.named_parameters() if one.requires_grad}
    if not isinstance(optimizer, ZeroAdamW8):
        return named
    place_of = {id(one): place for place, one in enumerate(optimizer.whole.weights)}
    held = {}
    for name, parameter in named.items():
        place = place_of.get(id(parameter))
        if place is None:
            held[name] = parameter
        elif place in optimizer.whole.masters:
            held[name] = optimizer.whole.masters[place]
    return held


def _parts(value: Tensor) -> Any:
    if not isinstance(value, ScaledTensor):
        return value
    return {"payload": value.payload, "scale": value.scale, "amax": value.amax}


def _factors(model: nn.Module, gradients: Fp8Gradients) -> dict[str, Any]:
    """Mu of every 8-bit gradient as a view, and the step it was last looked at."""
    name_of = {id(one): name for name, one in model.named_parameters()}
    return {
        f"mu.{name_of[id(one)]}": {"mu": bucket.scaler.mu[place], "step": bucket.scaler.step}
        for bucket in gradients.buckets if bucket.scaler is not None
        for place, one in enumerate(bucket.parameters)
    }  # fmt: skip
