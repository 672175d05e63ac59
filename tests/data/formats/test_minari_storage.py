"""Datasets that `minari` itself wrote, in every storage format that it writes."""

import json
import warnings

import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Tuple
from minari.data_collector import EpisodeBuffer

from cdred.data.demonstrations import load_demos
from cdred.data.formats.cameras import ImageRequest
from cdred.data.formats.minari import read_minari
from cdred.errors import UserError

KINDS = ("hdf5", "arrow", "parquet")
VECTOR = Box(-9, 9, (3,))
NESTED = Dict(
    state=VECTOR, goal=Dict(point=Box(-9, 9, (2,)), camera=Box(0, 255, (4, 4, 3), np.uint8)), arm=Box(-9, 9, (1,))
)


@pytest.fixture(params=KINDS)
def create(request, tmp_path, monkeypatch):
    """Return a function that lets Minari write two episodes of 5 and 6 steps, and returns their folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def write(space, action_space=None, **infos):
        action_space = action_space or Box(-1, 1, (2,))
        buffers = [_buffer(space, action_space, episode, 5 + episode, infos) for episode in (0, 1)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers(
                "theirs-v0", buffers, observation_space=space, action_space=action_space, data_format=request.param
            )
        return tmp_path / "theirs-v0"

    return write


def _sample(space, rows, episode):
    if isinstance(space, Dict):
        return {key: _sample(subspace, rows, episode) for key, subspace in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(_sample(subspace, rows, episode) for subspace in space.spaces)
    time = np.arange(rows, dtype=space.dtype).reshape(-1, *[1] * len(space.shape))
    return np.broadcast_to(time + space.dtype.type(episode), (rows, *space.shape)).copy()


def _buffer(space, action_space, episode, steps, infos):
    last = np.arange(steps) == steps - 1
    return EpisodeBuffer(
        id=episode,
        seed=40 + episode,
        observations=_sample(space, steps + 1, episode),
        actions=np.full((steps, *action_space.shape), 0.25, action_space.dtype),
        rewards=np.arange(float(steps)),
        terminations=last & (episode == 1),
        truncations=last & (episode == 0),
        infos={key: value[: steps + 1] for key, value in infos.items()} or None,
    )


def test_box_dataset_is_read(create):
    path = create(VECTOR, success=np.array([0, 0, 0, 0, 1, 1, 0]) > 0)
    dataset = load_demos(path, allow_variable_horizon=True)
    for episode, trajectory in enumerate(dataset):
        steps = 5 + episode
        np.testing.assert_array_equal(trajectory.obs, _sample(VECTOR, steps + 1, episode))
        np.testing.assert_array_equal(trajectory.action, np.full((steps, 2), 0.25))
        np.testing.assert_array_equal(trajectory.reward, np.arange(steps))
        assert trajectory.success.tolist() == [False, False, False, True, True, False][:steps]
        assert (trajectory.terminated, trajectory.truncated, trajectory.seed) == (
            episode == 1,
            episode == 0,
            40 + episode,
        )
        assert (trajectory.obs.dtype, trajectory.action.dtype) == (np.float32, np.float32)
    assert dataset.provenance["dataset_id"] == "theirs-v0"
    assert "obs_keys" not in dataset.provenance


def test_dict_vectors_are_concatenated_sorted_without_images(create):
    dataset = read_minari(create(NESTED))
    assert dataset[0].obs.shape == (6, 1 + 2 + 3)
    assert dataset.provenance["obs_keys"] == ["arm", "goal/point", "state"]
    assert dataset.provenance["obs_left_out"] == ["goal/camera"]
    np.testing.assert_array_equal(dataset[1].obs, np.arange(1, 8)[:, None] + np.zeros((1, 6)))


def test_named_arrays_are_read(create):
    path = create(NESTED)
    assert read_minari(path, ["state", "arm"])[0].obs.shape == (6, 4)
    assert read_minari(path, ["goal/camera"])[0].obs.shape == (6, 4, 4, 3)
    with pytest.raises(UserError, match=r"no observation 'goal' in it \(available: arm \(1,\), goal/camera \(4, 4, 3"):
        read_minari(path, ["goal"])


def test_tuple_is_concatenated_in_order(create):
    space = Tuple((Box(-9, 9, (2,)), Box(-9, 9, (1,))))
    assert read_minari(create(space))[0].obs.shape == (6, 3)


def test_other_declared_bounds_require_rescaling(create):
    path = create(VECTOR, Box(np.float32([0, -0.5]), np.float32([0.5, 0.5])))
    with pytest.raises(UserError, match=r"declares action bounds .*0\.5.*--rescale-actions"):
        load_demos(path, allow_variable_horizon=True)
    dataset = load_demos(path, allow_variable_horizon=True, rescale_actions=True)
    np.testing.assert_array_equal(dataset[0].action[0], [0.0, 0.5])


def test_infinite_declared_bounds_are_ignored(create):
    assert len(load_demos(create(VECTOR, Box(-np.inf, np.inf, (2,))), allow_variable_horizon=True)) == 2


@pytest.mark.parametrize("create", ["arrow", "parquet"], indirect=True)
def test_damaged_files_are_named(create):
    path = create(VECTOR)
    part = next((path / "data/1").glob("part-0.*"))
    part.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"data/1 cannot be read as (arrow|parquet)"):
        read_minari(path)
    (path / "data/0/metadata.json").write_text("{")
    with pytest.raises(UserError, match=r"data/0/metadata.json is not JSON"):
        read_minari(path)
    metadata = path / "data/metadata.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"observation_space": "Box"}))
    with pytest.raises(UserError, match="observation_space is not a space"):
        read_minari(path)


def test_compressed_images_are_no_vectors(create):
    # Those of one colour have the same number of bytes in every frame, so that HDF5 holds them as a matrix of bytes.
    path = create(Dict(camera=Box(0, 255, (32, 40, 3), np.uint8), state=VECTOR))
    dataset = read_minari(path)
    assert (dataset[0].obs.shape, dataset[0].image) == ((6, 3), None)
    assert dataset.provenance["obs_left_out"] == ["camera"]
    assert dataset.provenance["cameras"] == {"camera": "32 x 40"}
    named = read_minari(path, ["camera"])[1].obs
    assert np.abs(named - np.arange(1, 8).reshape(7, 1, 1, 1)).max() <= 2
    assert named.shape == (7, 32, 40, 3)


@pytest.mark.parametrize(
    ("space", "camera"),
    [
        (Box(0, 255, (4, 6, 3), np.uint8), "observations"),
        (Box(0, 255, (32, 40, 3), np.uint8), "observations"),
        (Dict(eye=Box(0, 255, (32, 40, 3), np.uint8), state=VECTOR), "eye"),
        (Dict(eye=Box(0, 255, (4, 6, 1), np.uint8), state=VECTOR), "eye"),
        (Dict(eye=Box(0, 255, (32, 40), np.uint8), state=VECTOR), "eye"),
        (Tuple((VECTOR, Box(0, 255, (3, 4, 6), np.uint8))), "1"),
    ],
)
def test_images_are_read_beside_vectors(create, space, camera):
    dataset = read_minari(create(space), images=ImageRequest(8))
    for episode, trajectory in enumerate(dataset):
        rows = 6 + episode
        assert (trajectory.image.shape, trajectory.image.dtype) == ((rows, 8, 8, 3), np.uint8)
        expected = (np.arange(rows) + episode).reshape(rows, 1, 1, 1)
        assert np.abs(trajectory.image - expected).max() <= 2
        vector = _sample(VECTOR, rows, episode) if camera != "observations" else np.zeros((rows, 0))
        np.testing.assert_array_equal(trajectory.obs, vector)
    assert dataset.provenance["images"]["camera"] == camera
    assert dataset.provenance["images"].get("channels") == ("first, moved last" if camera == "1" else None)


def test_images_alone_are_refused_where_vectors_are_observed(create):
    with pytest.raises(UserError, match=r"all of its observations are images, .*--obs pixels"):
        read_minari(create(Box(0, 255, (32, 40, 3), np.uint8)))


def test_float_images_keep_their_shape_and_are_not_joined(create):
    camera = Box(0, 1, (4, 4, 3))
    path = create(Tuple((camera, VECTOR)))
    assert read_minari(path)[0].obs.shape == (6, 3)
    assert read_minari(path, ["0"])[0].obs.shape == (6, 4, 4, 3)
    with pytest.raises(UserError, match=r"'0' has shape \(4, 4, 3\) .* only numeric vectors can be concatenated"):
        read_minari(path, ["0", "1"])


@pytest.mark.parametrize("create", ["arrow", "parquet"], indirect=True)
def test_rows_of_another_size_than_the_space_are_rejected(create):
    path = create(VECTOR)
    file = path / "data/metadata.json"
    metadata = json.loads(file.read_text())
    space = json.loads(metadata["observation_space"]) | {"shape": [2, 2]}
    file.write_text(json.dumps(metadata | {"observation_space": json.dumps(space)}))
    with pytest.raises(UserError, match=r"data/0: 'observations' has \(3,\) numbers per step, .* shape \(2, 2\)"):
        read_minari(path)
