"""The training of the self-test, and what makes it fail."""

import types

import numpy as np
import pytest

from cdred.doctor import self_test as module
from cdred.doctor.checks import ProbeError
from cdred.doctor.self_test import check_action, check_finite, check_training, self_test
from cdred.types import EnvSpec


def test_training_passes_and_writes_to_its_folder_only(tmp_path, monkeypatch):
    cache, folder = tmp_path / "cache", tmp_path / "folder"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)
    found = self_test(folder)
    assert found["updates"] > 0
    assert {path.name for path in tmp_path.iterdir()} <= {"folder", "cache"}
    # Matplotlib's list of fonts is written to the temporary folder by the command.
    assert not (cache / "cdred").exists()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no update"),
        (
            [{"kind": "train", "step": 40, "loss": [1.0, float("nan")]}],
            r"loss is not finite after 40 steps: \[1",
        ),
        ([{"kind": "train", "step": 40, "loss": float("inf")}], "loss is not finite"),
    ],
)
def test_updates_that_are_not_finite_fail(lines, message):
    with pytest.raises(RuntimeError, match=message):
        check_finite(lines)


def test_metrics_that_do_not_apply_are_no_failure():
    check_finite([{"kind": "train", "step": 40, "loss": [1.0, None], "accuracy": None}])


@pytest.mark.parametrize(("action", "fails"), [([1.0, -1.0], False), ([1.1, 0.0], True), ([np.nan, 0.0], True)])
def test_action_beyond_its_bounds_fails(action, fails):
    spec = EnvSpec("probe/point", (4,), 2, 20)
    agent = types.SimpleNamespace(spec=spec, act=lambda _: np.array(action))
    if fails:
        with pytest.raises(RuntimeError, match="is not between"):
            check_action(agent)
    else:
        check_action(agent)


def test_failure_is_a_problem(monkeypatch):
    def fail(*_, **__):
        raise ProbeError("loss is not finite")

    monkeypatch.setattr(module, "run_probe", fail)
    assert check_training()[:3] == ("self-test", "problem", "loss is not finite")
