"""From the lists of a sweep to its runs: one recipe each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from weightwise.lm import num_parameters
from weightwise.numerics import PrecisionConfig
from weightwise.numerics.scaling import names_scales
from weightwise.recipes import RECIPES, load_recipe
from weightwise.sweep.spec import read_config
from weightwise.train import from_dict, to_dict
from weightwise.train.recipe import override

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightwise.numerics import Target
    from weightwise.numerics.reference import Rounding
    from weightwise.sweep.spec import Axis, ExcludeConfig, ExtraConfig, SizeConfig, SweepConfig
    from weightwise.train import Recipe


# Settings of attention that belong to one width and one number of heads.
OF_ONE_SIZE = (
    "num_kv_heads", "head_width", "value_width", "latent_width", "rope_width", "query_latent_width",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Runs to be made; each is a recipe whose name is that of its folder.

    Parameters
    ----------
    name
        Name of the sweep.
    runs
        Recipes with different names.

    Raises
    ------
    ValueError
        If there are no runs, or two of the same name.
    """

    name: str
    runs: tuple[Recipe, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs: expected at least one, got none")
        names: set[str] = set()
        for run in self.runs:
            if run.name in names:
                raise ValueError(f"runs: expected different names, got {run.name!r} twice")
            names.add(run.name)


class _Point(NamedTuple):
    """One run of a grid, as its lists name it."""

    size: str
    steps: int
    format: str
    block: int | Literal["channel", "tensor"] | None
    targets: tuple[Target, ...]
    rounding: Rounding
    axis: Axis
    seed: int

    def collapsed(self) -> _Point:
        """Itself, with the usual values of settings that its format gives no meaning to."""
        if names_scales(self.format):
            return self._replace(block=None)
        if self.format != "none":
            return self
        plain = PrecisionConfig()
        return self._replace(
            block="channel", targets=plain.targets, rounding=plain.rounding, axis=plain.axis
        )

    def precision(self) -> PrecisionConfig:
        """How the linear layers are quantized."""
        if self.format == "none":
            return PrecisionConfig()
        return PrecisionConfig(
            format=self.format,
            granularity="block" if isinstance(self.block, int) else self.block,
            block_size=self.block if isinstance(self.block, int) else None,
            targets=self.targets,
            rounding=self.rounding,
            axis=self.axis,
        )


def num_tokens(recipe: Recipe) -> int:
    """Training tokens D of a run."""
    return recipe.train.steps * _tokens_per_step(recipe)


def num_flop(recipe: Recipe) -> float:
    """Arithmetic of a run by the usual estimate 6 N D, without embeddings and head."""
    return 6.0 * num_parameters(recipe.model) * num_tokens(recipe)


def block_of(precision: PrecisionConfig) -> int | str | None:
    """Elements that share a scale, ``channel`` or ``tensor``.

    None without quantization, and with a format that says so itself.
    """
    if precision.format is None or names_scales(precision.format):
        return None
    return precision.block_size or precision.granularity or "channel"


def read_sweep(path: Path | str) -> Sweep:
    """Read the file of a sweep and make its runs.

    Parameters
    ----------
    path
        The TOML file, see `weightwise.sweep.spec`.

    Raises
    ------
    ValueError
        If the file is wrong, or one of its runs cannot be; one line that names file and field.
    """
    path = Path(path)
    config = read_config(path)
    try:
        return Sweep(name=config.name, runs=tuple(_runs(config, path.parent)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _runs(config: SweepConfig, folder: Path) -> Iterator[Recipe]:
    _require_different(config)
    bases = {
        size.name: _base(config, size, folder, f"sizes.{number}")
        for number, size in enumerate(config.sizes)
    }
    grid = list(_product(config, bases))
    for number, rule in enumerate(config.exclude):
        kept = [point for point in grid if not _agrees(rule, point, bases, f"exclude.{number}")]
        if len(kept) == len(grid):
            raise ValueError(f"exclude.{number}: expected to fit a run of the product, fits none")
        grid = kept
    for number, extra in enumerate(config.extra):
        point = _extra(extra, config, bases, f"extra.{number}")
        if point in grid:
            raise ValueError(f"extra.{number}: expected a run that is not there yet")
        grid.append(point)
    for point in grid:
        yield _recipe(point, bases[point.size])


def _require_different(config: SweepConfig) -> None:
    names = [size.name for size in config.sizes]
    for field in ("sizes", "tokens", "formats", "blocks", "targets", "roundings", "axes", "seeds"):
        values = names if field == "sizes" else list(getattr(config, field))
        for number, value in enumerate(values):
            if value in values[:number]:
                raise ValueError(f"{field}.{number}: expected each value once, got {value!r} again")


def _base(config: SweepConfig, size: SizeConfig, folder: Path, field: str) -> Recipe:
    """The sweep's recipe in one size."""
    changes: list[str] = []
    if size.recipe is not None:
        model = _find(size.recipe, folder, f"{field}.recipe").model
        changes += _shape(
            model.width, model.num_layers, model.ffn.hidden, model.attention.num_heads
        )
        # Key and value heads and the widths of another size would not fit.
        changes += [f"model.attention.{name}=none" for name in OF_ONE_SIZE]
    changes += [*_shape(size.width, size.layers, size.ffn, size.heads), *size.set]
    found = to_dict(_find(config.recipe, folder, "recipe"))
    return from_dict(override(found, [*config.set, *changes]), origin=field if changes else "set")


def _find(recipe: str, folder: Path, field: str) -> Recipe:
    try:
        return load_recipe(recipe if recipe in RECIPES else folder / recipe)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _shape(width: int | None, layers: int | None, ffn: int | None, heads: int | None) -> list[str]:
    """Changes to a recipe that give it a shape."""
    keys = ("model.width", "model.num_layers", "model.ffn.hidden", "model.attention.num_heads")
    values = (width, layers, ffn, heads)
    return [f"{k}={v}" for k, v in zip(keys, values, strict=True) if v is not None]


def _product(config: SweepConfig, bases: dict[str, Recipe]) -> Iterator[_Point]:
    made: list[_Point] = []
    for size, base in bases.items():
        steps = [_steps(d, base, f"tokens.{i}") for i, d in enumerate(config.tokens)]
        for number, count in enumerate(steps):
            if count in steps[:number]:
                raise ValueError(
                    f"tokens.{number}: expected another number of steps than the others, "
                    f"got {count} again"
                )
        for values in itertools.product(
            steps, config.formats, config.blocks, config.targets, config.roundings, config.axes,
            config.seeds,
        ):  # fmt: skip
            point = _Point(size, *values).collapsed()
            if point not in made:
                made.append(point)
    yield from made


def _extra(extra: ExtraConfig, config: SweepConfig, bases: dict[str, Recipe], field: str) -> _Point:
    size = extra.size
    if size is None:
        if len(bases) > 1:
            raise ValueError(f"{field}.size: expected one of {', '.join(bases)}, got none")
        size = next(iter(bases))
    _require_size(size, bases, field)
    point = _Point(
        size=size, steps=_steps(extra.tokens, bases[size], f"{field}.tokens"),
        format=extra.format, block=extra.block, targets=extra.targets, rounding=extra.rounding,
        axis=extra.axis, seed=config.seeds[0] if extra.seed is None else extra.seed,
    )  # fmt: skip
    return point.collapsed()


def _agrees(rule: ExcludeConfig, point: _Point, bases: dict[str, Recipe], field: str) -> bool:
    if rule.size is not None:
        _require_size(rule.size, bases, field)
    if rule.tokens is not None:
        steps = _steps(rule.tokens, bases[point.size], f"{field}.tokens")
        if steps != point.steps:
            return False
    names = [one.name for one in fields(rule) if one.name != "tokens"]
    wanted = {name: getattr(rule, name) for name in names}
    return all(value is None or value == getattr(point, name) for name, value in wanted.items())


def _require_size(size: str, bases: dict[str, Recipe], field: str) -> None:
    if size not in bases:
        raise ValueError(f"{field}.size: expected one of {', '.join(bases)}, got {size!r}")


def _steps(tokens: float, base: Recipe, field: str) -> int:
    """Whole steps that come closest to a number of tokens."""
    steps = round(tokens / _tokens_per_step(base))
    if steps < 1:
        raise ValueError(
            f"{field}: expected at least one step of {_tokens_per_step(base)} tokens, "
            f"got {tokens:g}"
        )
    return steps


def _tokens_per_step(recipe: Recipe) -> int:
    return recipe.train.batch_size * recipe.train.seq_length


def _recipe(point: _Point, base: Recipe) -> Recipe:
    recipe = replace(
        base,
        seed=point.seed,
        precision=point.precision(),
        train=replace(base.train, steps=point.steps),
    )
    return replace(recipe, name=f"{point.size}-{_name(recipe)}")


def _name(recipe: Recipe) -> str:
    """What tells a run from others of its size."""
    precision, words = recipe.precision, [f"d{num_tokens(recipe)}"]
    if precision.format is None:
        words.append("none")
    else:
        block = block_of(precision)
        words.append(precision.format.replace("@", ".").replace("/", "."))
        if block is not None:
            words.append(block if isinstance(block, str) else f"b{block}")
        words += [
            "P" + "".join(target.removeprefix("P") for target in precision.targets),
        ]
        usual = PrecisionConfig()
        words += [precision.rounding] if precision.rounding != usual.rounding else []
        words += [precision.axis] if precision.axis != usual.axis else []
    return "-".join([*words, f"s{recipe.seed}"])
