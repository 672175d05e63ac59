"""Runs that begin with the networks of another run."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import cdred
from cdred import api, initial_networks
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.initial_networks import load_networks
from cdred.loggers.metrics import read_lines
from cdred.run_folder import LoadedRun, load_run
from cdred.train.keys import INIT, seed_keys
from cdred.train.setup import make_compiled_fns

BASE = replace(cdred.preset("debug"), task="probe/point", demos="5", steps=80, seeds=(3, 4), video=False)
CONFIG = replace(BASE, pretrain=replace(BASE.pretrain, encoder="free"))


@pytest.fixture(scope="module")
def learner():
    """Learner of CDRED with two seeds, as after a training."""
    return make_compiled_fns(CONFIG, get_env_spec(CONFIG.task)).init(jax.random.split(jax.random.key(9), 2))


@pytest.fixture
def source(learner, monkeypatch):
    """Settings of a run, of which `learner` is loaded in place of a trained one."""
    monkeypatch.setattr(initial_networks, "load_run", lambda *_: LoadedRun(CONFIG, learner, {}, 80))
    return CONFIG


def metrics_of(folder, kind):
    return [entry for entry in read_lines(Path(folder) / "metrics.jsonl") if entry["kind"] == kind]


def new_learner(config):
    return make_compiled_fns(config, get_env_spec(config.task)).init(seed_keys(config.seeds, INIT))


def begun_with(config):
    return load_networks(config, get_env_spec(config.task))(new_learner(config))


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_same_algorithm_takes_all_networks_and_a_new_optimiser(source, learner):
    config = replace(source, init_from="run")
    begun, new = begun_with(config), new_learner(config)
    for name in ("model", "reward", "target_critics", "q_scale"):
        assert_equal(getattr(begun, name), getattr(learner, name))
    for name in ("model_opt_state", "policy_opt_state", "updates"):
        assert_equal(getattr(begun, name), getattr(new, name))


@pytest.mark.parametrize("seeds", [(4,), (4, 3)])
def test_bc_takes_the_actor_of_its_seeds(source, learner, seeds):
    begun, model = begun_with(replace(source, algo="bc", seeds=seeds, init_from="run")), learner.model
    rows = [source.seeds.index(seed) for seed in seeds]
    expected = jax.tree.map(lambda x: x[np.array(rows)], (model.normalizer, model.encoder, model.policy))
    assert_equal((begun.policy.normalizer, begun.policy.encoder, begun.policy.policy), expected)


def test_fine_tuning_starts_with_the_given_agent_and_goes_on(tmp_path):
    given, tuned = (replace(CONFIG, algo="bc", steps=40, out=str(tmp_path / name)) for name in ("given", "tuned"))
    before = cdred.train(given, quiet=True)
    result = cdred.train(replace(tuned, init_from=given.out), quiet=True)
    first, *others = metrics_of(tuned.out, "eval")
    assert first["step"] == 0
    # The same episodes.
    np.testing.assert_allclose(first["episode_return"], before["eval"]["return"], rtol=1e-5)
    assert others[-1]["episode_return"] != first["episode_return"]
    assert result["updates"] == 40
    normalizers = [load_run(Path(config.out), None).learner.policy.normalizer for config in (given, tuned)]
    assert_equal(*normalizers)
    losses = [np.mean(metrics_of(config.out, "train")[0]["loss"]) for config in (tuned, given)]
    assert losses[0] < losses[1]


@pytest.mark.slow
def test_pretraining_begins_with_the_networks(tmp_path):
    given, tuned = (replace(CONFIG, out=str(tmp_path / name)) for name in ("given", "tuned"))
    cdred.train(given, quiet=True)
    cdred.train(replace(tuned, init_from=given.out), quiet=True)
    from_the_run, at_random = (metrics_of(config.out, "pretrain")[0]["loss"] for config in (tuned, given))
    assert np.mean(from_the_run) < np.mean(at_random)


def test_begun_run_resumes_without_the_other_one(tmp_path):
    given = replace(CONFIG, algo="bc", steps=20, out=str(tmp_path / "given"))
    cdred.train(given, quiet=True)
    config = replace(given, init_from=given.out, out=str(tmp_path / "tuned"))
    cdred.train(config, quiet=True)
    shutil.rmtree(given.out)
    assert cdred.train(replace(config, steps=40), quiet=True)["updates"] == 40


def test_run_that_does_not_fit_is_refused(source):
    def changed(**changes):
        return replace(source, **({"init_from": "run"} | changes))

    cases = [
        (changed(algo="gail"), "is a run of cdred, expected gail"),
        (changed(seeds=(3, 5)), r"has the seeds \[3, 4\], expected 5 as well"),
        (changed(task="gym/Pendulum-v1"), "a run of probe/point, with observations of shape"),
        (changed(model=replace(source.model, num_bins=7)), "has --model.num-bins"),
        (changed(cdred=replace(source.cdred, num_targets=4)), "has networks of other shapes than this run"),
    ]
    for config, message in cases:
        with pytest.raises(UserError, match=message):
            begun_with(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_high": (2.0, 1.0)}, "with upper bounds of actions"),
        ({"obs_parts": (("speed", 2), ("place", 2))}, "with parts of an observation"),
        ({"can_terminate": True}, "with episodes that can terminate: False; probe/point has True"),
    ],
)
def test_task_with_other_units_is_refused(source, changes, message):
    spec = get_env_spec(CONFIG.task)
    with pytest.raises(UserError, match=message):
        load_networks(replace(source, init_from="run"), replace(spec, **changes))


def test_run_that_does_not_fit_is_refused_before_environments_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "build_run", lambda *_: pytest.fail("it made the run"))
    with pytest.raises(UserError, match="is not a run with a checkpoint"):
        cdred.train(replace(CONFIG, init_from=str(tmp_path / "none"), out=str(tmp_path / "run")), quiet=True)


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run with a checkpoint"):
        begun_with(replace(CONFIG, init_from=str(tmp_path)))
