"""Compare MuJoCo Playground's tasks with dm_control's: observations, rewards and physics from the same states.

The two need different versions of MuJoCo, so the script runs once in each interpreter; a file carries the states:

    .venv/bin/python benchmarks/mjx_vs_dm_control.py host /tmp/states.npz      # dm_control 1.0.28, MuJoCo 3.3.0
    .venv-mjx/bin/python benchmarks/mjx_vs_dm_control.py device /tmp/states.npz OUT.json [TASK...]
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from json_output import write_json

# Playground's name: dm_control's domain and task.
TASKS = {
    "CartpoleSwingup": ("cartpole", "swingup"),
    "ReacherHard": ("reacher", "hard"),
    "WalkerRun": ("walker", "run"),
    "CheetahRun": ("cheetah", "run"),
    "HopperHop": ("hopper", "hop"),
}
# Number of states that a random agent visits, and control steps between two of them.
NUM_STATES, STATE_INTERVAL = 16, 5
DRIFT_STEPS = (1, 5, 20, 50)


def record_dm_control(states: Path) -> None:
    """Write states that dm_control visits, their observations and rewards, and what further actions lead to."""
    from dm_control import suite

    arrays = {}
    for name, (domain, task) in TASKS.items():
        env = suite.load(domain, task, task_kwargs={"random": 0})
        generator = np.random.default_rng(0)
        env.reset()
        for i in range(NUM_STATES):
            for _ in range(STATE_INTERVAL):
                env.step(generator.uniform(-1, 1, env.action_spec().shape))
            env.physics.forward()
            arrays |= {f"{name}/{i}/{key}": value for key, value in _snapshot(env).items()}
            actions = generator.uniform(-1, 1, (max(DRIFT_STEPS), *env.action_spec().shape))
            # Only from the first state all actions are applied.
            actions = actions if i == 0 else actions[:1]
            arrays[f"{name}/{i}/actions"] = actions
            before = env.physics.get_state().copy()
            after = [env.step(action) and _snapshot(env) for action in actions]
            for key in ("obs", "reward", "qpos", "qvel"):
                arrays[f"{name}/{i}/next_{key}"] = np.array([snapshot[key] for snapshot in after])
            with env.physics.reset_context():
                env.physics.set_state(before)
    np.savez(states, **arrays)


def _snapshot(env) -> dict:
    """Return the current state, observation and reward of a dm_control environment."""
    physics = env.physics
    obs = np.concatenate([np.ravel(value) for value in env.task.get_observation(physics).values()])
    positions = physics.named.model.geom_pos
    target = positions["target"].copy() if "target" in positions.axes.row.names else []
    state = {"qpos": physics.data.qpos.copy(), "qvel": physics.data.qvel.copy(), "ctrl": physics.data.ctrl.copy()}
    return state | {"obs": obs, "reward": env.task.get_reward(physics), "target": np.array(target)}


def compare_playground(states: Path, out: Path, names: list[str]) -> None:
    """Add to `out` the differences of these Playground tasks from what `record_dm_control` wrote."""
    import jax

    result = json.loads(out.read_text()) if out.exists() else {}
    stored = np.load(states)
    result["versions"] = {package: version(package) for package in ("jax", "mujoco", "mujoco-mjx", "playground")}
    result["device"] = jax.devices()[0].device_kind
    for name in names:
        result[name] = _compare_task(name, stored)
        write_json(out, result)
        print(name, json.dumps(result[name]))


def _compare_task(name: str, stored) -> dict:
    """Return the differences of one task: same state, one step, and drift over several steps."""
    import jax
    from mujoco import mjx
    from mujoco_playground._src import mjx_env

    from cdred.envs.suites.mjx import jax_env

    env = jax_env(name)._env
    shape = jax.eval_shape(env.reset, jax.random.PRNGKey(0))
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shape)
    blank = blank.replace(data=mjx_env.make_data(env.mj_model, impl="jax"))

    @jax.jit
    def state_from(given):
        data = blank.data.replace(qpos=given["qpos"], qvel=given["qvel"], ctrl=given["ctrl"])
        if given["target"].size:
            data = data.replace(mocap_pos=given["target"][None])
        data = mjx.forward(env.mjx_model, data)
        state = blank.replace(data=data)
        reward = env._get_reward(data, given["ctrl"], dict(state.info), dict(state.metrics))
        return state, env._get_obs(data, state.info), reward

    step = jax.jit(env.step)
    obs_error, reward_error, next_obs_error, next_reward_error, result = [], [], [], [], {}
    for i in range(NUM_STATES):
        keys = ("qpos", "qvel", "ctrl", "target", "obs", "reward")
        expected = {key: np.float32(stored[f"{name}/{i}/{key}"]) for key in keys}
        state, obs, reward = state_from({key: expected[key] for key in ("qpos", "qvel", "ctrl", "target")})
        result |= {"obs": int(np.size(obs)), "obs_dm_control": int(expected["obs"].size)}
        obs_error.append(np.abs(obs - expected["obs"]))
        reward_error.append(abs(float(reward) - float(expected["reward"])))
        after = {key: stored[f"{name}/{i}/next_{key}"] for key in ("obs", "reward", "qpos", "qvel")}
        for t, action in enumerate(np.float32(stored[f"{name}/{i}/actions"])):
            state = step(state, action)
            if t == 0:
                next_obs_error.append(np.abs(state.obs - after["obs"][0]))
                next_reward_error.append(abs(float(state.reward) - float(after["reward"][0])))
            if i == 0 and t + 1 in DRIFT_STEPS:
                drift = {key: float(np.abs(getattr(state.data, key) - after[key][t]).max()) for key in ("qpos", "qvel")}
                drift["reward"] = abs(float(state.reward) - float(after["reward"][t]))
                result[f"drift_{t + 1}"] = drift
    option = env.mj_model.opt
    return result | {
        "timestep": option.timestep,
        "substeps": env.n_substeps,
        "solver_iterations": [int(option.iterations), int(option.ls_iterations)],
        "same_state_obs": _summarize(obs_error),
        "same_state_reward": float(max(reward_error)),
        "one_step_obs": _summarize(next_obs_error),
        "one_step_reward": [float(np.median(next_reward_error)), float(max(next_reward_error))],
    }


def _summarize(differences: list) -> dict:
    """Return the median and largest difference, and the components that differ by more than 1e-3 anywhere."""
    largest = np.max(differences, axis=0)
    return {
        "median": float(np.median(differences)),
        "max": float(largest.max()),
        "components": {int(i): float(f"{largest[i]:.3g}") for i in np.flatnonzero(largest > 1e-3)},
    }


if __name__ == "__main__":
    part, *arguments = sys.argv[1:]
    if part == "host":
        record_dm_control(Path(arguments[0]))
    else:
        compare_playground(Path(arguments[0]), Path(arguments[1]), arguments[2:] or list(TASKS))
