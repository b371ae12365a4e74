"""After pre-training: instruction data, fine-tuning on chats, and preferences."""

from weightwise.lm.post.calls import CallLog, Completion, Generator, GeneratorError, Request, Router
from weightwise.lm.post.consistency import final_answer, majority, normalise
from weightwise.lm.post.contamination import EvaluationSets
from weightwise.lm.post.endpoint import EndpointConfig, EndpointGenerator
from weightwise.lm.post.instructions import Candidate, Example, Instruction, Seed, read_seeds
from weightwise.lm.post.model_generator import ModelGenerator
from weightwise.lm.post.near_duplicates import find_near_duplicates
from weightwise.lm.post.pipeline import Pipeline, SynthesisConfig
from weightwise.lm.post.prompts import PromptBank, read_bank
from weightwise.lm.post.quality import broken_rule
from weightwise.lm.post.responses import choose, respond
from weightwise.lm.post.stages import evolve, write_instructions
from weightwise.lm.post.synthesize import SynthesisResult, synthesize
from weightwise.lm.post.tasks import TaskGenerator, task_seeds

__all__ = [
    "CallLog",
    "Candidate",
    "Completion",
    "EndpointConfig",
    "EndpointGenerator",
    "EvaluationSets",
    "Example",
    "Generator",
    "GeneratorError",
    "Instruction",
    "ModelGenerator",
    "Pipeline",
    "PromptBank",
    "Request",
    "Router",
    "Seed",
    "SynthesisConfig",
    "SynthesisResult",
    "TaskGenerator",
    "broken_rule",
    "choose",
    "evolve",
    "final_answer",
    "find_near_duplicates",
    "majority",
    "normalise",
    "read_bank",
    "read_seeds",
    "respond",
    "synthesize",
    "task_seeds",
    "write_instructions",
]
