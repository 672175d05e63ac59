import subprocess
import sys

import pytest

from cdred.envs import registry
from cdred.errors import UserError


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("metaworld/bin-pick", "Did you mean metaworld/bin-picking"),
        ("dmc/cheetah_run", "Did you mean dmc/cheetah-run"),
        ("probe/piont", "Did you mean probe/point"),
        ("metaword/reach", "Did you mean metaworld"),
        ("gym/Pendulum-v11", "Did you mean gym/Pendulum-v1"),
        ("drawer-close", "expected SUITE/NAME"),
        ("metaworld/", "expected SUITE/NAME"),
        ("dmc/cheetah-run?repaet=1", r"unknown parameter 'repaet'.*'dmc/cheetah-run\?repeat=1'"),
        ("dmc/cheetah-run?", "unknown parameter ''"),
        ("dmc/cheetah-run?repeat=1&repeat=4", r"use the name 'dmc/cheetah-run\?repeat=4' of this task"),
        ("dmc/cheetah-run?repeat=3", r"divisor of the 1000 frames of an episode \(1, 2, 4, 5, 8, .*got '3'"),
        ("dmc/cheetah-run?repeat=01", "got '01'"),
        ("dmc/cheetah-run?repeat=0", "got '0'"),
        ("dmc/cheetah-run?repeat=2", "2 is the suite's action repeat, use the plain name 'dmc/cheetah-run'"),
        ("dmc/cheeta-run?repeat=1", "no task 'dmc/cheeta-run'. Did you mean dmc/cheetah-run"),
        ("metaworld/reach?repeat=16", r"divisor of the 200 frames"),
        ("probe/point?repeat=1", "tasks of this suite have no parameter repeat, expected 'probe/point'"),
        ("gym/Pendulum-v1?repeat=1", "tasks of this suite have no parameter repeat"),
    ],
)
def test_misspelt_task_gives_a_suggestion(task, message):
    with pytest.raises(UserError, match=message):
        registry.make(task)


def test_listed_tasks_can_be_made():
    assert registry.list_tasks("probe") == ["probe/dying", "probe/point"]
    for task in registry.list_tasks("probe"):
        assert registry.make(task).spec.task == task


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "cdred.envs.suites.metaworld", raising=False)
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)
    with pytest.raises(UserError, match=r"pip install 'cdred\[metaworld\]'") as caught:
        registry.make("metaworld/reach")
    assert isinstance(caught.value.__cause__, ImportError)


def test_suites_are_imported_on_first_use():
    script = (
        "import sys; from cdred.envs.registry import make; make('probe/point');"
        "sys.exit(bool({'metaworld', 'mujoco', 'dm_control', 'gymnasium'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("task", "action_repeat", "named"),
    [
        ("dmc/walker-walk", 1, "dmc/walker-walk?repeat=1"),
        ("dmc/walker-walk?repeat=1", 4, "dmc/walker-walk?repeat=4"),
        ("dmc/walker-walk?repeat=1", 2, "dmc/walker-walk"),
        ("probe/point", 1, "probe/point"),
    ],
)
def test_name_of_a_task_at_another_action_repeat(task, action_repeat, named):
    assert registry.at_action_repeat(task, action_repeat) == named


def test_action_repeat_that_a_task_cannot_have_has_no_name():
    for task, action_repeat in (("dmc/walker-walk", 3), ("probe/point", 2), ("dmc/walker", 1)):
        with pytest.raises(UserError):
            registry.at_action_repeat(task, action_repeat)


def test_missing_expert_error_quotes_the_name_for_the_shell():
    with pytest.raises(UserError, match=r"train-expert 'dmc/walker-walk\?repeat=1'"):
        registry.scripted_expert("dmc/walker-walk?repeat=1")


@pytest.mark.parametrize("task", ["probe/dying", "gym/Pendulum-v1"])
def test_missing_expert_error_suggests_demonstrations(task):
    with pytest.raises(UserError, match="--demos PATH"):
        registry.scripted_expert(task)
