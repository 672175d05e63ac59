"""Runs that differ in their seeds alone are one run of the page."""

import json
from dataclasses import replace

import numpy as np
import pytest

from cdred.config_file import read_config, to_yaml
from cdred.report.html.seed_groups import read_runs
from report_runs import write_run

OTHER_SEEDS = (5, 6, 7)


def set_seeds(folder, seeds, **result):
    """Give a run other seeds, and its result other entries."""
    path = folder / "config.yaml"
    path.write_text(to_yaml(replace(read_config(path), seeds=seeds)))
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seeds": list(seeds)} | result))
    return folder


@pytest.fixture
def folders(tmp_path):
    second = write_run(tmp_path / "seeds-5-6-7", success=(0.0, 0.25, 0.0), returns=(20.0, 30.0, 40.0))
    return write_run(tmp_path / "seeds-0-1-2"), set_seeds(second, OTHER_SEEDS)


@pytest.mark.parametrize("reverse", [False, True])
def test_groups_of_seeds_are_merged_in_the_order_of_the_seeds(folders, reverse):
    (run,) = read_runs(folders[::-1] if reverse else folders)
    assert run.method == "cdred"
    assert run.seeds == run.config.seeds == (0, 1, 2, *OTHER_SEEDS)
    assert run.folders == folders
    assert run.scores("success") == [0.5, 0.75, 1.0, 0.0, 0.25, 0.0]
    assert run.scores("return") == [60.0, 85.0, 110.0, 20.0, 30.0, 40.0]
    assert run.results.series("eval", "success").values.shape == (3, 6)
    np.testing.assert_array_equal(run.results.series("train", "critic_loss").values[0], [2, 3, 4, 2, 3, 4])
    assert run.reference("expert", "return") == 110.0
    assert len(run.metadata["divergence_restarts"]) == 6
    assert run.metadata["wall_seconds"] == 2 * json.loads((folders[0] / "result.json").read_text())["wall_seconds"]


def test_report_of_one_group_alone_is_unknown_for_the_others(folders):
    path = folders[1] / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines() if json.loads(line)["kind"] != "rollout"]
    extra = {"step": 70, "kind": "rollout", "time": 0.0, "episode_return": [1.0, 2.0, 3.0]}
    path.write_text("\n".join([*lines, json.dumps(extra)]) + "\n")
    (run,) = read_runs(folders)
    series = run.results.series("rollout", "episode_return")
    values = dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
    np.testing.assert_array_equal(values[70], [np.nan] * 3 + [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(values[60], [40.0] * 3 + [np.nan] * 3)


@pytest.mark.parametrize("change", ["seed", "setting", "demonstrations", "commit", "unfinished"])
def test_other_differences_keep_runs_apart(folders, change):
    second = folders[1]
    if change == "seed":
        set_seeds(second, (2, 3, 4))
    elif change == "setting":
        path = second / "config.yaml"
        path.write_text(to_yaml(replace(read_config(path), eval_every=99)))
    elif change == "demonstrations":
        (second / "demonstrations.json").write_text(json.dumps({"sha256": "other"}))
    elif change == "commit":
        set_seeds(second, OTHER_SEEDS, commit="abc")
    else:
        (second / "result.json").unlink()
    runs = read_runs(folders)
    assert sorted(run.results.folder for run in runs) == sorted(folders)
    assert {run.method for run in runs} == {"cdred · seeds-0-1-2", "cdred · seeds-5-6-7"}
    assert all(run.folders == () for run in runs)
