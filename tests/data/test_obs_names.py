"""Observations with named parts: demonstrations are put into the order of the task, or refused."""

import warnings
from dataclasses import replace
from functools import partial

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Tuple
from gymnasium.wrappers import FlattenObservation

from cdred.data.demonstrations import load_demos, read_demos, save_demos
from cdred.data.obs_names import match_obs_names
from cdred.demos.episodes import rollout
from cdred.envs.registry import make
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec
from demo_files import write_maniskill, write_robomimic

STEPS, SEEDS = 6, (3, 4)
STATE_FLOW = (("state", 3), ("flow", 1))
SPACES = {
    "state, flow": Dict(state=Box(-9, 9, (3,)), flow=Box(-1, 1, (1,))),
    "nested": Dict([("z", Dict(b=Box(-9, 9, (2,)), a=Box(0, 1, (1,)))), ("c", Tuple([Box(-1, 1, (2,))] * 2))]),
    "Tuple of 12": Tuple([Box(number, number + 1, (1,)) for number in range(12)]),
}


class Walk(gymnasium.Env):
    """Observes samples of a space that the seed determines."""

    def __init__(self, space):
        self.observation_space, self.action_space = space, Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(action[0]), False, False, {"success": action[0] > 0}


@pytest.fixture(params=SPACES.values(), ids=SPACES.keys())
def space(request):
    return request.param


@pytest.fixture
def tasks(space):
    """Registers an environment of `space`, and the same under FlattenObservation; returns both tasks."""
    flat = lambda: FlattenObservation(Walk(space))  # noqa: E731
    gymnasium.register("CdredWalk-v0", lambda: Walk(space), max_episode_steps=STEPS)
    gymnasium.register("CdredFlatWalk-v0", flat, max_episode_steps=STEPS)
    yield "gym/CdredWalk-v0", "gym/CdredFlatWalk-v0"
    del gymnasium.registry["CdredWalk-v0"], gymnasium.registry["CdredFlatWalk-v0"]


def policy(obs, _success):
    return np.full(2, np.tanh(obs.sum()), np.float32)


@pytest.fixture
def expected(tasks):
    """Return the trajectories of `SEEDS` in the environment."""
    env = make(tasks[0])
    return [rollout(env, seed, policy) for seed in SEEDS]


