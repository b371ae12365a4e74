"""Work that several processes share through torch.distributed; torchrun starts them."""

from weightwise.distributed.experts import answers_of_group

__all__ = ["answers_of_group"]
