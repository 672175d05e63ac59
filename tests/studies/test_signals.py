"""Rank correlations of signals with true scores, by known answers."""

import json
from dataclasses import replace

import pytest

from cdred.config import preset
from cdred.errors import UserError
from cdred.report.statistics import mean_interval
from cdred.studies.records import RunRecord
from cdred.studies.scores import Curve, read_curves
from cdred.studies.signals import Point, analyse_signals, correlate, signal_table
from cdred.sweep.plan import SweepRun


def points(signal, values, *, run=0, task="metaworld/reach", seeds=(0, 1, 2, 3)):
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
    second = points("signal", lambda seed: (0, 0, 100 - seed), run=1, task="metaworld/push")
    assert sorted(correlate([*first, *second])["signal"].at_ends) == [pytest.approx(-1), pytest.approx(1)]


def test_few_points_have_no_correlation():
    result = correlate(points("signal", lambda seed: (0, 0, seed), seeds=(0, 1)))
    assert result["signal"].at_ends == []
    assert signal_table(result).splitlines()[2].startswith("| signal | – |")


def test_interval_of_the_mean():
    assert mean_interval([0.5]) is None
    low, high = mean_interval([0.0, 1.0] * 10)
    assert 0.2 < low < 0.5 < high < 0.8


def record(acting, signals, task="metaworld/reach", seeds=(0, 1, 2)):
    """Return the record of a run with an evaluation before training, one meanwhile and one at the end, in each seed."""
    steps, scores = [0, 20, 40], {seed: [0.3, 0.5 + 0.1 * seed, 1.0] for seed in seeds}
    curves = [
        Curve(task, "cdred", seed, "success", steps, scores[seed], None, 1.0, acting, values)
        for seed, values in zip(seeds, signals, strict=True)
    ]
    config = preset("debug")
    pretrain = replace(config.pretrain, selection_episodes=0)
    config = replace(config, task=task, seeds=seeds, pretrain=pretrain)
    return RunRecord(config, "abc", "cpu: cpu", curves)


def test_signals_are_of_the_agent_that_is_trained():
    signals = [{"bc_loss": [9.0, 3.0 - seed, None if seed else 7.0]} for seed in range(3)]
    run = record("agent", signals)
    # The same training in other studies counts once, also where the choice at the end was another.
    expected = [(0, "metaworld/reach", "cdred", seed, 20, 0.5 + 0.1 * seed, "bc_loss", 3.0 - seed) for seed in range(3)]
    chosen = replace(run.config, pretrain=replace(run.config.pretrain, selection_episodes=10))
    others = [record("pretrained", signals)._replace(config=chosen), run._replace(commit="def")]
    whole = [expected[0], (0, "metaworld/reach", "cdred", 0, 40, 1.0, "bc_loss", 7.0), *expected[1:]]
    for order in ([run, *others], [*others, run]):
        result = analyse_signals(order)
        assert result.rows == whole
        assert result.details["runs"] == ["metaworld/reach cdred seeds 0 1 2"]
    assert analyse_signals([record("policy", signals)]).rows == whole
    # At the end the pretrained policy acts, which is not what the signals are about.
    result = analyse_signals([record("pretrained", signals)])
    assert result.rows == expected
    assert "| bc_loss | -1.00 (no interval), 1 | – |" in result.table


def test_signals_of_a_run_folder_are_the_last_until_each_evaluation(tmp_path):
    lines = [
        {"step": 0, "kind": "eval", "episode_return": [0.0, 0.0], "success": [0.0, 0.0]},
        {"step": 20, "kind": "train", "bc_loss": [0.9, 0.8]},
        {"step": 40, "kind": "train", "bc_loss": [0.3, None]},
        {"step": 40, "kind": "eval", "episode_return": [1.0, 1.0], "success": [0.2, 0.6]},
        {"step": 60, "kind": "train", "bc_loss": [5.0, 5.0]},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line | {"time": 0.0}) + "\n" for line in lines))
    result = {"task": "metaworld/reach", "algo": "cdred", "seeds": [0, 1], "steps": 60, "eval": {}}
    result |= {"acting": ["agent", "pretrained"], "wall_seconds": 60.0}
    (tmp_path / "result.json").write_text(json.dumps(result))
    run = SweepRun(replace(preset("debug"), seeds=(0, 1), out=str(tmp_path)), "cdred", tmp_path)
    first, second = read_curves(run)
    assert first.signals == {"bc_loss": [None, 0.3]}
    assert second.signals == {"bc_loss": [None, None]}
    assert (first.acting, second.acting) == ("agent", "pretrained")


def test_no_runs_are_refused():
    with pytest.raises(UserError, match="no study has finished runs: make one first"):
        analyse_signals([])
