"""The environments of `probes` as JAX functions, for tests of simulators on the device."""

from functools import cache, partial
from typing import NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt32

from cdred.envs.jax_env import JaxEnv, JaxEnvAdapter, JaxStep
from cdred.envs.suites.probes import EPISODE_LENGTH, Point, PointExpert, TerminatingLine
from cdred.errors import UserError
from cdred.types import EnvSpec


class JaxPoint:
    """`probes.Point`. The state is the observation: position (2), goal (2)."""

    def __init__(self):
        self.spec = EnvSpec("jaxprobe/point", (4,), 2, EPISODE_LENGTH, has_success=True)

    def reset(self, seed: UInt32[Array, ""]) -> tuple[Float32[Array, " 4"], Float32[Array, " 4"]]:
        start = jax.random.uniform(jax.random.key(seed), (4,), minval=-1.0, maxval=1.0)
        return start, start

    def step(self, state: Float32[Array, " 4"], action: Float32[Array, " 2"]) -> tuple[Float32[Array, " 4"], JaxStep]:
        position, goal = jnp.clip(state[:2] + Point.SPEED * action, -1.0, 1.0), state[2:]
        distance = jnp.linalg.norm(position - goal)
        state = jnp.concatenate([position, goal])
        return state, JaxStep(state, -distance, jnp.zeros((), bool), distance <= Point.RADIUS)

    def render(self, state: Float32[Array, " 4"], size: int | None) -> NoReturn:
        del state, size
        raise UserError(f"{self.spec.task} does not support rendering.")


class JaxTerminatingLine:
    """`probes.TerminatingLine`. The state is the observation: position (1)."""

    def __init__(self):
        self.spec = EnvSpec("jaxprobe/dying", (1,), 1, EPISODE_LENGTH, can_terminate=True)

    def reset(self, seed: UInt32[Array, ""]) -> tuple[Float32[Array, " 1"], Float32[Array, " 1"]]:
        start = jax.random.uniform(jax.random.key(seed), (1,), minval=-0.5, maxval=0.5)
        return start, start

    def step(self, state: Float32[Array, " 1"], action: Float32[Array, " 1"]) -> tuple[Float32[Array, " 1"], JaxStep]:
        state = state + TerminatingLine.SPEED * action
        return state, JaxStep(state, jnp.full((), -1.0), jnp.abs(state[0]) > 1.0, jnp.zeros((), bool))

    def render(self, state: Float32[Array, " 1"], size: int | None) -> NoReturn:
        del state, size
        raise UserError(f"{self.spec.task} does not support rendering.")


_PROBES = {"point": JaxPoint, "dying": JaxTerminatingLine}


def task_names() -> list[str]:
    """List the probes, without suite."""
    return sorted(_PROBES)


@cache
def jax_env(name: str) -> JaxEnv:
    """Return the probe `name` as JAX functions."""
    return _PROBES[name]()


def make(name: str, render_size: int | None = None) -> JaxEnvAdapter:
    """Make the probe `name` as a host environment."""
    return JaxEnvAdapter(jax_env(name), render_size)


def scripted_expert(name: str) -> partial[PointExpert] | None:
    """Return the constructor of one episode's expert; None if there is none."""
    return partial(PointExpert) if name == "point" else None
