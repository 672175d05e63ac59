"""Settings of small agents, for tests of what they share with the paper."""

from dataclasses import replace

from cdred.algos.pretrain import PretrainConfig
from cdred.config import RunConfig, preset


def small_config() -> RunConfig:
    """Return the settings of the debug preset without pretraining and residual dynamics.

    Residual dynamics begin with zero output weights, so that their hidden layers learn from the second update on.
    """
    config = preset("debug")
    return replace(config, pretrain=PretrainConfig(), model=replace(config.model, residual_dynamics=False))
