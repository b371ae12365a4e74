"""What a JSON file must look like: the fleet's own objects, under a versioned header.

The models hold the dataclasses of the problem, the plan and the building, so that
every field and every check of theirs is a field and a check of the file, and a
field added there cannot be forgotten here. Unknown fields are errors, and types are
strict: no text for a number, no true or false for 1 or 0.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from wardwise.fleet.energy import Recharge
from wardwise.fleet.plan import Certificate, Trip  # noqa: TC001 - pydantic reads these
from wardwise.fleet.problem import Costs, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise, Randomness  # noqa: TC001
from wardwise.site import Site  # noqa: TC001

INSTANCE_SCHEMA = "wardwise/instance/1"
PLAN_SCHEMA = "wardwise/plan/1"


def _require_name(value: str) -> str:
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError("expected printable text without outer spaces")
    return value


Name = Annotated[str, AfterValidator(_require_name)]
Rows = tuple[tuple[float | None, ...], ...]


class StrictModel(BaseModel):
    """Settings of all models; pydantic hands them on to the dataclasses inside."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class MatrixTravel(StrictModel):
    """Travel as tables, row = from, in the order of places; null where there is no way."""

    kind: Literal["matrix"]
    travel_s: Rows
    distance_m: Rows
    travel_var_s2: Rows | None = None


class EuclideanTravel(StrictModel):
    """Straight lines between the places of one floor, at one speed."""

    kind: Literal["euclidean"]
    speed_m_per_s: Annotated[float, Field(gt=0)]


class SiteTravel(StrictModel):
    """Quickest paths through the building in `site`; places are its nodes or landings."""

    kind: Literal["site"]


class InstanceModel(StrictModel):
    """A fleet planning problem. Seconds, metres, slots; the first place is the depot."""

    schema_: Literal["wardwise/instance/1"] = Field(alias="schema")
    name: Name
    places: tuple[Place, ...]
    requests: tuple[Request, ...]
    robots: tuple[Robot, ...]
    stations: tuple[Station, ...] = ()
    reload_s: float = 0.0
    costs: Costs = Costs()
    travel: Annotated[MatrixTravel | EuclideanTravel | SiteTravel, Field(discriminator="kind")]
    site: Site | None = None
    recharge: Recharge = Recharge.PARTIAL
    randomness: Randomness | None = None
    promise: Promise | None = None


class PlanModel(StrictModel):
    """Timed trips of the robots, in driving order, and the requests turned down."""

    schema_: Literal["wardwise/plan/1"] = Field(alias="schema")
    instance: Name
    trips: tuple[Trip, ...]
    denied: tuple[str, ...] = ()
    certificate: Certificate | None = None


def json_schema(kind: Literal["instance", "plan"]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a file, for editors and other programs.

    It covers structure and types. Ranges and references between objects are
    checked when the file is read.

    Raises
    ------
    ValueError
        If `kind` is neither.
    """
    models: dict[str, type[StrictModel]] = {"instance": InstanceModel, "plan": PlanModel}
    if kind not in models:
        raise ValueError(f"kind: expected instance or plan, got {kind!r}")
    schema = models[kind].model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
