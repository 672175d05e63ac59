"""Losses and statistics that methods share, as pure functions of batches.

N is the number of segments, H their length. Each loss is sum_t rho^t of a mean over segments.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from cdred.models.actor_critic import ActorCritic
from cdred.models.world_model import WorldModel
from cdred.nn.layers import Ensemble, SharedLatent


def rho_weighted(loss: Float[Array, "N T"], rho: float) -> Float[Array, ""]:
    """Compute sum_t rho^t mean_n loss[n, t]."""
    weights = rho ** jnp.arange(loss.shape[1], dtype=jnp.float32)
    return jnp.dot(jnp.mean(loss, axis=0), weights, precision="highest")


def consistency_loss(
    latents: Float[Array, "N H Z"], target_latents: Float[Array, "N H Z"], rho: float
) -> Float[Array, ""]:
    """Compute sum_t rho^t |z_{t+1} - sg h(s_{t+1})|^2, the mean over latent components (arXiv 2310.16828, eq. 3)."""
    return rho_weighted(jnp.mean((latents - jax.lax.stop_gradient(target_latents)) ** 2, axis=-1), rho)


def soft_values(
    model: ActorCritic, critics: Ensemble, z: Float[Array, "N T Z"], beta: float, key: Key[Array, ""]
) -> Float[Array, "N T num"]:
    """Compute V(z) = Q(z, a) - beta log pi(a|z), a ~ pi, of each critic; the action is not differentiated."""

    def value(z, k):
        action, log_prob = model.pi(jax.lax.stop_gradient(z)).sample(k)
        values = model.values(critics, z, action)
        return values - beta * log_prob if beta else values

    return jax.vmap(jax.vmap(value))(z, jax.random.split(key, z.shape[:2]))


def target_values(
    model: ActorCritic, target_critics: Ensemble, latents: Float[Array, "N H Z"], beta: float, key: Key[Array, ""]
) -> Float[Array, "N H"]:
    """Compute min_{2 of 5} Vbar(h(s_{t+1})) without gradient; truncated and terminal states are no exception."""
    pair_key, action_key = jax.random.split(key)
    pair = target_critics.subset(sample_pair(len(target_critics), pair_key))
    return jax.lax.stop_gradient(jnp.min(soft_values(model, pair, latents, beta, action_key), axis=-1))


def termination_loss(
    model: WorldModel,
    latents: Float[Array, "N H Z"],
    action: Float[Array, "N H A"],
    terminated: Bool[Array, "N H"],
    rho: float,
) -> Float[Array, ""]:
    """Compute sum_t rho^t of the termination head's binary cross-entropy at (z_t, a_t); 0 without such a head."""
    if model.termination is None:
        return jnp.zeros(())
    inputs = jax.vmap(jax.vmap(model.state_action))(latents, action)
    logits = jax.vmap(jax.vmap(model.termination))(inputs)[..., 0]
    return rho_weighted(optax.sigmoid_binary_cross_entropy(logits, terminated.astype(jnp.float32)), rho)


@jax.named_scope("critics")
def critic_loss(
    model: ActorCritic,
    latents: Float[Array, "N H Z"],
    action: Float[Array, "N H A"],
    target: Float[Array, "N H"],
    rho: float,
    key: Key[Array, ""] | None,
) -> Float[Array, ""]:
    """Compute sum_t rho^t mean_q CE(Q_q(z_t, a_t), twohot(q_t)), with dropout if a key is given."""
    keys = None if key is None else jax.random.split(key, target.shape)

    two_hot = model.two_hot
    assert two_hot is not None, "TD regression needs distributional critics"

    def cross_entropy(z, a, q, k):
        logits = model.critics(model.state_action(z, a), k)
        return jnp.mean(jax.vmap(two_hot.cross_entropy, in_axes=(0, None))(logits, q))

    per_segment = jax.vmap(cross_entropy, in_axes=(0, 0, 0, None if keys is None else 0))
    loss = jax.vmap(per_segment, in_axes=(0, 0, 0, None if keys is None else 0))(latents, action, target, keys)
    return rho_weighted(loss, rho)


