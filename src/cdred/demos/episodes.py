"""Rollouts of whole episodes in a single environment, with recovery from simulator failures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Self

import numpy as np
from jaxtyping import Float32

from cdred.envs.base import Env, validate_obs, validate_step
from cdred.envs.failures import MAX_FAILURES_PER_EPISODE, SimulatorError, format_exception, warn
from cdred.envs.registry import make, remote_interpreter
from cdred.envs.remote.client import STEP_TIMEOUT, RemoteEnv
from cdred.envs.remote.interpreter import current_interpreter
from cdred.errors import UserError
from cdred.types import ImageObs, LogFn, Trajectory, VectorizationMode

# Action, given the observation and the success of the previous step.
Policy = Callable[[Any, bool], Float32[np.ndarray, " A"]]
# Policy of one episode, given the environment and the episode's seed.
PolicyFactory = Callable[[Env, int], Policy]


def rollout(env: Env, seed: int, policy: Policy) -> Trajectory:
    """Run the episode of `seed` with a policy."""
    observations, steps, actions = [validate_obs(env.spec, env.reset(seed))], [], []
    success = False
    while not steps or not (steps[-1].terminated or steps[-1].truncated):
        actions.append(policy(observations[-1], success))
        steps.append(validate_step(env.spec, env.step(actions[-1])))
        observations.append(steps[-1].obs)
        success = steps[-1].success
    obs, image = stack_obs(observations)
    return Trajectory(
        obs=obs,
        image=image,
        action=np.stack(actions),
        reward=np.array([step.reward for step in steps], np.float32),
        terminated=steps[-1].terminated,
        truncated=steps[-1].truncated,
        success=np.array([step.success for step in steps]) if env.spec.has_success else None,
        seed=seed,
    )


def stack_obs(observations: Sequence[Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return `obs` and `image` of a trajectory from the observations of an environment; None without images."""
    if isinstance(observations[0], ImageObs):
        return np.stack([obs.state for obs in observations]), np.stack([obs.image for obs in observations])
    return np.stack(observations), None


class RestartingEnv:
    """Environment for whole episodes that is recreated when its simulator fails.

    Args:
        task: as in `registry.make`.
        vectorization: `process` runs the simulator in a process of its own.
        env_step_timeout: as in `executors.make_executor`.
        log: called with one line for every failure, when it happens.

    Raises:
        UserError: as `registry.make`.
    """

    def __init__(
        self,
        task: str,
        *,
        vectorization: VectorizationMode = "sync",
        env_step_timeout: float = STEP_TIMEOUT,
        log: LogFn = warn,
    ):
        self._task, self._log, self._consecutive_failures = task, log, 0
        in_subprocess = vectorization == "process" and remote_interpreter(task) is None
        self._make = lambda: (
            RemoteEnv.spawn(current_interpreter(), task, task, None, env_step_timeout) if in_subprocess else make(task)
        )
        self.env: Env = self._make()

    def episodes(self, seeds: Iterable[int], policy_factory: PolicyFactory) -> Iterator[Trajectory]:
        """Run the episodes of `seeds`; one that fails twice is skipped.

        Raises:
            SimulatorError: too many consecutive episodes failed, or the simulator cannot be recreated.
            UserError: raised by a policy.
        """
        for seed in seeds:
            trajectory = self._episode(seed, policy_factory, last=False) or self._episode(
                seed, policy_factory, last=True
            )
            if trajectory is not None:
                yield trajectory

    def _episode(self, seed: int, policy_factory: PolicyFactory, last: bool) -> Trajectory | None:
        try:
            trajectory = rollout(self.env, seed, policy_factory(self.env, seed))
            self._consecutive_failures = 0
            return trajectory
        except UserError:
            raise
        except Exception as error:
            self._recreate(seed, error, last)
            return None

    def _recreate(self, seed: int, error: Exception, last: bool) -> None:
        reason = format_exception(error)
        self._consecutive_failures += last
        self._log(f"{self._task}: episode of seed {seed} {'aborted' if last else 'failed, retrying'}: {reason}")
        if self._consecutive_failures >= MAX_FAILURES_PER_EPISODE:
            raise SimulatorError(
                f"{self._task}: {self._consecutive_failures} consecutive episodes failed; last failure: {reason}."
            )
        # A failed simulator may also fail to close.
        with suppress(Exception):
            self.env.close()
        try:
            self.env = self._make()
        except Exception as failure:
            raise SimulatorError(
                f"{self._task}: the simulator failed ({reason}) and cannot be recreated: {format_exception(failure)}."
            ) from failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.env.close()
