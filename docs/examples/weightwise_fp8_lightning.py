"""Lightning: the optimizer that its module configures is a prepared one."""

import logging
import warnings

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from weightwise.fp8 import prepare


class Shift(L.LightningModule):
    """Learns to turn vectors by one place."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32))
        self.losses: list[float] = []

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Squared error of a batch."""
        x, goal = batch
        loss = (self.model(x) - goal).square().mean()
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, and the layers and optimizer in its place."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3)
        _, optimizer = prepare(self.model, optimizer, level="O2")
        return optimizer


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers")
torch.manual_seed(0)
inputs = torch.randn(512, 32)
module = Shift()
trainer = L.Trainer(
    max_epochs=8, accelerator="cpu", gradient_clip_val=1.0, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
trainer.fit(module, DataLoader(TensorDataset(inputs, inputs.roll(1, 1)), batch_size=32))
for epoch in (0, 7):
    print(f"epoch {epoch + 1}: loss {sum(module.losses[16 * epoch : 16 * epoch + 16]) / 16:.1f}")
