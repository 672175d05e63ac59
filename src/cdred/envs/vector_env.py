"""A grid of [S seeds, E environments] that steps in lockstep and resumes exactly.

Exact resume needs nothing from the simulators but that an episode's seed determines it: a snapshot holds, for each
cell, which episode it is in and the actions taken so far; restoring starts that episode again and takes those actions
again. It works for every suite, state that lives in no accessible array included, and costs at most one episode.

In the same way a simulator that broke is made anew and brought back; what is done where it breaks again is told in
`faults`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from cdred.envs.base import Step, checked, checked_obs
from cdred.envs.executors import make_executor
from cdred.envs.failures import FailureCounts, SimulatorError, check_failure_limits, one_line, warned
from cdred.envs.remote.client import STEP_SECONDS
from cdred.errors import UserError
from cdred.types import LogFn, VectorizationMode

# Two bits of every episode seed name its stream, so streams cannot share an episode.
STREAMS = ("train", "eval", "demos", "random")


class VectorStep(NamedTuple):
    """One step of every environment; fields as in `Step`, `obs` being true final observations.

    Where `void` holds the simulator broke and the episode was given up: the step did not happen (`obs` is that
    before it, the reward 0), and a reset must follow.
    """

    obs: Float32[np.ndarray, "S E *obs"]
    reward: Float32[np.ndarray, "S E"]
    terminated: Bool[np.ndarray, "S E"]
    truncated: Bool[np.ndarray, "S E"]
    success: Bool[np.ndarray, "S E"]
    void: Bool[np.ndarray, "S E"]

    @property
    def finished(self) -> Bool[np.ndarray, "S E"]:
        """Where an episode came to its end."""
        return self.terminated | self.truncated

    @property
    def ended(self) -> Bool[np.ndarray, "S E"]:
        """Where an episode is over, for whatever reason."""
        return self.terminated | self.truncated | self.void


def episode_seed(seed: int, stream: str, env: int, episode: int) -> int:
    """Seed (0 <= . < 2**32) of the `episode`-th episode of environment `env` in a run with `seed`.

    It depends on nothing else, so a run's episodes do not depend on which other seeds run beside it; different streams
    never share one.
    """
    drawn = int(np.random.SeedSequence([seed, STREAMS.index(stream), env, episode]).generate_state(1)[0])
    return drawn // len(STREAMS) * len(STREAMS) + STREAMS.index(stream)


def require_place(seeds: Sequence[int], num_envs: int, stream: str) -> None:
    """Raises UserError for seeds, ValueError for the others, that a grid cannot have."""
    if not seeds or min(seeds) < 0:
        raise UserError(f"seeds must be one or more integers >= 0, got {list(seeds)}.")
    if num_envs < 1 or stream not in STREAMS:
        raise ValueError(f"num_envs >= 1 and a stream of {STREAMS}, got {num_envs} and {stream!r}")


def check_actions(action: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises ValueError where they are not finite, or not of that shape."""
    if action.shape != shape or not np.isfinite(action).all():
        raise ValueError(f"expected finite actions of shape {shape}, got {action.shape}: {action}")


