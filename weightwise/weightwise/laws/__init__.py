"""What a training run will reach and cost: laws of loss with and without quantization."""

from weightwise.laws.dense import BESIROGLU, HOFFMANN, Chinchilla, OpenAI
from weightwise.laws.design import Design, Proposal, Quantity, next_runs
from weightwise.laws.files import load_budget_fit, load_fit, save_budget_fit, save_fit
from weightwise.laws.fit import (
    Fit,
    Validation,
    biases,
    cross_validate,
    extrapolate,
    fit,
)
from weightwise.laws.law import (
    Extrapolation,
    Hull,
    Law,
    Prediction,
    Settings,
    constants,
    predict,
)
from weightwise.laws.plan import Layout, Optimum, best_layout, optimal_training, training_by_bits
from weightwise.laws.precision import (
    CAPYBARA,
    KUMAR,
    KUMAR_POST_TRAINING,
    BitsOnly,
    Capybara,
    Kumar,
    PostTraining,
)
from weightwise.laws.qat import QAT, QAT_CAVEAT, QAT_W4A4, QAT_W4A16, QAT_W16A4
from weightwise.laws.runs import (
    BudgetRuns,
    Runs,
    read_budget_runs,
    read_candidates,
    read_runs,
    read_settings,
)

__all__ = [
    "BESIROGLU",
    "CAPYBARA",
    "HOFFMANN",
    "KUMAR",
    "KUMAR_POST_TRAINING",
    "QAT",
    "QAT_CAVEAT",
    "QAT_W4A4",
    "QAT_W4A16",
    "QAT_W16A4",
    "BitsOnly",
    "BudgetRuns",
    "Capybara",
    "Chinchilla",
    "Design",
    "Extrapolation",
    "Fit",
    "Hull",
    "Kumar",
    "Law",
    "Layout",
    "OpenAI",
    "Optimum",
    "PostTraining",
    "Prediction",
    "Proposal",
    "Quantity",
    "Runs",
    "Settings",
    "Validation",
    "best_layout",
    "biases",
    "constants",
    "cross_validate",
    "extrapolate",
    "fit",
    "load_budget_fit",
    "load_fit",
    "next_runs",
    "optimal_training",
    "predict",
    "read_budget_runs",
    "read_candidates",
    "read_runs",
    "read_settings",
    "save_budget_fit",
    "save_fit",
    "training_by_bits",
]
