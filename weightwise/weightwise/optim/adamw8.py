"""AdamW with moments in 8 and 16 bits, for weights and gradients of few bits (arXiv 2310.18313).

Adam depends on the direction of the first moment more than on its size, so E4M3 is enough; squares
of gradients underflow in 8 bits, so the second moment has float16 (section 2.2). Both have a scale
for each tensor. A step is the one of `torch.optim.AdamW` on the values.

========================  =================  =======================
bytes of a linear weight  `torch.optim`      this
========================  =================  =======================
weight, gradient          4 + 4              2 + 1 with level O2
moments                   4 + 4              1 + 2
========================  =================  =======================
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from weightwise.numerics.scaled_tensor import ScaledTensor, amax_of
from weightwise.numerics.stored import LARGEST, UNSCALED
from weightwise.optim.low_bit_step import ScaleRule, Settings, Slot, step_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)
MOMENTS = ("exp_avg", "exp_avg_sq")
NAMES = {
    "e4m3": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
    "float16": torch.float16,
    "float16-unscaled": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
SCALED = ("e4m3", "e5m2", "float16")


class AdamW8(Optimizer):
    """Drop-in replacement of `torch.optim.AdamW` with 3 bytes of state for each parameter.

    Parameters
    ----------
    params
        Parameters or parameter groups: float32, float16, bfloat16 or `ScaledTensor`. Their
        gradients may be any of these too.
    lr, betas, eps, weight_decay, maximize
        As in `torch.optim.AdamW`.
    amsgrad, capturable, differentiable
        Must be False.
    foreach, fused
        Accepted and without effect: a step is always one fused pass.
    exp_avg, exp_avg_sq
        What the moments are stored in: ``"e4m3"``, ``"e5m2"``, ``"float16"`` (with a scale),
        ``"float16-unscaled"``, ``"bfloat16"`` or ``"float32"`` (without). Parameter groups may
        differ.
    min_numel
        Parameters with fewer elements keep float32 moments.
    scale_rule
        ``"bound"``, one pass, or ``"exact"``, two, see `weightwise.optim.low_bit_step`.
    decoupled_weight_decay, bias_correction
        Without the first it is Adam; without the second moments are taken as they are.

    Raises
    ------
    ValueError
        If a setting is out of range, or a parameter is complex, sparse or of another type; names
        what is accepted.

    Notes
    -----
    A gradient that holds an infinity or NaN makes the whole step a skipped one: nothing is
    changed, and ``num_skipped`` counts it. With plain gradients and plain moments nothing is looked
    for, unless `weightwise.fp8.prepare` made the optimizer.
    """

    # What keeps the gradients in 8 bits, where `weightwise.fp8.prepare` made the optimizer.
    fp8_gradients: Any = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        exp_avg: str = "e4m3",
        exp_avg_sq: str = "float16",
        min_numel: int = 0,
        scale_rule: ScaleRule = "bound",
        decoupled_weight_decay: bool = True,
        bias_correction: bool = True,
    ) -> None:
        del foreach, fused
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": None, "capturable": capturable,
            "differentiable": differentiable, "fused": None,
            "decoupled_weight_decay": decoupled_weight_decay, "exp_avg": exp_avg,
            "exp_avg_sq": exp_avg_sq, "min_numel": min_numel, "scale_rule": scale_rule,
            "bias_correction": bias_correction,
        }  # fmt: skip
        self.num_skipped = 0
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group after checking its settings and parameters."""
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make a step with the gradients at hand; returns what the closure does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [(group, self._slots(group)) for group in self.param_groups]
        amaxes = [slot.gradient_amax for _, slots in groups for slot in slots]
        if not self._are_finite(amaxes):
            self.num_skipped += 1
            log.warning(
                "step skipped: a gradient has an infinity or NaN (%d so far)", self.num_skipped
            )
            return loss
        for group, slots in groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.state[parameter]["step"] += 1
            step_all(slots, settings_of(group))
        return loss

    def _are_finite(self, amaxes: list[Tensor]) -> bool:
        """Whether all gradients are, from their largest magnitudes; also what others have."""
        device = amaxes[0].device if amaxes else None
        finite = torch.stack(amaxes).isfinite().all() if amaxes else True
        found = torch.as_tensor(finite, dtype=torch.uint8, device=device)
        for group in self._spreads():
            torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MIN, group)
        return bool(found)

    def _spreads(self) -> list[torch.distributed.ProcessGroup]:
        """Groups of processes that parameters are spread over, in the order of parameters."""
        meshes = {
            id(mesh): mesh
            for group in self.param_groups
            for parameter in group["params"]
            if (mesh := getattr(parameter, "device_mesh", None)) is not None
        }
        groups = [mesh.get_group(axis) for mesh in meshes.values() for axis in range(mesh.ndim)]
        return list(dict.fromkeys(groups))

    def _slots(self, group: dict[str, Any]) -> list[Slot]:
        """Parameters of a group that have gradients, with their state."""
        slots = []
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                self._begin(state, parameter, group)
            gradient = _local(parameter.grad)
            if gradient.is_sparse:
                raise ValueError("grad: expected a dense gradient, got a sparse one")
            first, second = (_local(state[name]) for name in MOMENTS)
            needs_amax = self.fp8_gradients is not None or any(
                isinstance(one, ScaledTensor) for one in (gradient, first, second)
            )
            amax = amax_of(gradient) if needs_amax else torch.zeros((), device=gradient.device)
            step = int(state["step"]) + 1
            slots.append(Slot(_local(parameter), gradient, first, second, step, amax))
        return slots

    def _begin(self, state: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> None:
        """State before the first step: zeros."""
        state["step"] = torch.zeros((), dtype=torch.float32)
        for name in MOMENTS:
            local = _local(parameter)
            zeros = torch.zeros(local.shape, dtype=torch.float32, device=local.device)
            made = stored(zeros, moment_kind(parameter, group, name), parameter.dtype)
            state[name] = _sharded_like(parameter, made)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of this optimizer or of `torch.optim.AdamW`; moments are stored anew."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            check_group(group)
            for parameter in group["params"]:
                state = self.state.get(parameter) or {}
                for name in MOMENTS if state else ():
                    kind = moment_kind(parameter, group, name)
                    made = stored(_local(state[name]), kind, parameter.dtype)
                    state[name] = _sharded_like(parameter, made)

    def plain_state_dict(self) -> dict[str, Any]:
        """The state with float32 moments, as `torch.optim.AdamW` loads it."""
        table = self.state_dict()
        table["state"] = {
            key: {
                name: value.decode(torch.float32) if isinstance(value, ScaledTensor) else value
                for name, value in state.items()
            }
            for key, state in table["state"].items()
        }
        return table


def settings_of(group: dict[str, Any]) -> Settings:
    """Settings of a group for a step."""
    return Settings(
        lr=float(group["lr"]), beta1=float(group["betas"][0]), beta2=float(group["betas"][1]),
        eps=float(group["eps"]), weight_decay=float(group["weight_decay"]),
        is_decoupled=group["decoupled_weight_decay"], is_corrected=group["bias_correction"],
        maximizes=group["maximize"], scale_rule=group["scale_rule"],
    )  # fmt: skip


def moment_kind(parameter: Tensor, group: dict[str, Any], name: str) -> str:
    """What a moment of a parameter is stored in, a key of ``NAMES``."""
    return "float32" if parameter.numel() < group["min_numel"] else str(group[name])


def stored(values: Tensor, kind: str, outside: torch.dtype) -> Tensor:
    """A moment as it is kept: scaled if its type needs a scale, and plain otherwise."""
    dtype = NAMES[kind]
    if kind not in SCALED:
        plain = values.decode(torch.float32) if isinstance(values, ScaledTensor) else values
        return plain.to(dtype)
    if isinstance(values, ScaledTensor) and values.payload.dtype == dtype:
        return values
    made = ScaledTensor.of(
        values.float() if not isinstance(values, ScaledTensor) else values, dtype
    )
    return ScaledTensor(made.payload, made.scale, made.amax, outside)


def check_group(group: dict[str, Any]) -> None:
    """Refuse settings and parameters that no step can be made with."""
    for name in ("amsgrad", "capturable", "differentiable"):
        if group[name]:
            raise ValueError(f"{name}: expected False, AdamW8 has no such step")
    betas = tuple(map(float, group["betas"]))
    ranges = {
        "lr": (float(group["lr"]), "at least 0", lambda x: x >= 0),
        "eps": (group["eps"], "at least 0", lambda x: x >= 0),
        "weight_decay": (group["weight_decay"], "at least 0", lambda x: x >= 0),
        "betas[0]": (betas[0], "in [0, 1)", lambda x: 0 <= x < 1),
        "betas[1]": (betas[1], "in [0, 1)", lambda x: 0 <= x < 1),
        "min_numel": (group["min_numel"], "at least 0", lambda x: x >= 0),
        "exp_avg": (group["exp_avg"], f"one of {', '.join(NAMES)}", NAMES.__contains__),
        "exp_avg_sq": (group["exp_avg_sq"], f"one of {', '.join(NAMES)}", NAMES.__contains__),
        "scale_rule": (group["scale_rule"], "bound or exact", ("bound", "exact").__contains__),
    }
    for name, (value, expected, accepts) in ranges.items():
        if not cast("Callable[[Any], bool]", accepts)(value):
            raise ValueError(f"{name}: expected {expected}, got {value!r}")
    for parameter in group["params"]:
        is_known = parameter.dtype in UNSCALED or parameter.dtype == torch.float16
        if not is_known or parameter.layout != torch.strided:
            raise ValueError(
                "params: expected dense float32, float16, bfloat16 or scaled tensors, got "
                f"{parameter.layout} of {parameter.dtype}"
            )


def _local(x: Tensor) -> Tensor:
    """The part of a tensor that this process has."""
    return cast("Tensor", x._local_tensor) if hasattr(x, "_local_tensor") else x


def _sharded_like(parameter: Tensor, local: Tensor) -> Tensor:
    """A part of this process as a tensor that is spread like the parameter."""
    if not hasattr(parameter, "_local_tensor"):
        return local
    from torch.distributed.tensor import DTensor  # takes a second to import

    spread: Any = parameter

    return DTensor.from_local(
        local, spread.device_mesh, spread.placements, run_check=False,
        shape=parameter.shape, stride=parameter.stride(),
    )  # fmt: skip


assert set(NAMES.values()) == {*LARGEST, *UNSCALED}
