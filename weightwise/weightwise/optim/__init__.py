"""Optimizers: parameter groups and learning-rate schedules."""

from weightwise.optim.groups import OptimizerConfig, make_optimizer, parameter_groups
from weightwise.optim.schedule import ScheduleConfig, learning_rate

__all__ = [
    "OptimizerConfig",
    "ScheduleConfig",
    "learning_rate",
    "make_optimizer",
    "parameter_groups",
]
