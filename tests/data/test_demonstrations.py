from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cdred.data.demonstrations import bundled_demos, inspect_demos, load_demos, num_bundled, save_demos
from cdred.demos.scripted import collect_scripted, get_demos
from cdred.envs.registry import make
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

# In a clone only.
COMPLETE_SETS = Path(__file__).parents[2] / "demonstrations"
WRITTEN = [("folder", None), ("file.npz", None), ("other", "npz"), ("minari.npz", "minari"), ("robot", "lerobot")]


@pytest.mark.parametrize(("name", "format"), WRITTEN)
def test_saved_demos_are_loaded(demos, spec, tmp_path, name, format, assert_equal):
    save_demos(demos, tmp_path / name, format)
    assert_equal(demos, load_demos(tmp_path / name, spec))
    assert_equal(demos, load_demos(str(tmp_path / name)))
    assert (tmp_path / name).is_file() == ((format or name) in ("npz", "file.npz"))
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("format", ["minari", "npz", "lerobot"])
def test_valid_dataset_survives_round_trip(format, data, tmp_path_factory, assert_equal):
    dataset = data.draw(datasets())
    path = tmp_path_factory.mktemp("demos") / "d"
    save_demos(dataset, path, format)
    assert_equal(dataset, load_demos(path, allow_variable_horizon=True, require_actions=False))


@st.composite
def datasets(draw):
    """Draw one to three episodes of any finite float32 vectors, with and without actions, rewards, success, seeds."""
    size, actions = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    has_reward, has_success = draw(st.booleans()), draw(st.booleans())
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)

    def episode():
        steps = draw(st.integers(1, 4))
        return Trajectory(
            obs=draw(hnp.arrays(np.float32, (steps + 1, size), elements=finite)),
            action=draw(hnp.arrays(np.float32, (steps, actions), elements=st.floats(-1, 1, width=32))),
            reward=draw(hnp.arrays(np.float32, steps, elements=finite)) if has_reward else None,
            terminated=draw(st.booleans()),
            truncated=draw(st.booleans()),
            success=draw(hnp.arrays(bool, steps)) if has_success else None,
            seed=draw(st.none() | st.integers(0, 2**32 - 1)),
        )

    episodes = tuple(episode() for _ in range(draw(st.integers(1, 3))))
    return DemoDataset(
        draw(st.sampled_from(["", "probe/fake"])), episodes, draw(st.sampled_from([{}, {"a": [1, "b"]}]))
    )


def test_rewards_of_some_episodes_survive_in_minari(make_trajectory, tmp_path, assert_equal):
    dataset = DemoDataset("", (make_trajectory(), make_trajectory(index=1, reward=None)))
    save_demos(dataset, tmp_path / "d")
    assert_equal(dataset, load_demos(tmp_path / "d"))


@pytest.mark.parametrize("format", ["minari", "npz", "lerobot"])
def test_demos_without_actions_are_saved_not_loaded(make_trajectory, tmp_path, format, spec):
    dataset = DemoDataset("probe/fake", (make_trajectory(action=np.zeros((6, 0), np.float32)),))
    save_demos(dataset, tmp_path / "d", format)
    with pytest.raises(UserError, match=r"d: it holds observations only, no actions.* requires actions"):
        load_demos(tmp_path / "d", spec)
    loaded = load_demos(tmp_path / "d", spec, require_actions=False)
    np.testing.assert_array_equal(loaded[0].obs, dataset[0].obs)
    assert loaded[0].action.shape == (6, 0)
    dataset, problem = inspect_demos(tmp_path / "d")
    assert len(dataset) == 1
    assert "observations only" in problem


def test_actions_in_other_bounds_require_rescaling(make_trajectory, tmp_path):
    np.savez(tmp_path / "d.npz", obs=make_trajectory().obs[None], action=4 * make_trajectory().action[None])
    with pytest.raises(UserError, match=r"expected \[-1, 1\].*--rescale-actions"):
        load_demos(tmp_path / "d.npz")
    dataset, problem = inspect_demos(tmp_path / "d.npz")
    assert np.abs(dataset[0].action).max() > 1
    assert "--rescale-actions" in problem
    rescaled = load_demos(tmp_path / "d.npz", action_low=-8, action_high=8)
    np.testing.assert_allclose(rescaled[0].action, make_trajectory().action / 2)
    save_demos(rescaled, tmp_path / "done")
    assert inspect_demos(tmp_path / "done")[1] is None


