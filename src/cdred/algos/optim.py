"""Optimisers, loss weights and schedules."""

from dataclasses import dataclass

import optax

from cdred.constraints import Fraction, NonNegative, NonNegativeInt, Positive, PositiveFraction, PositiveInt


@dataclass(frozen=True)
class OptimConfig:
    """Losses and optimisers."""

    batch_size: PositiveInt = 256
    """Segments per update from each replay buffer (expert, agent)."""
    learning_rate: NonNegative = 3e-4
    """Adam's learning rate."""
    lr_decay_fraction: Fraction = 0.0
    """Last fraction of the run over which the learning rate falls linearly to zero."""
    encoder_lr_scale: NonNegative = 0.3
    """Encoder's learning rate relative to the others'."""
    grad_clip_norm: Positive = 20.0
    """Maximum global gradient norm, of the model's loss and of the policy's."""
    consistency_coef: NonNegative = 20.0
    """Weight of the latent dynamics' consistency loss."""
    value_coef: NonNegative = 0.1
    """Weight of the critics' loss."""
    reward_coef: NonNegative = 0.1
    """Weight of the reward model's loss."""
    termination_coef: NonNegative = 1.0
    """Weight of the termination head's loss in episodic tasks."""
    policy_adam_eps: Positive = 1e-5
    """Adam's eps for the policy; it keeps tiny gradients from becoming full steps."""
    entropy_coef: NonNegative = 1e-4
    """Entropy coefficient beta of the policy."""
    bc_coef: NonNegative = 0.0
    """Weight of the policy's squared distance from the expert's actions (BC regularisation)."""
    bc_encoder_coef: NonNegative = 0.0
    """Weight of the same distance in the model's loss, so that it shapes the latent space too."""
    discount_min: Fraction = 0.95
    """Lower bound of the discount gamma, which is 1 - 5 / T for episodes of T steps, at most 0.995."""
    rho: NonNegative = 0.5
    """Weight of a loss one transition further into a segment."""
    tau: PositiveFraction = 0.01
    """EMA rate of the target critics and of the Q-scale."""
    reward_warmup_updates: NonNegativeInt = 500
    """Updates of the reward model before critics and policy learn from it: its first rewards are far too large for
    critics to forget. Methods without a learned imitation reward (iqmpc, iqlearn-sac, tdmpc2, bc) have no warm-up."""


def discount(episode_length: int, discount_min: float) -> float:
    """Compute gamma = clip((T/5 - 1)/(T/5), discount_min, 0.995) for episodes of T steps (arXiv 2310.16828)."""
    fifth = episode_length / 5
    return min(max((fifth - 1) / fifth, discount_min), 0.995)


def lr_schedule(config: OptimConfig, updates: int) -> optax.Schedule:
    """Return a constant learning rate that falls linearly to zero over the last `lr_decay_fraction` of `updates`."""
    decay_steps = round(config.lr_decay_fraction * updates)
    if not decay_steps:
        return optax.constant_schedule(config.learning_rate)
    return optax.linear_schedule(config.learning_rate, 0.0, decay_steps, transition_begin=updates - decay_steps)


def clipped_adam(config: OptimConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Return Adam with a clipped global gradient norm."""
    return optax.chain(optax.clip_by_global_norm(config.grad_clip_norm), optax.adam(learning_rate))


def policy_optimizer(config: OptimConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Return the policy's optimiser: Adam with a clipped global gradient norm and `policy_adam_eps`."""
    adam = optax.adam(learning_rate, eps=config.policy_adam_eps)
    return optax.chain(optax.clip_by_global_norm(config.grad_clip_norm), adam)
