"""Runs with images in host memory equal those with images on the device."""

import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdred
from cdred.algos.base import Algorithm
from cdred.config import validate
from cdred.config_file import read_config
from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.data.replay_images import host_images, with_images, without_pixels
from cdred.errors import UserError
from cdred.host_memory import HostMemory
from cdred.planning.mppi import MPPIState
from cdred.train import saving
from cdred.train.compiled import CompiledFns
from cdred.train.enlarge import enlarge
from cdred.train.host_images import HostImageFns
from cdred.train.keys import DIAGNOSTICS, INIT, LEARN, seed_keys
from cdred.train.memory import check_host_images
from cdred.types import STACKED_IMAGES, EnvSpec, ImageObs
from runs import arrays, assert_same_arrays, killed_at, metric_lines, run_config
from toy import use_toy

SMALL = {"obs": "pixels", "image_size": 32, "updates_per_call": 4, "random_episodes": 1, "seeds": (0,), "demos": "1"}
SMALL |= {"eval_every": 1000, "final_eval_episodes": 1}
SPEC = EnvSpec("probe/images", (1,), 1, 6, image_size=8, can_terminate=True)
SEEDS, ENVS, HORIZON, CAPACITY = (0, 1), 2, 2, 24


def digest(obs):
    """Return an integer below 251 that depends on every pixel: the same one in whatever order it is summed."""
    image = obs.image.reshape(-1).astype(jnp.int32)
    return (jnp.sum(image * (1 + jnp.arange(image.size) % 97)) % 251).astype(jnp.float32)


class PixelState(eqx.Module):
    """Weights, and the stand-ins of networks that `select_detected` calls."""

    weight: jax.Array
    updates: jax.Array

    model: ClassVar[None] = None

    @property
    def pretrained(self):
        return self

    @property
    def detector(self):
        return self

    def encode(self, model, obs):
        del model
        return digest(obs)

    def detect(self, latents, episode_step, absorbing, final_rows):
        return final_rows & ~absorbing & (latents > 125) & (episode_step > 0)


class PixelToy(Algorithm[PixelState]):
    """Algorithm that compiles at once, and whose weight and metrics depend on every pixel that it is given."""

    uses_demos: ClassVar[bool] = True
    uses_env: ClassVar[bool] = True

    pretraining: Any = eqx.field(static=True, default=None)

    def init(self, key):
        return PixelState(jax.random.normal(key, (2,)), jnp.zeros((), jnp.int32))

    def init_plan(self):
        return MPPIState.create(3, 2)

    def set_obs_stats(self, state, mean, std):
        del mean, std
        return state

    def update(self, state, batch, key):
        parts = [batch.expert, batch.agent, batch.selected and batch.selected.segments]
        values = jnp.stack([digest(part.obs) for part in parts if part is not None])
        weight = 0.5 * state.weight + jnp.sum(values) / 251 + jax.random.uniform(key)
        metrics = {f"digest_{i}": value for i, value in enumerate(values)}
        return PixelState(weight, state.updates + 1), metrics | {"loss": weight[0], "grad_norm": weight[1]}

    def diagnostics(self, state, batch, recent, valid, key):
        del state, key
        recent = jnp.where(valid, jax.vmap(digest)(recent.obs), 0.0)
        return {"agent": digest(batch.agent.obs), "recent": jnp.sum(recent)}

    def act(self, state, plan, obs, key, explore):
        del explore
        return jnp.tanh(state.weight + digest(obs) / 251 + jax.random.uniform(key) - 1), plan


DETECTION = SimpleNamespace(config=SimpleNamespace(self_imitation_coef=1.0))


def both_fns(pretraining=None):
    options = {"horizon": HORIZON, "batch_size": 5, "updates_per_call": 4, "episode_length": SPEC.episode_length}
    return (make(PixelToy(pretraining), **options, image_shift=2) for make in (CompiledFns, HostImageFns))


def block_of(generator, steps):
    """Return steps with images of noise, of which some end an episode."""
    shape = (len(SEEDS), steps, ENVS)
    image = generator.integers(0, 256, (2, *shape, STACKED_IMAGES, *SPEC.image_shape), np.uint8)
    state, ending = np.zeros((*shape, 1), np.float32), generator.random(shape)
    return Transition(
        ImageObs(state, image[0]),
        generator.uniform(-1, 1, (*shape, 1)).astype(np.float32),
        np.zeros(shape, np.float32),
        ImageObs(state, image[1]),
        ending < 0.1,
        ending < 0.25,
        (ending > 0.2) & (ending < 0.25),
        ending < 0.05,
    )


