"""Optimizers: parameter groups, learning rates and their schedules, and the noise batch."""

from weightwise.optim.adamw8 import AdamW8
from weightwise.optim.expert_rate import best_rate, expert_ratio, highest_rate, noise_batch
from weightwise.optim.groups import OptimizerConfig, make_optimizer, parameter_groups
from weightwise.optim.noise import NoiseFit, fit_noise, gradient_noise_batch
from weightwise.optim.schedule import ScheduleConfig, learning_rate

__all__ = [
    "AdamW8",
    "NoiseFit",
    "OptimizerConfig",
    "ScheduleConfig",
    "best_rate",
    "expert_ratio",
    "fit_noise",
    "gradient_noise_batch",
    "highest_rate",
    "learning_rate",
    "make_optimizer",
    "noise_batch",
    "parameter_groups",
]
