"""Discrete-event twin: a day with luck, driven by the dispatcher that drives real ones.

`simulate` lives through one day, `simulate_days` through several; the other names are
what they take and return.
"""

from wardwise.fleet.randomness import Law
from wardwise.fleet.simulate.days import Days, ElevatorWait, simulate_days
from wardwise.fleet.simulate.disturbances import Disturbances
from wardwise.fleet.simulate.figures import ClassFigures, ElevatorFigures, Figures
from wardwise.fleet.simulate.log import Deed, Fact, Ride
from wardwise.fleet.simulate.run import Simulation, simulate

__all__ = [
    "ClassFigures",
    "Days",
    "Deed",
    "Disturbances",
    "ElevatorFigures",
    "ElevatorWait",
    "Fact",
    "Figures",
    "Law",
    "Ride",
    "Simulation",
    "simulate",
    "simulate_days",
]
