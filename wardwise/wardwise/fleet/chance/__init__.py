"""Plans on random days: the normal chain, scenarios, and certified punctuality."""

from wardwise.fleet.chance.certify import ServiceLevel, certify, service_levels
from wardwise.fleet.chance.chain import Expected, Forecast, forecast
from wardwise.fleet.chance.cost import ExpectedCost, expected_cost
from wardwise.fleet.chance.scenarios import Outcome, evaluate

__all__ = [
    "Expected",
    "ExpectedCost",
    "Forecast",
    "Outcome",
    "ServiceLevel",
    "certify",
    "evaluate",
    "expected_cost",
    "forecast",
    "service_levels",
]
