"""ManiSkill. Tests marked `simulated` need its interpreter (`make test-maniskill`); the others run everywhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cdred.envs import registry
from cdred.envs.remote.maniskill import TASKS
from cdred.envs.suites import maniskill
from cdred.envs.vector_env import VectorEnv
from cdred.errors import UserError

# Observation sizes as the suite documents them.
SIZES = {
    "PickCube": 42,
    "LiftPegUpright": 32,
    "StackCube": 48,
    "PegInsertionSide": 43,
    "PushCube": 35,
    "PullCube": 35,
    "PushT": 31,
    "PlugCharger": 46,
    "PokeCube": 54,
    "RollBall": 44,
    "PlaceSphere": 39,
    "StackPyramid": 64,
    "PullCubeTool": 39,
}
MORE_TASKS_WITH_ASSETS = [name for name in TASKS if TASKS[name].assets and name != "OpenCabinetDrawer"]


def skip_reason():
    try:
        maniskill.remote_interpreter()
    except UserError as error:
        return str(error)
    return ""


simulated = pytest.mark.skipif(bool(skip_reason()), reason=skip_reason())


def random_actions(steps, size, seed=0):
    """Return random actions that first move down to the objects on the table."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, size)).astype(np.float32)
    actions[:25, 2] = -1
    return actions


def episode(env, seed, steps=60):
    first = env.reset(seed)
    return np.stack([first, *(env.step(action).obs for action in random_actions(steps, env.spec.action_dim))])


@pytest.fixture
def make_env():
    """Makes environments and closes them afterwards."""
    envs = []

    def make(task):
        envs.append(registry.make(task))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


def test_missing_interpreter_gives_the_install_hint(monkeypatch, tmp_path):
    monkeypatch.setenv(maniskill.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"make \.venv-maniskill in the working directory(.|\n)*bin/pip install"):
        registry.make("maniskill/PickCube")


def test_interpreter_without_the_suite_is_reported(monkeypatch):
    monkeypatch.setenv(maniskill.VARIABLE, sys.executable)
    with pytest.raises(UserError, match=r"(gymnasium|sapien|mani_skill|torch)(.|\n)*make \.venv-maniskill"):
        registry.make("maniskill/PickCube")


def test_install_hint_has_the_versions_of_the_makefile():
    recipe = (Path(__file__).parents[3] / "Makefile").read_text().partition("\nmaniskill:")[2].partition("\n\n")[0]
    pins = set(re.findall(r"[\w-]+==[\d.]+\d", recipe))
    assert len(pins) == 3
    assert set(re.findall(r"[\w-]+==[\d.]+\d", maniskill.INSTALL_HINT)) == pins


def test_missing_planner_error_suggests_demonstrations():
    assert registry.planned_expert("maniskill/RollBall") is None
    with pytest.raises(UserError, match="--demos PATH"):
        registry.scripted_expert("maniskill/RollBall")


class FakePlanner:
    """Environment with a planner that returns a given plan."""

    def __init__(self, plan):
        self._plan, self.spec = plan, type("Spec", (), {"action_dim": 7})

    def plan(self, _seed):
        return self._plan


@pytest.mark.parametrize("stop", [False, True])
def test_expert_follows_the_plan_and_stops_if_asked(stop):
    plan = np.arange(21, dtype=np.float32).reshape(3, 7) / 20
    expert = maniskill.PlannedExpert(FakePlanner(plan), 0, stop)
    obs = np.zeros(42, np.float32)
    np.testing.assert_array_equal(expert(obs, False), plan[0])
    stopped = np.array([0, 0, 0, 0, 0, 0, plan[0, 6]], np.float32)
    np.testing.assert_array_equal(expert(obs, True), stopped if stop else plan[1])
    np.testing.assert_array_equal(expert(obs, False), stopped if stop else plan[2])
    if not stop:
        np.testing.assert_array_equal(expert(obs, False), [0, 0, 0, 0, 0, 0, plan[2, 6]])


