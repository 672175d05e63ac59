"""Runs on camera images."""

from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdred
from cdred.config import MODEL_FREE, AlgoName, validate
from cdred.data.images import match_images
from cdred.demos.replay import replay_demos
from cdred.demos.scripted import collect_scripted, get_demos
from cdred.envs.registry import get_env_spec, make
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError
from cdred.experts import record_episodes
from cdred.run_folder import load_run
from cdred.train.agent import select_seed
from cdred.train.keys import INIT, LEARN, seed_keys
from cdred.train.setup import make_compiled_fns, split_demos
from cdred.types import ImageObs
from runs import arrays, assert_same_arrays, killed_at, metric_lines, run_config

SMALL = {"obs": "both", "image_size": 32, "steps": 40, "updates_per_call": 4, "random_episodes": 1}


@pytest.fixture(scope="module", autouse=True)
def cache_of_demonstrations(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def config_of(out, **changes):
    settings = SMALL | {"eval_every": 20, "checkpoint_every": 20} | changes
    config = run_config(out, **settings)
    return replace(config, optim=replace(config.optim, batch_size=2))


def prepared(**changes):
    """Return settings, spec, demonstrations and compiled functions of a run."""
    config = validate(config_of("unused", **changes))
    spec = get_env_spec(config.task)
    fns = make_compiled_fns(config, spec)
    expert, _ = split_demos(get_demos(config.task, 3), spec, fns, 0)
    return config, spec, expert, fns


@pytest.fixture(scope="module")
def bc_run(tmp_path_factory):
    """Run of BC from pixels and state, interrupted and resumed, and the same without interruption."""
    folder = tmp_path_factory.mktemp("bc")
    with killed_at(20):
        cdred.train(config_of(folder / "resumed", algo="bc"), quiet=True)
    cdred.train(config_of(folder / "resumed", algo="bc"), quiet=True)
    cdred.train(config_of(folder / "whole", algo="bc"), quiet=True)
    return folder


@pytest.mark.slow
def test_resumed_run_of_a_world_model_is_bitwise_identical(tmp_path):
    pretrain = {"updates": 4, "steps": 1, "selection_episodes": 0}
    for name in ("whole", "resumed"):
        config = config_of(tmp_path / name, obs="pixels", seeds=(0,))
        config = replace(config, pretrain=replace(config.pretrain, **pretrain))
        if name == "resumed":
            with killed_at(28):
                cdred.train(config, quiet=True)
        cdred.train(config, quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / "resumed"))
    assert metric_lines(tmp_path / "whole") == metric_lines(tmp_path / "resumed")
    saved = arrays(tmp_path / "whole")
    # One image per step and environment.
    assert saved["replay/obs/image"].dtype == np.uint8
    assert saved["replay/obs/image"].shape[-3:] == (32, 32, 3)
    assert len(np.unique(saved["replay/obs/image"][0, 0, :20].reshape(20, -1), axis=0)) > 10


def test_resumed_run_of_bc_is_bitwise_identical(bc_run):
    assert_same_arrays(arrays(bc_run / "whole"), arrays(bc_run / "resumed"))


def test_agent_remembers_the_images_that_it_has_seen(bc_run):
    agent = cdred.load(bc_run / "whole", seed=1)
    run = load_run(bc_run / "whole", None)
    config, fns = run.config, make_compiled_fns(run.config, agent.spec)
    learner = jax.tree.map(lambda x: x[None], select_seed(run.learner, config, 1)[0])
    with VectorEnv(config.task, (1,), 2) as envs:
        obs = envs.reset()
        for t in range(4):
            plan, keys = fns.init_plan(1, 2), seed_keys((1,), INIT)
            expected, _ = fns.act(learner, plan, obs, np.full((1, 2), t == 0), keys, np.int32(t), False)
            newest = ImageObs(obs.state[0], obs.image[0, :, -1])
            action = agent.act(newest, normalized=True)
            np.testing.assert_allclose(action, expected[0], atol=1e-5)
            obs = envs.step(np.ones((1, 2, 2), np.float32)).obs
        first = agent.reset().act(ImageObs(obs.state[0, 0], obs.image[0, 0, -1]))
        later = agent.act(ImageObs(obs.state[0, 0], obs.image[0, 1, -1]))
    assert first.shape == later.shape == (2,)
    assert not np.array_equal(first, later)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (np.zeros((32, 32, 3), np.uint8), r"observed by cdred\.ImageObs\(state, image\), got one array"),
        (
            ImageObs(np.zeros(4), np.zeros((32, 32, 3), np.float32)),
            r"type uint8, channels last, got .* and float32",
        ),
        (ImageObs(np.zeros(4), np.zeros((3, 32, 32), np.uint8)), r"expected an image of shape \(32, 32, 3\)"),
        (ImageObs(np.zeros(4), np.zeros((2, 32, 32, 3), np.uint8)), "as many images as vectors"),
        (ImageObs(np.zeros((3, 4)), np.zeros((2, 32, 32, 3), np.uint8)), "as many images as vectors"),
        (ImageObs(np.full(4, np.nan), np.zeros((32, 32, 3), np.uint8)), "is not finite"),
        (ImageObs(np.zeros(5), np.zeros((32, 32, 3), np.uint8)), r"expected an observation of shape \(4,\)"),
    ],
)
def test_agent_refuses_other_observations(bc_run, obs, message):
    with pytest.raises(UserError, match=message):
        cdred.load(bc_run / "whole").act(obs)


