"""Optimizers: parameter groups and learning-rate schedules."""

from weightwise.optim.expert_rate import best_rate, expert_ratio, highest_rate, noise_batch
from weightwise.optim.groups import OptimizerConfig, make_optimizer, parameter_groups
from weightwise.optim.schedule import ScheduleConfig, learning_rate

__all__ = [
    "OptimizerConfig",
    "ScheduleConfig",
    "best_rate",
    "expert_ratio",
    "highest_rate",
    "learning_rate",
    "make_optimizer",
    "noise_batch",
    "parameter_groups",
]
