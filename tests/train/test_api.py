"""Checks of `cdred.api` before training starts."""

from dataclasses import replace

import numpy as np
import pytest

import cdred
from cdred import api
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec, Trajectory

SPEC = EnvSpec("probe/point", (4,), 2, 20, has_success=True)


@pytest.fixture
def mixed_lengths(tmp_path):
    """Settings of a run with two truncated demonstrations of different lengths."""

    def episode(steps):
        return Trajectory(
            obs=np.zeros((steps + 1, 4), np.float32),
            action=np.zeros((steps, 2), np.float32),
            reward=np.zeros(steps, np.float32),
            terminated=False,
            truncated=True,
        )

    cdred.save_demos(DemoDataset("probe/point", (episode(10), episode(12))), tmp_path / "demos")
    return replace(cdred.preset("debug"), task="probe/point", demos=str(tmp_path / "demos"))


def test_variable_horizon_needs_an_option(mixed_lengths):
    with pytest.raises(UserError, match=r"10 to 12 steps long.*--allow-variable-horizon"):
        api.resolve_demos(mixed_lengths, SPEC, print)
    demos = api.resolve_demos(replace(mixed_lengths, allow_variable_horizon=True), SPEC, print)
    assert [len(demo) for demo in demos] == [10, 12]


def test_method_without_demonstrations_reads_none(mixed_lengths):
    assert api.resolve_demos(replace(mixed_lengths, algo="tdmpc2", demos="no such file"), SPEC, print) is None


def test_collection_of_demonstrations_logs_its_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(api, "PROGRESS_SECONDS", 0.0)
    settings = replace(cdred.preset("debug"), task="probe/point", demos="3")
    collected, cached = [], []
    api.resolve_demos(settings, SPEC, collected.append)
    assert all(line.startswith("collecting demonstrations of probe/point: ") for line in collected[:-1])
    assert collected[-2].count("3 of 3, from") == 1
    assert collected[-1].startswith("demonstrations: 3 of probe/point")
    api.resolve_demos(settings, SPEC, cached.append)
    assert cached == collected[-1:], "cached demonstrations were collected again"


def test_checkpoints_without_config_are_neither_resumed_nor_overwritten(tmp_path):
    settings = {"preset": "debug", "task": "probe/point", "demos": "2", "video": False, "out": str(tmp_path / "run")}
    cdred.train(**settings, quiet=True, steps=40)
    for name in ("config.yaml", "result.json"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(UserError, match=r"without its settings, config\.yaml"):
        cdred.train(**settings, quiet=True, steps=60)
