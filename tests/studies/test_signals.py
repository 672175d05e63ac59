"""Rank correlations of signals with true scores, by known answers."""

import json

import pytest

from cdred.errors import UserError
from cdred.report.statistics import mean_interval
from cdred.studies.signals import Point, analyse_signals, correlate, signal_table


def points(signal, values, *, run="a", task="metaworld/reach", seeds=(0, 1, 2, 3)):
    """Return points of a run with scores 0, 1, 2 in each seed's evaluations, at a level that grows with the seed."""
    return [
        Point(run, task, "cdred", seed, step, score + 10 * seed, signal, value)
        for seed in seeds
        for step, (score, value) in enumerate(zip((0.0, 1.0, 2.0), values(seed), strict=True))
    ]


def test_signals_are_ranked_at_ends_and_within_runs():
    good = points("good", lambda seed: (seed, seed + 0.1, seed + 0.2))
    # Falls as a seed learns, and with the level of seeds.
    inverse = points("inverse", lambda seed: (-seed, -seed - 0.1, -seed - 0.2))
    constant = points("constant", lambda _: (1.0, 1.0, 1.0))
    result = correlate([*constant, *good, *inverse])
    assert result["good"].at_ends == [pytest.approx(1)]
    assert result["good"].within_runs == [pytest.approx(1)] * 4
    assert result["inverse"].at_ends == [pytest.approx(-1)]
    assert result["constant"] == ([], [])
    assert list(result)[-1] == "constant"


def test_tasks_are_not_mixed():
    first = points("signal", lambda seed: (0, 0, seed))
    second = points("signal", lambda seed: (0, 0, 100 - seed), run="b", task="metaworld/push")
    assert sorted(correlate([*first, *second])["signal"].at_ends) == [pytest.approx(-1), pytest.approx(1)]


def test_few_points_have_no_correlation():
    result = correlate(points("signal", lambda seed: (0, 0, seed), seeds=(0, 1)))
    assert result["signal"].at_ends == []
    assert signal_table(result).splitlines()[2].startswith("| signal | – |")


def test_interval_of_the_mean():
    assert mean_interval([0.5]) is None
    low, high = mean_interval([0.0, 1.0] * 10)
    assert 0.2 < low < 0.5 < high < 0.8


def write_run(folder, seeds=(0, 1, 2)):
    folder.mkdir(parents=True)
    lines = [
        {"step": 0, "kind": "eval", "episode_return": [0.0] * 3, "success": [0.0] * 3, "episodes": 5},
        {"step": 20, "kind": "train", "bc_loss": [0.9, 0.8, 0.7]},
        {"step": 40, "kind": "train", "bc_loss": [0.3, 0.2, 0.1]},
        {"step": 40, "kind": "eval", "episode_return": [1.0] * 3, "success": [0.2, 0.6, 1.0], "episodes": 5},
        {"step": 60, "kind": "train", "bc_loss": [5.0, 5.0, 5.0]},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line | {"time": 0.0}) + "\n" for line in lines))
    result = {"task": "metaworld/reach", "algo": "cdred", "seeds": list(seeds), "steps": 60, "eval": {}}
    (folder / "result.json").write_text(json.dumps(result))


def test_signals_of_run_folders_are_those_until_the_evaluation(tmp_path):
    write_run(tmp_path / "metaworld" / "run")
    result = analyse_signals(tmp_path)
    assert result.rows == [
        ("metaworld/run", "metaworld/reach", "cdred", seed, 40, score, "bc_loss", value)
        for seed, score, value in ((0, 0.2, 0.3), (1, 0.6, 0.2), (2, 1.0, 0.1))
    ]
    assert "| bc_loss | -1.00 (no interval), 1 | – |" in result.table
    assert result.details == {"runs": ["metaworld/run"]}


def test_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no finished run in .*: give a folder of runs by --runs"):
        analyse_signals(tmp_path)
