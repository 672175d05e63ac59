"""`cdred tasks`."""

import json
import re
import subprocess
import sys

import pytest

from cdred.cli import tasks
from cdred.cli.main import main


def rows(text):
    return {line.split()[0]: re.split(r" {2,}", line.strip()) for line in text.splitlines() if "/" in line.split()[0]}


def test_matching_tasks_have_sizes_and_demonstrations(capsys):
    assert main(["tasks", "gym/Pendulum"]) == 0
    table = rows(capsys.readouterr().out)
    assert table["gym/Pendulum-v1"] == ["gym/Pendulum-v1", "3", "1", "200", "none", "yes"]


def test_sizes_of_many_tasks_are_unknown_until_they_are_asked_for(capsys, monkeypatch):
    made = []
    monkeypatch.setattr(tasks, "with_sizes", lambda infos, _: made.extend(infos) or infos)
    assert main(["tasks", "metaworld/"]) == 0
    output = capsys.readouterr().out
    assert rows(output)["metaworld/door-open"] == ["metaworld/door-open", *"---", "scripted expert", "installed"]
    assert "50 tasks" in output
    assert "--sizes" in output
    assert made == []
    assert main(["tasks", "metaworld/", "--sizes"]) == 0
    assert len(made) == 50


def test_missing_suite_shows_the_command(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "cdred.envs.suites.dmc", raising=False)
    monkeypatch.setitem(sys.modules, "dm_control", None)
    assert main(["tasks", "dmc/walker-walk"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"dmc/walker-walk +- +- +- +bundled \d+ +pip install 'cdred\[dmc\]'", output)
    assert "dmc cannot list its tasks: pip install 'cdred[dmc]'" in output


def test_reason_of_a_refusal_is_below_the_table(capsys):
    assert main(["tasks", "gym/CartPole-v1"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^gym/CartPole-v1 +- +- +- +none +no *$", output, re.M)
    (reason,) = [line for line in output.splitlines() if line.startswith("no: ")]
    assert "Discrete" in reason
    assert reason.count("gym/CartPole-v1") == 1


def test_json_has_null_for_what_is_unknown(capsys, monkeypatch):
    monkeypatch.setenv("CDRED_MANISKILL_PYTHON", "/nowhere/python")
    assert main(["tasks", "maniskill/PushT", "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)
    assert (task["task"], task["bundled"], task["expert"]) == ("maniskill/PushT", 0, "none")
    assert task["obs_shape"] is None


def test_pattern_without_a_match_is_an_error_with_a_suggestion(capsys):
    assert main(["tasks", "dmc/walkr-walk"]) == 2
    error = capsys.readouterr().err
    assert "no task matches 'dmc/walkr-walk'. Did you mean dmc/walker-walk" in error


@pytest.mark.parametrize("verb", ["tasks", "doctor"])
def test_help_imports_no_jax_and_no_simulator(verb):
    code = (
        "import sys\nfrom cdred.cli.main import main\n"
        f"try:\n    main([{verb!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sorted({'jax', 'mujoco', 'dm_control', 'metaworld', 'gymnasium'} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: cdred" in process.stdout
    assert process.stderr.strip() == ""
