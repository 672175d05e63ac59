"""Meta-World 3: fifty manipulation tasks, with the goal in the observation and sampled for every episode.

Upstream, only the constructor's seed reproduces an episode, and constructing compiles an XML file, which takes 250 ms.
Here the model is compiled once, and every episode constructs an environment around that model, after restoring the
few arrays that tasks write to. An episode is thus independent of the one before it, at a cost of about 15 ms.
"""

import warnings
from functools import partial
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float32, UInt8
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
from metaworld.policies import ENV_POLICY_MAP

from cdred.envs.base import Step, raise_render_error, validate_step
from cdred.envs.physics import scale_physics
from cdred.envs.render_thread import RenderThread
from cdred.task_name import PLAIN_PHYSICS, PhysicsFactors, with_physics, with_repeat
from cdred.types import EnvSpec

EPISODE_FRAMES = 200
ACTION_REPEAT = 2
DEFAULT_RENDER_SIZE = 240
RENDERS_SIZE = True
SCALES_PHYSICS = True
# Of MuJoCo's steps in a frame; upstream's default, which no task changes (a test checks it).
FRAME_SKIP = 5

# Arrays of the compiled model that tasks write to when they place their objects (a test checks all fifty tasks).
WRITTEN_BY_TASKS = ("body_pos", "body_quat", "site_pos", "site_quat", "eq_data")


class MetaWorld:
    """One Meta-World task: 39 observations, 4 action components (hand x, y, z, gripper), by default 100 steps.

    Args:
        name: task without suite and version, e.g. `bin-picking`.
        render_size: side of rendered frames in pixels; None for `DEFAULT_RENDER_SIZE`.
        action_repeat: frames per step, a divisor of `EPISODE_FRAMES`.
        physics: factors of masses and friction coefficients.
    """

    def __init__(
        self,
        name: str,
        render_size: int | None = None,
        action_repeat: int = ACTION_REPEAT,
        physics: PhysicsFactors = PLAIN_PHYSICS,
    ):
        task = with_physics(with_repeat(f"metaworld/{name}", action_repeat, ACTION_REPEAT), physics)
        self._class = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{name}-v3-goal-observable"]
        self._sim: Any = self._class.__new__(self._class)
        self._model = mujoco.MjModel.from_xml_path(self._sim.model_name)  # pyright: ignore[reportAttributeAccessIssue]
        scale_physics(self._model, mujoco.MjData(self._model), physics)  # pyright: ignore[reportAttributeAccessIssue]
        seconds, steps = self._model.opt.timestep * FRAME_SKIP * action_repeat, EPISODE_FRAMES // action_repeat
        self.spec = EnvSpec(task, (39,), 4, steps, action_repeat, has_success=True, control_timestep=seconds)
        # Software rendering is several times faster without multisampling and with smaller shadow maps.
        self._model.vis.quality.offsamples, self._model.vis.quality.shadowsize = 0, 512
        self._initial_values = {field: getattr(self._model, field).copy() for field in WRITTEN_BY_TASKS}
        self._render_size = render_size or DEFAULT_RENDER_SIZE
        self._render_thread = RenderThread()
        self._renderer: mujoco.Renderer | None = None
        self._elapsed_steps = 0

    def reset(self, seed: int) -> Float32[np.ndarray, " 39"]:
        sim: Any = self._class.__new__(self._class)
        sim._initialize_simulation = self._reset_simulation
        sim.__init__(seed=seed)
        self._sim, self._elapsed_steps = sim, 0
        # Ten tasks place objects relative to their positions after the previous reset, so the constructor's reset is
        # not enough: a second one, with the same draw, gives the state of upstream's `Class(seed).reset()`.
        return sim.reset()[0].astype(np.float32)

    def _reset_simulation(self):
        for field, values in self._initial_values.items():
            getattr(self._model, field)[...] = values
        return self._model, mujoco.MjData(self._model)  # pyright: ignore[reportAttributeAccessIssue]

    def step(self, action: Float32[np.ndarray, " A"]) -> Step:
        action = np.clip(action, -1.0, 1.0)
        total, success, obs = 0.0, False, np.zeros(0)
        for _ in range(self.spec.action_repeat):
            obs, reward, _, _, info = self._sim.step(action)
            total += float(reward)
            success = success or bool(info["success"])
        self._elapsed_steps += 1
        truncated = self._elapsed_steps >= self.spec.episode_length
        return validate_step(self.spec, Step(obs.astype(np.float32), total, False, truncated, success))

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        try:
            return self._render_thread.run(self._draw)
        except Exception as error:
            raise_render_error(self.spec.task, error)

    def _draw(self) -> UInt8[np.ndarray, "H W 3"]:
        if self._renderer is None:
            self._renderer = offscreen_renderer(self._model, self._render_size)
        self._renderer.update_scene(self._sim.data, camera="corner2")
        # This camera is mounted upside down: a rotation by 180 degrees turns the frame upright.
        return np.ascontiguousarray(self._renderer.render()[::-1, ::-1])

    def close(self) -> None:
        self._render_thread.close(self._free)

    def _free(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def offscreen_renderer(model: Any, size: int) -> mujoco.Renderer:
    """Make a renderer of `size` x `size` frames, enlarging the buffer that the model's file declares if needed."""
    view = model.vis.global_
    view.offwidth, view.offheight = max(view.offwidth, size), max(view.offheight, size)
    return mujoco.Renderer(model, size, size)


class ScriptedExpert:
    """Meta-World's scripted policy for one episode.

    Args:
        name: task without suite and version, e.g. `bin-picking`.
        stop_after_success: hold still with the gripper unchanged after the first success. The script itself continues,
            and in many tasks leaves the goal again.
    """

    def __init__(self, name: str, stop_after_success: bool = False):
        self._policy = ENV_POLICY_MAP[f"{name}-v3"]()
        self._stop_after_success = stop_after_success
        self._stop_action: Float32[np.ndarray, " 4"] | None = None
        self._last = np.zeros(4, np.float32)

    def __call__(self, obs: Float32[np.ndarray, " 39"], success: bool = False) -> Float32[np.ndarray, " 4"]:
        """Return the action in [-1, 1]; `success` is that of the previous step."""
        if self._stop_action is None and self._stop_after_success and success:
            self._stop_action = np.concatenate([np.zeros(3, np.float32), self._last[3:]])
        if self._stop_action is None:
            self._last = self._scripted(obs)
            return self._last
        return self._stop_action.copy()

    def _scripted(self, obs: Float32[np.ndarray, " 39"]) -> Float32[np.ndarray, " 4"]:
        with warnings.catch_warnings():
            # The scripts exceed the action bounds on purpose and warn at every step.
            warnings.simplefilter("ignore")
            action = self._policy.get_action(obs.astype(np.float64))
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def task_names() -> list[str]:
    """List the fifty tasks, without suite and version."""
    return sorted(key.removesuffix("-v3-goal-observable") for key in ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE)


make = MetaWorld


def scripted_expert(name: str) -> partial[ScriptedExpert]:
    """Return the constructor of one episode's expert."""
    return partial(ScriptedExpert, name)
