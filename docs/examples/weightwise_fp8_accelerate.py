"""Two changed lines in a loop of Accelerate: the model is prepared here, the rest there."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from weightwise.fp8 import prepare

torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
inputs = torch.randn(512, 32)
loader = DataLoader(TensorDataset(inputs, inputs.roll(1, 1)), batch_size=32)
model = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
model, optimizer = prepare(model.to(accelerator.device), optimizer, level="O2")
loader = accelerator.prepare(loader)

for epoch in range(8):
    total = 0.0
    for x, goal in loader:
        loss = (model(x) - goal).square().mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item() / len(loader)
    if epoch in (0, 7):
        print(f"epoch {epoch + 1}: loss {total:.1f}")
