"""The commands of docs/quickstart.md, with a toy algorithm on a small task."""

import shlex
from pathlib import Path

import pytest

from cdred.cli.main import main
from doc_pages import code_blocks

PAGE = Path(__file__).parents[2] / "docs" / "quickstart.md"


@pytest.mark.usefixtures("toy")
def test_commands_and_python_use_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = code_blocks(PAGE, "sh")
    for line in block.splitlines():
        program, *arguments = shlex.split(line.replace("metaworld/window-open", "probe/point --preset debug"))
        assert program == "cdred"
        arguments = shlex.split(shlex.join(arguments).replace("--demos 10 --steps 5000", "--demos 3 --steps 100"))
        assert main(arguments) == 0, line
    assert (tmp_path / "runs/quickstart/result.json").exists()
    (block,) = code_blocks(PAGE, "python")
    namespace = {}
    exec(block, namespace)
    assert namespace["action"].shape == (namespace["agent"].spec.action_dim,)