class VectorEnv:
    """S x E independent environments of one task.

    Resets are explicit: an environment whose episode has ended must be reset before the next `step`.

    Args:
        task: as in `registry.make`.
        seeds: one run a row (each >= 0).
        num_envs: environments a run (E).
        stream: `train`, `eval`, `demos` or `random`: no two of them share an episode.
        render_size: as in `registry.make`.
        vectorization: who steps the environments, as in `workers.crew`; it makes no difference to what they do.
        env_step_timeout: as in `workers.crew`.
        say: told at once, in a line, of everything that breaks.

    Raises:
        UserError: unknown task, missing package, or seeds that are negative or none.
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
        env_step_timeout: float = STEP_SECONDS,
        say: LogFn = warned,
    ):
        require_place(seeds, num_envs, stream)
        self.seeds, self.stream = tuple(int(seed) for seed in seeds), stream
        self.shape = (len(seeds), num_envs)
        self._cells = tuple(np.ndindex(self.shape))
        self._labels = [f"{task}, seed {self.seeds[s]}, environment {e}" for s, e in self._cells]
        self._crew, self._say = make_executor(task, self._labels, vectorization, render_size, env_step_timeout), say
        self.spec = self._crew.spec
        self._obs = np.zeros((*self.shape, *self.spec.obs_shape), np.float32)
        self._episode = np.full(self.shape, -1)
        # Of the running episode; -1 where it was given up.
        self._length = np.zeros(self.shape, np.int64)
        self._strikes = FailureCounts.none(self.shape)
        self._done = np.ones(self.shape, bool)
        self._actions = np.zeros((*self.shape, self.spec.episode_length, self.spec.action_dim), np.float32)

    def reset(self, mask: Bool[np.ndarray, "S E"] | None = None) -> Float32[np.ndarray, "S E *obs"]:
        """Start the next episode where `mask` holds (None: everywhere); the current observations of all.

        An episode that cannot be started is given up, and the one after it started.

        Raises:
            SimulatorError: too many episodes in a row were given up, or a simulator cannot be made again.
        """
        mask = np.ones(self.shape, bool) if mask is None else mask
        self._begin({i: int(self._episode[cell]) + 1 for i, cell in enumerate(self._cells) if mask[cell]})
        return self._obs.copy()

    def _begin(self, episodes: dict[int, int]) -> None:
        while episodes:
            for i, episode in episodes.items():
                cell = self._cells[i]
                self._episode[cell], self._length[cell], self._done[cell] = episode, 0, False
            begun = self._answers("reset", {i: self.episode_seed(*self._cells[i]) for i in episodes})
            episodes = {i: episode + 1 for i, episode in episodes.items() if i not in begun}

    def step(self, action: Float32[np.ndarray, "S E A"]) -> VectorStep:
        """One step everywhere.

        Raises:
            RuntimeError: an environment has ended its episode, or never begun one, and was not reset.
            ValueError: `action` has the wrong shape or is not finite.
            SimulatorError: as `reset`.
        """
        if self._done.any():
            raise RuntimeError(f"step before reset: no running episode in cells {np.argwhere(self._done).tolist()}")
        action = np.asarray(action, np.float32)
        check_actions(action, (*self.shape, self.spec.action_dim))
        return self._advance({i: action[cell] for i, cell in enumerate(self._cells) if self._length[cell] >= 0})

    def _advance(self, actions: dict[int, Float32[np.ndarray, " A"]]) -> VectorStep:
        result = VectorStep(self._obs, np.zeros(self.shape, np.float32), *np.zeros((4, *self.shape), bool))
        for i, step in self._answers("step", actions).items():
            cell = self._cells[i]
            # Without observation and void.
            for array, value in zip(result[1:-1], step[1:], strict=True):
                array[cell] = value
            self._strikes.stuck[cell] = 0
            self._strikes.unfinished[cell] *= not self._done[cell]
        # Also one that was given up since the last step, when another one's fault took its process along.
        void = self._length < 0
        self._done |= void
        return result._replace(obs=self._obs.copy(), void=void)

    def _answers(self, method: str, arguments: dict[int, Any]) -> dict[int, Any]:
        """What the simulators answer, taken down; without those whose episode had to be given up."""
        answers, failures = self._crew.call(method, arguments)
        for i in list(answers):
            try:
                self._take_down(method, i, arguments[i], answers[i])
            except Exception as error:
                failures[i] = error
                del answers[i]
        if failures:
            answers |= self._mended(method, arguments, failures)
        # Mending one may have cost the episode of another that had answered.
        return {i: answer for i, answer in answers.items() if self._length[self._cells[i]] >= 0}

    def _take_down(self, method: str, i: int, argument: Any, answer: Any) -> None:
        """Raises, and leaves things as they are, where nothing can be learned from the answer."""
        cell = self._cells[i]
        if method == "reset":
            self._obs[cell] = checked_obs(self.spec, answer)
            return
        step: Step = checked(self.spec, answer)
        if self._length[cell] == self.spec.episode_length:
            raise RuntimeError(f"no end of the episode after {self.spec.episode_length} steps")
        self._actions[cell][self._length[cell]] = argument
        self._obs[cell] = step.obs
        self._length[cell] += 1
        self._done[cell] = step.terminated or step.truncated

    def _mended(self, method: str, arguments: dict[int, Any], failures: dict[int, Exception]) -> dict[int, Any]:
        """The answers of those that failed, made anew: one after another, so that a fault is laid to its own door."""
        answers, given_up = {}, set()
        waiting, stale = {i: arguments[i] for i in failures}, self._renewed(failures)
        while todo := (stale | waiting.keys()) - given_up:
            i = min(todo)
            try:
                if i in stale and not (method == "reset" and i in waiting):
                    self._live_again(i)
                if i in waiting:
                    answer = self._alone(method, i, waiting[i])
                    self._take_down(method, i, waiting.pop(i), answer)
                    answers[i] = answer
                stale.discard(i)
            except Exception as error:
                waiting.pop(i, None)
                given_up.add(i)
                self._give_up(i, error)
                stale |= self._renewed({i: error})
        saved = [i for i in failures if i not in given_up]
        if saved:
            self._say(self._told_of_mending(saved, failures[saved[0]]))
        return answers

    def _renewed(self, failures: dict[int, Exception]) -> set[int]:
        try:
            return self._crew.renew(failures)
        except Exception as error:
            i, failure = next(iter(failures.items()))
            raise SimulatorError(
                f"{self._labels[i]}: the simulator broke ({one_line(failure)}) and cannot be made again: "
                f"{one_line(error)}."
            ) from error

    def _live_again(self, i: int) -> None:
        """Bring a simulator that was made anew back to where its cell is, which may need none."""
        cell = self._cells[i]
        if self._done[cell] or self._length[cell] < 0:
            return
        obs = self._alone("reset", i, self.episode_seed(*cell))
        for action in self._actions[cell][: self._length[cell]]:
            obs = self._alone("step", i, action).obs
        if not np.array_equal(obs, self._obs[cell]):
            raise RuntimeError("living through the episode again gave other observations")

    def _alone(self, method: str, i: int, argument: Any) -> Any:
        answers, failures = self._crew.call(method, {i: argument})
        if failures:
            raise failures[i]
        return answers[i]

    def _give_up(self, i: int, error: Exception) -> None:
        cell = self._cells[i]
        step, raised = int(self._length[cell]) + 1, one_line(error)
        self._say(f"{self._labels[i]}: its episode {self._episode[cell]} is given up at step {step}: {raised}")
        self._length[cell] = -1
        for count in self._strikes:
            count[cell] += 1
        check_failure_limits(self._strikes, lambda s, e: self._labels[self._cells.index((s, e))], raised)

    def _told_of_mending(self, saved: list[int], failure: Exception) -> str:
        others = f" and {len(saved) - 1} more" if len(saved) > 1 else ""
        return f"{self._labels[saved[0]]}{others}: made anew and brought back, nothing is lost: {one_line(failure)}"

    @property
    def broken(self) -> Int64[np.ndarray, " S"]:
        """Episodes given up so far, per seed."""
        return self._strikes.broken.sum(axis=1, dtype=np.int64)

    def episode_seed(self, s: int, e: int) -> int:
        """Seed with which `Env.reset` reproduces the current episode of environment (s, e)."""
        return episode_seed(self.seeds[s], self.stream, e, int(self._episode[s, e]))

    def render(self, s: int, e: int) -> UInt8[np.ndarray, "H W 3"]:
        """The current frame of environment (s, e); raises UserError where there is no rendering."""
        return self._crew.render(self._cells.index((s, e)))

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that `restore` needs, as arrays: a few numbers a cell, and the running episodes' actions."""
        return {
            "seeds": np.array(self.seeds),
            "episode": self._episode.copy(),
            "length": self._length.copy(),
            "obs": self._obs.copy(),
            "actions": self._actions.copy(),
            **{name: count.copy() for name, count in self._strikes._asdict().items()},
        }

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Bring every simulator back to where `snapshot` was taken, by living through its episodes again.

        Raises:
            ValueError: the snapshot is of another grid.
            SimulatorError: a simulator did not come back to the same observation.
        """
        snapshot = {key: np.asarray(value) for key, value in snapshot.items()}
        mine = {key: value.shape for key, value in self.snapshot().items()}
        theirs = {key: value.shape for key, value in snapshot.items()}
        if mine != theirs or tuple(snapshot["seeds"]) != self.seeds:
            raise ValueError(f"the snapshot is of another grid: {theirs}, this one is {mine} with seeds {self.seeds}")
        self._relive(snapshot["episode"], snapshot["length"], snapshot["actions"])
        given_up = snapshot["length"] < 0
        self._length[given_up], self._done[given_up], self._obs[given_up] = -1, False, snapshot["obs"][given_up]
        self._strikes = FailureCounts(*(snapshot[name].copy() for name in FailureCounts._fields))
        for i, cell in enumerate(self._cells):
            if self._length[cell] != snapshot["length"][cell] or self._episode[cell] != snapshot["episode"][cell]:
                raise SimulatorError(f"{self._labels[i]}: the episode that the checkpoint was taken in breaks now.")
            if not np.array_equal(self._obs[cell], snapshot["obs"][cell]):
                raise SimulatorError(
                    f"{self._labels[i]}: living through an episode again gave other observations: the simulator is "
                    "not what it was when the checkpoint was taken, or its seed does not determine its episodes."
                )

    def _relive(self, episode: np.ndarray, length: np.ndarray, actions: np.ndarray) -> None:
        self._episode[:], self._length[:], self._done[:], self._obs[:] = episode, 0, True, 0.0
        running = {i: int(episode[cell]) for i, cell in enumerate(self._cells) if episode[cell] >= 0 <= length[cell]}
        self._begin(running)
        for t in range(int(length.max())):
            # Not those whose episode broke meanwhile.
            there = {i: cell for i, cell in enumerate(self._cells) if self._length[cell] == t < length[cell]}
            self._advance({i: actions[cell][t] for i, cell in there.items()})

    def close(self) -> None:
        """Close every environment."""
        self._crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
