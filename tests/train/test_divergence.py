"""A seed that diverges restarts from its last good state, the others are unaffected, and the run ends if it recurs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdred
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.cli.main import main
from cdred.errors import DivergenceError
from cdred.loggers.terminal import NullLogger
from cdred.train.divergence import MAX_DIVERGENCES
from cdred.train.finite import check_finite
from cdred.train.keys import EVALUATE, LEARN, rekey, seed_keys
from runs import arrays, assert_same_arrays, killed_at, metric_lines, run_config
from toy import Toy, step_draw, update_draw, use_toy


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Function that trains a toy and returns the run folder."""

    def run(name, toy, **changes):
        use_toy(monkeypatch, toy)
        cdred.train(run_config(tmp_path / name, **changes), quiet=True)
        return tmp_path / name

    return run


def of_kind(run, kind):
    return [line for line in metric_lines(run) if line["kind"] == kind]


def assert_seed_unaffected(run, reference_run, row):
    actual, expected = arrays(run), arrays(reference_run)
    for name in actual:
        if name.startswith(("learner/", "replay/", "plan/")):
            np.testing.assert_array_equal(actual[name][row], expected[name][row], err_msg=name)


def assert_restarted(run, reference_run, seeds=2):
    """Check that seed 1 restarted once and is finite, and seed 0 is unaffected."""
    assert_seed_unaffected(run, reference_run, 0)
    state = arrays(run)
    assert state["divergence_restarts"].tolist() == [0, 1]
    assert np.isfinite(state["learner/weight"]).all()
    assert state["learner/updates"].tolist() == [200] * seeds
    assert not np.array_equal(state["learner/weight"][1], arrays(reference_run)["learner/weight"][1])
    assert all(np.isfinite(line["loss"]).all() for line in of_kind(run, "train"))


# The first checkpoint is at 100 steps: the first case restarts from before the first update, the second from there.
@pytest.mark.parametrize(("update", "logged_at"), [(30, 40), (133, 140)])
def test_diverged_seed_restarts_and_others_are_unaffected(train, reference_run, update, logged_at):
    run = train("run", Toy((update_draw(1, update),)))
    assert_restarted(run, reference_run)
    (event,) = of_kind(run, "restart")
    assert (event["step"], event["divergence_restarts"]) == (logged_at, [0, 1])
    assert np.isfinite(event["loss"][1])
    assert event["loss"][0] is None
    lines = [line for line in of_kind(run, "train") if "divergence_restarts" in line]
    logged = [(line["step"], line["divergence_restarts"]) for line in lines]
    assert logged == [(step, [0, 1]) for step in range(logged_at, 201, 20)]
    assert not any("divergence_restarts" in line for line in metric_lines(reference_run))


@pytest.mark.parametrize("steps", [160, 120])
def test_run_resumed_around_a_restart_is_bitwise_identical(train, tmp_path, steps):
    toy = Toy((update_draw(1, 133), update_draw(0, 30)))
    whole = train("whole", toy)
    assert arrays(whole)["divergence_restarts"].tolist() == [1, 1]

    with killed_at(steps):
        train("resumed", toy)
    assert int(checkpoint.latest(tmp_path / "resumed" / "checkpoints").name) == 100
    train("resumed", toy)
    assert_same_arrays(arrays(whole), arrays(tmp_path / "resumed"))
    assert metric_lines(whole) == metric_lines(tmp_path / "resumed")


def test_repeated_divergence_ends_the_run_and_keeps_checkpoints(train, reference_run, tmp_path):
    with pytest.raises(DivergenceError, match="seed 0, step 160: diverged 3 times since step 100") as error:
        train("run", Toy(diverging_update=147))
    assert "first non-finite: grad_norm, loss, in update 148" in str(error.value)
    assert "q_scale 1" in str(error.value)
    assert "--optim.learning-rate" in str(error.value)
    assert str(error.value).count("\n") <= 3
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "000000100"
    assert np.isfinite(arrays(tmp_path / "run")["learner/weight"]).all()
    assert len(of_kind(tmp_path / "run", "restart")) == MAX_DIVERGENCES
    assert not (tmp_path / "run" / "result.json").exists()
    # The same command resumes once the cause is removed.
    assert_same_arrays(arrays(reference_run), arrays(train("run", Toy())))


