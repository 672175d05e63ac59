"""Losses and statistics that every world-model method shares (docs/method.md section 3), as pure functions of batches.

N is the number of segments, H their length. Each loss is sum_t lambda^t of a mean over segments.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from cdred.models.actor_critic import ActorCritic
from cdred.models.world_model import WorldModel
from cdred.nn.layers import Ensemble, Fixed


def discounted_over_time(loss: Float[Array, "N T"], rate: float) -> Float[Array, ""]:
    """sum_t rate^t mean_n loss[n, t]."""
    weights = rate ** jnp.arange(loss.shape[1], dtype=jnp.float32)
    return jnp.dot(jnp.mean(loss, axis=0), weights, precision="highest")


def consistency_loss(latents: Float[Array, "N H Z"], encoded: Float[Array, "N H Z"], rate: float) -> Float[Array, ""]:
    """sum_t lambda^t |z_{t+1} - sg h(s_{t+1})|^2, the mean over latent components (arXiv 2310.16828, eq. 3)."""
    return discounted_over_time(jnp.mean((latents - jax.lax.stop_gradient(encoded)) ** 2, axis=-1), rate)


def soft_values(
    model: ActorCritic, critics: Ensemble, z: Float[Array, "N T Z"], beta: float, key: Key[Array, ""]
) -> Float[Array, "N T num"]:
    """V(z) = Q(z, a) - beta log pi(a|z), a ~ pi, of each critic; the action is not differentiated."""

    def one(z, k):
        action, log_prob = model.pi(jax.lax.stop_gradient(z)).sample(k)
        values = model.values(critics, z, action)
        return values - beta * log_prob if beta else values

    return jax.vmap(jax.vmap(one))(z, jax.random.split(key, z.shape[:2]))


def next_values(
    model: ActorCritic, target_critics: Ensemble, encoded: Float[Array, "N H Z"], beta: float, key: Key[Array, ""]
) -> Float[Array, "N H"]:
    """min_{2 of 5} Vbar(h(s_{t+1})), without gradient: beyond a truncation, and beyond an end, as anywhere."""
    pair_key, action_key = jax.random.split(key)
    pair = target_critics.subset(two_of(len(target_critics), pair_key))
    return jax.lax.stop_gradient(jnp.min(soft_values(model, pair, encoded, beta, action_key), axis=-1))


def termination_loss(
    model: WorldModel,
    latents: Float[Array, "N H Z"],
    action: Float[Array, "N H A"],
    over: Bool[Array, "N H"],
    rate: float,
) -> Float[Array, ""]:
    """sum_t lambda^t of the binary cross-entropy of "(z_t, a_t) ends the world"; 0 where it cannot end."""
    if model.termination is None:
        return jnp.zeros(())
    logits = jax.vmap(jax.vmap(model.termination))(jnp.concatenate([latents, action], axis=-1))[..., 0]
    return discounted_over_time(optax.sigmoid_binary_cross_entropy(logits, over.astype(jnp.float32)), rate)


@jax.named_scope("critics")
def critic_loss(
    model: ActorCritic,
    latents: Float[Array, "N H Z"],
    action: Float[Array, "N H A"],
    target: Float[Array, "N H"],
    rate: float,
    key: Key[Array, ""] | None,
) -> Float[Array, ""]:
    """sum_t lambda^t mean_q CE(Q_q(z_t, a_t), twohot(q_t)), with dropout if a key is given."""
    keys = None if key is None else jax.random.split(key, target.shape)

    two_hot = model.two_hot
    assert two_hot is not None, "critics that regress say distributions"

    def cross_entropy(z, a, q, k):
        logits = model.critics(jnp.concatenate([z, a]), k)
        return jnp.mean(jax.vmap(two_hot.cross_entropy, in_axes=(0, None))(logits, q))

    over_time = jax.vmap(cross_entropy, in_axes=(0, 0, 0, None if keys is None else 0))
    loss = jax.vmap(over_time, in_axes=(0, 0, 0, None if keys is None else 0))(latents, action, target, keys)
    return discounted_over_time(loss, rate)


def policy_loss(
    policy: eqx.Module,
    model: ActorCritic,
    latents: Float[Array, "N T Z"],
    q_scale: Float[Array, ""],
    entropy_coef: float,
    rate: float,
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], tuple[Float[Array, "N T"], Float[Array, ""]]]:
    """L_pi = sum_t lambda^t E[beta log pi(a|z_t) - min_{2 of 5} Q(z_t, a) / S]; also the values and mean log-density.

    Only `policy` is differentiated: latents and critics are the model's.
    """
    pair_key, action_key = jax.random.split(key)
    pair = model.critics.subset(two_of(len(model.critics), pair_key))
    actor = eqx.tree_at(lambda m: m.policy, model, policy)

    def per_latent(z, k):
        action, log_prob = actor.pi(z).sample(k)
        return jnp.min(model.values(pair, Fixed(z), action)), log_prob

    value, log_prob = jax.vmap(jax.vmap(per_latent))(latents, jax.random.split(action_key, latents.shape[:2]))
    loss = discounted_over_time(entropy_coef * log_prob - value / q_scale, rate)
    return loss, (value, jnp.mean(log_prob))


def bc_loss(
    policy: eqx.Module,
    model: ActorCritic,
    latents: Float[Array, "N H Z"],
    action: Float[Array, "N H A"],
    over: Bool[Array, "N H"],
    rate: float,
) -> Float[Array, ""]:
    """sum_t lambda^t |a_t - mode of pi(z_t)|^2 over the expert's segments (arXiv 2106.06860, eq. 3).

    Where the world has ended there is nothing to imitate.
    """
    actor = eqx.tree_at(lambda m: m.policy, model, policy)
    distance = jax.vmap(jax.vmap(lambda z, a: jnp.sum((actor.pi(z).mode - a) ** 2)))(latents, action)
    return discounted_over_time(jnp.where(over, 0.0, distance), rate)


def gradient_penalty(
    values: Callable[[Float[Array, "num in"]], Float[Array, " num"]],
    x: Float[Array, "N H in"],
    key: Key[Array, ""],
    num: int = 1,
) -> Float[Array, "N H"]:
    """(|d value / dx| - 1)^2 at random points between the expert's x and own ones (arXiv 1704.00028).

    Args:
        values: what each of `num` functions makes of a row of its own. Their slopes at one x are then one gradient:
            `jax.jacrev` of all at one row would go back through each of them for each of them.
        x: of both stores, the expert's half first. Each of a pair is charged the same.
        key: where between them.
        num: how many functions; their penalties' mean is charged.
    """
    expert, own = jnp.split(jax.lax.stop_gradient(x), 2)
    between = own + jax.random.uniform(key, (*own.shape[:2], 1)) * (expert - own)

    def penalty(x):
        slopes = jax.grad(lambda rows: jnp.sum(values(rows)))(jnp.tile(x, (num, 1)))
        return jnp.mean((jnp.sqrt(jnp.sum(slopes**2, axis=-1) + 1e-12) - 1.0) ** 2)

    return jnp.tile(jax.vmap(jax.vmap(penalty))(between), (2, 1))


def two_of(num: int, key: Key[Array, ""]) -> Array:
    """Two different indices below `num`, uniformly."""
    return jax.random.choice(key, num, (2,), replace=False)


def q_range(values: Float[Array, "N T"]) -> Float[Array, ""]:
    """Distance of the 5th and 95th percentile, at least 1: what S averages over time."""
    low, high = jnp.percentile(values, jnp.array([5.0, 95.0]))
    return jnp.maximum(high - low, 1.0)
