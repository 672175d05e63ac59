"""Whole episodes of one simulator, one after another."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Self

import numpy as np
from jaxtyping import Float32

from cdred.envs.base import Env, checked, checked_obs
from cdred.envs.failures import MOST_UNFINISHED, SimulatorError, one_line, warned
from cdred.envs.registry import host, make
from cdred.envs.remote.client import STEP_SECONDS, RemoteEnv
from cdred.envs.remote.interpreter import current_interpreter
from cdred.errors import UserError
from cdred.types import LogFn, Trajectory, VectorizationMode

Act = Callable[[Float32[np.ndarray, "*obs"], bool], Float32[np.ndarray, " A"]]
# Who acts in the episode of a seed.
ActorOf = Callable[[Env, int], Act]


def rollout(env: Env, seed: int, act: Act) -> Trajectory:
    """The episode of `seed`, with actions `act(obs, success of the step before)`."""
    obs, success = checked_obs(env.spec, env.reset(seed)), False
    seen, steps, actions = [obs], [], []
    while not steps or not (steps[-1].terminated or steps[-1].truncated):
        actions.append(act(obs, success))
        steps.append(checked(env.spec, env.step(actions[-1])))
        obs, success = steps[-1].obs, steps[-1].success
        seen.append(obs)
    return Trajectory(
        obs=np.stack(seen),
        action=np.stack(actions),
        reward=np.array([step.reward for step in steps], np.float32),
        terminated=steps[-1].terminated,
        truncated=steps[-1].truncated,
        success=np.array([step.success for step in steps]) if env.spec.has_success else None,
        seed=seed,
    )


class Simulator:
    """One environment for whole episodes; made anew when it breaks.

    Args:
        task: as in `registry.make`.
        vectorization: with `process` it lives in a process of its own.
        env_step_timeout: as in `workers.crew`.
        say: told at once, in a line, of everything that breaks.

    Raises:
        UserError: as `registry.make`.
    """

    def __init__(
        self,
        task: str,
        *,
        vectorization: VectorizationMode = "sync",
        env_step_timeout: float = STEP_SECONDS,
        say: LogFn = warned,
    ):
        self._task, self._say, self._in_a_row = task, say, 0
        apart = vectorization == "process" and host(task) is None
        self._make = lambda: (
            RemoteEnv.alone(current_interpreter(), task, task, None, env_step_timeout) if apart else make(task)
        )
        self.env: Env = self._make()

    def episodes(self, seeds: Iterable[int], actor: ActorOf) -> Iterator[Trajectory]:
        """The episodes of `seeds`, but for those that break twice.

        Raises:
            SimulatorError: too many in a row did, or the simulator cannot be made again.
            UserError: what an actor says that the user can mend.
        """
        for seed in seeds:
            one = self._episode(seed, actor, last=False) or self._episode(seed, actor, last=True)
            if one is not None:
                yield one

    def _episode(self, seed: int, actor: ActorOf, last: bool) -> Trajectory | None:
        try:
            one = rollout(self.env, seed, actor(self.env, seed))
            self._in_a_row = 0
            return one
        except UserError:
            raise
        except Exception as error:
            self._anew(seed, error, last)
            return None

    def _anew(self, seed: int, error: Exception, last: bool) -> None:
        raised, self._in_a_row = one_line(error), self._in_a_row + last
        self._say(f"{self._task}: the episode of seed {seed} {'is given up' if last else 'is tried again'}: {raised}")
        if self._in_a_row >= MOST_UNFINISHED:
            raise SimulatorError(f"{self._task}: {self._in_a_row} episodes in a row broke, the last by {raised}.")
        # A broken simulator may not even close.
        with suppress(Exception):
            self.env.close()
        try:
            self.env = self._make()
        except Exception as failure:
            raise SimulatorError(
                f"{self._task}: the simulator broke ({raised}) and cannot be made again: {one_line(failure)}."
            ) from failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.env.close()
