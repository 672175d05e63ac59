"""Camera images in demonstrations: storage, checks, and what a task takes of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from minari import MinariDataset

import cdred
from cdred.data.action_repeat import fold_steps
from cdred.data.demonstrations import load_demos, save_demos
from cdred.data.describe import format_summary, summarize
from cdred.data.images import match_images
from cdred.data.quality import find_faults
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.run_folder import record_demos
from cdred.types import DemoDataset, Trajectory

TASK, STEPS = "probe/point", 20
RNG = np.random.default_rng(0)


def episode(**changes):
    fields = {
        "obs": RNG.normal(size=(STEPS + 1, 4)).astype(np.float32),
        "action": RNG.uniform(-1, 1, (STEPS, 2)).astype(np.float32),
        "reward": np.zeros(STEPS, np.float32),
        "terminated": False,
        "truncated": True,
        "image": RNG.integers(0, 256, (STEPS + 1, 32, 32, 3), dtype=np.uint8),
    }
    return Trajectory(**(fields | changes))


@pytest.fixture
def demos():
    return DemoDataset(f"{TASK}?obs=both&size=32", (episode(), episode()))


@pytest.fixture
def saved(demos, tmp_path):
    save_demos(demos, tmp_path / "demos.npz")
    return tmp_path / "demos.npz"


def assert_same(expected, dataset):
    assert (dataset.task, dataset.provenance) == (expected.task, expected.provenance)
    for one, other in zip(expected, dataset, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert other.image.dtype == np.uint8
        for key in ("obs", "action", "reward"):
            np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
        assert (one.terminated, one.truncated, one.seed) == (other.terminated, other.truncated, other.seed)


@pytest.mark.parametrize("name", ["npz", "minari", "lerobot"])
def test_round_trip_keeps_every_byte(demos, tmp_path, name):
    demos = replace(demos, provenance={"images": {"size": 32}})
    save_demos(demos, tmp_path / "demos", name)
    assert_same(demos, load_demos(tmp_path / "demos"))
    assert_same(demos, load_demos(tmp_path / "demos", get_env_spec(demos.task)))


@pytest.mark.parametrize("name", ["npz", "minari", "lerobot"])
def test_round_trip_of_images_alone(demos, tmp_path, name):
    task = f"{TASK}?obs=pixels&size=32"
    pixels = replace(match_images(demos, "here", get_env_spec(task)), task=task)
    save_demos(pixels, tmp_path / "demos", name)
    assert_same(pixels, load_demos(tmp_path / "demos"))
    assert_same(pixels, load_demos(tmp_path / "demos", get_env_spec(task)))


@pytest.mark.parametrize("name", ["npz", "minari", "lerobot"])
def test_images_are_not_read_where_states_are_observed(demos, tmp_path, name, monkeypatch):
    demos = replace(demos, provenance={"expert": "made up"})
    save_demos(demos, tmp_path / "demos", name)

    def refuse(*_):
        raise AssertionError("images were decoded")

    monkeypatch.setattr("cdred.data.formats.lerobot_cameras.decode_image", refuse)
    monkeypatch.setattr("cdred.data.formats.obs_selection.read_resized", refuse)
    dataset = load_demos(tmp_path / "demos", get_env_spec(TASK))
    for one, other in zip(demos, dataset, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        assert other.image is None
    assert dataset.provenance == demos.provenance


def test_minari_opens_images_that_were_written(demos, tmp_path):
    save_demos(demos, tmp_path / "demos", "minari")
    episode = MinariDataset(tmp_path / "demos/data")[1]
    np.testing.assert_array_equal(episode.observations["image"], demos[1].image)
    np.testing.assert_array_equal(episode.observations["state"], demos[1].obs)


def test_lerobot_images_have_statistics_of_their_channels(demos, tmp_path):
    save_demos(demos, tmp_path / "demos", "lerobot")
    info = json.loads((tmp_path / "demos/meta/info.json").read_text())
    assert info["features"]["observation.image"] == {
        "dtype": "image",
        "shape": [32, 32, 3],
        "names": ["height", "width", "channels"],
    }
    stats = json.loads((tmp_path / "demos/meta/stats.json").read_text())["observation.image"]
    # The final image of an episode belongs to no frame.
    pixels = np.concatenate([demo.image[:-1] for demo in demos]).reshape(-1, 3) / 255
    expected = {"min": pixels.min(0), "max": pixels.max(0), "mean": pixels.mean(0), "std": pixels.std(0)}
    expected |= {"q10": np.quantile(pixels, 0.1, axis=0, method="inverted_cdf")}
    for key, values in expected.items():
        np.testing.assert_allclose(np.array(stats[key]), values.reshape(3, 1, 1), atol=1e-12, err_msg=key)
    assert stats["count"] == [2 * STEPS]


def test_stacked_episodes_are_read(demos, tmp_path):
    arrays = {key: np.stack([getattr(d, key) for d in demos]) for key in ("obs", "action", "image")}
    np.savez(tmp_path / "stacked.npz", **arrays)
    loaded = load_demos(tmp_path / "stacked.npz", get_env_spec(f"{TASK}?obs=both&size=32"))
    np.testing.assert_array_equal(loaded[1].image, demos[1].image)


@pytest.mark.parametrize(("obs", "width", "images"), [("state", 4, False), ("pixels", 0, True), ("both", 4, True)])
def test_a_task_takes_what_it_observes(saved, obs, width, images):
    name = TASK if obs == "state" else f"{TASK}?obs={obs}&size=32"
    for demo in load_demos(saved, get_env_spec(name)):
        assert demo.obs.shape == (STEPS + 1, width)
        assert (demo.image is not None) == images


def test_missing_images_name_the_command_that_renders_them(tmp_path):
    save_demos(DemoDataset(TASK, (episode(image=None),)), tmp_path / "demos.npz")
    message = r"episode 0: no images, expected images of \(32, 32, 3\).*cdred demos render SRC DST --task 'probe"
    with pytest.raises(UserError, match=message):
        load_demos(tmp_path / "demos.npz", get_env_spec(f"{TASK}?obs=pixels&size=32"))


def test_images_of_another_size_are_refused(saved):
    with pytest.raises(UserError, match=r"images of \(32, 32, 3\), expected images of \(64, 64, 3\)"):
        load_demos(saved, get_env_spec(f"{TASK}?obs=pixels"))


IMAGE = episode().image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE[:-1], "20 images for 20 actions, expected 21"),
        (np.moveaxis(IMAGE, -1, 1), r"The channels seem to come first: store np\.moveaxis"),
        (IMAGE / np.float32(255), "type float32.*Store bytes from 0 to 255"),
        (IMAGE[:, :, :16], r"images of shape \(21, 32, 16, 3\).*expected square RGB images"),
        (IMAGE[..., :1], r"images of shape \(21, 32, 32, 1\)"),
        (IMAGE[..., 0], r"images of shape \(21, 32, 32\)"),
    ],
)
def test_images_of_another_kind_are_refused(image, message, tmp_path):
    with pytest.raises(UserError, match=message):
        save_demos(DemoDataset(TASK, (episode(image=image),)), tmp_path / "demos.npz")


def test_images_of_different_sizes_are_refused(tmp_path):
    small = RNG.integers(0, 256, (STEPS + 1, 40, 40, 3), dtype=np.uint8)
    with pytest.raises(UserError, match=r"episode 1: its images have shape \(40, 40, 3\), expected \(32, 32, 3\)"):
        save_demos(DemoDataset(TASK, (episode(), episode(image=small))), tmp_path / "demos.npz")


def test_images_of_some_episodes_are_refused(demos, tmp_path):
    mixed = replace(demos, trajectories=(episode(), episode(image=None)))
    with pytest.raises(UserError, match="its images have shape None"):
        save_demos(mixed, tmp_path / "demos.npz")


def test_folded_steps_keep_the_images_between_them():
    held = episode(action=RNG.uniform(-1, 1, (STEPS // 2, 2)).astype(np.float32).repeat(2, axis=0))
    folded = fold_steps(DemoDataset(TASK, (held,)), "here", 2, 1)[0]
    np.testing.assert_array_equal(folded.image, held.image[::2])
    np.testing.assert_array_equal(folded.obs, held.obs[::2])


def test_summary_shows_images_and_vectors(demos, saved):
    assert format_summary(summarize(demos))["observation"].endswith("; RGB images of 32 x 32")
    pixels = load_demos(saved, get_env_spec(f"{TASK}?obs=pixels&size=32"))
    assert format_summary(summarize(pixels))["observation"] == "RGB images of 32 x 32"
    assert not any(finding.severity == "unfit" for finding in find_faults(pixels, None))


def test_other_images_are_other_demonstrations(demos, tmp_path):
    changed = replace(demos, trajectories=(demos[0], replace(demos[1], image=255 - demos[1].image)))
    digests = []
    for dataset in (demos, changed):
        record_demos(tmp_path, dataset, save=False)
        digests.append(json.loads((tmp_path / "demonstrations.json").read_text())["sha256"])
    assert digests[0] != digests[1]


def test_episodes_with_the_same_actions_and_other_images_are_no_duplicates(demos):
    pixels = match_images(demos, "here", get_env_spec(f"{TASK}?obs=pixels&size=32"))
    first = pixels[0]
    for image, expected in ((255 - first.image, set()), (first.image, {"duplicate"})):
        both = replace(pixels, trajectories=(first, replace(first, image=image)))
        kinds = {finding.kind for finding in find_faults(both, None)}
        assert kinds & {"duplicate", "near_duplicate"} == expected


def test_public_name_of_an_observation_with_images():
    obs = cdred.ImageObs(np.zeros(2, np.float32), np.zeros((32, 32, 3), np.uint8))
    assert obs._fields == ("state", "image")
