"""The record and the report of runs that are long, short, damaged or empty."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from cdred.errors import UserError
from cdred.loggers.metrics import JsonlLogger
from cdred.report.results import read_record
from cdred.report.run_report import write_report

RESULT = {
    "task": "metaworld/reach",
    "algo": "cdred",
    "preset": "cpu",
    "seeds": [0, 1],
    "steps": 400,
    "demos": 10,
    "device": "cpu",
    "wall_seconds": 90.0,
    "eval": {"success": [0.9, 1.0], "normalized": [0.95, None], "expert_return": 11.0, "random_success": None},
}


def write_run(folder: Path, steps: int = 4, success: bool = True) -> Path:
    sink = JsonlLogger(folder / "metrics.jsonl")
    sink.log(0, {"expert_return": 10.0, "random_return": 1.0, "expert_success": 1.0}, "reference")
    for step in range(100, 100 * steps + 1, 100):
        outcome = {"episode_return": [step / 50, step / 60]} | ({"success": [0.0, 0.5]} if success else {})
        sink.log(step, outcome, "rollout")
        sink.log(step, {"grad_norm": [1.0, float("nan")], "critic_loss": 2.0, "reward_agent": [-1.0, -2.0]}, "train")
        sink.log(step, {**outcome, "episodes": 20}, "eval")
    sink.close()
    return folder


def test_record_reads_curves_and_levels(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    sink = JsonlLogger(run / "metrics.jsonl")
    sink.log(400, {"episode_return": [7.0, None]}, "eval")
    sink.close()
    (run / "result.json").write_text(json.dumps(RESULT))
    record = read_record(run)
    series = record.series("eval", "episode_return")
    assert series.steps.tolist() == [100, 200, 300, 400]
    np.testing.assert_array_equal(series.values[-1], [7.0, np.nan])
    assert record.series("train", "critic_loss").values.shape == (4, 1)
    assert len(record.series("train", "absent")) == 0
    assert record.levels == {"expert_return": 11.0, "random_return": 1.0, "expert_success": 1.0}
    assert record.last_step == 400


def test_an_unfinished_run_is_described_by_its_config(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "config.yaml").write_text("task: metaworld/reach\nseeds: [0, 1]\n")
    about = read_record(run).about
    assert (about["task"], about["seeds"]) == ("metaworld/reach", (0, 1))


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 30])
def test_report_of_any_run(tmp_path: Path, steps: int, success: bool, finished: bool) -> None:
    run = write_run(tmp_path, steps, success)
    if finished:
        (run / "result.json").write_text(json.dumps(RESULT))
    picture = imread(write_report(run))
    assert picture.shape[:2] == (1000, 1600)
    assert picture.std() > 0.01


def test_report_of_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metrics.jsonl"):
        write_report(tmp_path)
    run = write_run(tmp_path)
    (run / "result.json").write_text('{"task":')
    with pytest.raises(UserError, match=r"result.json is not JSON"):
        write_report(run)
