"""Learning that leaves the numbers is caught at once, taken back, told, and stopped if it does not help."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdred
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.cli.main import main
from cdred.errors import DivergenceError
from cdred.train.compiled import LEARN, judge, seed_keys
from cdred.train.divergence import LIMIT, fresh_keys
from runs import arrays, assert_same_arrays, config, curves, killed_at
from toy import Toy, learn_by, step_draw, update_draw


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A run of the toy that breaks as told; its folder."""

    def run(name, toy, **changes):
        learn_by(monkeypatch, toy)
        cdred.train(config(tmp_path / name, **changes), quiet=True)
        return tmp_path / name

    return run


def of_kind(run, kind):
    return [line for line in curves(run) if line["kind"] == kind]


def assert_row_untouched(run, reference_run, row):
    one, other = arrays(run), arrays(reference_run)
    for name in one:
        if name.startswith(("learner/", "replay/", "plan/")):
            np.testing.assert_array_equal(one[name][row], other[name][row], err_msg=name)


def assert_taken_back(run, reference_run, seeds=2):
    """Seed 1 once, and it is whole; seed 0 never noticed."""
    assert_row_untouched(run, reference_run, 0)
    state = arrays(run)
    assert state["divergence_restarts"].tolist() == [0, 1]
    assert np.isfinite(state["learner/weight"]).all()
    assert state["learner/updates"].tolist() == [200] * seeds
    assert not np.array_equal(state["learner/weight"][1], arrays(reference_run)["learner/weight"][1])
    assert all(np.isfinite(line["loss"]).all() for line in of_kind(run, "train"))


# The first checkpoint is at 100 steps, so the one goes back to it, and the other to the beginning of learning.
@pytest.mark.parametrize(("update", "told_at"), [(30, 40), (133, 140)])
def test_a_seed_that_diverges_goes_back_and_on_with_another_key_and_the_other_never_notices(
    train, reference_run, update, told_at
):
    run = train("run", Toy((update_draw(1, update),)))
    assert_taken_back(run, reference_run)
    (event,) = of_kind(run, "restart")
    assert (event["step"], event["divergence_restarts"]) == (told_at, [0, 1])
    assert np.isfinite(event["loss"][1])
    assert event["loss"][0] is None
    told = [
        (line["step"], line["divergence_restarts"]) for line in of_kind(run, "train") if "divergence_restarts" in line
    ]
    assert told == [(step, [0, 1]) for step in range(told_at, 201, 20)]
    assert not any("divergence_restarts" in line for line in curves(reference_run))


@pytest.mark.parametrize("steps", [160, 120])
def test_a_run_resumed_around_a_rollback_equals_an_unbroken_one(train, tmp_path, steps):
    toy = Toy((update_draw(1, 133), update_draw(0, 30)))
    whole = train("whole", toy)
    assert arrays(whole)["divergence_restarts"].tolist() == [1, 1]

    with killed_at(steps):
        train("broken", toy)
    assert int(checkpoint.latest(tmp_path / "broken" / "checkpoints").name) == 100
    train("broken", toy)
    assert_same_arrays(arrays(whole), arrays(tmp_path / "broken"))
    assert curves(whole) == curves(tmp_path / "broken")


def test_a_run_that_diverges_again_and_again_stops_with_a_diagnosis_and_leaves_what_was_saved(
    train, reference_run, tmp_path
):
    with pytest.raises(DivergenceError, match="seed 0, step 160: diverged 3 times since step 100") as stopped:
        train("run", Toy(broken_update=147))
    assert "not finite first: grad_norm, loss, in update 148" in str(stopped.value)
    assert "q_scale 1" in str(stopped.value)
    assert "docs/health.md" in str(stopped.value)
    assert str(stopped.value).count("\n") <= 3
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "000000100"
    assert np.isfinite(arrays(tmp_path / "run")["learner/weight"]).all()
    assert len(of_kind(tmp_path / "run", "rollback")) == LIMIT
    assert not (tmp_path / "run" / "result.json").exists()
    # The same command, with the fault mended, goes on from there.
    assert_same_arrays(arrays(reference_run), arrays(train("run", Toy())))


def test_an_action_that_is_not_finite_is_the_same_event_and_never_reaches_the_simulator(train, reference_run):
    run = train("run", Toy((step_draw(1, 117),)))
    assert_taken_back(run, reference_run)
    (event,) = of_kind(run, "restart")
    assert (event["step"], event["divergence_restarts"]) == (117, [0, 1])
    replay = arrays(run)
    assert np.isfinite(replay["replay/action"]).all()
    assert (replay["replay/action"][1] != arrays(reference_run)["replay/action"][1]).any()