@pytest.mark.parametrize("algo", [name for name in get_args(AlgoName) if name not in (*MODEL_FREE, "bc")])
def test_every_method_on_a_world_model_learns_from_images(algo):
    """The shapes of an update agree, which is traced and not compiled."""
    _, spec, expert, fns = prepared(algo=algo, obs="pixels")
    learner = jax.eval_shape(fns.init_fn, seed_keys((0, 1), INIT))
    replay = jax.tree.map(lambda x: jnp.stack([x, x]), expert)
    demos = None if algo == "tdmpc2" else expert
    new, metrics, _ = jax.eval_shape(fns.learn_fn, learner, replay, demos, seed_keys((0, 1), LEARN), jnp.int32(0), None)
    assert jax.tree.map(lambda x: x.shape, new) == jax.tree.map(lambda x: x.shape, learner)
    assert metrics["grad_norm"].shape == (2,)
    obs = jax.tree.map(jnp.asarray, spec.zero_obs(2, 1))
    plan, first = fns.init_plan(2, 1), jnp.ones((2, 1), bool)
    action, _ = jax.eval_shape(
        fns.act_fn, learner, plan, obs, first, seed_keys((0, 1), INIT), jnp.int32(0), jnp.array(True)
    )
    assert action.shape == (2, 1, spec.action_dim)


@pytest.mark.parametrize("algo", MODEL_FREE)
def test_methods_without_an_encoder_refuse_images(algo, tmp_path):
    with pytest.raises(UserError, match=f"--algo {algo} has no encoder of images"):
        cdred.train(config_of(tmp_path / "run", algo=algo), quiet=True)


def test_name_of_the_task_and_options_agree():
    config = validate(config_of("unused", obs="pixels", image_size=48))
    assert config.task == "probe/point?obs=pixels&size=48"
    assert validate(config) == config
    named = validate(run_config("unused", task="probe/point?obs=both&size=32"))
    assert (named.obs, named.image_size) == ("both", 32)
    assert validate(run_config("unused")).task == "probe/point"
    with pytest.raises(UserError, match="--image-size 32 is that of camera images: give --obs pixels or --obs both"):
        validate(run_config("unused", image_size=32))
    with pytest.raises(UserError, match="--obs pixels --image-size 64 contradicts the task's name"):
        validate(run_config("unused", task="probe/point?obs=both&size=32", obs="pixels"))


def test_recorded_episodes_have_the_images_that_the_agent_observed(bc_run):
    recorded = record_episodes(load_run(bc_run / "whole", None), 0, 1)
    (replay,) = replay_demos(recorded, "here", make(recorded.task), 0.0)
    assert replay.agrees
    # The images alone are compared where nothing else is observed.
    pixels = match_images(recorded, "here", get_env_spec("probe/point?obs=pixels&size=32"))
    (same,) = replay_demos(pixels, "here", make("probe/point?obs=pixels&size=32"), 0.0)
    assert (same.agrees, same.max_difference) == (True, 0.0)
    inverted = replace(pixels, trajectories=(replace(pixels[0], image=255 - pixels[0].image),))
    (other,) = replay_demos(inverted, "here", make("probe/point?obs=pixels&size=32"), 1e-4)
    assert (other.agrees, other.first_step) == (False, 0)


def test_demonstrations_as_objects_need_images(tmp_path):
    demos = collect_scripted("probe/point", 2)
    with pytest.raises(UserError, match=r"demos, episode 0: no images.*cdred demos render"):
        cdred.train(config_of(tmp_path / "run"), demos=demos, quiet=True)
