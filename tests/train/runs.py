"""What a run left in its folder, for tests that compare runs."""

import numpy as np
from safetensors.numpy import load_file

from cdred.track.sinks import read_lines
from cdred.train import checkpoint

# Of all that a metrics line says, what depends on the clock.
TIMES = {"time", "decisions_per_second", "eta_seconds", "seconds"}


def arrays(run):
    """Of the last checkpoint."""
    return load_file(checkpoint.latest(run / "checkpoints") / checkpoint.ARRAYS)


def curves(run):
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_lines(run / "metrics.jsonl")]


def assert_same_arrays(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name], equal_nan=True)] == []
