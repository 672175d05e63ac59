"""Settings of small agents, for tests of what does not depend on the `cpu` preset's additions to the paper."""

from dataclasses import replace

from cdred.algos.pretrain import PretrainConfig
from cdred.config import RunConfig, preset


def small_config() -> RunConfig:
    """Return the settings of the debug preset with the paper's encoder and dynamics, and without pretraining."""
    config = preset("debug")
    model = replace(config.model, encoder_layer_norm=True, min_obs_std=0.1, residual_dynamics=False, num_critics=3)
    return replace(config, pretrain=PretrainConfig(), model=model)
