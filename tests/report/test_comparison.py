"""Comparison of methods: table, figures and the command that trains them."""

import json
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

import cdred
from cdred.cli import main
from cdred.errors import UserError
from cdred.report.comparison import draw_curves, write_comparison
from cdred.report.results import read_run
from cdred.report.statistics import bootstrap_interval, iqm


def write_run(folder, algo, returns, success=(1.0, 0.5, 0.0), norms=((1.0, 4.0), (3.0, 8.0))):
    folder.mkdir()
    scores = {
        "episodes": 20,
        "return": list(returns),
        "success": success and list(success),
        "normalized": [value / 100 for value in returns],
        "expert_return": 100.0,
        "expert_success": 1.0,
        "random_return": 0.0,
        "random_success": 0.05,
    }
    settings = {"task": "suite/task", "preset": "cpu", "steps": 5000, "demos": 10, "seeds": [0, 1, 2], "algo": algo}
    result = settings | {"device": "cpu", "commit": "abc", "wall_seconds": 120.0, "eval": scores}
    (folder / "result.json").write_text(json.dumps(result))
    lines = [
        {"step": 100 * i, "kind": "train", "grad_norm": [mean] * 3, "grad_norm_max": [largest] * 3}
        for i, (mean, largest) in enumerate(norms)
    ]
    successes = {"success": list(success)} if success else {}
    lines.append({"step": 200, "kind": "eval", "episode_return": list(returns)} | successes)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path):
    return {
        "cdred": write_run(tmp_path / "cdred", "cdred", (90.0, 80.0, 70.0)),
        "bc": write_run(tmp_path / "bc", "bc", (85.0, 40.0, 70.0), success=(0.4, 0.2, 0.0), norms=((200.0, 9000.0),)),
    }


def test_table_has_the_results_of_each_run(tmp_path, runs):
    table = write_comparison(tmp_path, runs)
    assert (tmp_path / "table.md").read_text() == table
    assert "20 evaluation episodes per seed; success of expert 100 %, random 5 %." in table
    first, second = (line for line in table.splitlines() if line.startswith(("| cdred", "| bc")))
    assert "100 %, 50 %, 0 % | **50 %** | 0.80 (" in first
    assert "2 / 8 | – | 2 |" in first
    # Of 85, 40 and 70, 90 beats all three, 80 two, and 70 one and a half.
    assert f"2e+02 / 9e+03 | {(3 + 2 + 1.5) / 9:.2f} | 2 |" in second
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["task"] == "suite/task"
    assert [row["method"] for row in content["methods"]] == ["cdred", "bc"]
    assert content["methods"][0]["iqm"] == iqm([0.9, 0.8, 0.7])
    assert tuple(content["methods"][0]["interval"]) == bootstrap_interval([[0.9, 0.8, 0.7]])
    assert content["methods"][1]["gradient_norm_max"] == 9000.0


def test_table_has_returns_if_success_is_not_reported(tmp_path):
    table = write_comparison(tmp_path, {"red": write_run(tmp_path / "red", "red", (90.4, 80.0, 70.0), success=None)})
    assert "| method | return per seed |" in table
    assert "| red | 90, 80, 70 | **80** | 0.80 (" in table


def test_curves_image_shows_every_method(tmp_path, runs):
    write_comparison(tmp_path, runs)
    both = matplotlib.image.imread(tmp_path / "curves.png")
    write_comparison(tmp_path, {"cdred": runs["cdred"]})
    single = matplotlib.image.imread(tmp_path / "curves.png")
    assert both.shape == single.shape == (600, 1700, 4)
    assert not np.array_equal(both, single)


def test_curves_label_methods_and_reference_scores(runs):
    figure = draw_curves({name: read_run(run) for name, run in runs.items()})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Success", "Return"]
    for axes in figure.axes:
        assert {text.get_text() for text in axes.texts[1:]} == {"cdred", "bc", "expert", "random"}
    returns = figure.axes[1].lines
    # Per method three seeds, their mean as a dot and as a line; then the expert and the random policy.
    assert [list(line.get_ydata()) for line in returns[:5]] == [[90.0], [80.0], [70.0], [80.0], [80.0]]
    assert [list(line.get_ydata()) for line in returns[5:10]] == [[85.0], [40.0], [70.0], [65.0], [65.0]]
    assert [list(line.get_ydata()) for line in returns[10:]] == [[100.0, 100.0], [0.0, 0.0]]


def test_compare_command_trains_and_resumes(tmp_path, capsys):
    arguments = ["compare", "probe/point", "--out", str(tmp_path / "all"), "--preset", "debug"]
    arguments += ["--demos", "3", "--steps", "40", "--no-video", "--algos", "bc"]
    assert main.main(arguments) == 0
    assert "| bc |" in capsys.readouterr().out
    assert {"bc", "table.md", "table.json", "curves.png"} <= {path.name for path in (tmp_path / "all").iterdir()}
    before = (tmp_path / "all" / "bc" / "metrics.jsonl").read_text()
    assert main.main(arguments) == 0
    assert (tmp_path / "all" / "bc" / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(("out", "algos", "message"), [("", ("bc",), "--out"), ("x", ("bc", "bc"), "--algos")])
def test_compare_needs_a_folder_and_different_methods(out, algos, message):
    with pytest.raises(UserError, match=message):
        cdred.compare(replace(cdred.preset("debug"), out=out), algos)
