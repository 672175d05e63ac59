"""Imitation learning with a latent world model in JAX: CDRED and baselines."""

from cdred.api import compare, evaluate, load, train, train_expert
from cdred.config import RunConfig, preset
from cdred.data.demonstrations import load_demos, save_demos
from cdred.errors import UserError
from cdred.train.agent import Agent
from cdred.types import DemoDataset, EnvSpec, Trajectory

__all__ = [
    "Agent",
    "DemoDataset",
    "EnvSpec",
    "RunConfig",
    "Trajectory",
    "UserError",
    "compare",
    "evaluate",
    "load",
    "load_demos",
    "preset",
    "save_demos",
    "train",
    "train_expert",
]
