import subprocess
import sys

import pytest

from cdred.envs import registry
from cdred.errors import UserError


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("metaworld/bin-pick", "Did you mean metaworld/bin-picking"),
        ("dmc/cheetah_run", "Did you mean dmc/cheetah-run"),
        ("probe/piont", "Did you mean probe/point"),
        ("metaword/reach", "Did you mean metaworld"),
        ("gym/Pendulum-v11", "Did you mean gym/Pendulum-v1"),
        ("drawer-close", "expected SUITE/NAME"),
        ("metaworld/", "expected SUITE/NAME"),
    ],
)
def test_misspelt_names_say_what_was_meant(task, says):
    with pytest.raises(UserError, match=says):
        registry.make(task)


def test_names_are_what_make_takes():
    assert registry.names("probe") == ["probe/dying", "probe/point"]
    for task in registry.names("probe"):
        assert registry.make(task).spec.task == task


def test_a_missing_package_names_the_extra_and_keeps_the_cause(monkeypatch):
    monkeypatch.delitem(sys.modules, "cdred.envs.suites.metaworld", raising=False)
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)
    with pytest.raises(UserError, match=r"pip install 'cdred\[metaworld\]'") as caught:
        registry.make("metaworld/reach")
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_suite_is_imported_only_when_asked_for():
    script = (
        "import sys; from cdred.envs.registry import make; make('probe/point');"
        "sys.exit(bool({'metaworld', 'mujoco', 'dm_control', 'gymnasium'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("task", ["probe/dying", "gym/Pendulum-v1"])
def test_a_task_without_expert_points_to_demonstrations(task):
    with pytest.raises(UserError, match="--demos PATH"):
        registry.scripted_expert(task)
