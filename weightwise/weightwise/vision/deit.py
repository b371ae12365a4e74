"""DeiT (Touvron et al., arXiv 2012.12877) and Mini-DeiT (MiniViT, Zhang et al., arXiv 2204.07154).

Patches become tokens, a learned embedding says where they lie, blocks of attention and MLP follow,
and a linear head reads the normalized class token or the normalized mean over tokens.

In Mini-DeiT the blocks of a group run on one set of weights: they are modules of their own that
hold the same `torch.nn.Parameter` objects, so that a gradient is the sum over executions and an
optimizer sees each weight once. Own to every execution are its layer normalizations, its table of
relative positions and its maps over heads (section 3 of the paper; what else the paper describes
and the published model leaves out, a convolution before the MLP, is a switch of `DeiTConfig`).
Sharing saves memory and files, neither operations nor activations.
"""

# Shapes: B images, H W pixels, N tokens, C channels, M heads, d channels of a head, R S patches

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from weightwise.multiplex.local import LocalMix
from weightwise.multiplex.lookup import places
from weightwise.multiplex.mixing import HeadAttention, HeadMix
from weightwise.vision.layers import Dense, DropPath, Mlp
from weightwise.vision.relative import KeyTerm, buckets, num_buckets

if TYPE_CHECKING:
    from weightwise.vision.deit_config import DeiTConfig

INIT_STD = 0.02
EPS = 1e-6  # of all layer normalizations
SHARED = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


