"""Fixtures, and settings of all tests: shape checks at run time, and errors on rank and dtype promotion."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import hypothesis
import jax
import optax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# Most of the time of the tests is compilation, which takes a quarter as long without optimizations, with the emitter of
# fusions that needs fewer passes, and with one module for LLVM instead of several. Set in the environment for the
# commands that tests start; `make test-slow`, with its long training runs, sets it to 0.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1":
    jax.config.update("jax_disable_most_optimizations", True)
    # XLA aborts on a flag that it does not know, as it may be in other versions.
    if jax.__version__.startswith("0.10."):
        fast_compilation = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {fast_compilation}".strip()

# The same examples every time, and no deadline, because the time of an example depends on the load of the machine.
hypothesis.settings.register_profile("cdred", deadline=None, derandomize=True)
hypothesis.settings.load_profile("cdred")


def _with_standard_promotion(function):
    def wrapped(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return wrapped


# optax.adam computes a power of a Python float with an integer array.
optax.tree.bias_correction = _with_standard_promotion(optax.tree.bias_correction)

# Modules with device code. Tests pass wrong shapes to the other ones, which must raise errors of their own.
TRAIN_MODULES = ["train.compiled", "train.keys", "train.state"]
DEVICE_MODULES = ["nn", "models", "planning", "algos", "data.replay_buffer", *TRAIN_MODULES]
install_import_hook([f"cdred.{module}" for module in DEVICE_MODULES], "typecheck.check")


# Settings that no compiled function depends on.
UNCOMPILED = {"task": "", "demos": "", "seeds": (0,), "out": "", "vectorization": "sync", "video": False}
UNCOMPILED |= {"eval_every": 1, "eval_episodes": 1, "final_eval_episodes": 1, "log_every": 1, "checkpoint_every": 1}
UNCOMPILED |= {"trackers": (), "replay_images": "device"}


@pytest.fixture(scope="session", autouse=True)
def shared_compiled_functions():
    """Let all runs of equal settings share their compiled functions, instead of tracing the same ones in each."""
    from cdred.train import setup

    make_algorithm = cache(setup.make_algorithm)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CompiledFns", "HostImageFns"):
            patch.setattr(setup, name, cache(getattr(setup, name)))
        patch.setattr(setup, "make_algorithm", lambda config, spec: make_algorithm(replace(config, **UNCOMPILED), spec))
        yield


@pytest.fixture
def spec():
    """Spec of a small task: observations of 3 numbers, actions of 2, episodes of 100 steps."""
    from cdred.types import EnvSpec

    return EnvSpec("probe/fake", (3,), 2, 100)


@pytest.fixture(scope="session")
def secrets():
    """Names and values of environment variables that must not appear in any output."""
    return {"WANDB_API_KEY": "s3cret-of-wandb", "HF_TOKEN": "s3cret-of-hf", "AWS_SECRET_ACCESS_KEY": "s3cret-of-aws"}


@pytest.fixture(scope="session")
def bc_run(tmp_path_factory, secrets):
    """Folder with `demos.npz` and `run`, a finished run of BC; read-only."""
    from cdred.api import train
    from cdred.config import preset
    from cdred.data.formats.npz import save_npz
    from cdred.demos.scripted import collect_scripted

    folder = tmp_path_factory.mktemp("bc")
    save_npz(collect_scripted("probe/point", 3), folder / "demos.npz")
    settings = replace(preset("debug"), task="probe/point", algo="bc", steps=40, video=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in secrets.items():
            patch.setenv(name, value)
        train(replace(settings, demos="demos.npz", out="run"), quiet=True)
    return folder


@pytest.fixture
def toy(monkeypatch):
    """Make all runs use the toy algorithm; call the fixture to change its attributes."""
    from toy import Toy, use_toy

    def patch(**attributes):
        use_toy(monkeypatch, Toy(**attributes))

    patch()
    return patch


@pytest.fixture
def config():
    """Settings of `small_config`."""
    from small_config import small_config

    return small_config()


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """Folder of a finished run of `runs.run_config`; read-only."""
    import cdred
    from runs import run_config

    out = tmp_path_factory.mktemp("run") / "run"
    cdred.train(run_config(out), quiet=True)
    return out


@pytest.fixture(scope="session")
def reference_run(tmp_path_factory):
    """Folder of the same run of the toy algorithm, to compare other runs of it with; read-only."""
    from runs import run_config, train_toy

    return train_toy(run_config(tmp_path_factory.mktemp("reference") / "run"))
