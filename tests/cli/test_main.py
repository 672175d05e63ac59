import json

import pytest

from cdred.cli.main import main
from cdred.cli.train import parse


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in ("train", "eval", "demos", "report"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "no verb 'trian'"),
        (["train", "probe/pint", "--out", "OUT"], "Did you mean probe/point?"),
        (["train", "nowhere/task", "--out", "OUT"], "no suite 'nowhere'"),
        (["train", "probe/point", "--preset", "cup"], "--preset cup"),
        (["train", "probe/point", "--demos", "missing.npz", "--out", "OUT"], "missing.npz"),
        (["eval", "OUT"], "is not a run"),
        (["demos", "info", "OUT"], "no demonstrations at"),
        (["demos", "collect", "probe/dying", "--out", "OUT"], "no scripted expert"),
    ],
)
def test_what_the_user_can_mend_is_said_in_a_few_lines_and_exits_with_2(words, says, tmp_path, capsys):
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") <= 3
    assert "Traceback" not in error


def test_options_override_the_preset_that_is_named():
    config = parse(["probe/point", "--preset", "debug", "--seeds", "3", "4", "--reward.zeta", "1.0", "--demos", "7"])
    assert (config.task, config.seeds, config.reward.zeta, config.demos) == ("probe/point", (3, 4), 1.0, "7")
    assert config.optim.batch_size == 8
    assert parse(["probe/point", "--preset=paper"]).optim.batch_size == 256
    assert parse(["probe/point"]).optim.batch_size == 64


def test_the_contract_from_demonstrations_to_evaluation(tmp_path, capsys):
    demos, run = tmp_path / "demos", tmp_path / "run"
    assert main(["demos", "collect", "probe/point", "--num", "3", "--out", str(demos)]) == 0
    assert main(["demos", "info", str(demos)]) == 0
    assert "3, 20 to 20 steps" in capsys.readouterr().out
    train = ["train", "probe/point", "--preset", "debug", "--demos", str(demos), "--steps", "40", "--seeds", "0"]
    assert main([*train, "--out", str(run)]) == 0
    assert json.loads((run / "result.json").read_text())["eval"]["episodes"] == 2
    assert (run / "videos" / "expert-and-agent.mp4").stat().st_size > 1000
    evaluation = tmp_path / "eval.json"
    words = ["eval", str(run), "--episodes", "3", "--planner", "policy", "--json", str(evaluation)]
    assert main(words) == 0
    assert json.loads(evaluation.read_text())["episodes"] == 3
    table = tmp_path / "table.md"
    assert main(["report", str(run), "--table", str(table)]) == 0
    assert "probe/point" in table.read_text()