class PatchEmbed(nn.Module):
    """Linear map of the pixels of each patch.

    Parameters
    ----------
    width
        Channels of a token.
    patch
        Side of a patch in pixels.
    """

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return tokens of shape (B, N, C), row by row."""
        # Sums keep the order of memory of what they add to: all blocks would have that of a map.
        return cast("Tensor", self.proj(x_B3HW).flatten(2).transpose(1, 2).contiguous())


class Attention(nn.Module):
    """Attention over all tokens, with the terms and maps of an execution.

    Parameters
    ----------
    config
        Settings of the model.
    """

    def __init__(self, config: DeiTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = Dense(config.width, 3 * config.width)
        self.attend = HeadAttention(config.num_heads, mixes=config.mixes, bias=False)
        self.proj = Dense(config.width, config.width)
        head_width = config.width // config.num_heads
        self.position = (
            KeyTerm(head_width, class_token=config.class_token) if config.relative else None
        )

    def forward(self, x_BNC: Tensor, place_X: Tensor | None) -> Tensor:
        """Attend; ``place_X`` is for terms of relative position, see `KeyTerm`."""
        B, N, C = x_BNC.shape
        qkv_BN3Md = self.qkv(x_BNC).view(B, N, 3, self.num_heads, -1)
        q_BMNd, k_BMNd, v_BMNd = qkv_BN3Md.permute(2, 0, 3, 1, 4).unbind(0)
        term = None if self.position is None else self.position(place_X)
        y_BMNd = self.attend(q_BMNd, k_BMNd, v_BMNd, term_BMNT=term)
        return cast("Tensor", self.proj(y_BMNd.transpose(1, 2).reshape(B, N, C)))


class Block(nn.Module):
    """One execution of a block.

    Parameters
    ----------
    config
        Settings of the model.
    drop_path
        See `DropPath`; both branches of an execution have the same rate.
    """

    def __init__(self, config: DeiTConfig, drop_path: float) -> None:
        super().__init__()
        self.side = config.side
        self.norm1 = nn.LayerNorm(config.width, eps=EPS)
        self.attn = Attention(config)
        self.local = _local(config)
        self.norm2 = nn.LayerNorm(config.width, eps=EPS)
        self.mlp = Mlp(config.width, config.hidden)
        self.drop_path = DropPath(drop_path)

    def share(self, other: Block) -> None:
        """Run on the attention and MLP weights of another execution from now on."""
        for name in SHARED:
            layer, source = self.get_submodule(name), other.get_submodule(name)
            layer.weight, layer.bias = source.weight, source.bias

    def forward(self, x_BNC: Tensor, place_X: Tensor | None) -> Tensor:
        """Transform tokens; the shape is kept."""
        x_BNC = x_BNC + self.drop_path(self.attn(self.norm1(x_BNC), place_X))
        if self.local is not None:
            x_BNC = self._mix(x_BNC)
        return cast("Tensor", x_BNC + self.drop_path(self.mlp(self.norm2(x_BNC))))

    def _mix(self, x_BNC: Tensor) -> Tensor:
        """Convolve the tokens of the map; a class token before them stays."""
        B, N, C = x_BNC.shape
        first_B1C, map_BNC = x_BNC.split([N - self.side**2, self.side**2], dim=1)
        map_BRSC = map_BNC.view(B, self.side, self.side, C)
        if isinstance(self.local, LocalMix):
            map_BRSC = self.local(map_BRSC)
        else:
            assert self.local is not None
            map_BRSC = self.local(map_BRSC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return torch.cat([first_B1C, map_BRSC.reshape(B, -1, C)], dim=1)


class DeiT(nn.Module):
    """Vision transformer whose blocks may share their weights.

    Parameters are named as in timm's ``deit`` and repeat where they are shared; see
    `weightwise.multiplex.files` for files that hold them once. They start with torch's own values;
    `initialize` draws the published ones.

    Parameters
    ----------
    config
        Settings, for example one of `DEIT_VARIANTS`.

    Examples
    --------
    >>> model = DeiT(DEIT_VARIANTS["mini-ti"]).eval()
    >>> sum(one.numel() for one in model.parameters())
    3090304
    """

    def __init__(self, config: DeiTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.width, config.patch)
        self.cls_token = (
            nn.Parameter(torch.zeros(1, 1, config.width)) if config.class_token else None
        )
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, config.width))
        self.blocks = nn.ModuleList([Block(config, rate) for rate in config.drop_paths])
        first = 0
        for length in config.groups:
            for block in self.blocks[first + 1 : first + length]:
                cast("Block", block).share(cast("Block", self.blocks[first]))
            first += length
        self.norm = nn.LayerNorm(config.width, eps=EPS)
        self.head = nn.Linear(config.width, config.num_classes)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Classify images.

        Parameters
        ----------
        x_B3HW
            Normalized images of the size of the settings.

        Returns
        -------
        Logits of shape (B, num_classes).

        Raises
        ------
        ValueError
            If the input has another shape.
        """
        return cast("Tensor", self.head(self.features(x_B3HW)))

    def features(self, x_B3HW: Tensor) -> Tensor:
        """Return what the head sees: normalized class token or mean over tokens, (B, C)."""
        x_BNC = self.tokens(x_B3HW)
        return x_BNC[:, 0] if self.config.class_token else x_BNC.mean(1)

    def pyramid(self, x_B3HW: Tensor) -> list[Tensor]:
        """Return the only map there is, (B, C, R, S) of normalized tokens without class token."""
        side = self.config.side
        x_BNC = self.tokens(x_B3HW)[:, -(side**2) :]
        return [x_BNC.transpose(1, 2).unflatten(2, (side, side))]

    def tokens(self, x_B3HW: Tensor) -> Tensor:
        """Compute the normalized output of the last block.

        Parameters
        ----------
        x_B3HW
            Normalized images of the size of the settings.

        Returns
        -------
        Shape (B, N, C); the class token, if there is one, comes first.

        Raises
        ------
        ValueError
            If the input has another shape.
        """
        config = self.config
        shape = (3, config.image_size, config.image_size)
        if x_B3HW.dim() != 4 or x_B3HW.shape[1:] != shape:
            raise ValueError(
                f"x_B3HW: expected shape (images, {', '.join(map(str, shape))}), "
                f"got {tuple(x_B3HW.shape)}"
            )
        x_BNC = self.patch_embed(x_B3HW)
        if self.cls_token is not None:
            x_BNC = torch.cat([self.cls_token.expand(x_BNC.shape[0], -1, -1), x_BNC], dim=1)
        x_BNC = x_BNC + self.pos_embed
        place_X = self._places() if config.relative else None
        for block in self.blocks:
            x_BNC = block(x_BNC, place_X)
        return cast("Tensor", self.norm(x_BNC))

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw new weights as the published code does.

        Linear weights and embeddings come from N(0, 0.02^2), cut off at two units; the filters and
        shifts of patches from the uniform distribution within 1 / sqrt(inputs of an output),
        torch's usual one. Gains are 1, tables and all else 0. Maps over heads start as
        ``mix_start`` says; a convolution before the MLP as the identity unless it is ``published``.

        Parameters
        ----------
        generator
            Source of randomness; the same state gives the same weights.
        """
        filters = self.patch_embed.proj
        bound = filters.weight[0].numel() ** -0.5
        for weight in filters.parameters():
            weight.uniform_(-bound, bound, generator=generator)
        for embedding in (self.cls_token, self.pos_embed):
            if embedding is not None:
                nn.init.trunc_normal_(embedding, std=INIT_STD, generator=generator)
        is_drawn: set[Tensor] = set()
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.weight not in is_drawn:
                nn.init.trunc_normal_(module.weight, std=INIT_STD, generator=generator)
                module.bias.zero_()
                is_drawn.add(module.weight)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, KeyTerm):
                module.table.zero_()
            elif isinstance(module, HeadMix):
                self._start(module, generator)
            elif isinstance(module, LocalMix):
                module.initialize(generator)
            elif isinstance(module, Block) and isinstance(module.local, nn.Conv2d):
                _to_identity(module.local)

    def _places(self) -> Tensor:
        # Not a buffer: it takes less time than one block's softmax, and where a model is built
        # without memory a buffer would have to be filled in.
        side, class_token = self.config.side, self.config.class_token
        bucket_NN = buckets(side, side, class_token=class_token, device=self.pos_embed.device)
        return places(bucket_NN, num_buckets(class_token=class_token))

    def _start(self, mix: HeadMix, generator: torch.Generator) -> None:
        if self.config.mix_start == "published":
            mix.initialize(generator)
        else:
            nn.init.eye_(mix.weight)


def _local(config: DeiTConfig) -> LocalMix | nn.Conv2d | None:
    """Convolution before the MLP of an execution."""
    if config.local == "none":
        return None
    width, kernel = config.width, config.local_kernel
    if config.local != "stream":
        return LocalMix(width, kernel, residual=config.local, eps=EPS)
    conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
    _to_identity(conv)
    return conv


@torch.no_grad()
def _to_identity(conv: nn.Conv2d) -> None:
    nn.init.dirac_(conv.weight, groups=conv.groups)
    assert conv.bias is not None
    conv.bias.zero_()
