"""Runs that learn while their simulators step."""

import jax
import numpy as np
import pytest

import cdred
import failing_env
from cdred.checkpoint import checkpoint
from cdred.envs.suites import probes
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError
from cdred.loggers.metrics import MultiLogger
from cdred.train.loop import advance, start_or_resume
from cdred.train.setup import build_run, make_compiled_fns, random_steps
from runs import arrays, assert_same_arrays, config, curves, killed_at, on_device
from toy import Toy, update_draw

pytestmark = pytest.mark.usefixtures("toy")


def overlapped(out, **changes):
    return config(out, overlap=True, **changes)


@pytest.fixture
def opened(tmp_path):
    """A run that is about to learn from its second block of steps, and its state."""
    settings = overlapped(tmp_path / "run")
    run = build_run(
        settings,
        cdred.api.demonstrations(settings, cdred.api.get_env_spec(settings.task), print),
        tmp_path,
        MultiLogger([]),
        lambda _: None,
    )
    with run.grid, run.eval_grid:
        (state, _), updates = start_or_resume(run), 0
        run.rollback.keep(state)
        while updates == 0:
            state, updates = advance(run, state, updates)
        assert int(state.steps) == random_steps(run) == updates == 20
        yield run, state


def test_a_block_makes_an_update_for_each_decision_from_what_was_stored_before_it(opened):
    run, before = opened
    learner = jax.tree.map(np.copy, before.learner)
    for update in range(20, 40):
        keys = run.rollback.learn_keys
        learner, *_ = run.programs.learn(learner, before.replay, run.expert, keys, np.int32(update), None)
    # Storing gives the store away, so this comes last.
    after, updates = advance(run, before, 20)
    assert updates == int(after.steps) == 40
    np.testing.assert_array_equal(after.learner.weight, learner.weight)
    assert after.learner.updates.tolist() == [40, 40]


def test_the_device_has_its_work_before_the_simulators_have_theirs_and_nobody_asks_for_it_sooner(opened, monkeypatch):
    run, state = opened
    happened, step, learn, checked = [], VectorEnv.step, run.programs.learn, run.rollback.checked

    def told(name, whole):
        def wrapped(*args):
            happened.append(name)
            return whole(*args)

        return wrapped

    monkeypatch.setattr(VectorEnv, "step", told("step", step))
    monkeypatch.setattr(run.programs, "learn", told("learn", learn))
    monkeypatch.setattr(run.rollback, "checked", told("checked", checked))
    advance(run, state, 20)
    assert happened == ["learn", "step", "checked"] * 20


def test_a_resumed_run_equals_an_uninterrupted_one_and_whoever_steps_it(tmp_path):
    cdred.train(overlapped(tmp_path / "whole"), quiet=True)
    with killed_at(140):
        cdred.train(overlapped(tmp_path / "broken"), quiet=True)
    cdred.train(overlapped(tmp_path / "broken"), quiet=True)
    cdred.train(overlapped(tmp_path / "apart", vectorization="process"), quiet=True)
    for other in ("broken", "apart"):
        assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / other))
        assert curves(tmp_path / "whole") == curves(tmp_path / other)


def test_environments_beside_each_other_share_an_updates_worth_of_decisions(tmp_path):
    result = cdred.train(overlapped(tmp_path / "run", envs=4, steps_per_update=2), quiet=True)
    assert result["updates"] == result["steps"] // 2
    assert arrays(tmp_path / "run")["learner/updates"].tolist() == [result["updates"]] * 2


def test_a_seed_that_diverges_within_a_block_goes_back_and_the_other_never_notices(toy, tmp_path):
    cdred.train(overlapped(tmp_path / "clean"), quiet=True)
    toy(broken_draws=(update_draw(1, 53, per_call=1),))
    result = cdred.train(overlapped(tmp_path / "run"), quiet=True)
    clean, run = arrays(tmp_path / "clean"), arrays(tmp_path / "run")
    assert run["divergence_restarts"].tolist() == [0, 1]
    assert result["updates"] == 200
    assert np.isfinite(run["learner/weight"]).all()
    for name in (name for name in run if name.startswith(("learner/", "replay/"))):
        np.testing.assert_array_equal(run[name][0], clean[name][0], err_msg=name)
    assert not np.array_equal(run["learner/weight"][1], clean["learner/weight"][1])


def test_where_a_simulator_fails_the_state_before_the_block_is_saved_and_gone_on_from(tmp_path, monkeypatch):
    cdred.train(overlapped(tmp_path / "whole"), quiet=True)
    monkeypatch.setenv(failing_env.FILE, str(tmp_path / "faults"))
    monkeypatch.setitem(probes._PROBES, "point", failing_env.Faulty)
    # From the middle of a block on, after step 144, nothing works any more.
    broken = [(0, 0, 7, 5, "raise"), *((0, 0, episode, 1, "raise") for episode in range(8, 11))]
    failing_env.plan_faults(tmp_path / "faults", *broken)
    with pytest.raises(UserError, match="saved in"):
        cdred.train(overlapped(tmp_path / "run"), quiet=True)
    assert checkpoint.latest(tmp_path / "run" / "checkpoints").name == "000000140"
    failing_env.plan_faults(tmp_path / "faults")
    cdred.train(overlapped(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / "run"))


def test_a_method_that_steps_nothing_learns_in_blocks_as_ever(monkeypatch):
    spec = cdred.api.get_env_spec("probe/point")
    assert make_compiled_fns(overlapped(""), spec).updates == 1
    monkeypatch.setattr(Toy, "uses_env", False)
    assert make_compiled_fns(overlapped(""), spec).updates == 20


def test_it_is_refused_where_there_is_nothing_to_overlap(tmp_path):
    with pytest.raises(UserError, match="--overlap is for simulators on the host"):
        cdred.train(on_device(tmp_path / "run", overlap=True), quiet=True)
    with pytest.raises(UserError, match="--overlap needs --envs to be a multiple of --steps-per-update"):
        cdred.train(overlapped(tmp_path / "run", steps_per_update=2), quiet=True)
