import json

import numpy as np
import pytest

from cdred.cli.main import main
from cdred.data.demonstrations import load_demos


@pytest.fixture
def wide(tmp_path):
    """A file of two episodes whose actions are in [0, 4], success at the end unknown."""
    path = tmp_path / "wide.npz"
    action = np.linspace(0, 4, 20).reshape(2, 5, 2)
    np.savez(path, obs=np.zeros((2, 6, 3)), action=action, reward=np.ones((2, 5)))
    return path


def run(capsys, *words):
    """Exit code, and what was said on standard output and error, as one line each."""
    code = main(["demos", *map(str, words)])
    said = capsys.readouterr()
    return code, " ".join(said.out.split()), " ".join(said.err.split())


@pytest.mark.parametrize(("name", "kind"), [("d", "is_dir"), ("d.npz", "is_file")])
def test_convert_rescales_names_and_saves_by_suffix(wide, tmp_path, capsys, name, kind):
    code, out, _ = run(capsys, "convert", wide, tmp_path / name, "--rescale-actions", "--task", "probe/point")
    assert code == 0
    assert "fit to learn from yes" in out
    assert getattr(tmp_path / name, kind)()
    dataset = load_demos(tmp_path / name)
    assert dataset.task == "probe/point"
    assert (dataset[0].action[0, 0], dataset[1].action[-1, -1]) == (-1, 1)
    assert dataset.provenance["actions_rescaled"]["high"] == pytest.approx([3.789, 4.0], abs=1e-3)


def test_convert_writes_lerobot_and_reads_it_back(wide, tmp_path, capsys):
    assert run(capsys, "convert", wide, tmp_path / "robot", "--format", "lerobot", "--rescale-actions")[0] == 0
    assert (tmp_path / "robot/meta/info.json").exists()
    again = ("convert", tmp_path / "robot", tmp_path / "state", "--obs-keys", "observation.state")
    assert run(capsys, *again)[0] == 0
    assert len(load_demos(tmp_path / "state")[0]) == 5


def test_convert_refuses_before_it_reads_or_writes(wide, tmp_path, capsys):
    code, _, error = run(capsys, "convert", wide, tmp_path / "out")
    assert code == 2
    assert "expected [-1, 1]" in error
    assert "--rescale-actions" in error
    assert not (tmp_path / "out").exists()
    taken = run(capsys, "convert", tmp_path / "missing", wide)
    assert taken[2] == f"cdred: {wide} exists already: remove it, or save elsewhere."


def test_info_shows_what_is_not_fit_to_learn_from(wide, tmp_path, capsys):
    code, out, _ = run(capsys, "info", wide, "--plot", tmp_path / "a.png")
    assert code == 0
    assert "episodes 2, 5 to 5 steps" in out
    assert "action (2,), from 0.00 to 4.00" in out
    assert "fit to learn from no:" in out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_info_as_json_is_json_and_nothing_else(wide, capsys):
    assert main(["demos", "info", str(wide), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["action"]["max"][1]) == (2, 4.0)
    assert "expected [-1, 1]" in found["unfit"]


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("convert", ("SRC", "DST", "--task", "--obs-keys", "--format", "--rescale-actions", "never pictures")),
        ("info", ("--obs-keys", "--plot", "--json")),
    ],
)
def test_help_tells_of_every_option(verb, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["demos", verb, "--help"])
    assert exit_.value.code == 0
    said = capsys.readouterr().out
    assert all(word in said for word in words)