def test_non_finite_data_cannot_be_inspected(make_trajectory, tmp_path):
    np.savez(tmp_path / "d.npz", obs=np.full((1, 7, 3), np.nan), action=make_trajectory().action[None])
    with pytest.raises(UserError, match="not finite"):
        inspect_demos(tmp_path / "d.npz")


@pytest.mark.parametrize("name", ["folder", "file.npz"])
def test_loaded_demos_are_validated(demos, spec, tmp_path, name):
    save_demos(demos, tmp_path / name)
    with pytest.raises(UserError, match=f"{name}.*expected probe/other"):
        load_demos(tmp_path / name, replace(spec, task="probe/other"))


def test_saved_demos_are_validated(demos, make_trajectory, tmp_path):
    invalid = make_trajectory(action=np.full((6, 2), 2.0, np.float32))
    with pytest.raises(UserError, match="episode 0: an action component has magnitude 2"):
        save_demos(replace(demos, trajectories=(invalid,)), tmp_path / "d")
    assert not list(tmp_path.iterdir())


def test_mixed_horizons_are_rejected_by_default(make_trajectory, tmp_path):
    save_demos(DemoDataset("", (make_trajectory(5), make_trajectory(6))), tmp_path / "d.npz")
    with pytest.raises(UserError, match="steps long"):
        load_demos(tmp_path / "d.npz")
    assert len(load_demos(tmp_path / "d.npz", allow_variable_horizon=True)) == 2


def test_missing_path_is_reported(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        load_demos(tmp_path / "d")


@pytest.mark.parametrize("name", ["demos.pkl", "demos.hdf5"])
def test_unknown_format_is_rejected(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="no known format"):
        load_demos(tmp_path / name)


def test_folder_without_metadata_has_no_format(tmp_path):
    with pytest.raises(UserError, match="no known format"):
        load_demos(tmp_path)


def test_unknown_hdf5_lists_known_formats(tmp_path):
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["measured"] = np.zeros(3)
    with pytest.raises(UserError, match=r"no known format.*LeRobotDataset.*Minari.*npz.*robomimic.*ManiSkill.*D4RL"):
        load_demos(tmp_path / "d.hdf5")


def test_format_is_detected_from_content(demos, tmp_path):
    save_demos(demos, tmp_path / "d.npz")
    (tmp_path / "d.npz").rename(tmp_path / "d.hdf5")
    assert len(load_demos(tmp_path / "d.hdf5")) == 3


def test_task_without_bundled_demos_is_missing():
    assert "probe/point" not in bundled_demos()


@pytest.mark.parametrize(("task", "path"), bundled_demos().items())
def test_bundled_demos_fit_their_task(task, path):
    env = make(task)
    dataset = load_demos(path, env.spec)
    assert dataset.task == task
    assert len(dataset) == num_bundled(path) >= 30
    assert {"expert", "expert_level", "attempts", "versions"} <= set(dataset.provenance)
    env.close()


def test_bundled_demos_are_small():
    """A package index, and everybody who installs the package, has to take them."""
    assert sum(path.stat().st_size for path in bundled_demos().values()) < 8e6


@pytest.mark.parametrize("path", sorted(COMPLETE_SETS.glob("*/*.npz")), ids=lambda path: path.stem)
def test_bundled_demos_are_the_first_of_the_complete_set(path):
    complete = load_demos(path)
    bundled = load_demos(bundled_demos()[complete.task])
    assert bundled.provenance == complete.provenance | {"first_of": len(complete)}
    assert len(bundled) < len(complete)
    for first, same in zip(bundled, complete, strict=False):
        for name in ("obs", "action", "reward"):
            np.testing.assert_array_equal(getattr(first, name), getattr(same, name))
        assert (first.seed, first.terminated, first.truncated) == (same.seed, same.terminated, same.truncated)


def test_bundled_demos_equal_a_new_collection():
    """`--demos N` means the same episodes whether they are bundled or recorded."""
    collected = collect_scripted("metaworld/window-open", 2)
    for recorded, bundled in zip(collected, get_demos("metaworld/window-open", 2), strict=True):
        assert recorded.seed == bundled.seed
        np.testing.assert_allclose(recorded.obs, bundled.obs, atol=1e-5)
        np.testing.assert_allclose(recorded.action, bundled.action, atol=1e-5)
