"""ManiSkill's motion planners: plans in joint positions, replayed in the agent's end-effector actions."""

# The packages imported here are installed in another interpreter.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import functools

import numpy as np

from cdred.envs.remote.maniskill import CONTROL_MODE, TASKS, UserError, make_simulator

# PullCube's planner moves at half the speed that the agent's actions allow, and pauses at its waypoints: agents that
# imitated it stopped there.
SPEEDUP = 2


def plan(name, seed):
    """Plan the episode of `seed`; return its actions `[T, A]`, none if the planner found no plan.

    They may fail: a plan that is replayed in another control mode may end differently.

    Raises:
        UserError: the suite has no planner for this task.
    """
    joint_env, ee_env = (ActionRecorder(env) for env in make_env_pair(name))
    if not run_planner(name, joint_env, seed):
        return np.zeros((0, ee_env.single_action_space.shape[0]), np.float32)
    length = TASKS[name].length
    subsampled = joint_env.actions[SPEEDUP - 1 :: SPEEDUP] + joint_env.actions[-1:]
    # Padded with the last joint positions: the arm sags under actions of zero, and holding them gives corrections.
    joint_actions = subsampled + subsampled[-1:] * (length - len(subsampled))
    replay_as_ee_delta(joint_actions, joint_env, ee_env, seed)
    return np.array(ee_env.actions[:length], np.float32)


def run_planner(name, joint_env, seed):
    """Run the planner in `joint_env`; return True if it completed its plan."""
    try:
        outcome = planners()[f"{name}-v1"](joint_env, seed=seed, debug=False, vis=False)
    except Exception:
        # Upstream raises arbitrary exceptions if a pose cannot be reached.
        return False
    return not isinstance(outcome, int)


def replay_as_ee_delta(joint_actions, joint_env, ee_env, seed):
    """Replay `joint_actions` in `joint_env` and let `ee_env` follow it in the agent's control mode."""
    from mani_skill.trajectory.utils.actions.conversion import from_pd_joint_pos_to_ee

    joint_env.reset(seed=seed)
    ee_env.reset(seed=seed)
    from_pd_joint_pos_to_ee(CONTROL_MODE, joint_actions, joint_env, ee_env)


@functools.cache
def make_env_pair(name):
    """Make two simulators of the task: one controlled by joint positions, one in the agent's control mode."""
    if f"{name}-v1" not in planners():
        raise UserError(f"ManiSkill has no planner for {name}: give demonstrations with --demos PATH.")
    return make_simulator(name, "pd_joint_pos", "none"), make_simulator(name, CONTROL_MODE, "none")


@functools.cache
def planners():
    """Return upstream's planner of each task."""
    from mani_skill.examples.motionplanning.panda.run import MP_SOLUTIONS

    return MP_SOLUTIONS


class ActionRecorder:
    """Wrapper of a simulator that rebuilds its scene at every reset and records the actions since."""

    def __init__(self, env):
        self.unwrapped, self.actions = env, []

    def reset(self, seed, options=None):
        self.actions.clear()
        return self.unwrapped.reset(seed=seed, options={**(options or {}), "reconfigure": True})

    def step(self, action):
        self.actions.append(np.array(action, np.float32).ravel())
        return self.unwrapped.step(action)

    def __getattr__(self, name):
        return getattr(self.unwrapped, name)
