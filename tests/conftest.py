"""Every test runs with the device's shapes checked, and with silent broadcasting or dtype promotion as errors."""

import os
from dataclasses import replace
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

# Most of a test's time is the compiler's, which needs half of it when it does not look for the fastest code. In the
# environment, for the commands that tests start; `make test-slow`, whose trainings are long, sets it to 0.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")

# The same examples every time, and as long as a loaded machine takes: a time limit would be a test of the machine.
hypothesis.settings.register_profile("cdred", deadline=None, derandomize=True)
hypothesis.settings.load_profile("cdred")


def _leniently(function):
    def wrapped(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return wrapped


# Adam raises a Python float to an integer array.
optax.tree.bias_correction = _leniently(optax.tree.bias_correction)

# Code that runs on the device. The other packages are given wrong shapes on purpose and must raise their own errors.
DEVICE_PACKAGES = ["nn", "models", "planning", "algos", "data.replay_buffer", "train.compiled", "train.state"]
install_import_hook([f"cdred.{package}" for package in DEVICE_PACKAGES], "typecheck.check")


@pytest.fixture
def spec():
    """A small task: 3 numbers seen, 2 done, 100 steps."""
    from cdred.types import EnvSpec

    return EnvSpec("probe/fake", (3,), 2, 100)


@pytest.fixture(scope="session")
def secrets():
    """Names and values of environment variables that nobody else is to read."""
    return {"WANDB_API_KEY": "s3cret-of-wandb", "HF_TOKEN": "s3cret-of-hf", "AWS_SECRET_ACCESS_KEY": "s3cret-of-aws"}


@pytest.fixture(scope="session")
def cloned(tmp_path_factory, secrets):
    """A folder with `demos.npz` and `run`, a finished run of behavioural cloning; not to be changed."""
    from cdred.api import train
    from cdred.config import preset
    from cdred.data.formats.npz import save_npz
    from cdred.demos.scripted import collect_scripted

    folder = tmp_path_factory.mktemp("cloned")
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
    """Runs are of a method that compiles at once; called with its settings, of one that breaks as they say."""
    from toy import Toy, learn_by

    def patch(**settings):
        learn_by(monkeypatch, Toy(**settings))

    patch()
    return patch


@pytest.fixture
def config():
    """The smallest networks there are."""
    from cdred.config import preset

    return preset("debug")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Folder of a finished run of `runs.config`; read only."""
    import cdred
    from runs import config

    out = tmp_path_factory.mktemp("run") / "run"
    cdred.train(config(out), quiet=True)
    return out


@pytest.fixture(scope="session")
def reference_run(tmp_path_factory):
    """Folder of the same run by the `toy` method, which compiles at once; for comparisons with other runs of `toy`."""
    from runs import by_toy, config

    return by_toy(config(tmp_path_factory.mktemp("reference") / "run"))
