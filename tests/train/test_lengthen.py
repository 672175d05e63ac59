"""A run is lengthened by more steps, and resumes with other settings of logging, evaluation and video."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdred
from cdred.config_file import read_config
from cdred.data.replay_buffer import ReplayBuffer, Transition
from cdred.errors import UserError
from cdred.loggers.metrics import read_lines
from cdred.train.enlarge import enlarge
from cdred.types import EnvSpec
from runs import arrays, assert_same_arrays, device_config, killed_at, metric_lines, run_config


def evaluation_of(run):
    return json.loads((run / "result.json").read_text())["eval"]


def assert_same_run(whole, lengthened):
    assert_same_arrays(arrays(whole), arrays(lengthened))
    assert metric_lines(whole) == metric_lines(lengthened)
    assert evaluation_of(whole) == evaluation_of(lengthened)


@pytest.mark.usefixtures("toy")
# At an evaluation that is due, and between two of them.
@pytest.mark.parametrize("first", [100, 140])
def test_lengthened_run_is_that_of_the_greater_number_of_steps(reference_run, tmp_path, first):
    cdred.train(run_config(tmp_path / "run", steps=first), quiet=True)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == first
    assert cdred.train(run_config(tmp_path / "run"), quiet=True)["steps"] == 200
    if first == 100:
        assert_same_run(reference_run, tmp_path / "run")
    else:
        assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
        # The final evaluation of the shorter run is kept, because no other one is made at its step.
        steps = [line["step"] for line in read_lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "eval"]
        assert steps == [100, 140, 200]
    assert read_config(tmp_path / "run" / "config.yaml").steps == 200


@pytest.mark.slow
def test_lengthened_run_learns_as_the_longer_one_also_after_a_choice_of_what_acts(tmp_path):
    base = cdred.preset("debug")
    changes = {"pretrain": base.pretrain, "optim": replace(base.optim, lr_decay_fraction=0.0), "eval_every": 1000}
    for out, numbers in (("whole", [160]), ("run", [120, 160])):
        for steps in numbers:
            cdred.train(run_config(tmp_path / out, algo="gail", steps=steps, **changes), quiet=True)
    whole, run = arrays(tmp_path / "whole"), arrays(tmp_path / "run")
    # The choice at the end of the shorter run took episodes of the evaluation.
    same = [name for name in whole if not name.startswith(("eval_envs/", "learner/pretrained/acting"))]
    assert_same_arrays({name: whole[name] for name in same}, {name: run[name] for name in same})


@pytest.mark.usefixtures("toy")
def test_lengthened_run_of_simulators_in_jax_equals_the_longer_one(tmp_path):
    cdred.train(device_config(tmp_path / "whole"), quiet=True)
    cdred.train(device_config(tmp_path / "run", steps=40), quiet=True)
    cdred.train(device_config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / "run"))
    assert evaluation_of(tmp_path / "whole") == evaluation_of(tmp_path / "run")


@pytest.mark.usefixtures("toy")
def test_lengthened_run_that_is_killed_is_not_taken_for_the_shorter_one(reference_run, tmp_path):
    cdred.train(run_config(tmp_path / "run", steps=100), quiet=True)
    with killed_at(140):
        cdred.train(run_config(tmp_path / "run"), quiet=True)
    cdred.train(run_config(tmp_path / "run"), quiet=True)
    assert_same_run(reference_run, tmp_path / "run")


@pytest.mark.usefixtures("toy")
def test_message_says_what_becomes_of_the_learning_rate(tmp_path, capsys):
    cdred.train(run_config(tmp_path / "run", steps=100), quiet=True)
    cdred.train(run_config(tmp_path / "run"))
    output = " ".join(capsys.readouterr().out.split())
    assert "the run has 200 steps now instead of 100" in output
    assert "falls to zero in the last 20% of them (--optim.lr-decay-fraction)" in output


@pytest.mark.usefixtures("toy")
def test_fewer_steps_than_the_run_has_are_refused(tmp_path):
    cdred.train(run_config(tmp_path / "run", steps=100), quiet=True)
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(UserError, match="has 100 steps already, of 100; it cannot end with --steps 80"):
        cdred.train(run_config(tmp_path / "run", steps=80), quiet=True)
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    with killed_at(180):
        cdred.train(run_config(tmp_path / "run", steps=240, checkpoint_every=100), quiet=True)
    with pytest.raises(UserError, match="cannot end with --steps 80"):
        cdred.train(run_config(tmp_path / "run", steps=80), quiet=True)
    # The number of steps that it was begun with has its result.
    assert cdred.train(run_config(tmp_path / "run", steps=100), quiet=True)["steps"] == 100


@pytest.mark.usefixtures("toy")
def test_logging_and_evaluation_may_change_when_a_run_is_resumed(reference_run, tmp_path):
    with killed_at(140):
        cdred.train(run_config(tmp_path / "run"), quiet=True)
    changes = {"log_every": 40, "eval_every": 40, "eval_episodes": 2}
    cdred.train(run_config(tmp_path / "run", **changes), quiet=True)
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [100, 120, 160, 200]
    assert [line["step"] for line in lines if line["kind"] == "train" and line["step"] > 100] == [120, 160, 200]
    whole, resumed = arrays(reference_run), arrays(tmp_path / "run")
    same = [name for name in whole if not name.startswith("eval_envs/")]
    assert_same_arrays({name: whole[name] for name in same}, {name: resumed[name] for name in same})


@pytest.mark.usefixtures("toy")
def test_finished_run_is_evaluated_in_more_episodes_on_request(tmp_path):
    cdred.train(run_config(tmp_path / "run", steps=40), quiet=True)
    more = cdred.train(run_config(tmp_path / "run", steps=40, final_eval_episodes=5), quiet=True)
    assert more["eval"]["episodes"] == 5
    cdred.train(run_config(tmp_path / "whole", steps=40, final_eval_episodes=5), quiet=True)
    assert more["eval"] == evaluation_of(tmp_path / "whole")
    assert metric_lines(tmp_path / "run") == metric_lines(tmp_path / "whole")


def filled(capacity, steps, seed=0):
    """Buffer of two environments with episodes of 5 steps, the last of which is running."""
    spec = EnvSpec("probe/fake", (3,), 2, 5)
    rng, ends = np.random.default_rng(seed), (np.arange(steps) + 1) % 5 == 0
    obs = rng.normal(size=(steps + 1, 2, 3)).astype(np.float32)
    done = jnp.asarray(np.repeat(ends[:, None], 2, axis=1))
    none = jnp.zeros_like(done)
    block = Transition(
        obs=jnp.asarray(obs[:-1]),
        action=jnp.asarray(rng.uniform(-1, 1, (steps, 2, 2)).astype(np.float32)),
        reward=jnp.asarray(rng.normal(size=(steps, 2)).astype(np.float32)),
        next_obs=jnp.asarray(obs[1:]),
        terminated=none,
        done=done,
        invalid=none,
    )
    return ReplayBuffer.init(spec, 2, capacity, 3).add(block), block


@pytest.mark.parametrize("steps", [1, 4, 5, 13])
def test_enlarged_buffer_equals_one_of_that_capacity(steps):
    enlarged, expected = enlarge(filled(16, steps)[0], 40), filled(40, steps)[0]
    assert all(map(np.array_equal, jax.tree.leaves(enlarged), jax.tree.leaves(expected)))


def test_enlarged_buffer_keeps_the_segments_of_a_ring_that_has_wrapped_around():
    small, large = filled(16, 33)[0], enlarge(filled(16, 33)[0], 40)
    assert int(small.num_segments(3)) == int(large.num_segments(3)) > 0
    for env in range(2):
        segments = [
            {tuple(np.asarray(replay.obs[env, (row + np.arange(4)) % capacity]).ravel()) for row in starts}
            for replay, capacity in ((small, 16), (large, 40))
            for starts in [np.flatnonzero(valid_starts(replay, env))]
        ]
        assert segments[0] == segments[1]
    # It goes on, without overwriting: the running episode of 3 steps gets 5 more, then an episode of 5 begins and ends.
    _, block = filled(16, 10, seed=1)
    assert int(large.add(block).num_segments(3)) == int(large.num_segments(3)) + 2 * (5 + 3)


def valid_starts(replay, env):
    counts = np.diff(np.asarray(replay.index(3)), prepend=0)
    return counts.reshape(2, -1)[env] > 0
