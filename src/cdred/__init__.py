"""Imitation learning with a latent world model in JAX: CDRED and baselines."""

from cdred.algos.cdred import CDREDConfig
from cdred.algos.gail import GAILConfig
from cdred.algos.iq_learn import IQLearnConfig
from cdred.algos.optim import OptimConfig
from cdred.algos.pretrain import PretrainConfig
from cdred.algos.red import REDConfig
from cdred.algos.sac_agent import SACConfig
from cdred.api import compare, evaluate, load, train, train_expert
from cdred.config import PrecisionConfig, RunConfig, preset
from cdred.data.demonstrations import load_demos, save_demos
from cdred.errors import DivergenceError, Interrupted, UserError
from cdred.models.world_model import ModelConfig
from cdred.planning.mppi import MPPIConfig
from cdred.train.agent import Agent
from cdred.types import DemoDataset, EnvSpec, Trajectory

__all__ = [
    "Agent",
    "CDREDConfig",
    "DemoDataset",
    "DivergenceError",
    "EnvSpec",
    "GAILConfig",
    "IQLearnConfig",
    "Interrupted",
    "MPPIConfig",
    "ModelConfig",
    "OptimConfig",
    "PrecisionConfig",
    "PretrainConfig",
    "REDConfig",
    "RunConfig",
    "SACConfig",
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
