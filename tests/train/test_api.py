"""What `cdred.api` does before anything learns."""

from dataclasses import replace

import numpy as np
import pytest

import cdred
from cdred import api
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec, Trajectory

SPEC = EnvSpec("probe/point", (4,), 2, 20, has_success=True)


@pytest.fixture
def mixed(tmp_path):
    """Two truncated demonstrations of different lengths, and the settings of a run that is given them."""

    def episode(steps):
        return Trajectory(
            obs=np.zeros((steps + 1, 4), np.float32),
            action=np.zeros((steps, 2), np.float32),
            reward=np.zeros(steps, np.float32),
            terminated=False,
            truncated=True,
        )

    cdred.save_demos(DemoDataset("probe/point", (episode(10), episode(12))), tmp_path / "mixed")
    return replace(cdred.preset("debug"), task="probe/point", demos=str(tmp_path / "mixed"))


def test_mixed_horizons_need_an_option(mixed):
    with pytest.raises(UserError, match=r"10 to 12 steps long.*--allow-variable-horizon"):
        api.demonstrations(mixed, SPEC, print)
    accepted = api.demonstrations(replace(mixed, allow_variable_horizon=True), SPEC, print)
    assert [len(one) for one in accepted] == [10, 12]


def test_a_method_that_does_not_imitate_reads_no_demonstrations(mixed):
    assert api.demonstrations(replace(mixed, algo="tdmpc2", demos="no such file"), SPEC, print) is None


def test_collecting_demonstrations_tells_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(api, "COLLECTING_SECONDS", 0.0)
    settings = replace(cdred.preset("debug"), task="probe/point", demos="3")
    collected, read = [], []
    api.demonstrations(settings, SPEC, collected.append)
    assert all(line.startswith("collecting demonstrations of probe/point: ") for line in collected[:-1])
    assert collected[-2].count("3 of 3, from") == 1
    assert collected[-1].startswith("demonstrations: 3 of probe/point")
    api.demonstrations(settings, SPEC, read.append)
    assert read == collected[-1:], "what is in the cache was collected again"


def test_checkpoints_without_settings_are_neither_resumed_nor_overwritten(tmp_path):
    settings = {"preset": "debug", "task": "probe/point", "demos": "2", "video": False, "out": str(tmp_path / "run")}
    cdred.train(**settings, quiet=True, steps=40)
    for name in ("config.yaml", "result.json"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(UserError, match=r"without its settings, config\.yaml"):
        cdred.train(**settings, quiet=True, steps=60)
