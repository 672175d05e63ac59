"""The loop as a whole, on a world that needs no simulator."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdred
from cdred import api
from cdred.checkpoint import checkpoint
from cdred.config_file import to_yaml
from cdred.errors import UserError
from cdred.train import setup
from cdred.train.loop import crossed
from runs import arrays, assert_same_arrays, config, curves, killed_at


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("vectorization", ["thread", "process"])
def test_a_run_is_the_same_whoever_steps_its_environments(reference_run, tmp_path, vectorization):
    cdred.train(config(tmp_path / "run", vectorization=vectorization), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert curves(reference_run) == curves(tmp_path / "run")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("steps", [60, 140])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(reference_run, tmp_path, steps):
    with killed_at(steps):
        cdred.train(config(tmp_path / "run"), quiet=True)
    assert not (tmp_path / "run" / "result.json").exists()
    cdred.train(config(tmp_path / "run"), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "run"))
    assert curves(reference_run) == curves(tmp_path / "run")


@pytest.mark.usefixtures("toy")
def test_a_simulator_is_resumed_in_the_middle_of_an_episode(tmp_path):
    changes = {"checkpoint_every": 30, "updates_per_call": 10, "steps": 100, "eval_every": 1000}
    cdred.train(config(tmp_path / "whole", **changes), quiet=True)
    with killed_at(50):
        cdred.train(config(tmp_path / "broken", **changes), quiet=True)
    assert int(checkpoint.latest(tmp_path / "broken" / "checkpoints").name) % 20 == 10
    cdred.train(config(tmp_path / "broken", **changes), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / "broken"))


def test_a_method_that_only_watches_is_resumed_too_and_lives_through_nothing(tmp_path):
    cdred.train(config(tmp_path / "whole", algo="bc"), quiet=True)
    with killed_at(140):
        cdred.train(config(tmp_path / "broken", algo="bc"), quiet=True)
    cdred.train(config(tmp_path / "broken", algo="bc"), quiet=True)
    assert_same_arrays(arrays(tmp_path / "whole"), arrays(tmp_path / "broken"))
    assert curves(tmp_path / "whole") == curves(tmp_path / "broken")
    assert {line["kind"] for line in curves(tmp_path / "whole")} == {"levels", "train", "eval"}
    assert (arrays(tmp_path / "whole")["replay/time"] == -1).all()


def test_a_method_that_validates_needs_a_demonstration_for_it(tmp_path):
    with pytest.raises(UserError, match="one demonstration is not enough"):
        cdred.train(config(tmp_path / "run", algo="bc", demos="1"), quiet=True)


def test_a_method_without_a_world_model_has_no_opinion_of_an_action(tmp_path):
    cdred.train(config(tmp_path / "run", algo="bc", steps=20), quiet=True)
    with pytest.raises(UserError, match="only methods with a world model"):
        cdred.load(tmp_path / "run").reward(np.zeros((1, 4)), np.zeros((1, 2)))


@pytest.mark.parametrize("algo", ["iqmpc", "iqlearn-sac"])
def test_methods_without_a_reward_model_or_a_world_model_train_are_saved_and_act(tmp_path, algo):
    result = cdred.train(config(tmp_path / "run", algo=algo, steps=60), quiet=True)
    assert result["algo"] == algo
    assert cdred.load(tmp_path / "run").act(np.zeros(4, np.float32)).shape == (2,)


@pytest.mark.usefixtures("toy")
def test_the_same_seeds_give_the_same_run_bit_for_bit(reference_run, tmp_path):
    cdred.train(config(tmp_path / "again"), quiet=True)
    assert_same_arrays(arrays(reference_run), arrays(tmp_path / "again"))
    assert curves(reference_run) == curves(tmp_path / "again")


@pytest.mark.usefixtures("toy")
def test_a_seed_lives_the_same_random_episodes_alone_as_beside_others(finished, tmp_path):
    cdred.train(config(tmp_path / "alone", seeds=(1,), steps=20, random_episodes=1), quiet=True)
    beside, alone = arrays(finished), arrays(tmp_path / "alone")
    np.testing.assert_array_equal(beside["replay/action"][1, 0, :20], alone["replay/action"][0, 0, :20])
    np.testing.assert_array_equal(beside["replay/obs"][1, 0, :21], alone["replay/obs"][0, 0, :21])


def test_result_says_what_outside_scripts_rely_on(finished):
    result = json.loads((finished / "result.json").read_text())
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
    assert (finished / "report.png").stat().st_size > 10_000


def test_a_finished_run_is_not_run_again(finished):
    before = (finished / "metrics.jsonl").read_text()
    assert cdred.train(config(finished), quiet=True) == json.loads((finished / "result.json").read_text())
    assert (finished / "metrics.jsonl").read_text() == before


def test_a_folder_with_another_run_is_refused_by_the_setting_that_differs(finished):
    with pytest.raises(UserError, match=r"optim\.batch_size: 8, not 4"):
        cdred.train(config(finished, optim=replace(cdred.preset("debug").optim, batch_size=4)), quiet=True)


def test_a_run_that_could_not_start_leaves_its_folder_free(tmp_path):
    with pytest.raises(UserError, match="Did you mean probe/point"):
        cdred.train(config(tmp_path / "run", task="probe/pint"), quiet=True)
    with pytest.raises(UserError, match=r"missing\.npz"):
        cdred.train(config(tmp_path / "run", demos="missing.npz"), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_may_be_begun_again_with_other_settings(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config(tmp_path / "run", algo="bc", demos="7")))
    cdred.train(config(tmp_path / "run", algo="bc", steps=20, demos="3"), quiet=True)
    assert "demos: '3'" in (tmp_path / "run" / "config.yaml").read_text()


def test_evaluation_needs_the_folder_alone_and_takes_episodes_not_seen_in_training(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, again = (cdred.evaluate(finished, episodes=3, say=lambda _: None) for _ in range(2))
    assert one == again
    assert one["episodes"] == 3
    assert len(one["return"]) == 2
    by_prior = cdred.evaluate(finished, episodes=3, planner="policy", say=lambda _: None)
    assert by_prior["return"] != one["return"]


def test_a_loaded_agent_acts_on_one_observation_and_on_a_batch(finished):
    agent = cdred.load(finished, seed=1)
    single = agent.act(np.zeros(4, np.float32))
    assert single.shape == (2,)
    assert np.abs(single).max() <= 1.0
    assert cdred.load(finished, seed=1).act(np.zeros(4)).tolist() == single.tolist()
    assert agent.reset().act(np.zeros((5, 4))).shape == (5, 2)
    with pytest.raises(UserError, match=r"\(4,\).*got \(3,\)"):
        agent.reset().act(np.zeros(3))
    with pytest.raises(UserError, match=r"seeds \[0, 1\], not 7"):
        cdred.load(finished, seed=7)


def test_a_loaded_agent_says_what_an_action_is_worth_to_it(finished):
    """R(h(s), a) of the saved networks."""
    agent, generator = cdred.load(finished, seed=1), np.random.default_rng(0)
    obs, action = generator.normal(size=(5, 4)).astype(np.float32), generator.uniform(-1, 1, (5, 2)).astype(np.float32)
    learner = agent._learner
    one = lambda obs, action: learner.reward(jnp.concatenate([learner.model.encode(obs), action]))  # noqa: E731
    said = jax.vmap(one)(jnp.asarray(obs), jnp.asarray(action))
    np.testing.assert_allclose(agent.reward(obs, action), said, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"\(5, 4\) and \(4, 2\)"):
        agent.reward(obs, action[:4])


@pytest.mark.usefixtures("toy")
def test_several_environments_per_seed_share_the_decisions(tmp_path):
    result = cdred.train(config(tmp_path / "run", envs=2, steps=80, final_eval_episodes=3), quiet=True)
    assert result["steps"] == result["updates"] == 80
    assert result["eval"]["episodes"] == 4
    replay = arrays(tmp_path / "run")
    # 40 steps in each of two lanes are two episodes of 20: with their final observations 42 rows.
    assert (replay["replay/time"] >= 0).sum(axis=-1).tolist() == [[42, 42], [42, 42]]
    assert replay["grid/episode"].tolist() == [[2, 2], [2, 2]]


@pytest.mark.usefixtures("toy")
def test_demonstrations_may_come_from_a_file(finished, tmp_path):
    demos = api.demonstrations(config(finished), api.get_env_spec("probe/point"), lambda _: None)
    from cdred.data.demonstrations import save_demos

    save_demos(demos, tmp_path / "demos.npz")
    result = cdred.train(config(tmp_path / "run", demos=str(tmp_path / "demos.npz"), steps=20), quiet=True)
    assert result["demos"] == 3


def test_crossed():
    assert crossed(80, 100, 100)
    assert crossed(80, 220, 100)
    assert not crossed(100, 180, 100)


def test_bonus_reward_is_read_from_the_saved_targets(finished):
    """Trap 1: the targets are part of the agent, the same before and after a run, and the same after a reload."""
    saved = arrays(finished)
    names = [name for name in saved if name.startswith("learner/reward/targets")]
    assert names
    fresh = api.make_compiled_fns(config(finished), api.get_env_spec("probe/point")).init(
        api.seed_keys((0, 1), api.INIT)
    )
    loaded = api._load(finished, None)[1]
    for state in (fresh, loaded):
        leaves = jax.tree.leaves(state.reward.targets)
        assert len(leaves) == len(names)
        assert all(any(np.array_equal(leaf, saved[name]) for name in names) for leaf in leaves)


def test_the_best_agents_are_taken_when_asked_for_and_missed_where_there_are_none(finished, tmp_path):
    best = checkpoint.best(finished / "checkpoints")
    stored, agent = checkpoint.load_arrays(best), cdred.load(finished, seed=1, best=True)
    name = next(name for name in stored if name.startswith("learner/reward/targets"))
    assert any(np.array_equal(leaf, stored[name][1]) for leaf in jax.tree.leaves(agent._learner.reward.targets))
    assert cdred.evaluate(finished, episodes=1, best=True, say=lambda _: None)["steps"] == int(best.name[-9:])
    with pytest.raises(UserError, match="not a run with the best checkpoint of an evaluation"):
        cdred.load(tmp_path, best=True)


def test_signs_of_health_are_logged_beside_every_train_line(finished):
    lines = {kind: [line for line in curves(finished) if line["kind"] == kind] for kind in ("train", "health")}
    assert [line["step"] for line in lines["health"]] == [line["step"] for line in lines["train"]]
    for train, health in zip(lines["train"], lines["health"], strict=True):
        assert health.keys() == {"step", "kind", "novelty_expert", "mean_abs_q", "open_loop_fvu", "reward_margin"}
        assert all(np.isfinite(health[name]).all() for name in health.keys() - {"kind"})
        apart = [expert - own for expert, own in zip(train["reward_expert"], train["reward_agent"], strict=True)]
        np.testing.assert_array_equal(np.sign(health["reward_margin"]), np.sign(apart))
        assert np.abs(health["reward_margin"]).max() <= 1.0


def test_demonstrations_are_held_out_for_the_panel_only_when_asked():
    settings = config("", demos="4")
    spec = api.get_env_spec(settings.task)
    demos = api.demonstrations(settings, spec, lambda _: None)
    programs = setup.make_compiled_fns(settings, spec)
    rows = lambda store: int((np.asarray(store.time) >= 0).sum())  # noqa: E731
    learned, validation = setup._expert_stores(demos, spec, programs, 0)
    assert validation is None
    fewer, one = setup._expert_stores(demos, spec, programs, 1)
    assert rows(fewer) + rows(one) == rows(learned) == 4 * 21
    np.testing.assert_array_equal(one.obs[0, :21], demos[3].obs)
    with pytest.raises(UserError, match="--num-validation-demos 4 of 4 demonstrations leaves none"):
        setup._expert_stores(demos, spec, programs, 4)
