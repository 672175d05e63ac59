"""Schema of `result.json`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cdred
from cdred.data.quality import select_best
from cdred.demos.reference_scores import ReferenceScore
from cdred.report.results import reference_dict, result_dict
from cdred.train.evaluate import Evaluation
from cdred.train.loop import TrainResult
from cdred.types import DemoDataset, EnvSpec, Trajectory

SPEC = EnvSpec("probe/point", (4,), 2, 20, has_success=True)
NO_DEMOS = DemoDataset("probe/point", ())
EXPERT, RANDOM = ReferenceScore(110.0, 1.0, 0.5), ReferenceScore(10.0, 0.25, 0.0)
PROVENANCE = {"device": "cpu: cpu", "commit": None, "versions": {"cdred": "0.1.0"}}


def make_result(spec=SPEC, expert=EXPERT, random=RANDOM, demos=NO_DEMOS):
    evaluation = Evaluation(
        4,
        episode_return=np.array([60.0, 110.0]),
        success=np.array([0.5, 1.0]),
        success_at_end=np.array([0.25, 0.75]),
        episode_length=np.array([20.0, 20.0]),
        failed_episodes=np.zeros(2, np.int64),
        returns=np.array([[30.0, 90.0], [100.0, 120.0]]),
    )
    config = replace(cdred.preset("debug"), task="probe/point", seeds=(0, 1))
    outcome = TrainResult(evaluation, 40, 40, [0, 0], None, 1.5)
    reference = reference_dict(spec, expert, random)
    result = result_dict(config, spec, PROVENANCE, demos, outcome, reference, {"wandb": "complete"})
    return json.loads(json.dumps(result, allow_nan=False))


def test_result_has_the_documented_keys():
    result = make_result()
    keys = {"task", "algo", "preset", "seeds", "steps", "updates", "device", "commit", "versions", "wall_seconds"}
    assert keys <= result.keys()
    assert result["trackers"] == {"wandb": "complete"}
    assert result["eval"] == {
        "episodes": 4,
        "return": [60.0, 110.0],
        "returns": [[30.0, 90.0], [100.0, 120.0]],
        "success": [0.5, 1.0],
        "success_at_end": [0.25, 0.75],
        "length": None,
        "expert_return": 110.0,
        "expert_success": 1.0,
        "random_return": 10.0,
        "random_success": 0.25,
        "normalized": [0.5, 1.0],
    }


def test_result_names_the_chosen_demonstrations():
    one = Trajectory(np.zeros((2, 4), np.float32), np.zeros((1, 2), np.float32), np.zeros(1, np.float32), False, True)
    chosen = select_best(DemoDataset("probe/point", (one, one, one)), 2)
    assert make_result(demos=chosen)["selected_episodes"] == {"indices": [0, 1], "of": 3, "failed": []}
    assert make_result(demos=DemoDataset("probe/point", (one,)))["selected_episodes"] is None
    assert make_result(demos=None)["selected_episodes"] is None


def test_unknown_expert_return_gives_no_normalized_return():
    scores = make_result(expert=ReferenceScore(None, 1.0, 1.0))["eval"]
    assert (scores["expert_return"], scores["expert_success"], scores["normalized"]) == (None, 1.0, None)


def test_unknown_scores_are_null():
    scores = make_result(spec=replace(SPEC, has_success=False), expert=None)["eval"]
    unknown = ("success", "success_at_end", "expert_return", "expert_success", "random_success", "normalized")
    assert {name: scores[name] for name in unknown} == dict.fromkeys(unknown)


@pytest.mark.parametrize("episode_return", [0.0, 10.0])
def test_normalized_is_null_if_expert_equals_random(episode_return):
    score = ReferenceScore(episode_return, 1.0, 1.0)
    assert make_result(expert=score, random=score)["eval"]["normalized"] == [None, None]


def test_result_has_the_provenance_of_the_demonstrations_whatever_it_holds():
    one = Trajectory(np.zeros((2, 4), np.float32), np.zeros((1, 2), np.float32), np.zeros(1, np.float32), False, True)

    def recorded(provenance):
        return make_result(demos=DemoDataset("probe/point", (one,), provenance))["demos_provenance"]

    assert recorded({"expert": "scripted", "of": [1, 2]}) == {"expert": "scripted", "of": [1, 2]}
    # What JSON does not have is text: a run that has ended must have its result.
    assert recorded({"path": Path("demos")}) == {"path": "demos"}
    assert recorded({"mean": float("nan")}) == "{'mean': nan}"
    assert make_result(demos=None)["demos_provenance"] is None
