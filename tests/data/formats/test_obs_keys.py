import numpy as np
import pytest

from cdred.data.formats.obs_keys import account, joined, selected
from cdred.errors import UserError

PARTS = {
    "camera": np.zeros((4, 8, 8, 3), np.uint8),
    "clock": np.arange(4.0),
    "label": np.array(["a", "b", "c", "d"]),
    "state": np.arange(12.0).reshape(4, 3),
}


def join(parts, keys):
    return joined(parts, keys, lambda key: np.asarray(parts[key], np.float32), "here")


def test_without_a_wish_all_vectors_of_numbers_and_no_pictures():
    assert selected(PARTS, None, "here") == ("clock", "state")
    assert account(PARTS, ("clock", "state")) == {"obs_keys": ["clock", "state"], "obs_left_out": ["camera", "label"]}


def test_a_single_part_is_taken_whatever_its_shape_and_needs_no_account():
    picture = {"camera": PARTS["camera"]}
    assert selected(picture, None, "here") == ("camera",)
    assert join(picture, ["camera"]).shape == (4, 8, 8, 3)
    assert account(picture, ("camera",)) == {}


def test_named_parts_are_joined_in_the_order_of_the_names():
    keys = selected(PARTS, ["state", "clock"], "here")
    obs = join(PARTS, keys)
    np.testing.assert_array_equal(obs, np.column_stack([PARTS["state"], PARTS["clock"]]))
    assert obs.dtype == np.float32
    assert selected(PARTS, ["camera"], "here") == ("camera",)


def test_one_number_a_time_step_is_a_vector_of_one():
    assert join(PARTS, ["clock"]).shape == (4, 1)


@pytest.mark.parametrize(
    ("parts", "keys", "says"),
    [
        (PARTS, ["state", "sate"], r"no observation 'sate' in it \(there are: camera \(8, 8, 3\), clock \(\), "),
        (PARTS, [], "no observation ''"),
        (PARTS, ["state", "camera"], r"'camera' has shape \(8, 8, 3\) \(uint8\) a time step; only vectors"),
        (PARTS, ["state", "label"], r"'label' has shape \(\) \(<U1\)"),
        ({}, None, "no observations in it"),
        (
            {"a": PARTS["camera"], "b": PARTS["label"]},
            None,
            "no observation in it is a vector; name one with --obs-keys",
        ),
    ],
)
def test_what_cannot_be_taken_is_said(parts, keys, says):
    with pytest.raises(UserError, match=f"^here: {says}"):
        selected(parts, keys, "here")


def test_parts_of_different_lengths_are_refused():
    with pytest.raises(UserError, match=r"differ in length: \{'clock': 4, 'late': 3\}"):
        join(PARTS | {"late": np.zeros(3)}, ["clock", "late"])
