"""The trackers of TensorBoard, wandb and trackio: known values are read back from what they store."""

import importlib.util
import math
import os
import sys
import tempfile
from types import ModuleType

import numpy as np
import pytest

from cdred.errors import UserError
from cdred.loggers.trackers import TensorBoardTracker, TrackedRun, Tracker, make_trackers, separate_trackers
from tracked import Recorder, tensorboard_curves, wandb_curves

REPORTS = (
    (0, {"seed-0": {"eval/return": -1.5}, "seed-1": {"eval/return": 2.0}, "mean": {"eval/return": 0.25}}),
    (20, {"seed-0": {"train/loss": 3.0}, "mean": {"train/steps_per_second": 100.0}}),
    (40, {"seed-0": {"train/loss": 4.0}, "mean": {"train/steps_per_second": 200.0}}),
)
CURVES = {
    ("seed-0", "eval/return"): [(0, -1.5)],
    ("seed-1", "eval/return"): [(0, 2.0)],
    ("mean", "eval/return"): [(0, 0.25)],
    ("seed-0", "train/loss"): [(20, 3.0), (40, 4.0)],
    ("mean", "train/steps_per_second"): [(20, 100.0), (40, 200.0)],
}
NON_FINITE = {"seed-0": {"train/loss": math.nan}, "seed-1": {"train/loss": math.inf}}


def tracked(folder, resume_step=None, identifier="0123456789ab"):
    return TrackedRun(identifier, "probe-point-cdred-debug", folder, {"steps": 100, "seeds": [0, 1]}, resume_step)


def write(tracker, run, reports=REPORTS, result=None):
    tracker.start(run)
    for step, rows in reports:
        tracker.log(step, rows)
    tracker.finish(result)


