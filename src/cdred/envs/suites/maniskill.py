"""ManiSkill 3: manipulation on the CPU, observed as state, 7 numbers an action (hand's move and turn, grip).

It lives in an interpreter of its own (`make maniskill`): its planners need a NumPy older than ours. Episodes are longer
than the suite's own limits where its planners need longer; the lengths are in `remote/maniskill.py`.
"""

import numpy as np
from jaxtyping import Float32

from cdred.envs.remote.client import RemoteEnv
from cdred.envs.remote.interpreter import Interpreter, interpreter
from cdred.envs.remote.maniskill import CONTROL_MODE, TASKS

VARIABLE, FOLDER = "CDRED_MANISKILL_PYTHON", ".venv-maniskill"
MEND = f"run `make maniskill` in the project's folder, or name an interpreter that has mani_skill in ${VARIABLE}."


def host() -> Interpreter:
    """Where the suite lives.

    Raises:
        UserError: it is not set up.
    """
    return Interpreter(interpreter(VARIABLE, FOLDER, MEND), "cdred.envs.remote.maniskill", mend=MEND)


def make(name: str, render_size: int | None = None) -> RemoteEnv:
    """The task `name`, in a process of its own."""
    return RemoteEnv.alone(host(), f"maniskill/{name}", name, render_size)


def names() -> list[str]:
    """The tasks, without suite and version."""
    return sorted(TASKS)


class PlannedExpert:
    """The motion planner's whole episode, planned at its start; nothing is done where it found no way.

    Args:
        env: whose process has the planner.
        seed: of the episode.
        hold: after the first success stand still and keep the grip.
    """

    about = f"the suite's motion planner, redone in {CONTROL_MODE} at twice its pace"

    def __init__(self, env: RemoteEnv, seed: int, hold: bool = False):
        found = env.plan(seed)
        self._actions = found if len(found) else np.zeros((1, env.spec.action_dim), np.float32)
        self._hold, self._next, self._held = hold, 0, False

    def __call__(self, obs: Float32[np.ndarray, "*obs"], success: bool = False) -> Float32[np.ndarray, " A"]:
        """Its next action; `success` tells whether the step before reached the goal."""
        del obs
        self._held |= self._hold and success
        last = self._actions[min(self._next, len(self._actions)) - 1]
        if self._held or self._next >= len(self._actions):
            return np.concatenate([np.zeros(6, np.float32), last[6:]])
        self._next += 1
        return np.clip(self._actions[self._next - 1], -1.0, 1.0)


def planned_expert(name: str) -> type[PlannedExpert] | None:
    """Maker of one expert an episode: `maker(env, seed, hold)`; None where the suite has no planner."""
    return PlannedExpert if TASKS[name].planner else None
