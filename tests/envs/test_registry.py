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


@pytest.mark.parametrize("task", ["probe/dying", "gym/Pendulum-v1"])
def test_missing_expert_error_suggests_demonstrations(task):
    with pytest.raises(UserError, match="--demos PATH"):
        registry.scripted_expert(task)
