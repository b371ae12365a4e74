"""What attention is given and what blocks hand on, recorded while a model runs.

A tap changes nothing in a model. Queries, keys and values are taken where attention gets them,
before they are scaled, related, or mixed over heads:

* models of this package call `weightwise.multiplex.HeadAttention`, which gets a hook;
* other models call ``torch.nn.functional.scaled_dot_product_attention``, which is watched while
  the model runs (``torch.overrides``), or ``multi_head_attention_forward``, the function of
  ``torch.nn.MultiheadAttention``: it projects inside, and what it projects is computed once more.
  Models of transformers do so if made with ``attn_implementation="sdpa"``, modules of timm where
  their ``fused_attn`` is on, which in timm's Swin it is not by itself.

Calls are numbered from 0 in the order of execution, so that a layer whose weights serve several
executions has several numbers. A block is the innermost member of a ``ModuleList`` or
``Sequential`` in which attention is called; its output is the hidden state of that execution.
"""

# Shapes: B images, texts or windows, M heads, N tokens, d channels of a head, W = M d

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from weightwise.multiplex import HeadAttention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle

_ARGUMENTS = inspect.signature(F.multi_head_attention_forward)


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Queries, keys and values of one execution, as attention got them.

    Parameters
    ----------
    q, k, v
        Shape (B, M, N, d); fewer heads of keys and values than of queries are shared evenly.
        Shape (B, N, d) has one head.
    """

    q: Tensor
    k: Tensor
    v: Tensor

    def concatenated(self) -> tuple[Tensor, Tensor, Tensor]:
        """All heads side by side, shape (B, N, W) each."""
        num_heads = self.q.shape[-3]
        q, k, v = (_side_by_side(x, num_heads) for x in (self.q, self.k, self.v))
        return q, k, v


class Taps:
    """Records of a model's latest call, made while this context is open.

    Parameters
    ----------
    model
        What is called, itself: calls of its methods are not seen.
    layers
        Executions to record; all by default. Others cost nothing.
    blocks
        Names of modules whose outputs are the hidden states, numbered in the order of their calls;
        by default they are found, see above. Needed where no attention is seen.

    Attributes
    ----------
    heads
        `Heads` by number of the execution.
    hidden
        Output of a block, by number; the first tensor of several. Its last axis are channels.

    Raises
    ------
    ValueError
        If a number is negative, or the model has no module of a name.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Iterable[int] | None = None,
        blocks: Sequence[str] | None = None,
    ) -> None:
        self.heads: dict[int, Heads] = {}
        self.hidden: dict[int, Tensor] = {}
        self._model = model
        self._layers = None if layers is None else frozenset(layers)
        if self._layers and min(self._layers) < 0:
            raise ValueError(f"layers: expected numbers from 0, got {sorted(self._layers)}")
        self._are_named = blocks is not None
        self._blocks = _members(model) if blocks is None else _named(model, blocks)
        self._handles: list[RemovableHandle] = []
        self._watch: _Watch | None = None  # while the model runs
        self._num_attended = self._num_called = self._depth = 0
        # Executions of attention in each block that is being executed, the innermost last
        self._open: list[list[int]] = []

    def __enter__(self) -> Taps:
        """Begin to record; every call of the model replaces what the last one left."""
        on = self._handles.append
        on(self._model.register_forward_pre_hook(self._start))
        on(self._model.register_forward_hook(self._stop, always_call=True))
        for module in self._model.modules():
            if isinstance(module, HeadAttention):
                on(module.register_forward_pre_hook(self._enter_attention))
                on(module.register_forward_hook(self._leave_attention, always_call=True))
        for block in self._blocks:
            on(block.register_forward_pre_hook(self._enter_block))
            on(block.register_forward_hook(self._leave_block))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the model as it was; the records stay."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _start(self, *_: Any) -> None:
        self.heads.clear()
        self.hidden.clear()
        self._open.clear()
        self._num_attended = self._num_called = self._depth = 0
        self._watch = _Watch(self._attend)
        self._watch.__enter__()  # type: ignore[no-untyped-call]

    def _stop(self, *_: Any) -> None:
        if self._watch is not None:
            self._watch.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._watch = None

    def _enter_attention(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        if self._watch is None:
            return  # a block that is computed anew in the backward pass
        self._attend(lambda: Heads(q=args[0], k=args[1], v=args[2]))
        self._depth += 1

    def _leave_attention(self, *_: Any) -> None:
        if self._watch is not None:
            self._depth -= 1

    def _attend(self, heads: Callable[[], Heads]) -> None:
        """Count a call, and keep what it got where that is wanted."""
        if self._depth > 0:
            return  # the fused kernel, called by a module that has been seen already
        number, self._num_attended = self._num_attended, self._num_attended + 1
        if self._layers is None or number in self._layers:
            self.heads[number] = heads()
        if self._open:
            self._open[-1].append(number)

    def _enter_block(self, *_: Any) -> None:
        if self._watch is not None:
            self._open.append([])

    def _leave_block(self, _: nn.Module, __: tuple[Any, ...], out: Any) -> None:
        if self._watch is None:
            return
        numbers = self._open.pop()
        if self._are_named:
            numbers, self._num_called = [self._num_called], self._num_called + 1
        for number in numbers:
            if self._layers is None or number in self._layers:
                self.hidden[number] = out if isinstance(out, Tensor) else out[0]


class _Watch(TorchFunctionMode):
    """Tells of calls of attention, with a function that gives what the call is given."""

    def __init__(self, attend: Callable[[Callable[[], Heads]], None]) -> None:
        super().__init__()
        self._attend = attend

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self._attend(lambda: _given(*args, **kwargs))
        elif func is F.multi_head_attention_forward:
            self._attend(lambda: _projected(_ARGUMENTS.bind(*args, **kwargs).arguments))
        return func(*args, **kwargs)


def _given(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Heads:
    return Heads(q=query, k=key, v=value)


def _projected(given: Mapping[str, Any]) -> Heads:
    """What `torch.nn.MultiheadAttention` computes first; it takes tokens (N, B, W) or (N, W)."""
    sides = given["query"], given["key"], given["value"]
    if given.get("use_separate_proj_weight"):
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    biases = [None] * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
    q, k, v = (
        F.linear(x, weight, bias).unflatten(-1, (given["num_heads"], -1)).movedim(0, -2)
        for x, weight, bias in zip(sides, weights, biases, strict=True)
    )
    return Heads(q=q, k=k, v=v)


def _side_by_side(x_BMNd: Tensor, num_heads: int) -> Tensor:
    if x_BMNd.dim() == 3:
        return x_BMNd
    if x_BMNd.shape[-3] != num_heads:
        x_BMNd = x_BMNd.repeat_interleave(num_heads // x_BMNd.shape[-3], dim=-3)
    return x_BMNd.transpose(-3, -2).flatten(-2).flatten(0, -3)


def _members(model: nn.Module) -> list[nn.Module]:
    """What lists and sequences hold, each once."""
    lists = [one for one in model.modules() if isinstance(one, (nn.ModuleList, nn.Sequential))]
    return list({id(member): member for one in lists for member in one.children()}.values())


def _named(model: nn.Module, blocks: Sequence[str]) -> list[nn.Module]:
    known = dict(model.named_modules(remove_duplicate=False))
    unknown = [name for name in blocks if name not in known]
    if unknown:
        raise ValueError(f"blocks: expected names of modules, got {unknown[0]!r}")
    return list({id(known[name]): known[name] for name in blocks}.values())
