import json
from dataclasses import replace

from cdred.demos.reference_scores import expert_score, mean_score, random_score
from cdred.demos.scripted import collect_scripted
from cdred.types import DemoDataset


def test_random_score_is_reproducible_and_below_expert():
    score = random_score("probe/point", 20)
    assert score == random_score("probe/point", 20)
    assert score != random_score("probe/point", 20, seed=1)
    assert score.success_at_end < 0.3
    assert score.episode_return < expert_score(collect_scripted("probe/point", 5)).episode_return


def test_expert_score_without_provenance_is_the_mean():
    demos = collect_scripted("probe/point", 3)
    assert expert_score(DemoDataset(demos.task, demos.trajectories)) == mean_score(demos.trajectories)


def test_unknown_return_is_not_zero():
    demos = collect_scripted("probe/point", 2)
    trajectories = (demos[0], replace(demos[1], reward=None))
    score = expert_score(DemoDataset(demos.task, trajectories))
    assert (score.episode_return, score.success) == (None, 1.0)
    # As recorded in the provenance of a file.
    recorded = DemoDataset(demos.task, trajectories, {"expert_level": json.loads(json.dumps(score._asdict()))})
    assert expert_score(recorded) == score


def test_unknown_success_is_not_zero():
    known = collect_scripted("probe/point", 2).trajectories
    unknown = replace(known[0], success=None)
    assert (unknown.success_once, unknown.success_at_end) == (None, None)
    assert mean_score(known).success == 1.0
    assert mean_score([known[0], unknown]) == (mean_score(known[:1] * 2).episode_return, None, None)
