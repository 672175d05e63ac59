"""Small training runs, ways to interrupt them, and comparisons of their results."""

import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cdred
from cdred.algos.pretrain import PretrainConfig
from cdred.checkpoint import checkpoint
from cdred.errors import Interrupted
from cdred.loggers.metrics import read_lines
from cdred.train import loop
from toy import Toy, use_toy

# Metrics that depend on wall-clock time.
TIMES = {"time", "steps_per_second", "eta_seconds", "min_eta_seconds", "seconds"}


def run_config(out, **changes):
    """Make the settings of a small run without pretraining, the same for all tests so that compilations are cached."""
    base = replace(cdred.preset("debug"), task="probe/point", demos="3", seeds=(0, 1), video=False, out=str(out))
    base = replace(base, pretrain=PretrainConfig())
    return replace(base, **changes)


def device_config(out, **changes):
    """Make the settings of a run of the same task in JAX, with two environments per seed."""
    settings = {"task": "jaxprobe/point", "envs": 2, "steps": 80, "eval_every": 40, "checkpoint_every": 40}
    return run_config(out, **settings | changes)


def train_toy(config):
    """Train the toy algorithm and return the run folder."""
    with pytest.MonkeyPatch.context() as patch:
        use_toy(patch, Toy())
        cdred.train(config, quiet=True)
    return Path(config.out)


class KilledError(Exception):
    """Raised instead of a kill; no code under test handles it."""


@contextmanager
def killed_at(steps):
    """Abort the run trained within at the first block after `steps` steps."""

    def kill():
        raise KilledError

    with pytest.raises(KilledError), _before_block(lambda now: now >= steps, kill):
        yield


@contextmanager
def stopped_at(steps, message="stopped at step"):
    """Send SIGTERM to the run trained within, before the block that starts at `steps` steps."""

    def stop():
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=message), _before_block(lambda now: now == steps, stop):
        yield


@contextmanager
def _before_block(is_due, action):
    train_block = loop.train_block

    def patched(run, state, updates):
        if is_due(int(state.steps)):
            action()
        return train_block(run, state, updates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_block", patched)
        yield


def arrays(run):
    """Load the arrays of the last checkpoint."""
    return checkpoint.load_arrays(checkpoint.latest(run / "checkpoints"))


def metric_lines(run):
    """Read the metrics without times and checkpoints: a resumed run may have saved at other steps."""
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["kind"] != "checkpoint"]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_same_arrays(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if not np.array_equal(left[name], right[name], equal_nan=True)] == []
