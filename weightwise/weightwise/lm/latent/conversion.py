"""Models with any attention turned into models with shared latents.

Everything but attention stays as it is. Attention is replaced group by group: second moments of
calibration text (`weightwise.lm.latent.moments`), the algebra on them
(`weightwise.lm.latent.joint_svd`), and then a trial on text that took no part: what comes out of
the new attention for the old one's input, with and without codes.

The new latents have no norm, because keys and values of the old model are no function of normed
ones. A layer that is multi-head latent attention already and will share with none is kept as it is.
"""

# Shapes: B rows, T tokens, D model width

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import tee
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from weightwise.lm.attention import Pass
from weightwise.lm.cache import Span
from weightwise.lm.config import layer_groups
from weightwise.lm.latent.calibrate import calibrate
from weightwise.lm.latent.config import LatentConfig
from weightwise.lm.latent.heads import attentions, run
from weightwise.lm.latent.joint_svd import JointSVD
from weightwise.lm.latent.moments import gather
from weightwise.lm.latent.rotation import rotate_features
from weightwise.lm.model import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weightwise.lm.attention_config import GQAConfig
    from weightwise.lm.config import ModelConfig
    from weightwise.lm.latent.attention import LatentAttention
    from weightwise.lm.latent.joint_svd import GroupMaps, LayerMaps


@dataclass(frozen=True, kw_only=True)
class GroupReport:
    """What the conversion of a group of layers loses; shares of 1.

    Parameters
    ----------
    first, end
        Layers ``first`` to ``end - 1``.
    bits
        Of the codes of the latents, 16 for none.
    sharing_error
        Of the keys and values, weighted by what they are worth: what the input of the first
        layer does not tell.
    rope_error
        Of the scores of rotating keys: what is lost by a wrong rotation.
    rank_error
        Of the predicted keys and values: what the latent is too narrow for.
    output_error
        Of the energy of attention's output, layer by layer, measured on other text: what is wrong
        without codes.
    coded_error
        The same with codes.
    """

    first: int
    end: int
    bits: int
    sharing_error: float
    rope_error: float
    rank_error: float
    output_error: tuple[float, ...]
    coded_error: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """A model with latents in the place of keys and values.

    Parameters
    ----------
    model
        The new model, in evaluation mode.
    groups
        What each group of layers has lost.
    """

    model: LanguageModel
    groups: tuple[GroupReport, ...]


@torch.no_grad()
def convert_to_latent(
    model: LanguageModel,
    attention: LatentConfig,
    batches: Iterable[Tensor],
    trial_BT: Tensor,
    *,
    rope_theta: float | None = None,
) -> ConvertedModel:
    """Turn a model into one with shared latents.

    Parameters
    ----------
    model
        Model in evaluation mode and float32.
    attention
        Layout of the cache. ``latent_norm`` becomes ``none``, and ``rope_theta`` what suits the
        model best.
    batches
        Calibration text: token ids, each of shape (B, T). As many tokens as the model is wide, or
        better many times as many.
    trial_BT
        Other text to measure errors with.
    rope_theta
        Base of the wavelengths of the rope key; ``None`` finds the best.

    Raises
    ------
    ValueError
        If the layout does not suit the model, or there is no text.
    """
    old, width = model.config, model.config.width
    check_layout(old, attention)
    if _is_kept(old, attention):
        config = _with(old, replace(attention, **_kept_settings(old)))  # type: ignore[arg-type]
        converted = _copied(model, config)
        _turn_readers(model, converted)
        if attention.outer_scale:
            calibrate(converted, batches)
        return ConvertedModel(model=converted, groups=_reports(model, converted, None, trial_BT))
    plan = _with(old, replace(attention, latent_norm="none", rope_alpha=1.0, rope_scaling=None))
    batches, again = tee(batches)
    fits = [JointSVD(moments) for moments in gather(model, layer_groups(plan), batches)]
    key, _, latent, rope = plan.attention.widths(width)  # type: ignore[union-attr]
    if key != fits[0].key_width:
        raise ValueError(f"head_width: expected {fits[0].key_width} as in the model, got {key}")
    bases = fits[0].rope_bases(rope) if rope_theta is None else [rope_theta]
    ropes = {base: [fit.rope_key(rope, base) for fit in fits] for base in bases}
    base = min(bases, key=lambda base: sum(one.error for one in ropes[base]))
    config = _with(old, replace(cast("LatentConfig", plan.attention), rope_theta=base))
    converted = _copied(model, config)
    maps = [fit.maps(one, latent) for fit, one in zip(fits, ropes[base], strict=True)]
    modules = attentions(converted)
    for group, found in zip(layer_groups(config), maps, strict=True):
        leader = cast("LatentAttention", modules[group.first])
        leader.latent.weight.copy_(torch.cat((found.latent, found.rope)))
        for layer, own in enumerate(found.layers, group.first):
            _fill(cast("LatentAttention", modules[layer]), own)
    if attention.outer_scale:
        calibrate(converted, again)
    return ConvertedModel(model=converted, groups=_reports(model, converted, maps, trial_BT))


