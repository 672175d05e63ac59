"""The commands of the tutorial, on a small task with tiny networks."""

import json
import re
import shlex
from pathlib import Path

import pytest

from cdred.cli.main import main
from doc_pages import code_blocks

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
TASK, SMALL_TASK = "metaworld/window-open", "probe/point"


def commands():
    blocks = [block.replace("\\\n", "") for block in code_blocks(TUTORIAL, "sh")]
    lines = [line for block in blocks for line in block.splitlines() if line]
    return [shlex.split(line.replace(TASK, SMALL_TASK)) for line in lines]


def shrink(arguments):
    """Replace the number of steps and episodes, and train with the debug preset."""
    text = re.sub(r"--(episodes|num) \d+", r"--\1 3", shlex.join(arguments))
    if arguments[0] in ("train", "compare"):
        text = re.sub(r"--steps \d+", "--preset debug --steps 40", text)
    return shlex.split(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder in which all commands of the tutorial were run."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for program, *arguments in commands():
            assert program == "cdred"
            assert main(shrink(arguments)) == 0, shlex.join(arguments)
    return folder


def test_commands_write_the_promised_files(folder):
    promised = re.findall(r"`((?:runs|demos)/[\w./-]+|\w+\.(?:png|json|md))`", TUTORIAL.read_text())
    # Files named without a folder, and not written to the working folder, belong to the run folder.
    paths = [folder / name if "/" in name else next(iter(folder.rglob(name)), folder / name) for name in set(promised)]
    assert len(paths) >= 10
    assert [path for path in paths if not path.exists()] == []
    assert {path.name for path in folder.iterdir()} == {"actions.png", "demos", "eval.json", "runs", "table.md"}


def test_result_and_evaluation_have_the_documented_keys(folder):
    run = folder / "runs/window-open/cdred"
    result = json.loads((run / "result.json").read_text())
    documented = {"task", "algo", "preset", "seeds", "steps", "updates", "device", "commit", "versions", "wall_seconds"}
    assert documented <= result.keys()
    scores = {"return", "success", "success_at_end", "expert_return", "expert_success", "random_return", "normalized"}
    assert scores <= result["eval"].keys()
    assert (result["steps"], result["eval"]["episodes"]) == (40, 2)
    assert (run / "videos" / "expert-and-agent.mp4").stat().st_size > 1000
    assert json.loads((folder / "eval.json").read_text())["episodes"] == 3
    assert SMALL_TASK in (folder / "table.md").read_text()


def test_comparison_reuses_the_run(folder):
    table = (folder / "runs/window-open/table.md").read_text()
    assert "cdred" in table
    assert "bc" in table
    assert {path.name for path in (folder / "runs/window-open").iterdir() if path.is_dir()} == {"cdred", "bc"}


def test_python_block_runs_in_that_folder(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (block,) = code_blocks(TUTORIAL, "python")
    exec(block, {})
    assert re.search(r"expert -?[\d.]+\nrandom -?[\d.]+", capsys.readouterr().out)
