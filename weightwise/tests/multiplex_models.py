"""Small models of many makers, with inputs, for the tests of multiplexing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from weightwise.lm import GQAConfig, LanguageModel, ModelConfig, MoEConfig, SwiGLUConfig
from weightwise.multiplex import Transforms
from weightwise.vision import TinyViT, TinyViTConfig

TEXT = Transforms(rank=2, delta="zero")
TEXT_MIXED = Transforms(rank=2, delta="zero", mixes=True, mix_bias=True)
IMAGE = Transforms(mixes=True, kernel=3)
EVERYTHING = Transforms(mixes=True, kernel=3, rank=2, delta="zero")


class Block(nn.Module):
    """Pre-norm block with plain layers and vectors of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two branches of two heads."""
        q, k, v = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.proj(y)
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class Plain(nn.Module):
    """Four blocks over sixteen tokens, and a head."""

    def __init__(self, depth: int = 4, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean over tokens."""
        return self.head(self.blocks(x).mean(1))


def language(**changes: Any) -> LanguageModel:
    """Ours, of four layers."""
    fields = {
        "vocab_size": 11, "width": 16, "num_layers": 4, "max_length": 16,
        "attention": GQAConfig(num_heads=4, num_kv_heads=2), "ffn": SwiGLUConfig(hidden=24),
    }  # fmt: skip
    return LanguageModel(ModelConfig(**{**fields, **changes}))


def _timm(name: str, **options: Any) -> nn.Module:
    from timm_shim import import_timm

    return import_timm().create_model(name, pretrained=False, num_classes=3, **options)


def _swin() -> nn.Module:
    model = _timm(
        "swin_tiny_patch4_window7_224", img_size=32, patch_size=4, window_size=2, embed_dim=8,
        depths=(2, 4), num_heads=(2, 4),
    )  # fmt: skip
    for one in model.modules():
        if hasattr(one, "fused_attn"):
            one.fused_attn = True
    return model


def _hub(kind: str) -> nn.Module:
    hub = pytest.importorskip("transformers")
    few = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4}
    if kind == "vit":
        sizes = {"intermediate_size": 24, "image_size": 16, "patch_size": 4}
        return hub.ViTModel(hub.ViTConfig(**few, **sizes))
    if kind == "bert":
        return hub.BertModel(hub.BertConfig(**few, intermediate_size=24, vocab_size=11))
    ends = {"bos_token_id": None, "eos_token_id": None}
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 4, "n_head": 4, "n_positions": 16, "vocab_size": 11}
        return hub.GPT2LMHeadModel(hub.GPT2Config(**sizes, **ends))
    sizes = {"intermediate_size": 24, "vocab_size": 11, "num_key_value_heads": 2}
    return hub.LlamaForCausalLM(hub.LlamaConfig(**few, **sizes, **ends))


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)


def _tiny_vit() -> nn.Module:
    config = TinyViTConfig(
        widths=(8, 16, 16, 16), depths=(1, 2, 2, 2), windows=(2, 2, 2), head_width=8, image_size=64,
        num_classes=3,
    )  # fmt: skip
    return TinyViT(config)


def _moe() -> LanguageModel:
    ffn = MoEConfig(num_experts=4, top_k=2, hidden=8)
    return language(ffn=ffn)


VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 4}
# Constructor, kind of input, transforms.
FAMILIES = {
    "plain": (Plain, "tokens 8", EVERYTHING),
    "timm vit": (lambda: _timm("vit_tiny_patch16_224", **VIT), "image 16", EVERYTHING),
    "timm deit": (
        lambda: _timm("deit_tiny_distilled_patch16_224", **VIT), "image 16", EVERYTHING
    ),
    "timm swin": (_swin, "image 32", EVERYTHING),
    "hub vit": (lambda: _hub("vit"), "image 16", EVERYTHING),
    "hub bert": (lambda: _hub("bert"), "text", TEXT_MIXED),
    "hub gpt2": (lambda: _hub("gpt2"), "text", TEXT_MIXED),
    "hub llama": (lambda: _hub("llama"), "text", TEXT_MIXED),
    "encoder": (_encoder, "tokens 16", Transforms(kernel=3, rank=2, delta="zero")),
    "tiny vit": (_tiny_vit, "image 64", Transforms(mixes=True, rank=2, delta="zero")),
    "dense": (language, "text", TEXT_MIXED),
    "moe": (_moe, "text", TEXT),
}  # fmt: skip


def made(name: str, monkeypatch: Any) -> tuple[nn.Module, torch.Tensor, Transforms]:
    """A model in evaluation mode with drawn vectors, an input, and transforms that it takes."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    build, kind, transforms = FAMILIES[name]
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for one in model.parameters():
            if one.dim() == 1:
                one += 0.1 * torch.randn(one.shape)
    return model, batch_of(kind), transforms


def batch_of(kind: str, seed: int = 0) -> torch.Tensor:
    """An input: tokens of a width, images of a side, or texts."""
    generator = torch.Generator().manual_seed(seed)
    what, _, size = kind.partition(" ")
    if what == "text":
        return torch.randint(11, (2, 6), generator=generator)
    shape = (2, 16, int(size)) if what == "tokens" else (2, 3, int(size), int(size))
    return torch.randn(shape, generator=generator)


def output_of(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """The first tensor that a model gives."""
    out = model(batch)
    return out if isinstance(out, torch.Tensor) else out[0]
