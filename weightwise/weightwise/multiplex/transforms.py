"""What an execution of shared weights gets of its own, put into modules of others by hooks.

Nothing of a model's own forward code changes: a hook on an attention module lets the fused
attention called in it go through maps over heads, a hook on a linear layer adds a part of low rank,
and hooks on a block and its first branch put a convolution between the two branches. All are
neutral at the start.
"""

# Shapes: B images or texts, M heads, N queries, T keys, d channels of a head, H W map, C channels

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from weightwise.multiplex.local import LocalMix
from weightwise.multiplex.mixing import HeadAttention, HeadMix, split_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOCAL = "local_mix"
ATTEND = "attend"
DELTA = "delta"
# Added to a logit it makes a share of e^-50 at most: keys that are not to be seen. Windows of the
# published Swin have -100 there.
UNSEEN = -50.0


class Intercept(TorchFunctionMode):
    """Sends calls of the fused attention to another function.

    Parameters
    ----------
    attend
        Takes the arguments of `torch.nn.functional.scaled_dot_product_attention`.
    """

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function that was called, or the other one."""
        called = self._attend if func is F.scaled_dot_product_attention else func
        return called(*args, **(kwargs or {}))


class MixedAttention(HeadAttention):
    """Attention over mixed heads with the interface of torch's fused one.

    Parameters
    ----------
    num_heads
        Heads M.
    bias
        Whether the maps have biases.
    """

    def __init__(self, num_heads: int, *, bias: bool) -> None:
        super().__init__(num_heads, mixes=True, bias=bias)
        self._modes: list[Intercept] = []

    def attach(self, module: nn.Module) -> None:
        """Take the place of the fused attention in a module's forward pass."""
        module.add_module(ATTEND, self)
        module.register_forward_pre_hook(self._enter)
        module.register_forward_hook(self._leave, always_call=True)

    def _enter(self, *_: Any) -> None:
        self._modes.append(Intercept(self.instead))
        self._modes[-1].__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, *_: Any) -> None:
        self._modes.pop().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def instead(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attend as `torch.nn.functional.scaled_dot_product_attention` does, with mixed heads."""
        if query.dim() != 4 or query.shape[1] != self.num_heads:
            raise ValueError(
                f"query: expected shape (batch, {self.num_heads} heads, tokens, channels), got "
                f"{tuple(query.shape)}; mixes over heads need all heads in one axis"
            )
        if enable_gqa:
            times = query.shape[1] // key.shape[1]
            key, value = (one.repeat_interleave(times, 1) for one in (key, value))
        if scale is not None:
            query = query * (scale * math.sqrt(query.shape[-1]))
        term, mask = _parts(query, key, attn_mask, is_causal)
        # Through __call__, so that hooks see queries, keys and values.
        out: Tensor = self(query, key, value, term_BMNT=term, mask=mask, dropout=dropout_p)
        return out


def _parts(
    query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Term before and mask after the mix."""
    if is_causal:
        is_seen = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    elif mask is None:
        return None, None
    elif mask.dtype != torch.bool:
        one_for_all = mask.dim() < 3 or mask.shape[-3] == 1
        return (None, mask) if one_for_all else split_mask(mask, UNSEEN)
    else:
        is_seen = mask
    return None, query.new_zeros(is_seen.shape).masked_fill(~is_seen, -torch.inf)


class LowRank(nn.Module):
    """A product of two thin matrices, added to a linear layer: ``up (down x)``.

    Parameters
    ----------
    down_RI
        Shape (rank, inputs).
    up_OR
        Shape (outputs, rank).
    """

    def __init__(self, down_RI: Tensor, up_OR: Tensor) -> None:
        super().__init__()
        self.down = nn.Parameter(down_RI)
        self.up = nn.Parameter(up_OR)

    def forward(self, x: Tensor) -> Tensor:
        """Map the last axis."""
        return F.linear(F.linear(x, self.down), self.up)

    def attach(self, layer: nn.Module) -> None:
        """Add the product to what a layer gives."""
        layer.add_module(DELTA, self)
        layer.register_forward_hook(self._add)

    def _add(self, _: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        added: Tensor = self(args[0])
        return out + added


class LocalBranch(nn.Module):
    """A convolution over the map between the two branches of a block.

    With x the block's input and a the first branch, the block goes on from ``mix(x + a)``; as the
    block itself adds x, the branch is made to give the rest.

    Parameters
    ----------
    mix
        Over maps (B, H, W, C).
    num_prefix
        Tokens before those of the map; they stay as they are.
    """

    def __init__(self, mix: LocalMix, num_prefix: int) -> None:
        super().__init__()
        self.mix = mix
        self.num_prefix = num_prefix
        self._inputs: list[Tensor] = []

    def attach(self, block: nn.Module, branch: nn.Module) -> None:
        """Mix between the branches of a block."""
        block.add_module(LOCAL, self)
        block.register_forward_pre_hook(self._keep, with_kwargs=True)
        branch.register_forward_hook(self._add)

    def forward(self, x: Tensor) -> Tensor:
        """Give what mixing adds to tokens (B, N, C), or to a map (B, H, W, C)."""
        if x.dim() == 4:
            added: Tensor = self.mix(x) - x
            return added
        num_prefix, side = self.num_prefix, side_of(x.shape[1] - self.num_prefix)
        # Not unflatten, which the compiler cannot follow where calls are intercepted.
        map_BHWC = x[:, num_prefix:].reshape(len(x), side, side, -1)
        added = (self.mix(map_BHWC) - map_BHWC).flatten(1, 2)
        return F.pad(added, (0, 0, num_prefix, 0))

    def _keep(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs[:] = [first_tensor(args, kwargs)]

    def _add(self, _: nn.Module, __: tuple[Any, ...], out: Any) -> Any:
        if not self._inputs:
            return out  # the second branch goes through the same module
        x = self._inputs.pop()
        first = out if isinstance(out, Tensor) else out[0]
        mixed = first + self(x + first.view_as(x)).view_as(first)
        return mixed if isinstance(out, Tensor) else (mixed, *out[1:])


def side_of(num_tokens: int) -> int:
    """Side of a square map.

    Raises
    ------
    ValueError
        If so many tokens make no square.
    """
    side = math.isqrt(max(num_tokens, 0))
    if side == 0 or side**2 != num_tokens:
        raise ValueError(f"tokens: expected those of a square map, got {num_tokens}")
    return side


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The first tensor that a module is called with."""
    return next(one for one in [*args, *kwargs.values()] if isinstance(one, Tensor))


# Modules that each execution of shared weights has of its own.
TRANSFORMS = (HeadMix, LocalMix, LowRank)
