"""Vector env of [S seeds, E environments] on the host: explicit resets, exact restore, recovery from failures.

Restoring needs only that an episode is determined by its seed: a snapshot holds, per environment, the number of the
current episode and the actions taken in it; `restore` starts that episode and replays the actions. This works for
every suite, including those with hidden simulator state, and costs at most one episode.

A failed simulator is recovered in the same way; `failures` describes what happens if it fails again.

Observations of tasks with images have the last `STACKED_IMAGES` of an environment.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from cdred.envs.base import Obs, Step, VectorStep, check_actions, check_ready, validate_obs, validate_step
from cdred.envs.executors import make_executor
from cdred.envs.failures import FailureCounts, SimulatorError, check_failure_limits, format_exception, warn
from cdred.envs.remote.client import STEP_TIMEOUT
from cdred.envs.seeding import check_args, episode_seed
from cdred.types import STACKED_IMAGES, ImageObs, LogFn, VectorizationMode, map_obs


class VectorEnv:
    """S x E independent environments of one task.

    Resets are explicit: an environment without a running episode must be reset before the next `step`. Slot (s, e) is
    environment e of the run with the s-th seed; executors number the slots from 0, row by row.

    Args:
        task: as in `registry.make`.
        seeds: seeds of the runs (each >= 0), one per row.
        num_envs: environments per run (E).
        stream: one of `seeding.STREAMS`; different streams never share an episode.
        render_size: as in `registry.make`.
        vectorization: as in `executors.make_executor`; the results are the same in every mode.
        env_step_timeout: as in `executors.make_executor`.
        log: called with one line for every failure, when it happens.

    Raises:
        UserError: unknown task, missing package, or invalid seeds.
    """

    def __init__(
        self,
        task: str,
        seeds: Sequence[int],
        num_envs: int = 1,
        stream: str = "train",
        *,
        render_size: int | None = None,
        vectorization: VectorizationMode = "sync",
        env_step_timeout: float = STEP_TIMEOUT,
        log: LogFn = warn,
    ):
        check_args(seeds, num_envs, stream)
        self.seeds, self.stream = tuple(int(seed) for seed in seeds), stream
        self.shape = (len(seeds), num_envs)
        self._slots = tuple(np.ndindex(self.shape))
        self._labels = [f"{task}, seed {self.seeds[s]}, environment {e}" for s, e in self._slots]
        self._executor = make_executor(task, self._labels, vectorization, render_size, env_step_timeout)
        self._log, self.spec = log, self._executor.spec
        self._obs = self.spec.zero_obs(*self.shape)
        self._episode = np.full(self.shape, -1)
        # Steps taken in the current episode; -1 if it was aborted.
        self._length = np.zeros(self.shape, np.int64)
        self._failures = FailureCounts.zeros(self.shape)
        self._needs_reset = np.ones(self.shape, bool)
        self._actions = np.zeros((*self.shape, self.spec.episode_length, self.spec.action_dim), np.float32)

    def reset(self, mask: Bool[np.ndarray, "S E"] | None = None) -> Float32[np.ndarray, "S E *obs"] | ImageObs:
        """Start the next episode where `mask` holds (None: everywhere); return the observations of all environments.

        An episode that fails to start is aborted, and the next one is started.

        Raises:
            SimulatorError: too many consecutive episodes failed, or a simulator cannot be recreated.
        """
        mask = np.ones(self.shape, bool) if mask is None else mask
        self._start({i: int(self._episode[slot]) + 1 for i, slot in enumerate(self._slots) if mask[slot]})
        return map_obs(np.copy, self._obs)

    @property
    def next_episode(self) -> int:
        """Number of the first episode that no environment has started."""
        return int(self._episode.max()) + 1

    def skip_to(self, episode: int) -> None:
        """Let the next `reset` start episode number `episode` in every environment, which must be reset first."""
        self._episode[:], self._length[:], self._needs_reset[:] = episode - 1, 0, True

    def _start(self, episodes: dict[int, int]) -> None:
        while episodes:
            for i, episode in episodes.items():
                slot = self._slots[i]
                self._episode[slot], self._length[slot], self._needs_reset[slot] = episode, 0, False
            started = self._call("reset", {i: self.episode_seed(*self._slots[i]) for i in episodes})
            episodes = {i: episode + 1 for i, episode in episodes.items() if i not in started}

    def step(self, action: Float32[np.ndarray, "S E A"]) -> VectorStep:
        """Step every environment.

        Raises:
            RuntimeError: an environment has no running episode and must be reset first.
            ValueError: `action` has the wrong shape or is not finite.
            SimulatorError: as `reset`.
        """
        check_ready(self._needs_reset)
        action = np.asarray(action, np.float32)
        check_actions(action, (*self.shape, self.spec.action_dim))
        return self._step({i: action[slot] for i, slot in enumerate(self._slots) if self._length[slot] >= 0})

    def _step(self, actions: dict[int, Float32[np.ndarray, " A"]]) -> VectorStep:
        result = VectorStep(self._obs, np.zeros(self.shape, np.float32), *np.zeros((4, *self.shape), bool))
        for i, step in self._call("step", actions).items():
            slot = self._slots[i]
            # All fields but `obs` and `invalid`.
            for array, value in zip(result[1:-1], step[1:], strict=True):
                array[slot] = value
            self._failures.since_step[slot] = 0
            self._failures.since_episode[slot] *= not self._needs_reset[slot]
        # Includes episodes aborted since the last step, when the failure of another environment ended their process.
        invalid = self._length < 0
        self._needs_reset |= invalid
        return result._replace(obs=map_obs(np.copy, self._obs), invalid=invalid)

    def _call(self, method: str, arguments: dict[int, Any]) -> dict[int, Any]:
        """Call the simulators and record their results; skip those with an aborted episode."""
        results, failures = self._executor.call(method, arguments)
        for i in list(results):
            try:
                self._record(method, i, arguments[i], results[i])
            except Exception as error:
                failures[i] = error
                del results[i]
        if failures:
            results |= self._recover(method, arguments, failures)
        # Recovery may abort the episode of another environment that had returned a result.
        return {i: result for i, result in results.items() if self._length[self._slots[i]] >= 0}

    def _record(self, method: str, i: int, argument: Any, result: Any) -> None:
        """Update slot i with a result; raises, without any change, if the result is invalid."""
        slot = self._slots[i]
        if method == "reset":
            self._write_obs(slot, validate_obs(self.spec, result), first=True)
            return
        step: Step = validate_step(self.spec, result)
        if self._length[slot] == self.spec.episode_length:
            raise RuntimeError(f"the episode did not end after {self.spec.episode_length} steps")
        self._actions[slot][self._length[slot]] = argument
        self._write_obs(slot, step.obs, first=False)
        self._length[slot] += 1
        self._needs_reset[slot] = step.terminated or step.truncated

    def _write_obs(self, slot: tuple[int, ...], obs: Obs, *, first: bool) -> None:
        if isinstance(self._obs, ImageObs):
            assert isinstance(obs, ImageObs)
            images = self._obs.image[slot]
            self._obs.state[slot] = obs.state
            images[...] = obs.image if first else np.concatenate([images[-STACKED_IMAGES + 1 :], obs.image[None]])
        else:
            self._obs[slot] = obs

    def _recover(self, method: str, arguments: dict[int, Any], failures: dict[int, Exception]) -> dict[int, Any]:
        """Recreate failed simulators, replay their episodes and repeat the call; return the results.

        One slot at a time, so that a failure that ends a shared process is attributed to the slot that caused it.
        """
        results, aborted = {}, set()
        pending, outdated = {i: arguments[i] for i in failures}, self._recreate(failures)
        while remaining := (outdated | pending.keys()) - aborted:
            i = min(remaining)
            try:
                if i in outdated and not (method == "reset" and i in pending):
                    self._replay_episode(i)
                if i in pending:
                    result = self._call_one(method, i, pending[i])
                    self._record(method, i, pending.pop(i), result)
                    results[i] = result
                outdated.discard(i)
            except Exception as error:
                pending.pop(i, None)
                aborted.add(i)
                self._abort_episode(i, error)
                outdated |= self._recreate({i: error})
        recovered = [i for i in failures if i not in aborted]
        if recovered:
            self._log(self._recovery_message(recovered, failures[recovered[0]]))
        return results

    def _recreate(self, failures: dict[int, Exception]) -> set[int]:
        try:
            return self._executor.recreate(failures)
        except Exception as error:
            i, failure = next(iter(failures.items()))
            raise SimulatorError(
                f"{self._labels[i]}: the simulator failed ({format_exception(failure)}) and cannot be recreated: "
                f"{format_exception(error)}."
            ) from error

    def _replay_episode(self, i: int) -> None:
        """Bring a recreated simulator to the state of its slot."""
        slot = self._slots[i]
        if self._needs_reset[slot] or self._length[slot] < 0:
            return
        obs = self._call_one("reset", i, self.episode_seed(*slot))
        for action in self._actions[slot][: self._length[slot]]:
            obs = self._call_one("step", i, action).obs
        if not all(map(np.array_equal, _arrays(obs).values(), _arrays(self._newest_obs(slot)).values())):
            raise RuntimeError("replaying the episode gave different observations")

    def _newest_obs(self, slot: tuple[int, ...]) -> Obs:
        if isinstance(self._obs, ImageObs):
            return ImageObs(self._obs.state[slot], self._obs.image[slot][-1])
        return self._obs[slot]

    def _call_one(self, method: str, i: int, argument: Any) -> Any:
        results, failures = self._executor.call(method, {i: argument})
        if failures:
            raise failures[i]
        return results[i]

    def _abort_episode(self, i: int, error: Exception) -> None:
        slot = self._slots[i]
        step, reason = int(self._length[slot]) + 1, format_exception(error)
        self._log(f"{self._labels[i]}: episode {self._episode[slot]} aborted at step {step}: {reason}")
        self._length[slot] = -1
        for count in self._failures:
            count[slot] += 1
        check_failure_limits(self._failures, lambda s, e: self._labels[self._slots.index((s, e))], reason)

    def _recovery_message(self, recovered: list[int], failure: Exception) -> str:
        others = f" and {len(recovered) - 1} more" if len(recovered) > 1 else ""
        reason = format_exception(failure)
        return f"{self._labels[recovered[0]]}{others}: simulator recreated, episode replayed, nothing lost: {reason}"

    @property
    def failed_episodes(self) -> Int64[np.ndarray, " S"]:
        """Number of aborted episodes so far, per seed."""
        return self._failures.total.sum(axis=1, dtype=np.int64)

    def episode_seed(self, s: int, e: int) -> int:
        """Return the seed with which `Env.reset` reproduces the current episode of environment (s, e)."""
        return episode_seed(self.seeds[s], self.stream, e, int(self._episode[s, e]))

    def render(self, s: int, e: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return the current frame of environment (s, e); raises UserError if the task cannot be rendered."""
        return self._executor.render(self._slots.index((s, e)))

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return the arrays that `restore` needs: episode numbers, lengths, actions, observations, failure counts."""
        return {
            "seeds": np.array(self.seeds),
            "episode": self._episode.copy(),
            "length": self._length.copy(),
            **{name: array.copy() for name, array in _arrays(self._obs).items()},
            "actions": self._actions.copy(),
            **{f"failures_{name}": count.copy() for name, count in self._failures._asdict().items()},
        }

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Restore every simulator to the state of `snapshot` by replaying its current episode.

        Raises:
            ValueError: the snapshot is of a vector env of other seeds or shapes.
            SimulatorError: a replayed episode failed or gave different observations.
        """
        snapshot = {key: np.asarray(value) for key, value in snapshot.items()}
        expected = {key: value.shape for key, value in self.snapshot().items()}
        shapes = {key: value.shape for key, value in snapshot.items()}
        if expected != shapes or tuple(snapshot["seeds"]) != self.seeds:
            raise ValueError(
                f"the snapshot is of a different vector env: got {shapes}, expected {expected} and seeds {self.seeds}"
            )
        self._replay_all(snapshot["episode"], snapshot["length"], snapshot["actions"])
        aborted = snapshot["length"] < 0
        self._length[aborted], self._needs_reset[aborted] = -1, False
        for name, array in _arrays(self._obs).items():
            array[aborted] = snapshot[name][aborted]
        self._failures = FailureCounts(*(snapshot[f"failures_{name}"].copy() for name in FailureCounts._fields))
        for i, slot in enumerate(self._slots):
            if self._length[slot] != snapshot["length"][slot] or self._episode[slot] != snapshot["episode"][slot]:
                raise SimulatorError(f"{self._labels[i]}: the episode of the checkpoint fails when it is replayed.")
            if not all(np.array_equal(array[slot], snapshot[name][slot]) for name, array in _arrays(self._obs).items()):
                raise SimulatorError(
                    f"{self._labels[i]}: replaying the episode of the checkpoint gave different observations: either "
                    "the simulator has changed since, or its seed does not determine its episodes."
                )

    def _replay_all(self, episode: np.ndarray, length: np.ndarray, actions: np.ndarray) -> None:
        self._episode[:], self._length[:], self._needs_reset[:] = episode, 0, True
        self._obs = self.spec.zero_obs(*self.shape)
        running = {i: int(episode[slot]) for i, slot in enumerate(self._slots) if episode[slot] >= 0 <= length[slot]}
        self._start(running)
        for t in range(int(length.max())):
            # Episodes may have been aborted meanwhile.
            active = {i: slot for i, slot in enumerate(self._slots) if self._length[slot] == t < length[slot]}
            self._step({i: actions[slot][t] for i, slot in active.items()})

    def close(self) -> None:
        """Close every environment."""
        self._executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _arrays(obs: np.ndarray | ImageObs) -> dict[str, np.ndarray]:
    """Return the arrays of observations by their names in a snapshot."""
    return {"obs": obs.state, "image": obs.image} if isinstance(obs, ImageObs) else {"obs": obs}
