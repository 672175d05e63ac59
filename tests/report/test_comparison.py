"""A comparison says what the runs' results say, held against the first method."""

import json
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

import cdred
from cdred.cli import main
from cdred.errors import UserError
from cdred.report.comparison import write_comparison
from cdred.report.statistics import bootstrap_interval, iqm, probability_of_improvement


def write_run(folder, algo, returns, success=(1.0, 0.5, 0.0), norms=((1.0, 4.0), (3.0, 8.0))):
    folder.mkdir()
    scores = {
        "episodes": 20,
        "return": list(returns),
        "success": success and list(success),
        "normalized": [one / 100 for one in returns],
        "expert_return": 100.0,
        "expert_success": 1.0,
        "random_return": 0.0,
        "random_success": 0.05,
    }
    about = {"task": "suite/task", "preset": "cpu", "steps": 5000, "demos": 10, "seeds": [0, 1, 2], "algo": algo}
    result = about | {"device": "cpu", "commit": "abc", "wall_seconds": 120.0, "eval": scores}
    (folder / "result.json").write_text(json.dumps(result))
    lines = [
        {"step": 100 * i, "kind": "train", "grad_norm": [mean] * 3, "grad_norm_max": [most] * 3}
        for i, (mean, most) in enumerate(norms)
    ]
    told = {"success": list(success)} if success else {}
    lines.append({"step": 200, "kind": "eval", "episode_return": list(returns)} | told)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path):
    return {
        "cdred": write_run(tmp_path / "cdred", "cdred", (90.0, 80.0, 70.0)),
        "bc": write_run(tmp_path / "bc", "bc", (85.0, 40.0, 70.0), success=(0.4, 0.2, 0.0), norms=((200.0, 9000.0),)),
    }


def test_the_table_says_what_the_results_say(tmp_path, runs):
    table = write_comparison(tmp_path, runs)
    assert (tmp_path / "table.md").read_text() == table
    first, second = (line for line in table.splitlines() if line.startswith(("| cdred", "| bc")))
    assert "100 %, 50 %, 0 % | **50 %** | 0.80 (" in first
    assert "2 / 8 | – | 2 |" in first
    # Of 85, 40 and 70, 90 beats all three, 80 two, and 70 one and a half.
    assert f"2e+02 / 9e+03 | {(3 + 2 + 1.5) / 9:.2f} | 2 |" in second
    told = json.loads((tmp_path / "table.json").read_text())
    assert told["task"] == "suite/task"
    assert [row["method"] for row in told["methods"]] == ["cdred", "bc"]
    assert told["methods"][0]["iqm"] == iqm([0.9, 0.8, 0.7])
    assert tuple(told["methods"][0]["interval"]) == bootstrap_interval([[0.9, 0.8, 0.7]])
    assert told["methods"][1]["gradient_norm_max"] == 9000.0


def test_returns_stand_for_successes_where_the_task_tells_none(tmp_path):
    table = write_comparison(tmp_path, {"red": write_run(tmp_path / "red", "red", (90.4, 80.0, 70.0), success=None)})
    assert "| method | return per seed |" in table
    assert "| red | 90, 80, 70 | **80** | 0.80 (" in table


def test_the_picture_shows_every_method(tmp_path, runs):
    write_comparison(tmp_path, runs)
    both = matplotlib.image.imread(tmp_path / "curves.png")
    write_comparison(tmp_path, {"cdred": runs["cdred"]})
    one = matplotlib.image.imread(tmp_path / "curves.png")
    assert both.shape == one.shape == (600, 1700, 4)
    assert not np.array_equal(both, one)


def test_how_often_one_beats_the_other():
    assert probability_of_improvement([1.0, 2.0], [0.0, 0.5]) == 1.0
    assert probability_of_improvement([1.0, 2.0], [1.0, 2.0]) == 0.5
    assert probability_of_improvement([0.0, 3.0], [1.0, 1.0, 3.0]) == pytest.approx(2.5 / 6)


def test_a_comparison_from_the_command_line_trains_and_goes_on(tmp_path, capsys):
    settings = {"preset": "debug", "demos": "3", "steps": "40", "video": "False", "algos": "bc"}
    words = ["compare", "probe/point", "--out", str(tmp_path / "all")]
    words += [word for name, value in settings.items() for word in (f"--{name}", value)]
    assert main.main(words) == 0
    assert "| bc |" in capsys.readouterr().out
    assert {"bc", "table.md", "table.json", "curves.png"} <= {one.name for one in (tmp_path / "all").iterdir()}
    before = (tmp_path / "all" / "bc" / "metrics.jsonl").read_text()
    assert main.main(words) == 0
    assert (tmp_path / "all" / "bc" / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(("out", "algos", "says"), [("", ("bc",), "--out"), ("x", ("bc", "bc"), "--algos")])
def test_a_comparison_needs_a_folder_and_different_methods(out, algos, says):
    with pytest.raises(UserError, match=says):
        cdred.api.compare(replace(cdred.preset("debug"), out=out), algos)
