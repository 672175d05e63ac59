"""A grid of [S seeds, E environments] that steps in lockstep and resumes exactly.

Exact resume needs nothing from the simulators but that an episode's seed determines it: a snapshot holds, for each
cell, which episode it is in and the actions taken so far; restoring starts that episode again and takes those actions
again. It works for every suite, state that lives in no accessible array included, and costs at most one episode.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from cdred.envs.workers import WorkersName, crew
from cdred.errors import UserError

# Two bits of every episode seed name its stream, so streams cannot share an episode.
STREAMS = ("train", "eval", "demos", "random")


class GridStep(NamedTuple):
    """One decision of every environment; fields as in `Step`, `obs` being true final observations."""

    obs: Float32[np.ndarray, "S E *obs"]
    reward: Float32[np.ndarray, "S E"]
    terminated: Bool[np.ndarray, "S E"]
    truncated: Bool[np.ndarray, "S E"]
    success: Bool[np.ndarray, "S E"]


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


def require_actions(action: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises ValueError where they are not finite, or not of that shape."""
    if action.shape != shape or not np.isfinite(action).all():
        raise ValueError(f"expected finite actions of shape {shape}, got {action.shape}: {action}")


class EnvGrid:
    """S x E independent environments of one task.

    Resets are explicit: an environment whose episode has ended must be reset before the next `step`.

    Args:
        task: as in `registry.make`.
        seeds: one run a row (each >= 0).
        num_envs: environments a run (E).
        stream: `train`, `eval`, `demos` or `random`: no two of them share an episode.
        render_size: as in `registry.make`.
        workers: who steps the environments, as in `workers.crew`; it makes no difference to what they do.

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
        workers: WorkersName = "sync",
    ):
        require_place(seeds, num_envs, stream)
        self.seeds, self.stream = tuple(int(seed) for seed in seeds), stream
        self.shape = (len(seeds), num_envs)
        self._cells = tuple(np.ndindex(self.shape))
        labels = [f"{task}, seed {self.seeds[s]}, environment {e}" for s, e in self._cells]
        self._crew = crew(task, labels, workers, render_size)
        self.spec = self._crew.spec
        self._obs = np.zeros((*self.shape, *self.spec.obs_shape), np.float32)
        self._episode = np.full(self.shape, -1)
        self._length = np.zeros(self.shape, np.int64)
        self._done = np.ones(self.shape, bool)
        self._actions = np.zeros((*self.shape, self.spec.episode_length, self.spec.action_dim), np.float32)

    def reset(self, mask: Bool[np.ndarray, "S E"] | None = None) -> Float32[np.ndarray, "S E *obs"]:
        """Start the next episode where `mask` holds (None: everywhere); the current observations of all."""
        mask = np.ones(self.shape, bool) if mask is None else mask
        self._begin({i: int(self._episode[cell]) + 1 for i, cell in enumerate(self._cells) if mask[cell]})
        return self._obs.copy()

    def _begin(self, episodes: dict[int, int]) -> None:
        for i, episode in episodes.items():
            cell = self._cells[i]
            self._episode[cell], self._length[cell], self._done[cell] = episode, 0, False
        seeds = {i: self.episode_seed(*self._cells[i]) for i in episodes}
        for i, obs in self._crew.call("reset", seeds).items():
            self._obs[self._cells[i]] = obs

    def step(self, action: Float32[np.ndarray, "S E A"]) -> GridStep:
        """One decision everywhere.

        Raises:
            RuntimeError: an environment has ended its episode, or never begun one, and was not reset.
            ValueError: `action` has the wrong shape or is not finite.
        """
        if self._done.any():
            raise RuntimeError(f"step before reset: no running episode in cells {np.argwhere(self._done).tolist()}")
        action = np.asarray(action, np.float32)
        require_actions(action, (*self.shape, self.spec.action_dim))
        return self._advance({i: action[cell] for i, cell in enumerate(self._cells)})

    def _advance(self, actions: dict[int, Float32[np.ndarray, " A"]]) -> GridStep:
        result = GridStep(self._obs, np.zeros(self.shape, np.float32), *np.zeros((3, *self.shape), bool))
        for i, step in self._crew.call("step", actions).items():
            cell = self._cells[i]
            for array, value in zip(result, step, strict=True):
                array[cell] = value
            self._actions[cell][self._length[cell]] = actions[i]
            self._length[cell] += 1
            self._done[cell] = step.terminated or step.truncated
        return result._replace(obs=self._obs.copy())

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
        }

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Bring every simulator back to where `snapshot` was taken, by living through its episodes again.

        Raises:
            ValueError: the snapshot is of another grid.
            RuntimeError: the simulator did not come back to the same observation (it is not deterministic here).
        """
        snapshot = {key: np.asarray(value) for key, value in snapshot.items()}
        mine = {key: value.shape for key, value in self.snapshot().items()}
        theirs = {key: value.shape for key, value in snapshot.items()}
        if mine != theirs or tuple(snapshot["seeds"]) != self.seeds:
            raise ValueError(f"the snapshot is of another grid: {theirs}, this one is {mine} with seeds {self.seeds}")
        self._relive(snapshot["episode"], snapshot["length"], snapshot["actions"])
        for cell in self._cells:
            if not np.array_equal(self._obs[cell], snapshot["obs"][cell]):
                raise RuntimeError(f"{self.spec.task}: living through an episode again gave other observations")

    def _relive(self, episode: np.ndarray, length: np.ndarray, actions: np.ndarray) -> None:
        self._episode[:], self._length[:], self._done[:], self._obs[:] = -1, 0, True, 0.0
        self._begin({i: int(episode[cell]) for i, cell in enumerate(self._cells) if episode[cell] >= 0})
        for t in range(int(length.max())):
            self._advance({i: actions[cell][t] for i, cell in enumerate(self._cells) if t < length[cell]})

    def close(self) -> None:
        """Close every environment."""
        self._crew.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
