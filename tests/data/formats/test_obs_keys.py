import numpy as np
import pytest

from cdred.data.formats.obs_keys import by_name, concat_obs, obs_provenance, select_obs_keys
from cdred.errors import UserError

ARRAYS = {
    "camera": np.zeros((4, 8, 8, 3), np.uint8),
    "clock": np.arange(4.0),
    "label": np.array(["a", "b", "c", "d"]),
    "state": np.arange(12.0).reshape(4, 3),
}


def concat(arrays, keys):
    return concat_obs(arrays, keys, lambda key: np.asarray(arrays[key], np.float32), "here")


def test_default_is_all_numeric_vectors():
    assert select_obs_keys(ARRAYS, None, "here") == ("clock", "state")
    assert obs_provenance(ARRAYS, ("clock", "state"), None) == {
        "obs_keys": ["clock", "state"],
        "obs_widths": [1, 3],
        "obs_order": "default of the file's reader",
        "obs_left_out": ["camera", "label"],
    }


@pytest.mark.parametrize(("keys", "obs_keys"), [(("state", "clock"), ["state", "clock"]), (("state",), None)])
def test_order_is_the_readers_only_if_it_joins_unasked(keys, obs_keys):
    assert "obs_order" not in obs_provenance(ARRAYS, keys, obs_keys)


def test_indices_are_sorted_by_number():
    names = ["goal", "10", "2/b", "2/a", "goal/10", "goal/9"]
    assert sorted(names, key=by_name) == ["2/a", "2/b", "10", "goal", "goal/9", "goal/10"]


def test_single_array_keeps_its_shape():
    image = {"camera": ARRAYS["camera"]}
    assert select_obs_keys(image, None, "here") == ("camera",)
    assert concat(image, ["camera"]).shape == (4, 8, 8, 3)
    assert obs_provenance(image, ("camera",), None) == {}


def test_named_arrays_are_concatenated_in_order():
    keys = select_obs_keys(ARRAYS, ["state", "clock"], "here")
    obs = concat(ARRAYS, keys)
    np.testing.assert_array_equal(obs, np.column_stack([ARRAYS["state"], ARRAYS["clock"]]))
    assert obs.dtype == np.float32
    assert select_obs_keys(ARRAYS, ["camera"], "here") == ("camera",)


def test_scalar_per_step_becomes_vector():
    assert concat(ARRAYS, ["clock"]).shape == (4, 1)


@pytest.mark.parametrize(
    ("arrays", "keys", "message"),
    [
        (ARRAYS, ["state", "sate"], r"no observation 'sate' in it \(available: camera \(8, 8, 3\), clock \(\), "),
        (ARRAYS, [], "no observation ''"),
        (ARRAYS, ["state", "camera"], r"'camera' has shape \(8, 8, 3\) \(uint8\) per time step; only numeric vectors"),
        (ARRAYS, ["state", "label"], r"'label' has shape \(\) \(<U1\)"),
        ({}, None, "no observations in it"),
        (
            {"a": ARRAYS["camera"], "b": ARRAYS["label"]},
            None,
            "no observation in it is a vector; name one with --obs-keys",
        ),
    ],
)
def test_invalid_selection_is_rejected(arrays, keys, message):
    with pytest.raises(UserError, match=f"^here: {message}"):
        select_obs_keys(arrays, keys, "here")


def test_different_lengths_are_rejected():
    with pytest.raises(UserError, match=r"differ in length: \{'clock': 4, 'late': 3\}"):
        concat(ARRAYS | {"late": np.zeros(3)}, ["clock", "late"])
