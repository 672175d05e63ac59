"""Runs that begin with the networks of another run."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import cdred
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.initial_networks import load_networks
from cdred.loggers.metrics import read_lines
from cdred.run_folder import load_run
from cdred.train.keys import INIT, seed_keys
from cdred.train.setup import make_compiled_fns


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Settings of a finished run of CDRED with two seeds."""
    folder = tmp_path_factory.mktemp("source")
    base = cdred.preset("debug")
    config = replace(
        base,
        task="probe/point",
        demos="5",
        steps=80,
        seeds=(3, 4),
        out=str(folder / "run"),
        video=False,
        pretrain=replace(base.pretrain, encoder="free"),
    )
    cdred.train(config, quiet=True)
    return config


def metrics_of(folder, kind):
    return [entry for entry in read_lines(Path(folder) / "metrics.jsonl") if entry["kind"] == kind]


def new_learner(config):
    return make_compiled_fns(config, get_env_spec(config.task)).init(seed_keys(config.seeds, INIT))


def begun_with(config):
    return load_networks(config, get_env_spec(config.task))(new_learner(config))


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_same_algorithm_takes_all_networks_and_a_new_optimiser(source):
    config = replace(source, init_from=source.out)
    learner, trained, new = begun_with(config), load_run(Path(source.out), None).learner, new_learner(config)
    for name in ("model", "reward", "target_critics", "q_scale"):
        assert_equal(getattr(learner, name), getattr(trained, name))
    for name in ("model_opt_state", "policy_opt_state", "updates"):
        assert_equal(getattr(learner, name), getattr(new, name))


@pytest.mark.parametrize("seeds", [(4,), (4, 3)])
def test_bc_takes_the_actor_of_its_seeds(source, seeds):
    config = replace(source, algo="bc", seeds=seeds, init_from=source.out)
    learner, model = begun_with(config), load_run(Path(source.out), None).learner.model
    rows = [source.seeds.index(seed) for seed in seeds]
    expected = jax.tree.map(lambda x: x[np.array(rows)], (model.normalizer, model.encoder, model.policy))
    assert_equal((learner.policy.normalizer, learner.policy.encoder, learner.policy.policy), expected)


def test_fine_tuning_starts_with_the_given_agent_and_goes_on(source, tmp_path):
    given, tuned = (replace(source, algo="bc", steps=40, out=str(tmp_path / name)) for name in ("given", "tuned"))
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


def test_pretraining_begins_with_the_networks(source, tmp_path):
    config = replace(source, init_from=source.out, steps=40, out=str(tmp_path / "tuned"))
    cdred.train(config, quiet=True)
    from_the_run, at_random = (metrics_of(folder, "pretrain")[0]["loss"] for folder in (tmp_path / "tuned", source.out))
    assert np.mean(from_the_run) < np.mean(at_random)


def test_finished_part_resumes_without_the_other_run(source, tmp_path):
    other = shutil.copytree(source.out, tmp_path / "other")
    config = replace(source, algo="bc", steps=20, init_from=str(other), out=str(tmp_path / "tuned"))
    cdred.train(config, quiet=True)
    shutil.rmtree(other)
    assert cdred.train(replace(config, steps=40), quiet=True)["updates"] == 40


def test_run_that_does_not_fit_is_refused(source, tmp_path):
    def changed(**changes):
        return replace(source, **({"init_from": source.out} | changes))

    cases = [
        (changed(algo="gail"), "is a run of cdred, expected gail"),
        (changed(seeds=(3, 5)), r"has the seeds \[3, 4\], not 5"),
        (changed(task="gym/Pendulum-v1"), "a run of probe/point, whose obs_shape is"),
        (changed(model=replace(source.model, num_bins=7)), "has --model.num-bins"),
        (changed(cdred=replace(source.cdred, num_targets=4)), "has other networks than this run"),
        (changed(init_from=str(tmp_path)), "is not a run with a checkpoint"),
    ]
    for config, message in cases:
        with pytest.raises(UserError, match=message):
            begun_with(config)