def test_actions_that_are_not_finite_in_an_evaluation_end_the_run(train, tmp_path):
    from cdred.train.compiled import EVALUATE
    from cdred.train.evaluate import evaluation_keys

    key = jax.random.fold_in(evaluation_keys(seed_keys((1,), EVALUATE), 100)[0], 7)
    draw = float(jax.random.uniform(jax.random.split(key, 1)[0]))
    with pytest.raises(DivergenceError, match="seed 1, in an evaluation: planning found no finite action"):
        train("run", Toy((draw,)))
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_simulators_on_the_device_are_watched_as_well(train, tmp_path):
    settings = {"task": "jaxprobe/point"}
    assert_taken_back(
        run := train("run", Toy((update_draw(1, 133),)), **settings), train("reference_run", Toy(), **settings)
    )
    assert [line["step"] for line in of_kind(run, "restart")] == [140]
    with pytest.raises(DivergenceError, match="seed 1, after step 100: planning found no finite action"):
        train("other", Toy((step_draw(1, 117),)), **settings)
    assert np.isfinite(arrays(tmp_path / "other")["replay/obs"]).all()


def test_a_seed_is_taken_back_alike_in_any_company(train):
    toy = Toy((update_draw(1, 133),))
    one, other = arrays(train("one", toy)), arrays(train("other", toy, seeds=(7, 1)))
    np.testing.assert_array_equal(one["learner/weight"][1], other["learner/weight"][1])
    assert one["divergence_restarts"].tolist() == other["divergence_restarts"].tolist() == [0, 1]


def test_a_step_size_beyond_reason_is_a_clean_end_of_the_command(tmp_path, capsys):
    command = ["train", "probe/point", "--preset", "debug", "--algo", "bc", "--demos", "3", "--video", "False"]
    command += ["--optim.learning-rate", "1e30", "--out", str(tmp_path / "run")]
    assert main(command) == 3
    said = capsys.readouterr().err
    assert said.startswith("cdred: seed 0, step 20: diverged 3 times since step ")
    assert "Traceback" not in said
    assert checkpoint.latest(tmp_path / "run" / "checkpoints") is None


def test_a_verdict_says_what_was_not_finite_first_and_what_was_before():
    nan, inf = jnp.nan, jnp.inf
    metrics = {"a": jnp.array([1.0, 2.0, inf, 3.0]), "b": jnp.array([5.0, nan, nan, nan]), "c": jnp.ones(4)}
    verdict = judge({"w": jnp.array([1.0, -7.0])}, metrics)
    assert not verdict.finite
    assert {name: int(x) for name, x in verdict.lasted.items()} == {"a": 2, "b": 1, "c": 4}
    assert {name: float(x) for name, x in verdict.before.items()} == {"a": 1.0, "b": 5.0, "c": 1.0}
    assert float(verdict.parameter_absmax) == 7.0
    assert judge({"w": jnp.ones(2)}, {"c": jnp.ones(4)}).finite
    for bad in (nan, inf, -inf):
        assert not judge({"w": jnp.array([1.0, bad])}, {"c": jnp.ones(4)}).finite


def test_keys_are_those_of_the_seed_until_its_first_rollback_and_others_after_each():
    keys, data = seed_keys((0, 1), LEARN), jax.random.key_data
    np.testing.assert_array_equal(data(fresh_keys(keys, np.zeros(2, np.int64))), data(keys))
    after = [data(fresh_keys(keys, np.array([0, count]))) for count in range(4)]
    assert all(np.array_equal(rows[0], data(keys)[0]) for rows in after)
    assert len({np.asarray(rows[1]).tobytes() for rows in after}) == 4


def test_what_a_run_says_of_a_rollback(train, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(api._Silent, "message", lambda _, text: said.append(text))
    train("run", Toy((update_draw(1, 133),)))
    (told,) = [text for text in said if "fresh key" in text]
    assert told.startswith("seed 1, step 140: not finite first: grad_norm, loss, in update 134; the update before: ")
    assert told.endswith("back to step 100, with a fresh key (rollback 1; the run ends at 3)")
    assert api.evaluate_run(tmp_path / "run", episodes=1, say=lambda _: None)["steps"] == 200
