"""ManiSkill 3: manipulation on the CPU, state observations, 7 action components (translation, rotation, gripper).

It runs in its own interpreter (`make maniskill`), because its planners need an older NumPy. Episodes are longer than
the suite's own time limits where its planners need it; the lengths are in `remote/maniskill.py`.
"""

import numpy as np
from jaxtyping import Float32

from cdred.envs.remote.client import RemoteEnv
from cdred.envs.remote.interpreter import Interpreter, find_interpreter
from cdred.envs.remote.maniskill import CONTROL_MODE, TASKS

VARIABLE, FOLDER = "CDRED_MANISKILL_PYTHON", ".venv-maniskill"
# The same versions as in the Makefile. Torch is installed on its own: as a dependency it may bring CUDA.
INSTALL_HINT = (
    f"make {FOLDER} in the working directory, or set {VARIABLE} to a Python that has mani_skill.\n"
    f"  python3 -m venv {FOLDER} && {FOLDER}/bin/pip install torch==2.13.0\n"
    f"  {FOLDER}/bin/pip install mani_skill==3.0.1 numpy==1.26.4"
)


def remote_interpreter() -> Interpreter:
    """Return the suite's interpreter.

    Raises:
        UserError: it is not set up.
    """
    python = find_interpreter(VARIABLE, FOLDER, INSTALL_HINT)
    return Interpreter(python, "cdred.envs.remote.maniskill", install_hint=INSTALL_HINT)


def make(name: str, render_size: int | None = None) -> RemoteEnv:
    """Make the task `name` in a process of its own."""
    return RemoteEnv.spawn(remote_interpreter(), f"maniskill/{name}", name, render_size)


def task_names() -> list[str]:
    """List the tasks, without suite and version."""
    return sorted(TASKS)


class PlannedExpert:
    """The motion planner's episode, planned in advance; actions of zero if it found no plan.

    Args:
        env: environment; its process runs the planner.
        seed: seed of the episode.
        stop_after_success: hold still with the gripper unchanged after the first success.
    """

    description = f"the suite's motion planner, replayed in {CONTROL_MODE} at 2x speed"

    def __init__(self, env: RemoteEnv, seed: int, stop_after_success: bool = False):
        plan = env.plan(seed)
        self._actions = plan if len(plan) else np.zeros((1, env.spec.action_dim), np.float32)
        self._stop_after_success, self._next, self._stopped = stop_after_success, 0, False

    def __call__(self, obs: Float32[np.ndarray, "*obs"], success: bool = False) -> Float32[np.ndarray, " A"]:
        """Return the next action; `success` is that of the previous step."""
        del obs
        self._stopped |= self._stop_after_success and success
        last = self._actions[min(self._next, len(self._actions)) - 1]
        if self._stopped or self._next >= len(self._actions):
            return np.concatenate([np.zeros(6, np.float32), last[6:]])
        self._next += 1
        return np.clip(self._actions[self._next - 1], -1.0, 1.0)


def planned_expert(name: str) -> type[PlannedExpert] | None:
    """Return the expert's class, to be constructed once per episode; None if the suite has no planner for the task."""
    return PlannedExpert if TASKS[name].planner else None
