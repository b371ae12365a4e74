"""What may differ between two recipes that are to be one run, or to share weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightwise.train.recipe import latents, to_dict

if TYPE_CHECKING:
    from collections.abc import Collection

    from weightwise.train.recipe import Recipe

# Fields that may differ between a run and its continuation: they change what is written and
# when, or how the work is shared out, and not what is computed (sums over processes differ in
# rounding only). Everything else must be the same.
FREE_ON_RESUME = frozenset(
    {
        "name",
        "train.steps",  # with conditions, see `resume_conflict`
        "train.eval_every",
        "train.eval_batches",
        "train.save_every",
        "train.keep_checkpoints",
        "train.log_every",
        "train.tensorboard",
        "train.strategy",
        "train.expert_parallel",
        "train.recompute",
    }
)


def resume_conflict(saved: Recipe, wanted: Recipe, step: int) -> str | None:
    """Say why a run cannot go on with another recipe.

    ``train.steps`` may change if no step already made would have had another learning rate: the
    schedule is constant or sets ``decay_steps``. No step may have seen latents in another way
    either, see ``quantize_from``. It may not drop below the steps already made.

    Parameters
    ----------
    saved
        Recipe of the checkpoint.
    wanted
        Recipe to continue with.
    step
        Step of the checkpoint.

    Returns
    -------
    str or None
        Field, old and new value; ``None`` if the run can go on.
    """
    conflict = difference(to_dict(saved), to_dict(wanted), free=FREE_ON_RESUME)
    if conflict:
        return conflict
    steps = wanted.train.steps
    is_fixed = wanted.schedule.kind == "constant" or wanted.schedule.decay_steps is not None
    is_fixed &= not any(0.0 < one.quantize_from < 1.0 for one, _ in latents(wanted.model))
    if steps != saved.train.steps and not is_fixed:
        return (
            f"train.steps: expected {saved.train.steps} as in the run so far, got {steps}; it "
            "may change only with schedule.decay_steps set or a constant schedule, and without "
            "quantize_from between 0 and 1"
        )
    if steps < step:
        return f"train.steps: expected at least {step}, the steps already made, got {steps}"
    return None


def difference(
    saved: dict[str, Any],
    wanted: dict[str, Any],
    free: Collection[str],
    where: str = "the run so far",
) -> str | None:
    """Name the first setting that two recipes do not share.

    Parameters
    ----------
    saved, wanted
        Recipes as nested dicts, see `to_dict`.
    free
        Dotted fields that may differ.
    where
        What the saved recipe belongs to, for the message.

    Returns
    -------
    str or None
        Field, old and new value; ``None`` if there is no such setting.
    """
    old, new = _flatten(saved), _flatten(wanted)
    for key in sorted(old.keys() | new.keys()):
        if key not in free and old.get(key) != new.get(key):
            return f"{key}: expected {old.get(key)!r} as in {where}, got {new.get(key)!r}"
    return None


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
