"""From settings to a method."""

from dataclasses import asdict
from functools import partial
from math import prod

import jax.numpy as jnp
import optax

from cdred.algos.base import Algorithm
from cdred.algos.bc import BC
from cdred.algos.cdred import CDRED, coupled_scores
from cdred.algos.gail import GAIL, adversarial_scores
from cdred.algos.iqlearn_sac import IQLearnSAC
from cdred.algos.iqmpc import IQMPC
from cdred.algos.red import RED, support_scores
from cdred.algos.reward_sac import RewardSAC
from cdred.algos.sac_agent import SACAgent
from cdred.algos.tdmpc2 import TDMPC2
from cdred.algos.world_model_agent import Trainable, WorldModelAgent
from cdred.config import ON_OBSERVATIONS, OptimConfig, RunConfig, discount, total_updates
from cdred.models.actor_critic import ObsActorCritic
from cdred.models.rewards.coupled_rnd import CoupledRND
from cdred.models.rewards.discriminator import Discriminator
from cdred.models.rewards.supervised import RewardHead
from cdred.models.rewards.support import REDReward
from cdred.models.world_model import WorldModel
from cdred.nn.two_hot import TwoHot
from cdred.planning.mppi import MPPI
from cdred.types import EnvSpec

# TD-MPC2 plans a third longer where actions are many (arXiv 2310.16828, appendix).
MANY_ACTIONS, EXTRA_ITERATIONS = 20, 2


def make_algorithm(config: RunConfig, spec: EnvSpec) -> Algorithm:
    """The method that `config` asks for, sized for the task."""
    step_size = annealed(config.optim.learning_rate, config.optim.lr_decay_fraction, total_updates(config))
    if config.algo == "bc":
        optimiser = optax.chain(optax.clip_by_global_norm(config.optim.grad_clip_norm), optax.adam(step_size))
        return BC(partial(_world_model, config, spec, None), optimiser, config.mppi.horizon, spec.action_dim)
    if config.algo in ON_OBSERVATIONS:
        return _sac_agent(config, spec, step_size)
    return _world_model_agent(config, spec, step_size)


def _world_model_agent(config: RunConfig, spec: EnvSpec, step_size: optax.Schedule) -> WorldModelAgent:
    optim, input_dim = config.optim, config.model.latent_dim + spec.action_dim
    two_hot = None if config.algo == "iqmpc" else TwoHot(config.model.num_bins)
    settings = {
        "make_model": partial(_world_model, config, spec, two_hot),
        "planner": _mppi(config, spec.action_dim),
        "model_optimiser": _model_optimiser(optim, step_size),
        "policy_optimiser": _policy_optimiser(optim, step_size),
        "plan_actions": config.planner == "mppi",
        # Without demonstrations nothing says that the prior is better than a plan.
        "policy_penalty_coef": 0.0 if config.algo == "tdmpc2" else config.mppi.policy_penalty_coef,
        "action_dim": spec.action_dim,
        "discount": discount(spec.episode_length, optim.discount_min),
        "rho": optim.rho,
        "consistency_coef": optim.consistency_coef,
        "value_coef": optim.value_coef,
        "reward_coef": optim.reward_coef,
        "termination_coef": optim.termination_coef,
        "entropy_coef": optim.entropy_coef,
        "bc_coef": imitation_weight(optim),
        "bc_encoder_coef": optim.bc_encoder_coef,
        "tau": optim.tau,
    }
    if config.algo == "iqmpc":
        # Its critics have no reward to wait for.
        return IQMPC(**settings, make_reward=None, warmup_updates=0, **asdict(config.iqmpc))
    if config.algo == "tdmpc2":
        make_reward = partial(_supervised, config, input_dim)
        return TDMPC2(**settings, make_reward=make_reward, warmup_updates=0)
    settings["warmup_updates"] = config.reward.warmup_updates
    if config.algo == "gail":
        return GAIL(**settings, make_reward=partial(_discriminator, config, input_dim), **asdict(config.gail))
    if config.algo == "red":
        return RED(**settings, make_reward=partial(_expert_support, config, input_dim))
    return CDRED(**settings, make_reward=partial(_coupled_rnd, config, input_dim))


def _sac_agent(config: RunConfig, spec: EnvSpec, step_size: optax.Schedule) -> SACAgent:
    optim, input_dim = config.optim, prod(spec.obs_shape) + spec.can_terminate + spec.action_dim
    clip = optax.clip_by_global_norm(optim.grad_clip_norm)
    two_hot = None if config.algo == "iqlearn-sac" else TwoHot(config.model.num_bins)
    settings = {
        "make_model": partial(_obs_actor_critic, config, spec, two_hot),
        "judges_optimiser": optax.chain(clip, optax.adam(step_size)),
        "policy_optimiser": _policy_optimiser(optim, step_size),
        "horizon": config.mppi.horizon,
        "action_dim": spec.action_dim,
        "discount": discount(spec.episode_length, optim.discount_min),
        "temperature": config.sac.temperature,
        "bc_coef": imitation_weight(optim),
        "tau": optim.tau,
    }
    if config.algo == "iqlearn-sac":
        return IQLearnSAC(**settings, make_reward=None, warmup_updates=0, **asdict(config.iqmpc))
    make_reward, score = {
        "gail-sac": (_discriminator, partial(adversarial_scores, penalty=config.gail.gradient_penalty)),
        "red-sac": (_expert_support, support_scores),
        "cdred-sac": (_coupled_rnd, coupled_scores),
    }[config.algo]
    settings |= {"make_reward": partial(make_reward, config, input_dim), "score": score}
    return RewardSAC(**settings, warmup_updates=config.reward.warmup_updates)


