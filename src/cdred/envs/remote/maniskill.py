"""ManiSkill 3 where it lives: in an interpreter of its own, on the CPU, seen as state, driven in `pd_ee_delta_pose`.

Served by `server`; imports nothing of ours, and the suite itself only when a task is made.

State needs no graphics, but the suite asks for a Vulkan device all the same: it makes materials and textures while it
builds a scene. Here these are nothing at all (`blinded`), so it runs where there is no such device, with the same
physics. Plain resets leave contacts of the episode before in the solver, so episodes would remember one another
(seen in LiftPegUpright and PlugCharger): every reset builds the scene anew.
"""

# What is imported here lives in another interpreter.
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
    """Known by its name at the other end."""


class Task(typing.NamedTuple):
    """How long an episode is, whether the suite can plan it, and which assets it needs that no package carries."""

    length: int
    planner: bool = False
    assets: tuple = ()


# The suite's own limits (50 steps for most) end before its planners do: see results/maniskill/README.md.
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
    """One task. Reaching the goal ends no episode, so that all are equally long; success is `info["success"]`."""

    def __init__(self, name):
        self._task = TASKS[name]
        require_assets(name)
        self._env = simulator(name, CONTROL_MODE)
        space = self._env.single_action_space
        self._low, self._span = space.low.astype(np.float64), (space.high - space.low).astype(np.float64)
        self._decisions = 0
        self.spec = types.SimpleNamespace(
            task=name,
            obs_shape=self._env.single_observation_space.shape,
            action_dim=int(self._low.size),
            episode_length=self._task.length,
            has_success=True,
        )

    def reset(self, seed):
        """The first observation of the episode of `seed`."""
        self._decisions = 0
        return state(restarted(self._env, seed))

    def step(self, action):
        """Observation, reward, terminated, truncated, success."""
        native = self._low + (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) / 2.0 * self._span
        obs, reward, _, _, info = self._env.step(native.astype(np.float32))
        self._decisions += 1
        return state(obs), float(reward), False, self._decisions >= self._task.length, bool(info["success"])

    def render(self):
        """No frames: nothing has been given a look."""
        raise UserError("ManiSkill tasks have no picture here: they run without graphics.")


def make(name, render_size=None):
    """The task `name`; there are no frames that could have a size."""
    del render_size
    return ManiSkill(name)


@functools.lru_cache(maxsize=64)
def plan(name, seed):
    """The actions of the motion planner's episode, see `maniskill_plan`."""
    suite()
    from cdred.envs.remote import maniskill_plan

    return maniskill_plan.plan(name, seed)


def versions():
    """Of what the physics and the plans depend on."""
    return {package: importlib.metadata.version(package) for package in ("mani_skill", "sapien", "mplib", "numpy")}


def restarted(env, seed):
    """The first observation after building the scene of `seed` anew."""
    return env.reset(seed=seed, options={"reconfigure": True})[0]


def state(obs):
    """A flat array of its own."""
    return np.array(obs.numpy()[0], np.float32)


def require_assets(name):
    """Say how to get what is missing, instead of asking on a terminal that nobody sees."""
    suite()
    from mani_skill.utils import assets

    for group in TASKS[name].assets:
        single = group not in assets.DATA_GROUPS
        sources = [group] if single else assets.expand_data_group_into_individual_data_source_ids(group)
        if not all(map(assets.is_data_source_downloaded, sources)):
            raise UserError(
                f"maniskill/{name} needs assets that are not on this machine; they are downloaded with\n"
                f"{sys.executable} -m mani_skill.utils.download_asset {group}"
            )


def simulator(name, control_mode, obs_mode="state"):
    """The suite's environment, without time limit."""
    made = suite().make(
        f"{name}-v1",
        obs_mode=obs_mode,
        control_mode=control_mode,
        sim_backend="physx_cpu",
        render_backend="none",
        disable_env_checker=True,
    )
    return made.unwrapped


@functools.cache
def suite():
    """Gymnasium, with ManiSkill's tasks in it and its eyes closed."""
    blinded()
    import gymnasium
    import mani_skill.envs  # noqa: F401
    import torch

    # Arrays of a few numbers gain nothing from threads.
    torch.set_num_threads(1)
    # Every new scene collects garbage, which takes a third of a second if it looks at all that was imported as well.
    gc.collect()
    gc.freeze()
    return gymnasium


class Nothing:
    """Stands for anything that is only ever looked at."""

    def __init__(self, *_, **__):
        pass

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()

    def __call__(self, *_, **__):
        return Nothing()

    def __getitem__(self, _):
        return Nothing()

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0


LOOKS = ("RenderMaterial", "RenderTexture", "RenderShape", "RenderBody")


def blinded():
    """Put `Nothing` in the place of all that gives objects a look, wherever SAPIEN has imported it to."""
    import sapien

    visible = {kind for name, kind in vars(sapien.render).items() if name.startswith(LOOKS)}
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "sapien"]:
        for name, kind in list(vars(module).items()):
            if isinstance(kind, type) and kind in visible:
                setattr(module, name, type(name, (Nothing,), {}))
    find = sapien.Entity.find_component_by_type
    sapien.Entity.find_component_by_type = lambda self, kind: (
        Nothing() if issubclass(kind, Nothing) else find(self, kind)
    )