def collect_with_minari(folder, space, expected, data_format, monkeypatch):
    """Let Minari record the same episodes with its DataCollector."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = minari.DataCollector(gymnasium.wrappers.TimeLimit(Walk(space), STEPS), data_format=data_format)
        for trajectory in expected:
            env.reset(seed=trajectory.seed)
            for action in trajectory.action:
                env.step(action)
        env.create_dataset("walk-v0", eval_env="Pendulum-v1")
        env.close()
    return folder / "walk-v0"


def assert_same_obs(dataset, expected):
    assert len(dataset) == len(expected)
    for trajectory, reference in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(trajectory.obs, reference.obs)
        assert trajectory.obs.dtype == np.float32


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_minari_recording_has_columns_of_the_env(space, tasks, expected, data_format, tmp_path, monkeypatch):
    path = collect_with_minari(tmp_path, space, expected, data_format, monkeypatch)
    for task in tasks:
        spec = make(task).spec
        dataset = load_demos(path, spec)
        assert_same_obs(dataset, expected)
        names, widths = zip(*spec.obs_parts, strict=True)
        assert (dataset.provenance["obs_keys"], dataset.provenance["obs_widths"]) == ([*names], [*widths])
        assert_same_obs(load_demos(path, spec, obs_keys=names[::-1]), expected)


@pytest.mark.parametrize("space", [SPACES["state, flow"]], indirect=True)
@pytest.mark.parametrize("name", ["d", "d.npz", "lerobot"])
def test_names_survive_saving(space, tasks, expected, name, tmp_path, monkeypatch):
    path = collect_with_minari(tmp_path, space, expected, "hdf5", monkeypatch)
    spec, sorted_demos = make(tasks[0]).spec, load_demos(path)
    np.testing.assert_array_equal(sorted_demos[0].obs, expected[0].obs[:, [3, 0, 1, 2]])
    save_demos(sorted_demos, tmp_path / name, "lerobot" if name == "lerobot" else None)
    assert load_demos(tmp_path / name).provenance["obs_keys"] == ["flow", "state"]
    ordered = load_demos(tmp_path / name, spec)
    assert_same_obs(ordered, expected)
    save_demos(ordered, tmp_path / f"ordered{name}", "lerobot" if name == "lerobot" else None)
    assert_same_obs(load_demos(tmp_path / f"ordered{name}"), expected)


@pytest.fixture
def two_part_spec():
    return EnvSpec("gym/two", (4,), 2, 6, obs_parts=STATE_FLOW)


def dataset_of(make_trajectory, **provenance):
    obs = np.arange(28, dtype=np.float32).reshape(7, 4)
    return DemoDataset("gym/two", (make_trajectory(obs=obs),), provenance)


def test_known_columns_are_swapped(make_trajectory, two_part_spec):
    dataset = dataset_of(make_trajectory, obs_keys=["flow", "state"], obs_widths=[1, 3], obs_order="default", fps=3)
    ordered = match_obs_names(dataset, "here", two_part_spec)
    assert ordered[0].obs[0].tolist() == [1, 2, 3, 0]
    assert ordered.provenance == {"obs_keys": ["state", "flow"], "obs_widths": [3, 1], "fps": 3}
    assert match_obs_names(ordered, "here", two_part_spec) is ordered


@pytest.mark.parametrize(
    ("keys", "widths", "shown"),
    [
        (["flow", "state"], [3, 1], r"flow \(3\), state \(1\)"),
        (["flow", "stat"], [1, 3], r"flow \(1\), stat \(3\)"),
        (["flow", "goal", "state"], [1, 2, 3], r"flow \(1\), goal \(2\), state \(3\)"),
        (["state"], [3], r"state \(3\)"),
    ],
)
def test_other_names_or_widths_are_rejected(make_trajectory, two_part_spec, keys, widths, shown):
    dataset = dataset_of(make_trajectory, obs_keys=keys, obs_widths=widths)
    message = rf"^here: .* joined from {shown}, but those of gym/two from state \(3\), flow \(1\): .*--obs-keys"
    with pytest.raises(UserError, match=message):
        match_obs_names(dataset, "here", two_part_spec)


@pytest.mark.parametrize(
    ("keys", "widths"), [(["flow", "state"], None), (["a", "a"], [1, 3]), ("ab", [1, 3]), ([1, 2], [1, 3]), ([], [])]
)
def test_incomplete_names_are_rejected(make_trajectory, two_part_spec, keys, widths):
    dataset = dataset_of(make_trajectory, obs_keys=keys, obs_widths=widths)
    with pytest.raises(UserError, match=r"^here: its provenance has obs_keys .* convert the original file again"):
        match_obs_names(dataset, "here", two_part_spec)


def test_observations_without_names_are_taken_with_a_warning(make_trajectory, two_part_spec):
    dataset = dataset_of(make_trajectory)
    with pytest.warns(UserWarning, match=r"without names; .* those of gym/two, in this order: state \(3\), flow \(1\)"):
        assert match_obs_names(dataset, "here", two_part_spec) is dataset
    single = replace(two_part_spec, obs_parts=(("state", 4),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_obs_names(dataset, "here", single) is dataset


@pytest.mark.parametrize("space", [SPACES["state, flow"]], indirect=True)
def test_order_that_nobody_chose_is_rejected_for_one_array(space, expected, tmp_path, monkeypatch):
    path = collect_with_minari(tmp_path, space, expected, "hdf5", monkeypatch)
    plain = EnvSpec("gym/plain", (4,), 2, STEPS)
    message = (
        r"joined from flow \(1\), state \(3\), in this order because no other was given. Those of gym/plain are one"
    )
    with pytest.raises(UserError, match=message):
        load_demos(path, plain)
    assert_same_obs(load_demos(path, plain, obs_keys=["state", "flow"]), expected)


def rename(path, old, new):
    with h5py.File(path, "a") as file:
        file.move(old, new)
    return path


@pytest.mark.parametrize(
    ("write", "file", "episode", "key"),
    [
        (write_robomimic, "d.hdf5", "data/demo_2", "gripper"),
        (partial(write_maniskill, obs="dict"), "d.h5", "traj_1", "extra/tcp"),
    ],
)
def test_episode_of_other_parts_is_named(write, file, episode, key, tmp_path):
    path = rename(write(tmp_path / file), f"{episode}/obs/{key}", f"{episode}/obs/other")
    name = episode.removeprefix("data/")
    with pytest.raises(UserError, match=rf"{name}: .* other \(.*, those of the first episode .*{key} .*--obs-keys"):
        read_demos(path)


@pytest.mark.parametrize("space", [SPACES["state, flow"]], indirect=True)
def test_minari_episode_of_other_parts_is_named(space, expected, tmp_path, monkeypatch):
    path = collect_with_minari(tmp_path, space, expected, "hdf5", monkeypatch)
    observations = "episode_1/observations"
    rename(path / "data/main_data.hdf5", f"{observations}/flow", f"{observations}/speed")
    message = r"episode_1: .* are speed \(1\), state \(3\), those of the first episode flow \(1\), state \(3\)"
    with pytest.raises(UserError, match=message):
        load_demos(path)
    assert load_demos(path, obs_keys=["state"])[1].obs.shape == (STEPS + 1, 3)
