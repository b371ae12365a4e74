"""Plan a hospital's delivery robots with fewer robots, metres and late deliveries."""

from wardwise.fleet.check import Report, check
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital
from wardwise.io import read_instance, read_plan, write_json, write_plan
from wardwise.report import write_report
from wardwise.site import Site

__version__ = "0.1.0"

__all__ = [
    "Costs",
    "Instance",
    "Kind",
    "Place",
    "Plan",
    "Report",
    "Request",
    "Robot",
    "Site",
    "Stop",
    "Trip",
    "check",
    "generate_hospital",
    "read_instance",
    "read_plan",
    "solve",
    "write_json",
    "write_plan",
    "write_report",
]