def test_empty_plan_gives_zero_actions():
    expert = maniskill.PlannedExpert(FakePlanner(np.zeros((0, 7), np.float32)), 0)
    assert all((expert(np.zeros(42, np.float32)) == 0).all() for _ in range(3))


@simulated
def test_episode_is_independent_of_previous_episodes(make_env):
    # In LiftPegUpright, plain resets keep contacts of the previous episode.
    used, new = make_env("maniskill/LiftPegUpright"), make_env("maniskill/LiftPegUpright")
    for seed in (1, 2):
        episode(used, seed, 40)
    seed = 2**32 - 6
    np.testing.assert_array_equal(episode(used, seed), episode(new, seed))
    assert used.spec.obs_shape == (32,)
    assert not np.array_equal(used.reset(3), new.reset(4))


@simulated
def test_episode_ends_at_its_time_limit_only(make_env):
    env = make_env("maniskill/PickCube")
    env.reset(0)
    steps = [env.step(np.zeros(7, np.float32)) for _ in range(env.spec.episode_length)]
    assert [step.truncated for step in steps] == [False] * 99 + [True]
    assert not any(step.terminated for step in steps)
    with pytest.raises(UserError, match="cannot be rendered"):
        env.render()


@simulated
def test_one_and_several_processes_are_bitwise_identical():
    options = {"task": "maniskill/PushCube", "seeds": [0, 1]}
    with VectorEnv(**options) as single, VectorEnv(**options, vectorization="process") as several:
        np.testing.assert_array_equal(single.reset(), several.reset())
        for action in random_actions(30, 14).reshape(30, 2, 1, 7):
            np.testing.assert_array_equal(single.step(action).obs, several.step(action).obs)
        snapshot = single.snapshot()
        single.reset()
        single.restore(snapshot)
        np.testing.assert_array_equal(single.step(action).obs, several.step(action).obs)


@simulated
def test_planned_episode_succeeds(make_env):
    env = make_env("maniskill/PickCube")
    expert = maniskill.PlannedExpert(env, 11)
    obs, steps = env.reset(11), []
    while not steps or not steps[-1].truncated:
        steps.append(env.step(expert(obs)))
    assert steps[-1].success


@simulated
def test_demonstrations_are_reproduced_by_seed_and_actions(make_env):
    from cdred.demos.scripted import collect_scripted

    demos = collect_scripted("maniskill/PushCube", 1, stop_after_success=False)
    env = make_env("maniskill/PushCube")
    (demo,) = demos
    np.testing.assert_array_equal(env.reset(demo.seed), demo.obs[0])
    steps = [env.step(action) for action in demo.action]
    np.testing.assert_array_equal([step.obs for step in steps], demo.obs[1:])
    assert steps[-1].success
    assert "motion planner" in demos.provenance["expert"]
    assert demos.provenance["versions"]["mani_skill"]


@simulated
@pytest.mark.parametrize(
    "name", ["OpenCabinetDrawer", *(pytest.param(name, marks=pytest.mark.slow) for name in MORE_TASKS_WITH_ASSETS)]
)
def test_missing_assets_give_a_hint_and_no_download(name, tmp_path):
    script = f"from cdred.envs.registry import make; make('maniskill/{name}')"
    environment = os.environ | {"MS_ASSET_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert f"-m mani_skill.utils.download_asset {TASKS[name].assets[0]}" in result.stderr
    assert not list(tmp_path.rglob("*"))


@simulated
@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_every_task_is_reproduced_in_a_new_process(name, make_env):
    used, new = make_env(f"maniskill/{name}"), make_env(f"maniskill/{name}")
    assert used.spec.obs_shape == (SIZES[name],)
    episode(used, 1, 30)
    np.testing.assert_array_equal(episode(used, 5), episode(new, 5))


def test_every_task_with_packaged_assets_is_tested():
    assert set(SIZES) == {name for name in TASKS if not TASKS[name].assets}
