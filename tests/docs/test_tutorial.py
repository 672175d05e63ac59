"""The commands of the tutorial, on a small task with tiny networks."""

import json
import re
import shlex
from pathlib import Path

from cdred.cli.main import main
from doc_pages import code_blocks

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
TASK, SMALL_TASK = "metaworld/window-open", "probe/point"


def commands():
    blocks = [block.replace("\\\n", "") for block in code_blocks(TUTORIAL, "sh")]
    lines = [line for block in blocks for line in block.splitlines() if line]
    return [shlex.split(line.replace(TASK, SMALL_TASK)) for line in lines]


def shrink(arguments):
    """Replace the number of episodes, and train with the settings of `runs.run_config`, to share its cache."""
    text = re.sub(r"--(episodes|num) \d+", r"--\1 3", shlex.join(arguments))
    if arguments[0] in ("train", "compare"):
        text = re.sub(r"--steps \d+ --seeds 0", "--preset debug --seeds 0 1", text)
    return shlex.split(text)


def test_commands_write_what_the_tutorial_promises(tmp_path, monkeypatch, capsys):
    """One test, because a fixture of this module would run the commands once per worker."""
    monkeypatch.chdir(tmp_path)
    for program, *arguments in commands():
        assert program == "cdred"
        assert main(shrink(arguments)) == 0, shlex.join(arguments)
    assert_promised_files(tmp_path)
    assert_documented_keys(tmp_path)
    table = (tmp_path / "runs/window-open/table.md").read_text()
    assert all(algo in table for algo in ("cdred", "bc"))
    assert {path.name for path in (tmp_path / "runs/window-open").iterdir() if path.is_dir()} == {"cdred", "bc"}
    capsys.readouterr()
    (block,) = code_blocks(TUTORIAL, "python")
    exec(block, {})
    assert re.search(r"expert -?[\d.]+\nrandom -?[\d.]+", capsys.readouterr().out)


def assert_promised_files(folder):
    promised = re.findall(r"`((?:runs|demos)/[\w./-]+|\w+\.(?:png|json|md))`", TUTORIAL.read_text())
    # Files named without a folder, and not written to the working folder, belong to the run folder.
    paths = [folder / name if "/" in name else next(iter(folder.rglob(name)), folder / name) for name in set(promised)]
    assert len(paths) >= 10
    assert [path for path in paths if not path.exists()] == []
    assert {path.name for path in folder.iterdir()} == {
        "actions.png",
        "demos",
        "eval.json",
        "report.html",
        "runs",
        "table.md",
    }
    assert (folder / "runs/window-open/cdred/videos/expert-and-agent.mp4").stat().st_size > 1000


def assert_documented_keys(folder):
    result = json.loads((folder / "runs/window-open/cdred/result.json").read_text())
    documented = {"task", "algo", "preset", "seeds", "steps", "updates", "device", "commit", "versions", "wall_seconds"}
    assert documented <= result.keys()
    scores = {"return", "returns", "success", "success_at_end", "normalized"}
    scores |= {"expert_return", "expert_success", "random_return"}
    assert scores <= result["eval"].keys()
    assert (result["steps"], result["eval"]["episodes"]) == (200, 2)
    assert json.loads((folder / "eval.json").read_text())["episodes"] == 3
    assert SMALL_TASK in (folder / "table.md").read_text()
