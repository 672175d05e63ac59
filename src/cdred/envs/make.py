"""Construction of vector envs: on the device for simulators in JAX, on the host for all others."""

from collections.abc import Sequence

from cdred.envs.failures import warn
from cdred.envs.jax_vector_env import JaxVectorEnv
from cdred.envs.registry import jax_env
from cdred.envs.remote.client import STEP_TIMEOUT
from cdred.envs.vector_env import VectorEnv
from cdred.types import LogFn, VectorizationMode

AnyVectorEnv = VectorEnv | JaxVectorEnv


def make_vector_env(
    task: str,
    seeds: Sequence[int],
    num_envs: int = 1,
    stream: str = "train",
    *,
    render_size: int | None = None,
    vectorization: VectorizationMode = "sync",
    env_step_timeout: float = STEP_TIMEOUT,
    log: LogFn = warn,
) -> AnyVectorEnv:
    """Make the vector env of a task; arguments and errors as for `VectorEnv`.

    A simulator in JAX is vmapped on the device with `vectorization="sync"`; other modes run it on the host.
    """
    env = jax_env(task) if vectorization == "sync" else None
    if env is None:
        return VectorEnv(
            task,
            seeds,
            num_envs,
            stream,
            render_size=render_size,
            vectorization=vectorization,
            env_step_timeout=env_step_timeout,
            log=log,
        )
    return JaxVectorEnv(env, seeds, num_envs, stream, render_size=render_size, log=log)
