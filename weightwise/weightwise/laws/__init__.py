"""What a training run will reach and cost: laws of loss with and without quantization."""

from weightwise.laws.dense import BESIROGLU, HOFFMANN, Chinchilla, OpenAI
from weightwise.laws.law import (
    Extrapolation,
    Hull,
    Law,
    Prediction,
    Settings,
    constants,
    predict,
)
from weightwise.laws.plan import Layout, Optimum, best_layout, optimal_training
from weightwise.laws.precision import (
    CAPYBARA,
    KUMAR,
    KUMAR_POST_TRAINING,
    BitsOnly,
    Capybara,
    Kumar,
    PostTraining,
)

__all__ = [
    "BESIROGLU",
    "CAPYBARA",
    "HOFFMANN",
    "KUMAR",
    "KUMAR_POST_TRAINING",
    "BitsOnly",
    "Capybara",
    "Chinchilla",
    "Extrapolation",
    "Hull",
    "Kumar",
    "Law",
    "Layout",
    "OpenAI",
    "Optimum",
    "PostTraining",
    "Prediction",
    "Settings",
    "best_layout",
    "constants",
    "optimal_training",
    "predict",
]