def _obs_actor_critic(config: RunConfig, spec: EnvSpec, two_hot: TwoHot | None, *, key) -> ObsActorCritic:
    model = config.model
    return ObsActorCritic.create(
        prod(spec.obs_shape),
        spec.action_dim,
        hidden_dims=model.hidden_dims,
        num_critics=model.num_critics,
        two_hot=two_hot,
        can_terminate=spec.can_terminate,
        normalize_obs=model.normalize_obs,
        precision=config.precision.model,
        key=key,
    )


def _world_model(config: RunConfig, spec: EnvSpec, two_hot: TwoHot | None, *, key) -> WorldModel:
    model = config.model
    return WorldModel.create(
        prod(spec.obs_shape),
        spec.action_dim,
        latent_dim=model.latent_dim,
        simnorm_dim=model.simnorm_dim,
        encoder_hidden_dims=model.encoder_hidden_dims,
        hidden_dims=model.hidden_dims,
        num_critics=model.num_critics,
        dropout=model.dropout,
        two_hot=two_hot,
        can_terminate=spec.can_terminate,
        normalize_obs=model.normalize_obs,
        precision=config.precision.model,
        key=key,
    )


def _supervised(config: RunConfig, input_dim: int, *, key) -> RewardHead:
    return RewardHead.create(
        input_dim,
        hidden_dims=config.model.hidden_dims,
        two_hot=TwoHot(config.model.num_bins),
        precision=config.precision.reward,
        key=key,
    )


def _discriminator(config: RunConfig, input_dim: int, *, key) -> Discriminator:
    return Discriminator.create(
        input_dim, hidden_dims=config.reward.predictor_hidden_dims, precision=config.precision.reward, key=key
    )


def _expert_support(config: RunConfig, input_dim: int, *, key) -> REDReward:
    nets = config.reward
    return REDReward.create(
        input_dim,
        target_hidden_dims=nets.target_hidden_dims,
        predictor_hidden_dims=nets.predictor_hidden_dims,
        embedding_dim=nets.embedding_dim,
        sigma=config.red.sigma,
        precision=config.precision.reward,
        key=key,
    )


def _coupled_rnd(config: RunConfig, input_dim: int, *, key) -> CoupledRND:
    reward = config.reward
    return CoupledRND.create(
        input_dim,
        num_targets=reward.num_targets,
        target_hidden_dims=reward.target_hidden_dims,
        predictor_hidden_dims=reward.predictor_hidden_dims,
        embedding_dim=reward.embedding_dim,
        zeta=reward.zeta,
        alpha=reward.alpha,
        sigma=reward.sigma,
        coupling=reward.coupling,
        distance_reduction=reward.distance_reduction,
        count_reduction=reward.count_reduction,
        variance_eps=reward.variance_eps,
        ema_rate=reward.ema_rate,
        precision=config.precision.reward,
        key=key,
    )


def _mppi(config: RunConfig, action_dim: int) -> MPPI:
    mppi = config.mppi
    return MPPI(
        horizon=mppi.horizon,
        num_samples=mppi.num_samples,
        num_pi_trajs=mppi.num_pi_trajs,
        num_elites=mppi.num_elites,
        iterations=mppi.iterations + (EXTRA_ITERATIONS if action_dim >= MANY_ACTIONS else 0),
        temperature=mppi.temperature,
        min_std=mppi.min_std,
        max_std=mppi.max_std,
        explore_min_std=mppi.explore_min_std,
    )


def annealed(step_size: float, fraction: float, updates: int) -> optax.Schedule:
    """`step_size`, falling linearly to zero over the last `fraction` of `updates`."""
    last = round(fraction * updates)
    if not last:
        return optax.constant_schedule(step_size)
    return optax.linear_schedule(step_size, 0.0, last, transition_begin=updates - last)


def imitation_weight(optim: OptimConfig) -> optax.Schedule | None:
    """The imitation term's weight, which may end after some updates; None without the term."""
    if not optim.bc_coef:
        return None
    if not optim.imitation_updates:
        return optax.constant_schedule(optim.bc_coef)
    return lambda updates: jnp.where(jnp.asarray(updates) < optim.imitation_updates, optim.bc_coef, 0.0)


def _model_optimiser(optim: OptimConfig, step_size: optax.Schedule) -> optax.GradientTransformation:
    """Adam under a clipped gradient, the encoder at a fraction of the step size."""
    encoder_only = Trainable(encoder=True, dynamics=False, critics=False, termination=False, reward=False)
    return optax.chain(
        optax.clip_by_global_norm(optim.grad_clip_norm),
        optax.adam(step_size),
        optax.masked(optax.scale(optim.encoder_lr_scale), encoder_only),
    )


def _policy_optimiser(optim: OptimConfig, step_size: optax.Schedule) -> optax.GradientTransformation:
    """Adam under a clipped gradient; its eps keeps the prior's tiny gradients from becoming full steps."""
    return optax.chain(
        optax.clip_by_global_norm(optim.grad_clip_norm), optax.adam(step_size, eps=optim.policy_adam_eps)
    )