def check_layout(old: ModelConfig, attention: LatentConfig) -> None:
    """Refuse what the algebra cannot do, by the name of the field.

    Parameters
    ----------
    old
        Settings of the model to convert.
    attention
        Layout of the cache.

    Raises
    ------
    ValueError
        If the layout does not suit the model.
    """
    groups = layer_groups(old)
    before = groups[0].attention
    if any(group.attention != before for group in groups):
        raise ValueError("attention_of: expected attention of one kind in all layers to convert")
    _, value, latent, rope = attention.widths(old.width)
    old_value = before.width_per_head(old.width)
    query_latent = None
    if isinstance(before, LatentConfig):
        if before.query_norm:
            raise ValueError("query_norm: expected false in the model to convert")
        if before.rope_key != "leader" or before.latent_norm == "layer":
            raise ValueError(
                "rope_key, latent_norm: expected those of a leader in the model to convert"
            )
        old_value, query_latent = before.widths(old.width)[1], before.query_latent_width
    wanted: dict[str, tuple[object, object]] = {
        "num_heads": (attention.num_heads, before.num_heads),
        "value_width": (value, old_value),
        "query_latent_width": (attention.query_latent_width, query_latent),
        "share_up": (attention.share_up, False),
        "rope_key": (attention.rope_key, "leader"),
        "query_norm": (attention.query_norm, False),
    }
    for field, (got, expected) in wanted.items():
        if got != expected:
            raise ValueError(f"{field}: expected {expected!r} for a conversion, got {got!r}")
    if latent > old.width or not 0 < rope <= 2 * old.width:
        raise ValueError(
            f"latent_width, rope_width: expected at most the model width {old.width} and at least "
            f"2, got {latent} and {rope}"
        )


def _is_kept(old: ModelConfig, attention: LatentConfig) -> bool:
    """Whether layers are latent attention already and stay as they are but for their codes."""
    before = layer_groups(old)[0].attention
    if not isinstance(before, LatentConfig):
        return False
    same_groups = _spans(old) == _spans(_with(old, attention))
    return same_groups and before.widths(old.width) == attention.widths(old.width)


def _spans(config: ModelConfig) -> list[tuple[int, int]]:
    return [(group.first, group.end) for group in layer_groups(config)]


def _kept_settings(old: ModelConfig) -> dict[str, object]:
    """Settings that the weights of latent attention were trained with."""
    before = layer_groups(old)[0].attention
    assert isinstance(before, LatentConfig)
    names = (
        "latent_norm", "norm_eps", "rope_theta", "rope_alpha", "rope_scaling", "score_factor",
        "query_norm", "share_up",
    )  # fmt: skip
    return {name: getattr(before, name) for name in names}


def _with(old: ModelConfig, attention: LatentConfig) -> ModelConfig:
    return replace(old, attention=attention, attention_of=())


def _copied(model: LanguageModel, config: ModelConfig) -> LanguageModel:
    """A model of the new settings with all weights of the old one that fit."""
    with torch.device(model.embed.weight.device):
        converted = LanguageModel(config)
    old = dict(model.named_parameters())
    for name, weight in converted.named_parameters():
        if name in old and old[name].shape == weight.shape:
            weight.copy_(old[name])
    return converted.eval()


def _turn_readers(old: LanguageModel, new: LanguageModel) -> None:
    """Let the up-projections read rotated latents if the old ones did not, or plain ones again."""
    for before, after in zip(attentions(old), attentions(new), strict=True):
        was, now = cast("LatentAttention", before), cast("LatentAttention", after)
        if was.config.rotate_latent != now.config.rotate_latent and now.up is not None:
            now.up.copy_(rotate_features(now.up))


def _fill(attention: LatentAttention, found: LayerMaps) -> None:
    """Write the new projections of a layer; its output matrix has been copied."""
    if attention.config.query_latent_width is None:
        attention.query.weight.copy_(found.query.flatten(0, 1))
    else:
        attention.query_up.weight.copy_(found.query.flatten(0, 1))
    up_HXC = torch.cat((found.up_key, found.up_value), dim=1)
    if attention.config.rotate_latent:
        up_HXC = rotate_features(up_HXC)
    assert attention.up is not None
    attention.up.copy_(up_HXC.flatten(0, 1))


def _reports(
    old: LanguageModel,
    new: LanguageModel,
    maps: Sequence[GroupMaps] | None,
    trial_BT: Tensor,
) -> tuple[GroupReport, ...]:
    inputs, outputs = run(old, trial_BT)
    coded = _errors(new, inputs, outputs)
    plain_model = new
    if any(
        cast("LatentConfig", group.attention).is_quantized for group in layer_groups(new.config)
    ):
        config = new.config.with_attention(_without_codes)
        plain_model = _copied(new, config)
    plain = _errors(plain_model, inputs, outputs)
    found = []
    for number, group in enumerate(layer_groups(new.config)):
        lost = None if maps is None else maps[number]
        codes = cast("LatentConfig", group.attention).codes
        found.append(
            GroupReport(
                first=group.first,
                end=group.end,
                bits=16 if codes is None else codes.bits,
                sharing_error=0.0 if lost is None else lost.sharing_error,
                rope_error=0.0 if lost is None else lost.rope_error,
                rank_error=0.0 if lost is None else lost.rank_error,
                output_error=tuple(plain[group.first : group.end]),
                coded_error=tuple(coded[group.first : group.end]),
            )
        )
    return tuple(found)


def _without_codes(attention: GQAConfig | LatentConfig) -> GQAConfig | LatentConfig:
    return replace(attention, codes=None, rope_codes="plain", group_bits=None)  # type: ignore[arg-type]


def _errors(
    model: LanguageModel, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> list[float]:
    """Energy of what is wrong over that of what is right, for the old attention's inputs."""
    batch, num_tokens = inputs[0].shape[:2]
    span = Span(start=(0,) * batch, count=(num_tokens,) * batch, device=inputs[0].device)
    current = Pass(span=span, cache=None)
    found = []
    for attention, x_BTD, wanted_BTD in zip(attentions(model), inputs, outputs, strict=True):
        wrong = (attention(x_BTD, current) - wanted_BTD).square().sum()
        found.append(float(wrong / wanted_BTD.square().sum()))
    return found
