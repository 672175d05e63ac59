"""Construction of an algorithm from a run's settings."""

from dataclasses import replace
from functools import partial
from math import prod

import optax

from cdred.algos.base import Algorithm
from cdred.algos.bc import BC
from cdred.algos.cdred import CDRED
from cdred.algos.gail import GAIL
from cdred.algos.iq_learn import IQLearn
from cdred.algos.method import Method
from cdred.algos.optim import OptimConfig, clipped_adam, discount, lr_schedule, policy_optimizer
from cdred.algos.pretrain import Pretraining
from cdred.algos.red import RED
from cdred.algos.sac_agent import SACAgent
from cdred.algos.tdmpc2 import TDMPC2
from cdred.algos.world_model_agent import ModelParams, WorldModelAgent
from cdred.config import MODEL_FREE, RunConfig, total_updates
from cdred.errors import UserError
from cdred.models.actor_critic import ObsActorCritic
from cdred.models.world_model import WorldModel
from cdred.nn.two_hot import TwoHot
from cdred.planning.mppi import MPPI, MPPIConfig
from cdred.types import EnvSpec

# TD-MPC2 plans a third longer in large action spaces (arXiv 2310.16828, appendix).
LARGE_ACTION_DIM, EXTRA_ITERATIONS = 20, 2


def make_algorithm(config: RunConfig, spec: EnvSpec) -> Algorithm:
    """Make the algorithm `config.algo` for a task.

    Raises:
        UserError: the task has images, and the algorithm has no encoder of them.
    """
    learning_rate = lr_schedule(config.optim, total_updates(config))
    if config.algo == "bc":
        return BC(
            make_model=partial(_world_model, config, spec, None),
            optimizer=clipped_adam(config.optim, learning_rate),
            horizon=config.mppi.horizon,
            action_dim=spec.action_dim,
        )
    if config.algo in MODEL_FREE and spec.image_size is not None:
        raise UserError(f"--algo {config.algo} has no encoder of images, which {spec.task} has: use --algo cdred.")
    agent = _sac_agent if config.algo in MODEL_FREE else _world_model_agent
    return agent(config, spec, make_method(config), learning_rate)


def make_method(config: RunConfig) -> Method:
    """Make the method of `config.algo`."""
    precision = config.precision.reward
    match config.algo.removesuffix("-sac"):
        case "cdred":
            return CDRED(config.cdred, precision)
        case "gail":
            return GAIL(config.gail, precision)
        case "red":
            return RED(config.red, precision)
        case "tdmpc2":
            return TDMPC2(config.model.hidden_dims, TwoHot(config.model.num_bins), precision)
        case "iqmpc" | "iqlearn":
            return IQLearn(config.iq)
        case _:
            raise ValueError(f"no method of {config.algo}")


def _world_model_agent(
    config: RunConfig, spec: EnvSpec, method: Method, learning_rate: optax.Schedule
) -> WorldModelAgent:
    return WorldModelAgent(
        method=method,
        config=config.optim,
        planner=MPPI(_planner_config(config.mppi, spec.action_dim)),
        make_model=partial(_world_model, config, spec, _two_hot(config, method)),
        plan_actions=config.planner == "mppi",
        collect_by_policy=config.collect_with == "policy",
        action_dim=spec.action_dim,
        discount=discount(spec.episode_length, config.optim.discount_min),
        model_optimizer=_model_optimizer(config.optim, learning_rate),
        policy_optimizer=policy_optimizer(config.optim, learning_rate),
        pretraining=_pretraining(config, method),
    )


def _sac_agent(config: RunConfig, spec: EnvSpec, method: Method, learning_rate: optax.Schedule) -> SACAgent:
    return SACAgent(
        method=method,
        config=config.optim,
        entropy_coef=config.sac.entropy_coef,
        make_model=partial(_obs_actor_critic, config, spec, _two_hot(config, method)),
        horizon=config.mppi.horizon,
        action_dim=spec.action_dim,
        discount=discount(spec.episode_length, config.optim.discount_min),
        critic_optimizer=clipped_adam(config.optim, learning_rate),
        policy_optimizer=policy_optimizer(config.optim, learning_rate),
        pretraining=_pretraining(config, method),
    )


def _pretraining(config: RunConfig, method: Method) -> Pretraining | None:
    """Make the pretraining, its learning rate falling linearly to zero; None without demonstrations or updates."""
    if not method.uses_demos or not config.pretrain.updates:
        return None
    learning_rate = optax.linear_schedule(config.optim.learning_rate, 0.0, config.pretrain.updates)
    return Pretraining(config.pretrain, clipped_adam(config.optim, learning_rate), config.optim.rho)


def _two_hot(config: RunConfig, method: Method) -> TwoHot | None:
    return None if method.scalar_critics else TwoHot(config.model.num_bins)


def _obs_actor_critic(config: RunConfig, spec: EnvSpec, two_hot: TwoHot | None, *, key) -> ObsActorCritic:
    return ObsActorCritic.create(
        prod(spec.obs_shape),
        spec.action_dim,
        hidden_dims=config.model.hidden_dims,
        num_critics=config.model.num_critics,
        two_hot=two_hot,
        can_terminate=spec.can_terminate,
        min_obs_std=config.model.min_obs_std if config.model.normalize_obs else None,
        policy_layer_norm=config.model.encoder_layer_norm,
        precision=config.precision.model,
        key=key,
    )


def _world_model(config: RunConfig, spec: EnvSpec, two_hot: TwoHot | None, *, key) -> WorldModel:
    return WorldModel.create(
        prod(spec.obs_shape),
        spec.action_dim,
        config.model,
        two_hot=two_hot,
        image_size=spec.image_size,
        can_terminate=spec.can_terminate,
        precision=config.precision.model,
        key=key,
    )


def _planner_config(config: MPPIConfig, action_dim: int) -> MPPIConfig:
    extra = EXTRA_ITERATIONS if action_dim >= LARGE_ACTION_DIM else 0
    return replace(config, iterations=config.iterations + extra)


def _model_optimizer(config: OptimConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Return Adam with a clipped gradient norm, the encoder's steps scaled by `encoder_lr_scale`."""
    encoder_only = ModelParams(encoder=True, dynamics=False, critics=False, termination=False, reward=False)
    return optax.chain(
        clipped_adam(config, learning_rate), optax.masked(optax.scale(config.encoder_lr_scale), encoder_only)
    )