def test_non_finite_action_restarts_the_seed_before_the_step(train, reference_run):
    run = train("run", Toy((step_draw(1, 117),)))
    assert_restarted(run, reference_run)
    (event,) = of_kind(run, "restart")
    assert (event["step"], event["divergence_restarts"]) == (117, [0, 1])
    state = arrays(run)
    assert np.isfinite(state["replay/action"]).all()
    assert (state["replay/action"][1] != arrays(reference_run)["replay/action"][1]).any()


def test_non_finite_action_in_an_evaluation_ends_the_run(train, tmp_path):
    from cdred.train.evaluate import evaluation_keys

    key = jax.random.fold_in(evaluation_keys(seed_keys((1,), EVALUATE), 100)[0], 7)
    draw = float(jax.random.uniform(jax.random.split(key, 1)[0]))
    with pytest.raises(DivergenceError, match="seed 1, in an evaluation: planning found no finite action"):
        train("run", Toy((draw,)))
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_divergence_with_simulators_in_jax(train, tmp_path):
    settings = {"task": "jaxprobe/point"}
    reference = train("reference", Toy(), **settings)
    run = train("run", Toy((update_draw(1, 133),)), **settings)
    assert_restarted(run, reference)
    assert [line["step"] for line in of_kind(run, "restart")] == [140]
    with pytest.raises(DivergenceError, match="seed 1, after step 100: planning found no finite action"):
        train("other", Toy((step_draw(1, 117),)), **settings)
    assert np.isfinite(arrays(tmp_path / "other")["replay/obs"]).all()


def test_restarted_seed_is_independent_of_other_seeds(train):
    toy = Toy((update_draw(1, 133),))
    left, right = arrays(train("left", toy)), arrays(train("right", toy, seeds=(7, 1)))
    np.testing.assert_array_equal(left["learner/weight"][1], right["learner/weight"][1])
    assert left["divergence_restarts"].tolist() == right["divergence_restarts"].tolist() == [0, 1]


def test_excessive_learning_rate_ends_the_command_without_traceback(tmp_path, capsys):
    command = ["train", "probe/point", "--preset", "debug", "--algo", "bc", "--demos", "3", "--no-video"]
    command += ["--optim.learning-rate", "1e30", "--out", str(tmp_path / "run")]
    assert main(command) == 3
    error = capsys.readouterr().err
    assert error.startswith("cdred: seed 0, step 20: diverged 3 times since step ")
    assert "Traceback" not in error
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_finite_check_finds_the_first_non_finite_metric():
    nan, inf = jnp.nan, jnp.inf
    metrics = {"a": jnp.array([1.0, 2.0, inf, 3.0]), "b": jnp.array([5.0, nan, nan, nan]), "c": jnp.ones(4)}
    check = check_finite({"w": jnp.array([1.0, -7.0])}, metrics)
    assert not check.finite
    assert {name: int(x) for name, x in check.finite_updates.items()} == {"a": 2, "b": 1, "c": 4}
    assert {name: float(x) for name, x in check.last_finite_metrics.items()} == {"a": 1.0, "b": 5.0, "c": 1.0}
    assert float(check.parameter_abs_max) == 7.0
    assert check_finite({"w": jnp.ones(2)}, {"c": jnp.ones(4)}).finite
    for bad in (nan, inf, -inf):
        assert not check_finite({"w": jnp.array([1.0, bad])}, {"c": jnp.ones(4)}).finite


def test_keys_change_with_each_restart_of_their_seed():
    keys, data = seed_keys((0, 1), LEARN), jax.random.key_data
    np.testing.assert_array_equal(data(rekey(keys, np.zeros(2, np.int64))), data(keys))
    after = [data(rekey(keys, np.array([0, count]))) for count in range(4)]
    assert all(np.array_equal(rows[0], data(keys)[0]) for rows in after)
    assert len({np.asarray(rows[1]).tobytes() for rows in after}) == 4


def test_message_about_a_restart(train, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(NullLogger, "message", lambda _, text: messages.append(text))
    train("run", Toy((update_draw(1, 133),)))
    (message,) = [text for text in messages if "new key" in text]
    start = "seed 1, step 140: first non-finite: grad_norm, loss, in update 134; the update before: "
    assert message.startswith(start)
    assert message.endswith("restarting from step 100 with a new key (divergence 1; the run ends at 3)")
    assert api.evaluate(tmp_path / "run", episodes=1, log=lambda _: None)["steps"] == 200
