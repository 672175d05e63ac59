"""Whole runs on a task without a simulator."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdred
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.checkpoint.arrays import named_arrays
from cdred.config_file import to_yaml
from cdred.data.demonstrations import save_demos
from cdred.errors import UserError
from cdred.run_folder import load_run
from cdred.train.keys import INIT, seed_keys
from cdred.train.saving import interval_elapsed
from cdred.train.setup import initial_steps, make_compiled_fns, split_demos
from runs import arrays, assert_same_arrays, killed_at, metric_lines, run_config


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("vectorization", ["thread", "process"])
def test_vectorization_does_not_change_the_run(reference_run, tmp_path, vectorization):
    cdred.train(run_config(tmp_path / "run", vectorization=vectorization), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert metric_lines(reference_run) == metric_lines(tmp_path / "run")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("steps", [60, 140])
def test_resumed_run_is_bitwise_identical(reference_run, tmp_path, steps):
    with killed_at(steps):
        cdred.train(run_config(tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run" / "result.json").exists()
    cdred.train(run_config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert metric_lines(reference_run) == metric_lines(tmp_path / "run")


@pytest.mark.usefixtures("toy")
def test_run_resumes_in_the_middle_of_an_episode(tmp_path):
    changes = {"checkpoint_every": 30, "updates_per_call": 10, "steps": 100, "eval_every": 1000}
    cdred.train(run_config(tmp_path / "whole", **changes), quiet=True)
    with killed_at(50):
        cdred.train(run_config(tmp_path / "resumed", **changes), quiet=True)
    assert int(checkpoint.latest(tmp_path / "resumed" / "checkpoints").name) % 20 == 10
    cdred.train(run_config(tmp_path / "resumed", **changes), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / "resumed"))


def test_bc_run_resumes_and_collects_nothing(tmp_path):
    cdred.train(run_config(tmp_path / "whole", algo="bc"), quiet=True)
    with killed_at(140):
        cdred.train(run_config(tmp_path / "resumed", algo="bc"), quiet=True)
    cdred.train(run_config(tmp_path / "resumed", algo="bc"), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / "resumed"))
    assert metric_lines(tmp_path / "whole") == metric_lines(tmp_path / "resumed")
    assert {line["kind"] for line in metric_lines(tmp_path / "whole")} == {"reference", "train", "eval"}
    assert (arrays(tmp_path / "whole")["replay/episode_step"] == -1).all()


def test_agent_reward_needs_a_world_model(tmp_path):
    cdred.train(run_config(tmp_path / "run", algo="bc", steps=20), quiet=True)
    with pytest.raises(UserError, match="needs an algorithm with a world model"):
        cdred.load(tmp_path / "run").reward(np.zeros((1, 4)), np.zeros((1, 2)))


@pytest.mark.parametrize("algo", ["iqmpc", "iqlearn-sac"])
def test_iq_learn_runs_train_and_act(tmp_path, algo):
    result = cdred.train(run_config(tmp_path / "run", algo=algo, steps=60), quiet=True)
    assert result["algo"] == algo
    assert cdred.load(tmp_path / "run").act(np.zeros(4, np.float32)).shape == (2,)


@pytest.mark.usefixtures("toy")
def test_same_seeds_give_bitwise_identical_runs(reference_run, tmp_path):
    cdred.train(run_config(tmp_path / "repeated"), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "repeated"))
    assert metric_lines(reference_run) == metric_lines(tmp_path / "repeated")


@pytest.mark.usefixtures("toy")
def test_random_episodes_are_independent_of_other_seeds(finished_run, tmp_path):
    cdred.train(run_config(tmp_path / "single", seeds=(1,), steps=20, random_episodes=1), quiet=True)
    vmapped, single = arrays(finished_run), arrays(tmp_path / "single")
    np.testing.assert_array_equal(vmapped["replay/action"][1, 0, :20], single["replay/action"][0, 0, :20])
    np.testing.assert_array_equal(vmapped["replay/obs"][1, 0, :21], single["replay/obs"][0, 0, :21])


@pytest.mark.parametrize(
    ("pretraining", "envs", "steps", "expected"),
    [
        (True, 1, 1, 20),
        (True, 1, 40, 40),
        (True, 1, 41, 60),
        (True, 3, 41, 60),
        (True, 3, 61, 120),
        (False, 1, 41, 100),
        (False, 3, 41, 300),
    ],
)
def test_initial_steps_are_whole_episodes_of_all_environments(pretraining, envs, steps, expected):
    """Episodes of 20 steps; five in each environment where they are random."""
    config = SimpleNamespace(random_episodes=5, envs=envs, pretrain=SimpleNamespace(steps=steps))
    algorithm = SimpleNamespace(uses_env=True, pretraining=pretraining)
    run = SimpleNamespace(
        config=config,
        fns=SimpleNamespace(algorithm=algorithm),
        envs=SimpleNamespace(spec=SimpleNamespace(episode_length=20)),
    )
    assert initial_steps(run) == expected
    algorithm.uses_env = False
    assert initial_steps(run) == 0


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("random_episodes", "updates"), [(2, 40), (3, 0)])
def test_run_that_ends_in_its_initial_episodes_says_that_it_learns_nothing(tmp_path, capsys, random_episodes, updates):
    result = cdred.train(run_config(tmp_path / "run", steps=40, random_episodes=random_episodes))
    assert result["updates"] == updates
    message = "learning begins after 60 steps, and the run has 40. Raise --steps, or lower --random-episodes."
    assert (message in capsys.readouterr().out) == (updates == 0)


def test_result_has_its_documented_entries(finished_run):
    result = json.loads((finished_run / "result.json").read_text())
    assert result["task"] == "probe/point"
    assert (result["algo"], result["preset"], result["seeds"], result["demos"]) == ("cdred", "debug", [0, 1], 3)
    assert result["steps"] == result["updates"] == 200
    assert {"device", "commit", "versions", "wall_seconds"} <= result.keys()
    scores = result["eval"]
    assert scores["episodes"] == 2
    for key in ("return", "success", "success_at_end", "normalized"):
        assert len(scores[key]) == 2
    assert scores["length"] is None
    span = scores["expert_return"] - scores["random_return"]
    assert scores["normalized"] == pytest.approx([(r - scores["random_return"]) / span for r in scores["return"]])
    assert (finished_run / "report.png").stat().st_size > 10_000


def test_finished_run_is_not_repeated(finished_run):
    before = (finished_run / "metrics.jsonl").read_text()
    assert cdred.train(run_config(finished_run), quiet=True) == json.loads((finished_run / "result.json").read_text())
    assert (finished_run / "metrics.jsonl").read_text() == before


def test_folder_of_another_run_is_refused_naming_the_setting(finished_run):
    with pytest.raises(UserError, match=r"optim\.batch_size: 8, not 4"):
        cdred.train(run_config(finished_run, optim=replace(cdred.preset("debug").optim, batch_size=4)), quiet=True)


def test_run_that_cannot_start_creates_no_folder(tmp_path):
    with pytest.raises(UserError, match="Did you mean probe/point"):
        cdred.train(run_config(tmp_path / "run", task="probe/pint"), quiet=True)
    with pytest.raises(UserError, match=r"missing\.npz"):
        cdred.train(run_config(tmp_path / "run", demos="missing.npz"), quiet=True)
    assert not (tmp_path / "run").exists()


def test_run_without_checkpoint_may_restart_with_other_settings(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(run_config(tmp_path / "run", algo="bc", demos="7")))
    cdred.train(run_config(tmp_path / "run", algo="bc", steps=20, demos="3"), quiet=True)
    assert "demos: '3'" in (tmp_path / "run" / "config.yaml").read_text()


def test_evaluation_needs_the_run_folder_only(finished_run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = (cdred.evaluate(finished_run, episodes=3, log=lambda _: None) for _ in range(2))
    assert first == second
    assert first["episodes"] == 3
    assert len(first["return"]) == 2
    without_planning = cdred.evaluate(finished_run, episodes=3, planner="policy", log=lambda _: None)
    assert without_planning["return"] != first["return"]


def test_loaded_agent_acts_on_single_and_batched_observations(finished_run):
    agent = cdred.load(finished_run, seed=1)
    single = agent.act(np.zeros(4, np.float32))
    assert single.shape == (2,)
    assert np.abs(single).max() <= 1.0
    assert cdred.load(finished_run, seed=1).act(np.zeros(4)).tolist() == single.tolist()
    assert agent.reset().act(np.zeros((5, 4))).shape == (5, 2)
    with pytest.raises(UserError, match=r"\(4,\).*got \(3,\)"):
        agent.reset().act(np.zeros(3))
    with pytest.raises(UserError, match=r"seeds \[0, 1\], not 7"):
        cdred.load(finished_run, seed=7)


def test_agent_reward_is_that_of_the_saved_networks(finished_run):
    agent, generator = cdred.load(finished_run, seed=1), np.random.default_rng(0)
    obs, action = generator.normal(size=(5, 4)).astype(np.float32), generator.uniform(-1, 1, (5, 2)).astype(np.float32)
    learner = agent._learner
    reward = lambda obs, action: learner.reward(jnp.concatenate([learner.model.encode(obs), action]))  # noqa: E731
    expected = jax.vmap(reward)(jnp.asarray(obs), jnp.asarray(action))
    np.testing.assert_allclose(agent.reward(obs, action), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"\(5, 4\) and \(4, 2\)"):
        agent.reward(obs, action[:4])


@pytest.mark.usefixtures("toy")
def test_environments_of_a_seed_share_its_steps(tmp_path):
    result = cdred.train(run_config(tmp_path / "run", envs=2, steps=80, final_eval_episodes=3), quiet=True)
    assert result["steps"] == result["updates"] == 80
    assert result["eval"]["episodes"] == 4
    state = arrays(tmp_path / "run")
    # 40 steps in each environment are two episodes of 20, with their final observations 42 rows.
    assert (state["replay/episode_step"] >= 0).sum(axis=-1).tolist() == [[42, 42], [42, 42]]
    assert state["envs/episode"].tolist() == [[2, 2], [2, 2]]


@pytest.mark.usefixtures("toy")
def test_steps_per_update_sets_the_number_of_updates(tmp_path):
    result = cdred.train(run_config(tmp_path / "run", envs=4, steps_per_update=2), quiet=True)
    assert result["updates"] == result["steps"] // 2
    assert arrays(tmp_path / "run")["learner/updates"].tolist() == [result["updates"]] * 2


@pytest.mark.usefixtures("toy")
def test_demos_are_read_from_a_file(finished_run, tmp_path):
    demos = api.resolve_demos(run_config(finished_run), api.get_env_spec("probe/point"), lambda _: None)
    save_demos(demos, tmp_path / "demos.npz")
    result = cdred.train(run_config(tmp_path / "run", demos=str(tmp_path / "demos.npz"), steps=20), quiet=True)
    assert result["demos"] == 3


def test_interval_elapsed():
    assert interval_elapsed(80, 100, 100)
    assert interval_elapsed(80, 220, 100)
    assert not interval_elapsed(100, 180, 100)


def assert_arrays_equal_by_name(tree, prefix, expected):
    """Compare every leaf with the array of its path; `expected` has no other arrays below `prefix`."""
    named = named_arrays(tree, prefix)
    assert named.keys() == {name for name in expected if name.startswith(f"{prefix}/")} != set()
    for name, leaf in named.items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)


def test_random_targets_are_fixed_and_saved(finished_run):
    """The targets define the reward, so training and reloading must not change them."""
    saved, prefix = arrays(finished_run), "learner/reward/targets"
    fns = make_compiled_fns(run_config(finished_run), api.get_env_spec("probe/point"))
    initial = fns.init(seed_keys((0, 1), INIT))
    for learner in (initial, load_run(finished_run, None).learner):
        assert_arrays_equal_by_name(learner.reward.targets, prefix, saved)


def test_best_checkpoint_is_loaded_on_request(finished_run, tmp_path):
    best = checkpoint.best(finished_run / "checkpoints")
    stored = {name: x[1] for name, x in checkpoint.load_arrays(best).items() if name.startswith("learner/")}
    agent = cdred.load(finished_run, seed=1, best=True)
    assert_arrays_equal_by_name(agent._learner, "learner", stored)
    evaluation = cdred.evaluate(finished_run, episodes=1, best=True, log=lambda _: None)
    assert evaluation["steps"] == int(best.name[-9:])
    with pytest.raises(UserError, match="not a run with the best checkpoint of an evaluation"):
        cdred.load(tmp_path, best=True)


def test_diagnostics_are_logged_with_every_train_line(finished_run):
    lines = {kind: [x for x in metric_lines(finished_run) if x["kind"] == kind] for kind in ("train", "diagnostics")}
    assert [line["step"] for line in lines["diagnostics"]] == [line["step"] for line in lines["train"]]
    for train, diagnostics in zip(lines["train"], lines["diagnostics"], strict=True):
        names = {"novelty_expert", "mean_abs_q", "open_loop_fvu", "reward_margin", "q_gradient_share"}
        names |= {"dynamics_error_ratio"}
        assert diagnostics.keys() == {"step", "kind"} | names
        assert all(np.isfinite(diagnostics[name]).all() for name in names)
        margin = [expert - agent for expert, agent in zip(train["reward_expert"], train["reward_agent"], strict=True)]
        np.testing.assert_array_equal(np.sign(diagnostics["reward_margin"]), np.sign(margin))
        assert np.abs(diagnostics["reward_margin"]).max() <= 1.0


def test_validation_demos_are_split_off_on_request():
    config = run_config("", demos="4")
    spec = api.get_env_spec(config.task)
    demos = api.resolve_demos(config, spec, lambda _: None)
    fns = make_compiled_fns(config, spec)
    rows = lambda buffer: int((np.asarray(buffer.episode_step) >= 0).sum())  # noqa: E731
    expert, validation = split_demos(demos, spec, fns, 0)
    assert validation is None
    fewer, validation = split_demos(demos, spec, fns, 1)
    assert rows(fewer) + rows(validation) == rows(expert) == 4 * 21
    np.testing.assert_array_equal(validation.obs[0, :21], demos[3].obs)
    with pytest.raises(UserError, match="--num-validation-demos 4 of 4 demonstrations leaves none"):
        split_demos(demos, spec, fns, 4)
