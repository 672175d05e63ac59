"""Functions that write small valid demonstration files in the layouts of other libraries."""

import json

import h5py
import numpy as np

# Eleven rows: a terminated episode, a truncated one, a terminated one of one row, and two rows of an incomplete one.
D4RL_TERMINALS, D4RL_TIMEOUTS = [2, 8], [7]
MANISKILL_STEPS = 4
ROBOMIMIC_STEPS = 5


def d4rl_flags(rows):
    return np.isin(np.arange(11), rows)


def write_d4rl(path, **changes):
    """Write a file in D4RL's layout; None omits an array."""
    row = np.arange(11.0)
    arrays = {
        "observations": np.stack([row, -row], axis=1),
        "next_observations": np.stack([row + 0.5, -row], axis=1),
        "actions": np.full((11, 1), 0.25, np.float32),
        "rewards": row,
        "terminals": d4rl_flags(D4RL_TERMINALS),
        "timeouts": d4rl_flags(D4RL_TIMEOUTS),
        "infos/qpos": np.zeros((11, 9)),
    } | changes
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            if values is not None:
                file[key] = values
    return path


def write_maniskill(path, obs="state", with_json=True):
    """Write files in the layout of `RecordEpisode`, in the observation mode `state`, `dict` or `none`."""
    time = np.arange(MANISKILL_STEPS + 1, dtype=np.float32)
    with h5py.File(path, "w") as file:
        for number in (0, 1):
            group = file.create_group(f"traj_{number}", track_order=True)
            if obs == "state":
                group["obs"] = np.stack([time, time + number], axis=1)
            elif obs == "dict":
                group["obs/sensor_data/base/rgb"] = np.zeros((MANISKILL_STEPS + 1, 8, 8, 3), np.uint8)
                group["obs/extra/tcp"] = np.stack([time] * 3, axis=1)
                group["obs/agent/qpos"] = -np.stack([time] * 2, axis=1)
            else:
                group["obs"] = np.zeros((MANISKILL_STEPS + 1, 0), np.float32)
            group["actions"] = np.full((MANISKILL_STEPS, 3), 0.5, np.float32)
            group["terminated"] = np.arange(MANISKILL_STEPS) >= (1 if number else MANISKILL_STEPS)
            group["truncated"] = np.arange(MANISKILL_STEPS) == (MANISKILL_STEPS if number else MANISKILL_STEPS - 1)
            group["success"] = np.arange(MANISKILL_STEPS) >= 1
            group["env_states/actors/cube"] = np.stack([time] * 13, axis=1)
    if with_json:
        episodes = [
            {"episode_id": number, "episode_seed": 100 + number, "control_mode": "pd_ee_delta_pose", "elapsed_steps": 4}
            for number in (0, 1)
        ]
        env_info = {"env_id": "PickCube-v1", "max_episode_steps": 50, "env_kwargs": {}}
        text = json.dumps({"env_info": env_info, "episodes": episodes, "source_type": "motionplanning"})
        path.with_suffix(".json").write_text(text)
    return path


def write_robomimic(path, *, next_obs=True, demos=(0, 10, 2), env_args=None):
    """Write three demonstrations in the layout of robomimic's documentation, named out of order, with a camera."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = ROBOMIMIC_STEPS * len(demos)
        data.attrs["env_args"] = env_args or json.dumps({"env_name": "Lift", "env_type": 1, "env_kwargs": {}})
        for number in demos:
            group = data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = ROBOMIMIC_STEPS
            time = np.arange(ROBOMIMIC_STEPS + 1, dtype=np.float64)
            full = {
                "eef_pos": number + np.stack([time, -time], axis=1),
                "agentview_image": np.zeros((ROBOMIMIC_STEPS + 1, 4, 4, 3), np.uint8),
                "gripper": 100 * time,
            }
            for key, values in full.items():
                group[f"obs/{key}"] = values[:-1]
                if next_obs:
                    group[f"next_obs/{key}"] = values[1:]
            group["actions"] = np.full((ROBOMIMIC_STEPS, 2), 0.01 * number)
            group["rewards"] = time[1:]
            group["dones"] = np.arange(ROBOMIMIC_STEPS) >= ROBOMIMIC_STEPS - 2
        file["mask/train"] = np.array([b"demo_0"])
    return path


def write_imitation(path, lengths=(5, 3), **changes):
    """Write a file in `imitation`'s flat layout; None omits an array.

    Observation t of trajectory n is (n, t, 0), the action there t / 100.
    """
    steps = sum(lengths)
    obs = [np.stack([np.full(n + 1, i), np.arange(n + 1), np.zeros(n + 1)], axis=1) for i, n in enumerate(lengths)]
    arrays = {
        "obs": np.concatenate(obs),
        "acts": np.concatenate([np.arange(n, dtype=np.float32)[:, None] / 100 for n in lengths]),
        "rews": np.arange(steps, dtype=np.float64),
        "infos": np.array([{}] * steps, dtype=object),
        "terminal": np.arange(len(lengths)) < len(lengths) - 1,
        "indices": np.cumsum(lengths[:-1]),
    } | changes
    np.savez(path, **{key: values for key, values in arrays.items() if values is not None})
    return path
