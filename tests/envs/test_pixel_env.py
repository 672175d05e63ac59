"""Environments that are observed by camera images."""

import numpy as np
import pytest

from cdred.envs.base import Step, validate_step
from cdred.envs.pixels import PixelEnv
from cdred.envs.registry import get_env_spec, make, without_images
from cdred.envs.suites.probes import Point
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError
from cdred.task_name import with_obs, with_repeat
from cdred.types import ImageObs

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (25, 2, 2, 2)).astype(np.float32)


def images_of_episode(seed, actions):
    """Return what the environment itself renders."""
    env = make("probe/point", render_size=32)
    env.reset(seed)
    images = [env.render()]
    for action in actions:
        env.step(action)
        images.append(env.render())
    return images


def test_observation_is_the_rendered_image():
    env, plain = make("probe/point?obs=both&size=32"), make("probe/point", render_size=32)
    obs, state = env.reset(3), plain.reset(3)
    np.testing.assert_array_equal(obs.state, state)
    np.testing.assert_array_equal(obs.image, plain.render())
    step, plain_step = env.step(np.ones(2, np.float32)), plain.step(np.ones(2, np.float32))
    np.testing.assert_array_equal(step.obs.state, plain_step.obs)
    np.testing.assert_array_equal(step.obs.image, plain.render())
    assert step[1:] == plain_step[1:]


def test_pixels_have_no_state():
    env = make("probe/point?obs=pixels&size=48")
    assert (env.spec.obs_shape, env.spec.image_shape) == ((0,), (48, 48, 3))
    assert env.spec.task == "probe/point?obs=pixels&size=48"
    assert env.reset(0).state.shape == (0,)
    assert get_env_spec("probe/point").image_size is None


def test_frames_of_a_video_have_the_size_that_was_asked_for():
    env = make("probe/point?obs=pixels&size=32", render_size=64)
    obs = env.reset(0)
    np.testing.assert_array_equal(env.render(), obs.image.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("vectorization", ["sync", "process"])
def test_agents_observe_the_last_three_images(vectorization):
    with VectorEnv("probe/point?obs=pixels&size=32", (0, 1), 2, vectorization=vectorization) as envs:
        obs = envs.reset()
        seed = envs.episode_seed(1, 0)
        images = images_of_episode(seed, ACTIONS[:20, 1, 0])
        np.testing.assert_array_equal(obs.image[1, 0], [images[0]] * 3)
        for t in range(20):
            obs = envs.step(ACTIONS[t]).obs
            last = [images[max(i, 0)] for i in (t - 1, t, t + 1)]
            np.testing.assert_array_equal(obs.image[1, 0], last)
        # The first image of the next episode stands for those before it, too.
        obs = envs.reset(np.ones((2, 2), bool))
        np.testing.assert_array_equal(obs.image[1, 0], obs.image[1, 0, :1].repeat(3, axis=0))
        assert not np.array_equal(obs.image[1, 0, 0], images[-1])


def test_earlier_observations_do_not_change():
    with VectorEnv("probe/point?obs=both&size=32", (0,)) as envs:
        obs = envs.reset()
        kept = obs.image.copy()
        envs.step(ACTIONS[0, :1, :1])
        np.testing.assert_array_equal(obs.image, kept)


def test_restored_environments_have_the_same_images():
    task = "probe/point?obs=pixels&size=32"
    with VectorEnv(task, (0, 1), 2) as envs, VectorEnv(task, (0, 1), 2) as restored:
        envs.reset()
        for action in ACTIONS[:5]:
            envs.step(action)
        restored.restore(envs.snapshot())
        one, other = envs.step(ACTIONS[5]).obs, restored.step(ACTIONS[5]).obs
        np.testing.assert_array_equal(one.image, other.image)
        wrong = envs.snapshot()
        wrong["image"][0, 0, 2] += 1
        with pytest.raises(UserError, match="gave different observations"):
            restored.restore(wrong)


def test_simulator_that_fails_once_is_replaced_and_nothing_changes(monkeypatch):
    task, logged, calls = "probe/point?obs=pixels&size=32", [], []
    with VectorEnv(task, (0,)) as envs:
        envs.reset()
        expected = [envs.step(action[:1, :1]).obs.image for action in ACTIONS[:6]]
    step = Point.step

    def failing(self, action):
        calls.append(action)
        if len(calls) == 4:
            raise RuntimeError("lost")
        return step(self, action)

    monkeypatch.setattr(Point, "step", failing)
    with VectorEnv(task, (0,), log=logged.append) as envs:
        envs.reset()
        for action, images in zip(ACTIONS[:6], expected, strict=True):
            np.testing.assert_array_equal(envs.step(action[:1, :1]).obs.image, images)
    assert len(logged) == 1
    assert "episode replayed, nothing lost" in logged[0]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 32, 32), np.uint8), r"image of shape \(3, 32, 32\).*expected \(32, 32, 3\)"),
        (np.zeros((64, 64, 3), np.uint8), r"image of shape \(64, 64, 3\)"),
        (np.zeros((32, 32, 3), np.float32), r"type float32, expected \(32, 32, 3\) and uint8"),
    ],
)
def test_image_of_another_kind_is_refused(image, message):
    class Env:
        spec = get_env_spec("probe/point")

        def reset(self, seed):
            return np.full(4, seed, np.float32)

        def render(self):
            return image

    with pytest.raises(ValueError, match=message):
        PixelEnv(Env(), "probe/x", 32, with_state=False)


def test_vector_in_place_of_an_image_is_refused():
    spec = get_env_spec("probe/point?obs=both")
    with pytest.raises(ValueError, match="expected an ImageObs"):
        validate_step(spec, Step(np.zeros(4, np.float32), 0.0, False, False, False))
    bad = ImageObs(np.array([0, np.nan, 0, 0], np.float32), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(FloatingPointError, match="non-finite"):
        validate_step(spec, Step(bad, 0.0, False, False, False))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("probe/point?obs=image", "obs should be pixels or both, got 'image'"),
        ("probe/point?size=32", "there are none without obs=pixels"),
        ("probe/point?obs=pixels&size=16", "32 to 256 pixels, got '16'"),
        ("probe/point?obs=pixels&size=x", "32 to 256 pixels, got 'x'"),
        ("probe/point?obs=pixels&size=64", r"use the name 'probe/point\?obs=pixels'"),
        ("probe/point?size=32&obs=pixels", r"use the name 'probe/point\?obs=pixels&size=32'"),
        ("probe/point?frames=3", "unknown parameter 'frames', expected some of repeat, mass, friction, obs, size"),
        ("jaxprobe/point?obs=pixels", "cannot be rendered as observations"),
    ],
)
def test_other_names_are_refused(task, message):
    with pytest.raises(UserError, match=message):
        make(task)


def test_names_of_tasks_with_images():
    assert with_obs("dmc/walker-walk", "pixels") == "dmc/walker-walk?obs=pixels"
    assert with_obs("dmc/walker-walk?repeat=1", "both", 32) == "dmc/walker-walk?repeat=1&obs=both&size=32"
    assert with_obs("dmc/walker-walk?repeat=1&obs=both&size=32", "state") == "dmc/walker-walk?repeat=1"
    assert with_repeat("dmc/walker-walk?obs=pixels", 4) == "dmc/walker-walk?repeat=4&obs=pixels"
    assert without_images("probe/point?obs=pixels&size=32") == "probe/point"