def policy_loss(
    policy: eqx.Module,
    model: ActorCritic,
    latents: Float[Array, "N T Z"],
    q_scale: Float[Array, ""],
    entropy_coef: float,
    rho: float,
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], tuple[Float[Array, "N T"], Float[Array, ""]]]:
    """Compute L_pi = sum_t rho^t E[beta log pi(a|z_t) - min_{2 of 5} Q(z_t, a) / S].

    Only `policy` is differentiated, not latents and critics.

    Returns:
        The loss, and with it the values of the sampled actions and their mean log-density.
    """
    pair_key, action_key = jax.random.split(key)
    pair = model.critics.subset(sample_pair(len(model.critics), pair_key))
    actor = eqx.tree_at(lambda m: m.policy, model, policy)

    def per_latent(z, k):
        action, log_prob = actor.pi(z).sample(k)
        return jnp.min(model.values(pair, SharedLatent(z), action)), log_prob

    value, log_prob = jax.vmap(jax.vmap(per_latent))(latents, jax.random.split(action_key, latents.shape[:2]))
    loss = rho_weighted(entropy_coef * log_prob - value / q_scale, rho)
    return loss, (value, jnp.mean(log_prob))


def bc_loss(
    policy: eqx.Module,
    model: ActorCritic,
    latents: Float[Array, "N H Z"],
    action: Float[Array, "N H A"],
    absorbing: Bool[Array, "N H"],
    rho: float,
) -> Float[Array, ""]:
    """Compute sum_t rho^t |a_t - mode of pi(z_t)|^2 over the expert's segments (arXiv 2106.06860, eq. 3).

    Absorbing states, in which no action was recorded, count as 0.
    """
    actor = eqx.tree_at(lambda m: m.policy, model, policy)
    distance = jax.vmap(jax.vmap(lambda z, a: jnp.sum((actor.pi(z).mode - a) ** 2)))(latents, action)
    return rho_weighted(jnp.where(absorbing, 0.0, distance), rho)


def action_error(
    mode: Float[Array, "N H A"], action: Float[Array, "N H A"], absorbing: Bool[Array, "N H"]
) -> Float[Array, ""]:
    """Compute the mean of |a - mode|^2 over the transitions that do not start in an absorbing state."""
    distance = jnp.sum((mode - action) ** 2, axis=-1)
    count = jnp.sum((~absorbing).astype(jnp.float32))
    return jnp.sum(jnp.where(absorbing, 0.0, distance)) / jnp.maximum(count, 1.0)


def gradient_penalty(
    values: Callable[[Float[Array, "num in"]], Float[Array, " num"]],
    x: Float[Array, "N H in"],
    key: Key[Array, ""],
    num: int = 1,
) -> Float[Array, "N H"]:
    """Compute (|d value / dx| - 1)^2 at random points between the expert's and the agent's x (arXiv 1704.00028).

    Args:
        values: `num` functions, function i evaluated at row i. The gradient of their sum at `num` copies of x gives all
            their gradients in one pass, where `jax.jacrev` would take one pass per function.
        x: inputs, the expert's half first. Both inputs of a pair get the same penalty.
        key: of the interpolation weights.
        num: number of functions; the penalty is their mean.
    """
    expert, agent = jnp.split(jax.lax.stop_gradient(x), 2)
    between = agent + jax.random.uniform(key, (*agent.shape[:2], 1)) * (expert - agent)

    def penalty(x):
        slopes = jax.grad(lambda rows: jnp.sum(values(rows)))(jnp.tile(x, (num, 1)))
        return jnp.mean((jnp.sqrt(jnp.sum(slopes**2, axis=-1) + 1e-12) - 1.0) ** 2)

    return jnp.tile(jax.vmap(jax.vmap(penalty))(between), (2, 1))


def sample_pair(num: int, key: Key[Array, ""]) -> Array:
    """Sample two different indices below `num`."""
    return jax.random.choice(key, num, (2,), replace=False)


def percentile_range(values: Float[Array, "N T"]) -> Float[Array, ""]:
    """Compute the range from the 5th to the 95th percentile, at least 1; the Q-scale S is its EMA."""
    low, high = jnp.percentile(values, jnp.array([5.0, 95.0]))
    return jnp.maximum(high - low, 1.0)


def bootstrap_value(model: ActorCritic, z: Float[Array, " Z"]) -> Float[Array, ""]:
    """Compute mean_q Q(z, pi(z)) at the policy's mode."""
    return jnp.mean(values_at_mode(model, z))


def values_at_mode(model: ActorCritic, z: Float[Array, " Z"]) -> Float[Array, " critics"]:
    """Compute Q(z, pi(z)) of each critic at the policy's mode."""
    return model.values(model.critics, z, model.pi(z).mode)