@pytest.fixture
def wandb_offline(monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture(scope="module")
def trackio_dir():
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("the extra trackio is not installed (make test-trackers)")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        # Before the import, at which trackio reads it.
        assert "trackio" not in sys.modules
        patch.setenv("TRACKIO_DIR", folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        for name in ("HF_TOKEN", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            patch.delenv(name, raising=False)
        import trackio  # noqa: F401

        yield folder


def trackio_curves(run):
    from trackio.sqlite_storage import SQLiteStorage

    curves = {}
    for entry in SQLiteStorage.get_logs("cdred", run):
        for name, value in entry.items():
            if "/" in name:
                curves.setdefault(tuple(name.split("/", 1)), []).append((entry["step"], value))
    return curves


def test_tensorboard_has_the_values_at_their_steps(tmp_path):
    write(TensorBoardTracker(), tracked(tmp_path))
    assert tensorboard_curves(tmp_path / "tensorboard") == CURVES


def test_tensorboard_stores_the_settings_and_non_finite_values(tmp_path):
    write(TensorBoardTracker(), tracked(tmp_path), [(20, NON_FINITE)])
    curves = tensorboard_curves(tmp_path / "tensorboard")
    assert np.isnan(curves["seed-0", "train/loss"][0][1])
    assert curves["seed-1", "train/loss"] == [(20, math.inf)]
    (file,) = (tmp_path / "tensorboard" / "mean").iterdir()
    assert b'"steps": 100' in file.read_bytes()


def test_resumed_tensorboard_run_replaces_what_follows_its_step(tmp_path):
    later = [(40, {"seed-0": {"train/loss": 5.0}}), (60, {"seed-0": {"train/loss": 6.0}})]
    write(TensorBoardTracker(), tracked(tmp_path))
    write(TensorBoardTracker(), tracked(tmp_path, resume_step=20), later)
    curves = tensorboard_curves(tmp_path / "tensorboard")
    assert curves["seed-0", "train/loss"] == [(20, 3.0), (40, 5.0), (60, 6.0)]
    # Rows that get no further value are those before the resumed step.
    assert curves["mean", "train/steps_per_second"] == [(20, 100.0)]
    assert curves["seed-1", "eval/return"] == [(0, 2.0)]


def test_new_tensorboard_run_hides_the_earlier_one_of_its_folder(tmp_path):
    write(TensorBoardTracker(), tracked(tmp_path))
    write(TensorBoardTracker(), tracked(tmp_path), [(0, {"seed-0": {"train/loss": 9.0}})])
    assert tensorboard_curves(tmp_path / "tensorboard") == {("seed-0", "train/loss"): [(0, 9.0)]}


def test_tensorboard_reads_files_in_their_order_if_the_clock_was_set_back(tmp_path, monkeypatch):
    write(TensorBoardTracker(), tracked(tmp_path))
    monkeypatch.setattr("cdred.loggers.trackers.time.time", lambda: 1e9)
    write(TensorBoardTracker(), tracked(tmp_path, resume_step=20), [(40, {"seed-0": {"train/loss": 5.0}})])
    assert tensorboard_curves(tmp_path / "tensorboard")["seed-0", "train/loss"] == [(20, 3.0), (40, 5.0)]


@pytest.mark.usefixtures("wandb_offline")
def test_wandb_has_the_values_of_a_run_in_two_sessions(tmp_path):
    tracker = make_trackers(["wandb"], [])["wandb"]
    line = tracker.start(tracked(tmp_path))
    assert line == f"wandb: offline, in {tmp_path / 'wandb'}"
    for step, rows in REPORTS[:2]:
        tracker.log(step, rows)
    tracker.finish(None)
    later = [REPORTS[2], (60, NON_FINITE)]
    write(make_trackers(["wandb"], [])["wandb"], tracked(tmp_path, resume_step=20), later, {"steps": 60})
    curves, ids = wandb_curves(tmp_path)
    assert ids == {"0123456789ab"}
    assert np.isnan(curves["seed-0", "train/loss"].pop()[1])
    assert curves.pop(("seed-1", "train/loss")) == [(60, math.inf)]
    assert curves == CURVES


def test_wandb_without_credentials_is_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    try:
        assert "offline" in make_trackers(["wandb"], [])["wandb"].start(tracked(tmp_path))
    finally:
        wandb.teardown()


def test_trackio_has_the_values_of_a_run_in_two_sessions(trackio_dir, tmp_path):
    write(make_trackers(["trackio"], [])["trackio"], tracked(tmp_path), REPORTS[:2])
    write(make_trackers(["trackio"], [])["trackio"], tracked(tmp_path, resume_step=20), [REPORTS[2], (60, NON_FINITE)])
    from trackio.sqlite_storage import SQLiteStorage

    name = "probe-point-cdred-debug-0123456789ab"
    assert SQLiteStorage.get_runs("cdred") == [name]
    assert os.listdir(trackio_dir)
    curves = trackio_curves(name)
    assert np.isnan(curves["seed-0", "train/loss"].pop()[1])
    assert curves.pop(("seed-1", "train/loss")) == [(60, math.inf)]
    assert curves == CURVES
    assert SQLiteStorage.get_run_config("cdred", name)["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("trackio", "trackio")]
)
def test_missing_package_is_named_with_its_extra(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as error:
        make_trackers([name], [])
    assert str(error.value).startswith(f"--track {name} needs {package}, ")
    assert str(error.value).endswith(f"pip install 'cdred[{name}]'.")


def test_package_that_cannot_be_imported_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("import no_such_module_of_wandb")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"needs wandb, not importable \(No module named 'no_such_module_of_wandb'\)"):
        make_trackers(["wandb"], [])
    sys.modules.pop("wandb", None)


def test_names_are_separated_from_objects():
    first, second = Recorder(), Recorder()
    assert isinstance(first, Tracker)
    assert separate_trackers(["wandb", first, second]) == (("wandb",), (first, second))
    assert separate_trackers("tensorboard") == (("tensorboard",), ())
    assert separate_trackers(first) == ((), (first,))
    assert make_trackers([], [first, second]) == {"Recorder": first, "Recorder-2": second}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tb", "--trackers should be .* got 'tb'. Did you mean tensorboard?"),
        (["wandb", "trackoi"], "got 'trackoi'. Did you mean trackio?"),
        ([3], "objects with start, log and finish, got int"),
        ([Recorder], "objects with start, log and finish, got Recorder"),
        ([ModuleType("mlflow")], "objects with start, log and finish, got module"),
    ],
)
def test_what_is_no_tracker_is_refused(given, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        separate_trackers(given)