def empty_buffers():
    def stacked(spec):
        return jax.tree.map(lambda x: jnp.stack([x] * len(SEEDS)), ReplayBuffer.init(spec, ENVS, CAPACITY, HORIZON))

    image = np.zeros((len(SEEDS), ENVS, CAPACITY, *SPEC.image_shape), np.uint8)
    return stacked(SPEC), with_images(stacked(without_pixels(SPEC)), image)


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_functions_equal_those_of_a_buffer_on_the_device():
    """All that is drawn from the agent's buffer: batches, selected and most recent segments, rows of detection."""
    learners, buffers = [], []
    for fns, replay in zip(both_fns(DETECTION), empty_buffers(), strict=True):
        generator, learner = np.random.default_rng(0), fns.init(seed_keys(SEEDS, INIT))
        results = []
        for call in range(4):
            replay = fns.add_to_replay(replay, block_of(generator, 6), learner)
            args = (replay, jax.tree.map(lambda x: x[0], empty_buffers()[0]))
            diagnostics = fns.diagnose(learner, *args, seed_keys(SEEDS, DIAGNOSTICS), np.int32(call), None)
            learner, *result = fns.learn(learner, *args, seed_keys(SEEDS, LEARN), np.int32(4 * call), None)
            results.append((diagnostics, result))
        learners.append((learner, results))
        buffers.append(replay)
    assert_equal(*learners)
    assert_equal(*buffers)
    larger = [enlarge(replay, 2 * CAPACITY) for replay in buffers]
    assert_equal(*larger)
    assert host_images(larger[0]) is None
    assert host_images(larger[1]).shape == (len(SEEDS), ENVS, 2 * CAPACITY, *SPEC.image_shape)
    selected = np.asarray(buffers[0].selected)
    assert 0 < selected.sum() < np.asarray(jax.vmap(ReplayBuffer.final_rows)(buffers[0])).sum()


@pytest.fixture(scope="module", autouse=True)
def cache_of_demonstrations(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def train_pixels(out, killed=None, **changes):
    """Train the toy algorithm; return the run folder and the messages. With `killed`, only up to that step."""
    messages = []
    config = run_config(out, **SMALL | {"steps": 112, "checkpoint_every": 60} | changes)
    with pytest.MonkeyPatch.context() as patch:
        use_toy(patch, PixelToy())
        patch.setattr(saving, "_log_buffer_size", log_to(messages, saving._log_buffer_size))
        if killed:
            with killed_at(killed):
                cdred.train(config, quiet=True)
        else:
            cdred.train(config, quiet=True)
    return out, messages


def log_to(messages, function):
    return lambda run, capacity: function(replace(run, log=messages.append), capacity)


@pytest.fixture(scope="module")
def device_run(tmp_path_factory):
    """Folder and messages of a run with images on the device; 100 steps of random actions, then updates."""
    return train_pixels(tmp_path_factory.mktemp("device") / "run")


def assert_same_run(run, other):
    assert_same_arrays(arrays(run), arrays(other))
    assert metric_lines(run) == metric_lines(other)


def test_run_from_host_memory_equals_run_from_device_memory(device_run, tmp_path):
    run, messages = train_pixels(tmp_path / "run", replay_images="host")
    assert_same_run(device_run[0], run)
    assert len(np.unique(arrays(run)["replay/obs/image"][0, 0, :100].reshape(100, -1), axis=0)) > 10
    image = arrays(run)["replay/episode_step"].shape[-1] * 32 * 32 * 3
    assert f" MiB on the device, {image / 2**20:,.1f} MiB of images in host memory" in messages[0]
    assert device_run[1][0].endswith(" MiB on the device")
    assert {"train", "diagnostics"} <= {line["kind"] for line in metric_lines(run)}


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory):
    """Folder of the run with images in host memory, killed after the checkpoint at step 60."""
    return train_pixels(tmp_path_factory.mktemp("killed") / "run", killed=104, replay_images="host")[0]


@pytest.mark.parametrize("memory", ["host", "device"])
def test_run_resumed_with_either_memory_equals_uninterrupted_run(device_run, killed_run, tmp_path, memory):
    run, _ = train_pixels(shutil.copytree(killed_run, tmp_path / "run"), replay_images=memory)
    assert_same_run(device_run[0], run)
    assert read_config(run / "config.yaml").replay_images == memory


@pytest.mark.slow
def test_run_begun_on_the_device_is_lengthened_in_host_memory(device_run, tmp_path):
    train_pixels(tmp_path / "run", steps=108)
    run, _ = train_pixels(tmp_path / "run", replay_images="host")
    expected, found = arrays(device_run[0]), arrays(run)
    # The evaluation at step 108 took further episodes.
    same = [name for name in expected if name.startswith(("learner/", "replay/"))]
    assert_same_arrays({name: expected[name] for name in same}, {name: found[name] for name in same})


def test_images_in_host_memory_need_images(tmp_path):
    with pytest.raises(UserError, match="--replay-images host needs camera images: --obs pixels or --obs both"):
        validate(run_config(tmp_path, replay_images="host"))
    named = run_config(tmp_path, task="probe/point?obs=both&size=32", replay_images="host")
    assert validate(named).replay_images == "host"


def test_images_larger_than_the_memory_of_the_machine_are_refused():
    with pytest.raises(UserError, match=r"2\.0 MiB, but this machine has 1\.0 MiB of memory: give a smaller --buffer"):
        check_host_images(2**21, HostMemory(2**20, 2**20))
    fits = check_host_images(2**20, HostMemory(2**22, 2**21))
    assert fits == "1.0 MiB of images in host memory, of which 2.0 MiB are available"
    assert "too little, unless other processes end" in check_host_images(2**20, HostMemory(2**22, 2**19))
    assert check_host_images(2**20, HostMemory(2**22, None)).endswith("in host memory, of 4.0 MiB")


@pytest.mark.slow
def test_world_model_with_pretraining_learns_the_same_from_host_memory(tmp_path):
    for memory in ("device", "host"):
        config = run_config(tmp_path / memory, **SMALL, steps=112, replay_images=memory)
        pretrain = replace(config.pretrain, updates=4, steps=1, selection_episodes=0, self_imitation_coef=1.0)
        cdred.train(replace(config, pretrain=pretrain, optim=replace(config.optim, batch_size=2)), quiet=True)
    assert_same_run(tmp_path / "device", tmp_path / "host")
