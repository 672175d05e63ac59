"""How far MuJoCo Playground's tasks are from dm_control's: observations, rewards and physics from the same states.

The two need different MuJoCos, so this runs once in each interpreter, and the states go from one to the other:

    .venv/bin/python benchmarks/mjx.py host /tmp/states.npz            # dm_control 1.0.28, MuJoCo 3.3.0
    .venv-mjx/bin/python benchmarks/mjx.py device /tmp/states.npz results/mjx/compare.json [TASK...]
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

# Playground's name, dm_control's domain and task.
TASKS = {
    "CartpoleSwingup": ("cartpole", "swingup"),
    "ReacherHard": ("reacher", "hard"),
    "WalkerRun": ("walker", "run"),
    "CheetahRun": ("cheetah", "run"),
    "HopperHop": ("hopper", "hop"),
}
# States that a random agent passes, and how many control steps lie between them.
STATES, APART = 16, 5
DRIFT = (1, 5, 20, 50)


def host(states: Path) -> None:
    """Write states that dm_control passes, what it shows and pays there, and what comes of further actions."""
    from dm_control import suite

    kept = {}
    for name, (domain, task) in TASKS.items():
        env = suite.load(domain, task, task_kwargs={"random": 0})
        generator = np.random.default_rng(0)
        env.reset()
        for i in range(STATES):
            for _ in range(APART):
                env.step(generator.uniform(-1, 1, env.action_spec().shape))
            env.physics.forward()
            kept |= {f"{name}/{i}/{key}": value for key, value in _there(env).items()}
            actions = generator.uniform(-1, 1, (max(DRIFT), *env.action_spec().shape))
            # Only the first state's actions are played to the end.
            steps = actions if i == 0 else actions[:1]
            kept[f"{name}/{i}/actions"] = steps
            before = env.physics.get_state().copy()
            after = [env.step(action) and _there(env) for action in steps]
            for key in ("obs", "reward", "qpos", "qvel"):
                kept[f"{name}/{i}/next_{key}"] = np.array([one[key] for one in after])
            with env.physics.reset_context():
                env.physics.set_state(before)
    np.savez(states, **kept)


def _there(env) -> dict:
    """State, observation and reward of a dm_control environment as it stands."""
    physics = env.physics
    obs = np.concatenate([np.ravel(value) for value in env.task.get_observation(physics).values()])
    target = (
        physics.named.model.geom_pos["target"].copy() if "target" in physics.named.model.geom_pos.axes.row.names else []
    )
    state = {"qpos": physics.data.qpos.copy(), "qvel": physics.data.qvel.copy(), "ctrl": physics.data.ctrl.copy()}
    return state | {"obs": obs, "reward": env.task.get_reward(physics), "target": np.array(target)}


def device(states: Path, out: Path, names: list[str]) -> None:
    """Add to `out` how far Playground is from what `host` wrote, of these tasks."""
    import jax

    found = json.loads(out.read_text()) if out.exists() else {}
    stored = np.load(states)
    found["versions"] = {package: version(package) for package in ("jax", "mujoco", "mujoco-mjx", "playground")}
    found["device"] = jax.devices()[0].device_kind
    for name in names:
        found[name] = _compare(name, stored)
        out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, json.dumps(found[name]))


def _compare(name: str, stored) -> dict:
    import jax
    from mujoco import mjx
    from mujoco_playground._src import mjx_env

    from cdred.envs.suites.mjx import functional

    env = functional(name)._env
    shape = jax.eval_shape(env.reset, jax.random.PRNGKey(0))
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shape)
    blank = blank.replace(data=mjx_env.make_data(env.mj_model, impl="jax"))

    @jax.jit
    def at(given):
        data = blank.data.replace(qpos=given["qpos"], qvel=given["qvel"], ctrl=given["ctrl"])
        if given["target"].size:
            data = data.replace(mocap_pos=given["target"][None])
        data = mjx.forward(env.mjx_model, data)
        state = blank.replace(data=data)
        reward = env._get_reward(data, given["ctrl"], dict(state.info), dict(state.metrics))
        return state, env._get_obs(data, state.info), reward

    step = jax.jit(env.step)
    obs, reward, next_obs, next_reward, layout = [], [], [], [], {}
    for i in range(STATES):
        kept = {
            key: np.float32(stored[f"{name}/{i}/{key}"]) for key in ("qpos", "qvel", "ctrl", "target", "obs", "reward")
        }
        state, seen, paid = at({key: kept[key] for key in ("qpos", "qvel", "ctrl", "target")})
        layout |= {"obs": int(np.size(seen)), "obs_dm_control": int(kept["obs"].size)}
        obs.append(np.abs(seen - kept["obs"]))
        reward.append(abs(float(paid) - float(kept["reward"])))
        after = {key: stored[f"{name}/{i}/next_{key}"] for key in ("obs", "reward", "qpos", "qvel")}
        actions = np.float32(stored[f"{name}/{i}/actions"])
        for t, action in enumerate(actions):
            state = step(state, action)
            if t == 0:
                next_obs.append(np.abs(state.obs - after["obs"][0]))
                next_reward.append(abs(float(state.reward) - float(after["reward"][0])))
            if i == 0 and t + 1 in DRIFT:
                far = {key: float(np.abs(getattr(state.data, key) - after[key][t]).max()) for key in ("qpos", "qvel")}
                far["reward"] = abs(float(state.reward) - float(after["reward"][t]))
                layout[f"drift_{t + 1}"] = far
    option = env.mj_model.opt
    return layout | {
        "timestep": option.timestep,
        "substeps": env.n_substeps,
        "solver_iterations": [int(option.iterations), int(option.ls_iterations)],
        "same_state_obs": _spread(obs),
        "same_state_reward": float(max(reward)),
        "one_step_obs": _spread(next_obs),
        "one_step_reward": [float(np.median(next_reward)), float(max(next_reward))],
    }


def _spread(differences: list) -> dict:
    """Largest difference of all, and which components differ by more than 1e-3 somewhere."""
    worst = np.max(differences, axis=0)
    return {
        "median": float(np.median(differences)),
        "max": float(worst.max()),
        "components": {int(i): float(f"{worst[i]:.3g}") for i in np.flatnonzero(worst > 1e-3)},
    }


if __name__ == "__main__":
    half, *rest = sys.argv[1:]
    if half == "host":
        host(Path(rest[0]))
    else:
        device(Path(rest[0]), Path(rest[1]), rest[2:] or list(TASKS))
