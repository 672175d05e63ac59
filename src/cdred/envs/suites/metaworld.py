"""Meta-World 3: fifty manipulation tasks, the goal in the observation and drawn anew for every episode.

Upstream, only the constructor's seed reproduces an episode, and constructing compiles an XML file for a quarter of a
second. Here the model is compiled once, and every episode is a newly constructed environment around that model, whose
few arrays that tasks write to are put back first. So an episode cannot remember the one before it, for some 15 ms.
"""

import warnings
from functools import partial
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float32, UInt8
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
from metaworld.policies import ENV_POLICY_MAP

from cdred.envs.base import Step, checked, raise_render_error
from cdred.types import EnvSpec

ACTION_REPEAT = 2
EPISODE_LENGTH = 100
DEFAULT_RENDER_SIZE = 240

# All that tasks write into the compiled model when they place their objects (an audit of the fifty is in the tests).
WRITTEN_BY_TASKS = ("body_pos", "body_quat", "site_pos", "site_quat", "eq_data")


class MetaWorld:
    """One Meta-World task: 39 observations, 4 actions (hand x, y, z, grip), 100 steps of 2 frames."""

    def __init__(self, name: str, render_size: int | None = None):
        self.spec = EnvSpec(f"metaworld/{name}", (39,), 4, EPISODE_LENGTH, ACTION_REPEAT, has_success=True)
        self._class = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-v3-goal-observable"]
        self._sim: Any = self._class.__new__(self._class)
        self._model = mujoco.MjModel.from_xml_path(self._sim.model_name)  # pyright: ignore[reportAttributeAccessIssue]
        self._pristine = {field: getattr(self._model, field).copy() for field in WRITTEN_BY_TASKS}
        self._render_size = render_size or DEFAULT_RENDER_SIZE
        self._renderer: mujoco.Renderer | None = None
        self._decisions = 0

    def reset(self, seed: int) -> Float32[np.ndarray, " 39"]:
        sim: Any = self._class.__new__(self._class)
        sim._initialize_simulation = self._fresh_simulation
        sim.__init__(seed=seed)
        self._sim, self._decisions = sim, 0
        # Ten tasks place objects relative to where the reset before put them, so the constructor's own reset is not
        # enough: only a second one, with the same draw, shows the world as upstream's `Class(seed).reset()` does.
        return sim.reset()[0].astype(np.float32)

    def _fresh_simulation(self):
        for field, values in self._pristine.items():
            getattr(self._model, field)[...] = values
        return self._model, mujoco.MjData(self._model)  # pyright: ignore[reportAttributeAccessIssue]

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        action = np.clip(action, -1.0, 1.0)
        total, success, obs = 0.0, False, np.zeros(0)
        for _ in range(ACTION_REPEAT):
            obs, reward, _, _, info = self._sim.step(action)
            total += float(reward)
            success = success or bool(info["success"])
        self._decisions += 1
        truncated = self._decisions >= EPISODE_LENGTH
        return checked(self.spec, Step(obs.astype(np.float32), total, False, truncated, success))

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        try:
            if self._renderer is None:
                self._renderer = offscreen_renderer(self._model, self._render_size)
            self._renderer.update_scene(self._sim.data, camera="corner2")
            # This camera hangs upside down: half a turn, not a mirror image, puts the picture upright.
            return np.ascontiguousarray(self._renderer.render()[::-1, ::-1])
        except Exception as error:
            raise_render_error(self.spec.task, error)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def offscreen_renderer(model: Any, size: int) -> mujoco.Renderer:
    """A renderer of `size` x `size` frames, whatever size of buffer the model's file declares."""
    view = model.vis.global_
    view.offwidth, view.offheight = max(view.offwidth, size), max(view.offheight, size)
    return mujoco.Renderer(model, size, size)


class ScriptedExpert:
    """Meta-World's scripted policy for one episode.

    Args:
        name: task without suite and version, e.g. `bin-picking`.
        hold: after the first success stand still and keep the grip, instead of following the script, which in many
            tasks undoes its success.
    """

    def __init__(self, name: str, hold: bool = False):
        self._policy = ENV_POLICY_MAP[f"{name}-v3"]()
        self._hold = hold
        self._held: Float32[np.ndarray, " 4"] | None = None
        self._last = np.zeros(4, np.float32)

    def __call__(self, obs: Float32[np.ndarray, " 39"], success: bool = False) -> Float32[np.ndarray, " 4"]:
        """The expert's action in [-1, 1]; `success` tells whether the step before reached the goal."""
        if self._held is None and self._hold and success:
            self._held = np.concatenate([np.zeros(3, np.float32), self._last[3:]])
        if self._held is None:
            self._last = self._scripted(obs)
            return self._last
        return self._held.copy()

    def _scripted(self, obs: Float32[np.ndarray, " 39"]) -> Float32[np.ndarray, " 4"]:
        with warnings.catch_warnings():
            # The scripts ask for more than full speed on purpose and warn of it at every step.
            warnings.simplefilter("ignore")
            action = self._policy.get_action(obs.astype(np.float64))
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def names() -> list[str]:
    """The fifty tasks, without suite and version."""
    return sorted(key.removesuffix("-v3-goal-observable") for key in ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE)


make = MetaWorld


def scripted_expert(name: str) -> partial[ScriptedExpert]:
    """Maker of one expert an episode: `maker(hold=...)(obs, success)` is an action."""
    return partial(ScriptedExpert, name)
