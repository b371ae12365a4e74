"""Work that several processes share through torch.distributed; torchrun starts them."""

from weightwise.distributed.auto_scale import AutoScale
from weightwise.distributed.counts import over_processes
from weightwise.distributed.experts import answers_of_group
from weightwise.distributed.fp8_gradients import Fp8Gradients, Fp8HookState, fp8_hook
from weightwise.distributed.fp8_zero import WholeTensors, greedy_partition

__all__ = [
    "AutoScale",
    "Fp8Gradients",
    "Fp8HookState",
    "WholeTensors",
    "answers_of_group",
    "fp8_hook",
    "greedy_partition",
    "over_processes",
]
