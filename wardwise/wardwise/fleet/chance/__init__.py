"""Plans on random days: the normal chain, scenarios, and certified punctuality."""

from wardwise.fleet.chance.certify import ServiceLevel, certify, service_levels
from wardwise.fleet.chance.scenarios import Outcome, evaluate

__all__ = ["Outcome", "ServiceLevel", "certify", "evaluate", "service_levels"]
