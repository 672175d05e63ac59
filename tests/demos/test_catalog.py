"""The list of tasks: patterns, demonstrations, suites that are missing, sizes."""

import sys

import gymnasium
import pytest

from cdred.demos import catalog
from cdred.demos.catalog import TaskInfo, list_tasks, matches, with_sizes


@pytest.fixture
def without_dmc(monkeypatch):
    """Make the packages of one suite unavailable."""
    monkeypatch.delitem(sys.modules, "cdred.envs.suites.dmc", raising=False)
    monkeypatch.setitem(sys.modules, "dm_control", None)


def listed(pattern):
    return {info.task: info for info in list_tasks(pattern)[0]}


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("", True),
        ("walker", True),
        ("WALKER-walk", True),
        ("walker*", False),
        ("*walker*", True),
        ("dmc/walker-[rw]*", True),
        ("dmc/walker-?alk", True),
        ("walker_walk", False),
    ],
)
def test_pattern_is_a_part_of_the_name_or_one_of_the_shell(pattern, matching):
    assert matches("dmc/walker-walk", pattern) == matching


def test_demonstrations_are_bundled_scripted_planned_or_none():
    tasks = listed("")
    assert tasks["dmc/walker-walk"].bundled > 0
    assert tasks["dmc/walker-walk"].expert == tasks["dmc/dog-trot"].expert == "none"
    assert (tasks["metaworld/window-open"].bundled > 0, tasks["metaworld/window-open"].expert) == (True, "scripted")
    assert (tasks["metaworld/door-open"].bundled, tasks["metaworld/door-open"].expert) == (0, "scripted")
    assert tasks["maniskill/PushCube"].expert == "planned"
    assert tasks["maniskill/PushT"].expert == "none"


def test_tasks_are_listed_without_being_made(monkeypatch):
    monkeypatch.setattr(catalog.registry, "make", None)
    tasks = listed("metaworld/")
    assert len(tasks) == 50
    assert {(info.obs_shape, info.action_dim, info.episode_length, info.loads) for info in tasks.values()} == {
        (None, None, None, None)
    }


@pytest.mark.usefixtures("without_dmc")
def test_missing_suite_lists_its_bundled_tasks_with_the_command():
    tasks, unlisted = list_tasks("walker-")
    by_name = {info.task: info for info in tasks}
    assert unlisted["dmc"] == by_name["dmc/walker-walk"].install == "pip install 'cdred[dmc]'"
    assert "dmc/walker-run" not in by_name
    assert by_name["dmc/walker-walk"].loads is False
    # What nothing on this machine knows.
    assert by_name["dmc/walker-walk"].expert is None


@pytest.mark.usefixtures("without_dmc")
def test_sizes_of_a_missing_task_stay_unknown():
    (info,) = with_sizes(list_tasks("dmc/walker-walk")[0], lambda _: None)
    assert (info.obs_shape, info.action_dim, info.episode_length) == (None, None, None)
    assert info.bundled > 0


def test_missing_interpreter_gives_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("CDRED_MANISKILL_PYTHON", str(tmp_path / "none"))
    info = listed("maniskill/PushCube")["maniskill/PushCube"]
    assert (info.loads, info.install) == (False, "make maniskill")


def test_gym_task_in_mujoco_needs_its_extra(monkeypatch):
    monkeypatch.setattr(catalog, "find_spec", lambda _: None)
    info = listed("gym/Hopper-v5")["gym/Hopper-v5"]
    assert (info.loads, info.install) == (False, "pip install 'cdred[mujoco]'")
    assert listed("gym/Pendulum-v1")["gym/Pendulum-v1"].loads is None


def test_sizes_are_those_of_the_environment():
    done = []
    tasks = [TaskInfo("gym/Pendulum-v1"), TaskInfo("probe/point", bundled=2, expert="scripted")]
    pendulum, point = with_sizes(tasks, done.append)
    assert pendulum == TaskInfo("gym/Pendulum-v1", (3,), 1, 200, loads=True)
    assert point == TaskInfo("probe/point", (4,), 2, 20, bundled=2, expert="scripted", loads=True)
    assert done == [1, 2]


def test_environment_that_is_refused_does_not_load():
    assert "CartPole-v1" in gymnasium.registry
    (info,) = with_sizes([TaskInfo("gym/CartPole-v1")], lambda _: None)
    assert (info.loads, info.obs_shape) == (False, None)
    assert "Discrete" in info.reason
