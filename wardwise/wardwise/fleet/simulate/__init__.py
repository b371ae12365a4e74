"""Discrete-event twin: a day with luck, driven by the dispatcher that drives real ones.

`simulate` lives through one day, `simulate_days` through several. `simulate_plan` carries
out a plan made in advance, with batteries and chargers. The other names are what they
take and return.
"""

from wardwise.fleet.facts import Deed, DrivenDay, Fact, Ride
from wardwise.fleet.randomness import Law
from wardwise.fleet.simulate.days import Days, ElevatorWait, simulate_days
from wardwise.fleet.simulate.disturbances import Disturbances
from wardwise.fleet.simulate.figures import ClassFigures, ElevatorFigures, Figures
from wardwise.fleet.simulate.plan_day import PlanDay, RobotEnergy, simulate_plan
from wardwise.fleet.simulate.plan_days import (
    LateShare,
    PlanDays,
    PlanFigures,
    StationQueue,
    simulate_plan_days,
)
from wardwise.fleet.simulate.plan_robot import Act, Reading
from wardwise.fleet.simulate.run import Simulation, simulate

__all__ = [
    "Act",
    "ClassFigures",
    "Days",
    "Deed",
    "Disturbances",
    "DrivenDay",
    "ElevatorFigures",
    "ElevatorWait",
    "Fact",
    "Figures",
    "LateShare",
    "Law",
    "PlanDay",
    "PlanDays",
    "PlanFigures",
    "Reading",
    "Ride",
    "RobotEnergy",
    "Simulation",
    "StationQueue",
    "simulate",
    "simulate_days",
    "simulate_plan",
    "simulate_plan_days",
]
