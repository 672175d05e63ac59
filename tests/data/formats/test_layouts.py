"""Arrays whose layout would be misread are refused with what they look like; small legitimate ones are read."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdred.data.demonstrations import inspect_demos, read_demos, save_demos
from cdred.errors import UserError
from cdred.types import DemoDataset
from demo_files import write_d4rl, write_maniskill, write_robomimic


def save_npz(path, **arrays):
    np.savez(path / "d.npz", **{key: values for key, values in arrays.items() if values is not None})
    return path / "d.npz"


FLAT = "one after the other without where they end.*'lengths'"
ONE_EPISODE = r"looks like one episode: .* obs\[None\] and action\[None\]"


@pytest.mark.parametrize(
    ("obs", "action", "message"),
    [
        ((59, 3), (56, 1), FLAT),
        ((56, 3), (56, 2), FLAT),
        ((59, 3), None, FLAT),
        ((60,), (60,), FLAT),
        ((59, 3), (56,), FLAT),
        ((6, 4), (5, 2), ONE_EPISODE),
        ((6,), (5,), ONE_EPISODE),
        ((10, 6), (10, 5), r"one number per time step.*obs\[..., None\]"),
        ((10, 6), (10, 5, 2), r"'obs' lacks the axis of components.* store obs\[..., None\]"),
        ((10, 6, 3), (10, 5), r"'action' lacks the axis of components.* action\[..., None\].*discrete"),
        ((10, 6, 3), (10,), r"expected \[N, T, ...\] with one N"),
        ((10, 6, 3), (9, 5, 2), r"expected \[N, T, ...\] with one N"),
        ((21, 6, 3), (20, 6, 2), "looks like time before episodes: store np.swapaxes"),
        ((9, 2, 3), (9, 1, 2), "none of its 9 episodes has more than one step.*pairs of successive observations"),
        ((9, 2, 3), None, "none of its 9 episodes has more than one step"),
        ((9, 1, 3), (9, 0, 2), "none of its 9 episodes has more than one step"),
    ],
)
def test_other_shapes_than_stacked_episodes_are_described(tmp_path, obs, action, message):
    path = save_npz(tmp_path, obs=np.zeros(obs), action=None if action is None else np.zeros(action))
    with pytest.raises(UserError, match=f"(?s)d.npz: .*{message}") as error:
        read_demos(path)
    # The command line prints at most three lines.
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(("key", "shape"), [("obs", (11,)), ("action", (9,))])
def test_concatenated_arrays_need_components(tmp_path, key, shape):
    arrays = {"obs": np.zeros((11, 3)), "action": np.zeros((9, 2)), "lengths": np.array([5, 4])}
    assert len(read_demos(save_npz(tmp_path, **arrays))) == 2
    message = rf"'{key}' has shape \({shape[0]},\), .* store {key}\[:, None\]"
    with pytest.raises(UserError, match=message):
        read_demos(save_npz(tmp_path, **arrays | {key: np.zeros(shape)}))


@pytest.mark.parametrize("name", ["actions", "acts", "act"])
def test_actions_under_another_name_are_not_ignored(tmp_path, name):
    arrays = {"obs": np.zeros((2, 6, 3)), name: np.zeros((2, 5, 1))}
    with pytest.raises(UserError, match=f"no 'action' in it, but '{name}'.*another library's layout"):
        read_demos(save_npz(tmp_path, **arrays))
    dataset = read_demos(save_npz(tmp_path, **arrays, action=np.zeros((2, 5, 2))))
    assert dataset[0].action.shape == (5, 2)
    assert dataset.provenance == {"arrays_left_out": [name]}


def test_transitions_of_imitation_are_refused(tmp_path):
    rows = {"obs": np.zeros((56, 3)), "next_obs": np.zeros((56, 3)), "acts": np.zeros((56, 1)), "dones": np.zeros(56)}
    with pytest.raises(UserError, match="no 'action' in it, but 'acts'"):
        read_demos(save_npz(tmp_path, **rows))


@pytest.mark.parametrize("episodes", [1, 4])
@pytest.mark.parametrize("format", ["stacked", "npz", "minari", "lerobot"])
def test_single_components_are_read(tmp_path, episodes, format):
    obs = np.arange(6.0 * episodes).reshape(episodes, 6, 1)
    action = np.linspace(-1, 1, 5 * episodes).reshape(episodes, 5, 1)
    dataset, problem = inspect_demos(save_npz(tmp_path, obs=obs, action=action))
    if format != "stacked":
        save_demos(dataset, tmp_path / "d", format)
        dataset, problem = inspect_demos(tmp_path / "d")
    assert problem is None
    np.testing.assert_array_equal(np.stack([trajectory.obs for trajectory in dataset]), obs)
    np.testing.assert_allclose(np.stack([trajectory.action for trajectory in dataset]), action, rtol=1e-6)


@pytest.mark.parametrize("format", ["npz", "minari", "lerobot"])
def test_written_episodes_of_one_step_are_read(tmp_path, make_trajectory, format, assert_equal):
    dataset = DemoDataset("probe/fake", (make_trajectory(1), make_trajectory(1, index=1)))
    save_demos(dataset, tmp_path / "d", format)
    assert_equal(dataset, read_demos(tmp_path / "d"))


@pytest.mark.parametrize("next_observations", [True, False])
@pytest.mark.parametrize("key", ["terminals", "timeouts"])
def test_d4rl_flags_of_every_row_are_refused(tmp_path, key, next_observations):
    changes = {} if next_observations else {"next_observations": None}
    path = write_d4rl(tmp_path / "d.hdf5", **{key: np.ones(11, bool)}, **changes)
    with pytest.raises(UserError, match=r"d.hdf5: none of its 11 episodes .* are set in the last row of an episode"):
        read_demos(path)


@pytest.mark.parametrize("key", ["observations", "actions"])
def test_d4rl_rows_need_components(tmp_path, key):
    with pytest.raises(UserError, match=rf"'{key}' has shape \(11,\), .* store {key}\[:, None\]"):
        read_demos(write_d4rl(tmp_path / "d.hdf5", **{key: np.zeros(11)}))
    column = {"observations": np.arange(11.0)[:, None], "next_observations": np.arange(1.0, 12)[:, None]}
    dataset = read_demos(write_d4rl(tmp_path / "column.hdf5", **column))
    assert dataset[1].obs[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    assert dataset[1].action.shape == (5, 1)


@pytest.mark.parametrize(("write", "episode"), [(write_robomimic, "data/demo_2"), (write_maniskill, "traj_1")])
def test_actions_of_hdf5_episodes_need_components(tmp_path, write, episode):
    path = write(tmp_path / "d.h5")
    with h5py.File(path, "a") as file:
        actions = file[f"{episode}/actions"][:, 0]
        del file[f"{episode}/actions"]
        file[f"{episode}/actions"] = actions
    with pytest.raises(UserError, match=rf"{episode[-6:]}: 'actions' has shape \(\d,\), .* store actions\[:, None\]"):
        read_demos(path)


@pytest.mark.parametrize("next_obs", [True, False])
def test_robomimic_group_per_step_is_refused(tmp_path, next_obs):
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        for number in range(4):
            file[f"data/demo_{number}/obs/state"] = np.zeros((1, 3))
            file[f"data/demo_{number}/actions"] = np.zeros((1, 2))
            if next_obs:
                file[f"data/demo_{number}/next_obs/state"] = np.zeros((1, 3))
    with pytest.raises(UserError, match=r"d.hdf5: none of its 4 episodes .*'demo_<i>' holds all steps"):
        read_demos(tmp_path / "d.hdf5")


def test_maniskill_group_per_step_is_refused(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        for number in range(4):
            file[f"traj_{number}/obs"], file[f"traj_{number}/actions"] = np.zeros((2, 3)), np.zeros((1, 2))
            file[f"traj_{number}/terminated"], file[f"traj_{number}/truncated"] = np.ones(1, bool), np.zeros(1, bool)
    with pytest.raises(UserError, match=r"t.h5: none of its 4 episodes .*'traj_<i>' holds all steps"):
        read_demos(tmp_path / "t.h5")


def test_lerobot_episode_per_frame_is_refused(tmp_path, demos):
    save_demos(demos, tmp_path / "d", "lerobot")
    (tmp_path / "d/meta/cdred.json").unlink()
    (tmp_path / "d/meta/episodes/chunk-000/file-000.parquet").unlink()
    (tmp_path / "d/meta/info.json").write_text(
        (tmp_path / "d/meta/info.json").read_text().replace('"total_episodes": 3', '"total_episodes": 16')
    )
    file = tmp_path / "d/data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    for name, values in (("episode_index", range(16)), ("frame_index", [0] * 16)):
        table = table.set_column(table.column_names.index(name), name, pa.array(list(values), pa.int64()))
    pq.write_table(table, file)
    with pytest.raises(UserError, match=r"none of its 16 episodes .*'episode_index' counts episodes"):
        read_demos(tmp_path / "d")
