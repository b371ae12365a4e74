"""Work that several processes share through torch.distributed; torchrun starts them."""

from weightwise.distributed.counts import over_processes
from weightwise.distributed.experts import answers_of_group

__all__ = ["answers_of_group", "over_processes"]
