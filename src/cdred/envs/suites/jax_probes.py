"""The worlds of `probes.py` again, as JAX functions: for tests of everything that steps simulators on the device."""

from functools import cache, partial
from typing import NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt32

from cdred.envs.jax_env import JaxEnv, JaxEnvAdapter, JaxStep
from cdred.envs.suites.probes import EPISODE_LENGTH, Dying, Point, PointExpert
from cdred.errors import UserError
from cdred.types import EnvSpec


class JaxPoint:
    """`probes.Point`. Its state is its observation: position (2), goal (2)."""

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

    def picture(self, state: Float32[Array, " 4"], size: int | None) -> NoReturn:
        del state, size
        raise UserError(f"{self.spec.task} has no picture.")


class JaxDying:
    """`probes.Dying`. Its state is its observation: position (1)."""

    def __init__(self):
        self.spec = EnvSpec("jaxprobe/dying", (1,), 1, EPISODE_LENGTH, can_terminate=True)

    def reset(self, seed: UInt32[Array, ""]) -> tuple[Float32[Array, " 1"], Float32[Array, " 1"]]:
        start = jax.random.uniform(jax.random.key(seed), (1,), minval=-0.5, maxval=0.5)
        return start, start

    def step(self, state: Float32[Array, " 1"], action: Float32[Array, " 1"]) -> tuple[Float32[Array, " 1"], JaxStep]:
        state = state + Dying.SPEED * action
        return state, JaxStep(state, jnp.full((), -1.0), jnp.abs(state[0]) > 1.0, jnp.zeros((), bool))

    def picture(self, state: Float32[Array, " 1"], size: int | None) -> NoReturn:
        del state, size
        raise UserError(f"{self.spec.task} has no picture.")


_PROBES = {"point": JaxPoint, "dying": JaxDying}


def names() -> list[str]:
    """The probes, without suite."""
    return sorted(_PROBES)


@cache
def functional(name: str) -> JaxEnv:
    """The probe `name` as pure functions."""
    return _PROBES[name]()


def make(name: str, render_size: int | None = None) -> JaxEnvAdapter:
    """The probe `name` behind the host's interface."""
    return JaxEnvAdapter(functional(name), render_size)


def scripted_expert(name: str) -> partial[PointExpert] | None:
    """Maker of one expert an episode; None where there is no expert."""
    return partial(PointExpert) if name == "point" else None
