"""A training loop as one writes it, and the same with two lines changed; memory of both."""

import torch
from torch import nn
from torch.nn import functional as F

from weightwise.fp8 import prepare  # the first line
from weightwise.numerics import ScaledTensor

TEXT = ("The quick brown fox jumps over the lazy dog. " * 200).encode()
WIDTH, HEADS, LENGTH, STEPS = 128, 4, 64, 60


class Block(nn.Module):
    """Attention and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.ffn = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors to vectors."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norms[0](x)).view(batch, length, 3, HEADS, -1).transpose(1, 3)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(2), is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.ffn(self.norms[1](x))


class Model(nn.Module):
    """Bytes to bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the next byte."""
        return self.head(self.blocks(self.bytes(x) + self.places.weight[: x.shape[1]]))


def train(level: str | None) -> None:
    """Train, and say what it took."""
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if level:
        model, optimizer = prepare(model, optimizer, level)  # the second line
    data = torch.frombuffer(bytearray(TEXT), dtype=torch.uint8).long()
    for _ in range(STEPS):
        start = torch.randint(len(data) - LENGTH - 1, (8, 1))
        window = data[start + torch.arange(LENGTH + 1)]
        logits = model(window[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    kept = [*model.parameters(), *(one.grad for one in model.parameters())]
    kept += [value for state in optimizer.state.values() for value in state.values()]
    num_bytes = sum(
        one.num_bytes() if isinstance(one, ScaledTensor) else one.nbytes for one in kept
    )
    learned = "learned" if loss < 1.0 else "did not learn"
    said = f"{num_bytes / 1e6:5.1f} MB of weights, gradients and moments; {learned}"
    print(f"{level or 'float32':8} {said}")


for choice in (None, "O1", "O2"):
    train(choice)
