"""Layers written for one example; batches, ensembles and seeds are `jax.vmap` over them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Self, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cdred.nn.precision import dot
from cdred.types import Precision

Tree = TypeVar("Tree")

LAYER_NORM_EPS = 1e-5


@jax.custom_jvp
def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x tanh(softplus(x)) (arXiv 1908.08681), with one exponential instead of three transcendental functions.

    With e = exp(x), tanh(log(1 + e)) = n / (n + 2) for n = e (e + 2).
    """
    return x * _tanh_softplus(x)[0]


def _tanh_softplus(x: Array) -> tuple[Array, Array]:
    # Beyond 20 the quotient is 1 to the last float32 bit, and exp(2 x) is kept from overflowing.
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return n / (n + 2.0), e


@mish.defjvp
def _mish_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    t, e = _tanh_softplus(x)
    sigmoid = e / (1.0 + e)
    return x * t, (t + x * (1.0 - t * t) * sigmoid) * dx


def simnorm(x: Float[Array, " dim"], group: int) -> Float[Array, " dim"]:
    """Simplicial normalisation (arXiv 2204.00616): a softmax within each group of `group` components."""
    return jax.nn.softmax(x.reshape(-1, group), axis=-1).reshape(-1)


class SharedLatent(eqx.Module):
    """Latent z that a batch of actions shares: networks of (z, a) multiply z and a by their own rows of the weights.

    Under a `vmap` over actions, z is then multiplied once instead of once per action; where only the action is
    differentiated, no gradient of z is computed.
    """

    z: Float[Array, " Z"]


class SplitInput(eqx.Module):
    """Input x = (z, y) kept in two parts, of a `SharedLatent` and an action or a next latent."""

    z: Float[Array, " Z"]
    y: Float[Array, " Y"]


def concat_input(z: Float[Array, " Z"] | SharedLatent, y: Float[Array, " Y"]) -> Float[Array, " in"] | SplitInput:
    """Return x = (z, y), the input of critics, dynamics and reward models; y is an action or a next latent."""
    return SplitInput(z.z, y) if isinstance(z, SharedLatent) else jnp.concatenate([z, y])


class Linear(eqx.Module):
    """Affine layer x W + b, with LeCun-normal weights (variance 1 / in) or, if `zero`, zero weights.

    Orthogonal initialisation would need LAPACK's QR inside the compiled program, which dead-locks XLA's two-thread CPU
    pool when several run at once (jaxlib 0.10.2).
    """

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"]
    precision: Precision = eqx.field(static=True)

    def __init__(
        self, in_dim: int, out_dim: int, *, key: Key[Array, ""], zero: bool = False, precision: Precision = "float32"
    ):
        init = jax.nn.initializers.zeros if zero else jax.nn.initializers.lecun_normal()
        self.weight = init(key, (in_dim, out_dim), jnp.float32)
        self.bias = jnp.zeros(out_dim)
        self.precision = precision

    def __call__(self, x: Float[Array, " in"] | SplitInput) -> Float[Array, " out"]:
        if isinstance(x, SplitInput):
            of_z, of_y = jnp.split(self.weight, [x.z.size])
            return dot(x.z, of_z, self.precision) + dot(x.y, of_y, self.precision) + self.bias
        return dot(x, self.weight, self.precision) + self.bias


class LayerNorm(eqx.Module):
    """Layer normalisation (arXiv 1607.06450) with scale and shift."""

    scale: Float[Array, " dim"]
    shift: Float[Array, " dim"]

    def __init__(self, dim: int):
        self.scale = jnp.ones(dim)
        self.shift = jnp.zeros(dim)

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        centred = x - jnp.mean(x)
        return centred * jax.lax.rsqrt(jnp.mean(centred * centred) + LAYER_NORM_EPS) * self.scale + self.shift


