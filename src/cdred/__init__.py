"""Imitation learning with a latent world model in JAX: CDRED and baselines.

A public name is imported when it is first used: `import cdred` and commands that do not train wait for no JAX.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdred.algos.cdred import CDREDConfig
    from cdred.algos.gail import GAILConfig
    from cdred.algos.iq_learn import IQLearnConfig
    from cdred.algos.optim import OptimConfig
    from cdred.algos.pretrain import PretrainConfig
    from cdred.algos.red import REDConfig
    from cdred.algos.sac_agent import SACConfig
    from cdred.api import compare, evaluate, load, train
    from cdred.config import PrecisionConfig, RunConfig, preset
    from cdred.data.demonstrations import load_demos, save_demos
    from cdred.errors import DivergenceError, Interrupted, Stopped, UserError
    from cdred.experts import train_expert
    from cdred.export.run import export
    from cdred.hub.pull import pull
    from cdred.hub.push import push
    from cdred.loggers.trackers import TrackedRun, Tracker
    from cdred.models.world_model import ModelConfig
    from cdred.planning.mppi import MPPIConfig
    from cdred.train.agent import Agent
    from cdred.train.callbacks import EvaluationRecord
    from cdred.types import DemoDataset, EnvSpec, ImageObs, Trajectory

__all__ = [
    "Agent",
    "CDREDConfig",
    "DemoDataset",
    "DivergenceError",
    "EnvSpec",
    "EvaluationRecord",
    "GAILConfig",
    "IQLearnConfig",
    "ImageObs",
    "Interrupted",
    "MPPIConfig",
    "ModelConfig",
    "OptimConfig",
    "PrecisionConfig",
    "PretrainConfig",
    "REDConfig",
    "RunConfig",
    "SACConfig",
    "Stopped",
    "TrackedRun",
    "Tracker",
    "Trajectory",
    "UserError",
    "compare",
    "evaluate",
    "export",
    "load",
    "load_demos",
    "preset",
    "pull",
    "push",
    "save_demos",
    "train",
    "train_expert",
]

# Public names by the module that defines them.
_DEFINED_IN = {
    "algos.cdred": ("CDREDConfig",),
    "algos.gail": ("GAILConfig",),
    "algos.iq_learn": ("IQLearnConfig",),
    "algos.optim": ("OptimConfig",),
    "algos.pretrain": ("PretrainConfig",),
    "algos.red": ("REDConfig",),
    "algos.sac_agent": ("SACConfig",),
    "api": ("compare", "evaluate", "load", "train"),
    "experts": ("train_expert",),
    "config": ("PrecisionConfig", "RunConfig", "preset"),
    "data.demonstrations": ("load_demos", "save_demos"),
    "errors": ("DivergenceError", "Interrupted", "Stopped", "UserError"),
    "export.run": ("export",),
    "hub.pull": ("pull",),
    "hub.push": ("push",),
    "loggers.trackers": ("TrackedRun", "Tracker"),
    "models.world_model": ("ModelConfig",),
    "planning.mppi": ("MPPIConfig",),
    "train.agent": ("Agent",),
    "train.callbacks": ("EvaluationRecord",),
    "types": ("DemoDataset", "EnvSpec", "ImageObs", "Trajectory"),
}
_MODULE_OF = {name: f"cdred.{module}" for module, names in _DEFINED_IN.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'cdred' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This module, in which `train` stays the function after an import from the package `cdred.train`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
