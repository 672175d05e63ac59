"""Runs on a world that needs no simulator, ways to end them early, and what they left: for tests that compare runs."""

import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cdred
from cdred.checkpoint import checkpoint
from cdred.errors import Interrupted
from cdred.loggers.metrics import read_lines
from cdred.train import loop
from toy import Toy, learn_by

# Of all that a metrics line says, what depends on the clock.
TIMES = {"time", "steps_per_second", "eta_seconds", "seconds"}


def config(out, **changes):
    """Of runs that share what is compiled, as far as nothing else is asked for."""
    base = replace(cdred.preset("debug"), task="probe/point", demos="3", seeds=(0, 1), video=False, out=str(out))
    return replace(base, **changes)


def on_device(out, **changes):
    """The same world as a JAX function, twice for each seed."""
    settings = {"task": "jaxprobe/point", "envs": 2, "steps": 80, "eval_every": 40, "checkpoint_every": 40}
    return config(out, **settings | changes)


def by_toy(settings):
    """The folder of a run by a method that compiles at once, to be compared with others of it."""
    with pytest.MonkeyPatch.context() as patch:
        learn_by(patch, Toy())
        cdred.train(settings, quiet=True)
    return Path(settings.out)


class Killed(Exception):
    """Nobody handles it."""


@contextmanager
def killed_at(steps):
    """A run is trained within, and dies before it goes on from so many steps."""

    def die():
        raise Killed

    with pytest.raises(Killed), _before_a_block(lambda now: now >= steps, die):
        yield


@contextmanager
def stopped_at(steps, says="stopped at step"):
    """A run is trained within, and gets a signal as it goes on from so many steps."""

    def stop():
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=says), _before_a_block(lambda now: now == steps, stop):
        yield


@contextmanager
def _before_a_block(due, act):
    whole = loop.advance

    def advance(run, state, updates):
        if due(int(state.steps)):
            act()
        return whole(run, state, updates)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "advance", advance)
        yield


def arrays(run):
    """Of the last checkpoint."""
    return checkpoint.load_arrays(checkpoint.latest(run / "checkpoints"))


def curves(run):
    """What was learned, without what it took: a resumed run may have saved at other moments."""
    lines = [line for line in read_lines(run / "metrics.jsonl") if line["kind"] != "checkpoint"]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_same_arrays(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name], equal_nan=True)] == []