class NormedLinear(eqx.Module):
    """Hidden layer of every network: Linear -> dropout -> LayerNorm, if `layer_norm` -> activation."""

    linear: Linear
    norm: LayerNorm | None
    dropout: float = eqx.field(static=True)
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        key: Key[Array, ""],
        dropout: float = 0.0,
        activation: Callable[[Array], Array] = mish,
        layer_norm: bool = True,
        precision: Precision = "float32",
    ):
        self.linear = Linear(in_dim, out_dim, key=key, precision=precision)
        self.norm = LayerNorm(out_dim) if layer_norm else None
        self.dropout = dropout
        self.activation = activation

    def __call__(self, x: Float[Array, " in"] | SplitInput, key: Key[Array, ""] | None = None) -> Float[Array, " out"]:
        y = self.linear(x)
        if self.dropout and key is not None:
            keep = jax.random.bernoulli(key, 1.0 - self.dropout, y.shape)
            y = jnp.where(keep, y / (1.0 - self.dropout), 0.0)
        return self.activation(y if self.norm is None else self.norm(y))


class MLP(eqx.Module):
    """Hidden layers of `NormedLinear`, then a head that is linear, or SimNorm of such a layer.

    Dropout acts on the first layer only, and only where a key is given.
    """

    hidden: tuple[NormedLinear, ...]
    head: Linear | NormedLinear

    def __init__(
        self,
        in_dim: int,
        hidden_dims: Sequence[int],
        out_dim: int,
        *,
        key: Key[Array, ""],
        simnorm_group: int = 0,
        zero_head: bool = False,
        dropout: float = 0.0,
        layer_norm: bool = True,
        precision: Precision = "float32",
    ):
        keys = jax.random.split(key, len(hidden_dims) + 1)
        dims = (in_dim, *hidden_dims)
        layer = partial(NormedLinear, layer_norm=layer_norm, precision=precision)
        self.hidden = tuple(
            layer(dims[i], dims[i + 1], key=keys[i], dropout=dropout if i == 0 else 0.0)
            for i in range(len(hidden_dims))
        )
        if simnorm_group:
            self.head = layer(dims[-1], out_dim, key=keys[-1], activation=SimNorm(simnorm_group))
        else:
            self.head = Linear(dims[-1], out_dim, key=keys[-1], zero=zero_head, precision=precision)

    def __call__(self, x: Float[Array, " in"] | SplitInput, key: Key[Array, ""] | None = None) -> Float[Array, " out"]:
        for layer in self.hidden:
            x = layer(x, key)
        return self.head(x)


class SimNorm:
    """`simnorm` with its group size, hashable and equal by value so that it can be static."""

    def __init__(self, group: int):
        self.group = group

    def __call__(self, x: Array) -> Array:
        return simnorm(x, self.group)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SimNorm) and other.group == self.group

    def __hash__(self) -> int:
        return hash((SimNorm, self.group))


class Ensemble(eqx.Module):
    """Ensemble of N networks of one shape, their parameters stacked along a leading axis and evaluated together."""

    members: MLP

    def __init__(self, make: Callable[[Key[Array, ""]], MLP], num: int, *, key: Key[Array, ""]):
        self.members = eqx.filter_vmap(make)(jax.random.split(key, num))

    def __len__(self) -> int:
        return jax.tree.leaves(self.members)[0].shape[0]

    def __call__(
        self, x: Float[Array, " in"] | SplitInput, key: Key[Array, ""] | None = None
    ) -> Float[Array, "num out"]:
        """Evaluate all members at one input, each with its own dropout mask."""
        if key is None:
            return eqx.filter_vmap(lambda member: member(x))(self.members)
        return eqx.filter_vmap(lambda member, k: member(x, k))(self.members, jax.random.split(key, len(self)))

    def per_member(self, x: Float[Array, "num in"]) -> Float[Array, "num out"]:
        """Evaluate member i at input i."""
        return eqx.filter_vmap(lambda member, xi: member(xi))(self.members, x)

    def subset(self, index: Array) -> Self:
        """Return the members at `index` (an integer array)."""
        members = jax.tree.map(lambda leaf: leaf[index], self.members)
        return eqx.tree_at(lambda e: e.members, self, members)


def ema(old: Tree, new: Tree, rate: float) -> Tree:
    """Compute the exponential moving average old + rate (new - old), leaf by leaf."""
    return jax.tree.map(lambda o, n: o + rate * (n - o), old, new)
