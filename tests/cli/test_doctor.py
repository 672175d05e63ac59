"""`cdred doctor`: exit codes, table, JSON."""

import json

import pytest

from cdred.cli import doctor
from cdred.cli.main import main
from cdred.doctor.checks import Check
from cdred.doctor.suites import Probed

OK = Check("packages", "ok", "jax 0.10.2")
MISSING = Check("mjx", "missing", "playground is not installed", "make mjx")
LONG = "pip install " + " ".join(f"'package{number}>=1'" for number in range(30))
PROBLEM = Check("dmc", "problem", "[red]no task[/red] \x1b[2J", f"{LONG}\nsecond command")


@pytest.fixture
def found(monkeypatch):
    """Return a function that sets the results of all checks."""

    def set_checks(*checks):
        monkeypatch.setattr(doctor, "run_checks", lambda _: iter(checks))

    return set_checks


def test_exit_code_is_1_only_for_a_problem(found, capsys):
    found(OK, MISSING)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no problem"
    found(OK, PROBLEM, MISSING)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "problem: dmc"


def test_commands_are_printed_in_one_line_and_text_is_literal(found, capsys):
    found(OK, PROBLEM, MISSING)
    main(["doctor"])
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert f"  dmc: {LONG}" in lines
    assert "  dmc: second command" in lines
    assert "  mjx: make mjx" in lines
    assert "[red]no task[/red] \\x1b[2J" in output


def test_json_has_all_checks(found, capsys):
    found(OK, PROBLEM)
    assert main(["doctor", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    assert result["checks"][0] == {"name": "packages", "mark": "ok", "result": "jax 0.10.2", "fix": ""}
    assert result["checks"][1]["fix"] == PROBLEM.fix


def test_self_test_may_be_left_out(monkeypatch, spec):
    specs = []
    monkeypatch.setattr(doctor, "probe_suites", lambda: [Probed(MISSING), Probed(OK, spec)])
    monkeypatch.setattr(doctor, "check_device", lambda preset, spec: specs.append((preset, spec)) or [])
    monkeypatch.setattr(doctor, "check_rendering", lambda: OK)
    monkeypatch.setattr(doctor, "check_training", lambda: Check("self-test", "ok", "40 updates"))
    names = [check.name for check in doctor.run_checks(doctor.DoctorOptions(preset="paper"))]
    assert names == ["Python", "packages", "mjx", "packages", "packages", "self-test"]
    assert "self-test" not in [check.name for check in doctor.run_checks(doctor.DoctorOptions(self_test=False))]
    assert specs == [("paper", spec), ("cpu", spec)]


def test_unknown_task_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "probe_suites", list)
    assert main(["doctor", "--task", "probe/pint"]) == 2
    assert "Did you mean probe/point?" in capsys.readouterr().err
