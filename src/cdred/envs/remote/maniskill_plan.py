"""ManiSkill's motion planners: they plan in joint positions; what they did is then redone in the agent's actions."""

# What is imported here lives in another interpreter.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import functools

import numpy as np

from cdred.envs.remote.maniskill import CONTROL_MODE, TASKS, UserError, simulator

# PullCube's planner moves at half the pace that the agent's actions allow, and waits at its corners: agents that
# learned from it stopped there (results/maniskill).
PACE = 2


def plan(name, seed):
    """Actions `[T, A]` of a whole episode that do the episode of `seed`, none where the planner found no way.

    Whether they succeed is for the caller to try: a plan that is redone in other actions may come out differently.

    Raises:
        UserError: the suite has no planner for this task.
    """
    planned, redone = (Recorder(env) for env in pair(name))
    if not solved(name, planned, seed):
        return np.zeros((0, redone.single_action_space.shape[0]), np.float32)
    length = TASKS[name].length
    hurried = planned.actions[PACE - 1 :: PACE] + planned.actions[-1:]
    # The arm sags under actions of zero. To go on asking for the last joints asks for small corrections.
    joint_actions = hurried + hurried[-1:] * (length - len(hurried))
    redo(joint_actions, planned, redone, seed)
    return np.array(redone.actions[:length], np.float32)


def solved(name, planned, seed):
    """Whether the planner got to the end of its plan."""
    try:
        outcome = solutions()[f"{name}-v1"](planned, seed=seed, debug=False, vis=False)
    except Exception:
        # Upstream raises whatever comes where a pose cannot be reached.
        return False
    return not isinstance(outcome, int)


def redo(joint_actions, planned, redone, seed):
    """Let `redone` follow `planned`, which takes the planner's actions again."""
    from mani_skill.trajectory.utils.actions.conversion import from_pd_joint_pos_to_ee

    planned.reset(seed=seed)
    redone.reset(seed=seed)
    from_pd_joint_pos_to_ee(CONTROL_MODE, joint_actions, planned, redone)


@functools.cache
def pair(name):
    """Two simulators of the task: one driven by joint positions, one as the agent drives it."""
    if f"{name}-v1" not in solutions():
        raise UserError(f"ManiSkill has no planner for {name}: give demonstrations with --demos PATH.")
    return simulator(name, "pd_joint_pos", "none"), simulator(name, CONTROL_MODE, "none")


@functools.cache
def solutions():
    """Upstream's planner of each task."""
    from mani_skill.examples.motionplanning.panda.run import MP_SOLUTIONS

    return MP_SOLUTIONS


class Recorder:
    """Stands before a simulator: builds its scene anew at every reset, and remembers what it was told to do."""

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
