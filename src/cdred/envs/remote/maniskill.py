"""ManiSkill 3 in its own interpreter: on the CPU, state observations, actions in `pd_ee_delta_pose`.

Served by `server`; imports nothing of this package, and the suite itself only when a task is made.

State observations need no graphics, but the suite requires a Vulkan device because it makes materials and textures
while it builds a scene. `disable_rendering` replaces these by stubs, so it runs without such a device, with the same
physics. Plain resets keep contacts of the previous episode in the solver (observed in LiftPegUpright and PlugCharger),
so an episode would depend on the one before it: every reset rebuilds the scene.
"""

# The packages imported here are installed in another interpreter.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import functools
import gc
import importlib.metadata
import sys
import types
import typing

import numpy as np

CONTROL_MODE = "pd_ee_delta_pose"


class UserError(Exception):
    """Stands for `cdred.errors.UserError`: the client recognises it by its name."""


class Task(typing.NamedTuple):
    """Episode length in steps, whether the suite has a planner, and the assets to download separately."""

    length: int
    planner: bool = False
    assets: tuple = ()


# The suite's own time limits (50 steps for most tasks) are shorter than the episodes of its planners.
TASKS = {
    "LiftPegUpright": Task(200, planner=True),
    "PegInsertionSide": Task(200, planner=True),
    "PickCube": Task(100, planner=True),
    "PlaceSphere": Task(200, planner=True),
    "PlugCharger": Task(200, planner=True),
    "PokeCube": Task(100),
    "PullCube": Task(100, planner=True),
    "PullCubeTool": Task(300, planner=True),
    "PushCube": Task(100, planner=True),
    "PushT": Task(100),
    "RollBall": Task(100),
    "StackCube": Task(200, planner=True),
    "StackPyramid": Task(300, planner=True),
    "AssemblingKits": Task(200, assets=("assembling_kits",)),
    "OpenCabinetDoor": Task(200, assets=("partnet_mobility_cabinet",)),
    "OpenCabinetDrawer": Task(200, assets=("partnet_mobility_cabinet",)),
    "PickSingleYCB": Task(100, assets=("ycb",)),
    "TurnFaucet": Task(200, assets=("partnet_mobility_faucet",)),
}


class ManiSkill:
    """One task. Reaching the goal does not end an episode, so all have the same length."""

    def __init__(self, name):
        self._task = TASKS[name]
        require_assets(name)
        self._env = make_simulator(name, CONTROL_MODE)
        space = self._env.single_action_space
        self._low, self._span = space.low.astype(np.float64), (space.high - space.low).astype(np.float64)
        self._elapsed_steps = 0
        self.spec = types.SimpleNamespace(
            task=name,
            obs_shape=self._env.single_observation_space.shape,
            action_dim=int(self._low.size),
            episode_length=self._task.length,
            has_success=True,
            action_low=self._low.tolist(),
            action_high=(self._low + self._span).tolist(),
        )

    def reset(self, seed):
        """Return the first observation of the episode of `seed`."""
        self._elapsed_steps = 0
        return to_numpy(reset_rebuilding_scene(self._env, seed))

    def step(self, action):
        """Return observation, reward, terminated, truncated, success."""
        native = self._low + (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) / 2.0 * self._span
        obs, reward, _, _, info = self._env.step(native.astype(np.float32))
        self._elapsed_steps += 1
        return to_numpy(obs), float(reward), False, self._elapsed_steps >= self._task.length, bool(info["success"])

    def render(self):
        """Raise UserError: rendering is disabled."""
        raise UserError("ManiSkill tasks cannot be rendered: they run without graphics.")


def make(name, render_size=None):
    """Make the task `name`; `render_size` is ignored."""
    del render_size
    return ManiSkill(name)


@functools.lru_cache(maxsize=64)
def plan(name, seed):
    """Return the actions of the motion planner, see `maniskill_plan`."""
    import_maniskill()
    from cdred.envs.remote import maniskill_plan

    return maniskill_plan.plan(name, seed)


def versions():
    """Return the versions of the packages that determine physics and plans."""
    return {package: importlib.metadata.version(package) for package in ("mani_skill", "sapien", "mplib", "numpy")}


def reset_rebuilding_scene(env, seed):
    """Rebuild the scene of `seed` and return the first observation."""
    return env.reset(seed=seed, options={"reconfigure": True})[0]


def to_numpy(obs):
    """Copy the observation of the first environment of a batch to a float32 array."""
    return np.array(obs.numpy()[0], np.float32)


def require_assets(name):
    """Raise UserError if assets are missing; the suite itself would prompt on a terminal that is not connected."""
    import_maniskill()
    from mani_skill.utils import assets

    for group in TASKS[name].assets:
        single = group not in assets.DATA_GROUPS
        sources = [group] if single else assets.expand_data_group_into_individual_data_source_ids(group)
        if not all(map(assets.is_data_source_downloaded, sources)):
            raise UserError(
                f"maniskill/{name} needs assets that are not on this machine. Download them with\n"
                f"{sys.executable} -m mani_skill.utils.download_asset {group}"
            )


def make_simulator(name, control_mode, obs_mode="state"):
    """Make the suite's environment without its time limit."""
    env = import_maniskill().make(
        f"{name}-v1",
        obs_mode=obs_mode,
        control_mode=control_mode,
        sim_backend="physx_cpu",
        render_backend="none",
        disable_env_checker=True,
    )
    return env.unwrapped


@functools.cache
def import_maniskill():
    """Import ManiSkill with rendering disabled; return Gymnasium, in which its tasks are registered."""
    disable_rendering()
    import gymnasium
    import mani_skill.envs  # noqa: F401
    import torch

    # The arrays are too small for threads to pay off.
    torch.set_num_threads(1)
    # Every new scene collects garbage, which takes a third of a second if it includes the imported modules.
    gc.collect()
    gc.freeze()
    return gymnasium


class RenderStub:
    """Replaces SAPIEN's rendering objects; every attribute, item and call gives another stub."""

    def __init__(self, *_, **__):
        pass

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return RenderStub()

    def __call__(self, *_, **__):
        return RenderStub()

    def __getitem__(self, _):
        return RenderStub()

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0


RENDER_TYPES = ("RenderMaterial", "RenderTexture", "RenderShape", "RenderBody")


def disable_rendering():
    """Replace SAPIEN's rendering types by `RenderStub` in all of its modules."""
    import sapien

    render_types = {kind for name, kind in vars(sapien.render).items() if name.startswith(RENDER_TYPES)}
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "sapien"]:
        for name, kind in list(vars(module).items()):
            if isinstance(kind, type) and kind in render_types:
                setattr(module, name, type(name, (RenderStub,), {}))
    find = sapien.Entity.find_component_by_type
    sapien.Entity.find_component_by_type = lambda self, kind: (
        RenderStub() if issubclass(kind, RenderStub) else find(self, kind)
    )
