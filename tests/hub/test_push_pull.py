"""Push and pull of a run by a folder: what arrives, what it can do, and what is refused."""

import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import cdred
from cdred.checkpoint import checkpoint
from cdred.cli.main import main
from cdred.config_file import read_config
from cdred.errors import UserError
from cdred.hub import push as push_module
from cdred.hub.manifest import MANIFEST, list_files, write_manifest
from cdred.hub.pull import pull
from cdred.hub.push import push
from runs import arrays, assert_same_arrays, metric_lines

SILENT = {"log": lambda _: None}


def contents(folder):
    return {name: (folder / name).read_bytes() for name in list_files(folder)}


@pytest.fixture(scope="module")
def original(reference_run, tmp_path_factory):
    """Copy of the reference run with the report and the video that the toy algorithm leaves out; read-only."""
    run = Path(shutil.copytree(reference_run, tmp_path_factory.mktemp("original") / "run"))
    (run / "videos").mkdir()
    (run / "videos" / "agent.mp4").write_bytes(b"video")
    (run / "report.png").write_bytes(b"report")
    return run


@pytest.fixture
def pushed(original, tmp_path):
    """Folder of the reference run as pushed."""
    return Path(push(original, str(tmp_path / "shared" / "pushed"), **SILENT))


@pytest.fixture
def run(original, tmp_path):
    """Copy of the reference run, which may be changed."""
    return Path(shutil.copytree(original, tmp_path / "mine"))


def test_only_what_evaluating_needs_is_pushed(original, pushed):
    newest = checkpoint.latest(original / "checkpoints")
    assert len(checkpoint.complete(original / "checkpoints")) > 1
    files = {"config.yaml", "result.json", "metrics.jsonl", "demonstrations.json", "report.png"}
    stored = {f"checkpoints/{newest.name}/{name}" for name in ("checkpoint.json", "state.safetensors")}
    assert set(list_files(pushed)) == files | stored | {"videos/agent.mp4", MANIFEST, "README.md"}
    assert not (pushed / "checkpoints" / newest.name / "state.safetensors").is_symlink()
    assert set(checkpoint.files(newest)) > {"state.safetensors"}


@pytest.mark.usefixtures("toy")
def test_pulled_run_evaluates_and_reports_as_the_original(original, pushed, tmp_path):
    messages = []
    pulled = pull(str(pushed), tmp_path / "pulled", log=messages.append)
    assert messages == [f"8 files of {pushed} verified: {pulled}"]
    expected = cdred.evaluate(original, episodes=2, **SILENT)
    assert cdred.evaluate(pulled, episodes=2, **SILENT) == expected
    assert metric_lines(pulled) == metric_lines(original)
    assert main(["report", str(pulled)]) == 0
    assert (pulled / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("toy")
def test_all_checkpoints_include_the_best(original, tmp_path):
    pushed = push(original, str(tmp_path / "pushed"), all_checkpoints=True, **SILENT)
    pulled = pull(pushed, tmp_path / "pulled", **SILENT)
    names = {folder.name for folder in (pulled / "checkpoints").iterdir()}
    assert names == {folder.name for folder in checkpoint.complete(original / "checkpoints")}
    expected = cdred.evaluate(original, episodes=1, best=True, **SILENT)
    assert cdred.evaluate(pulled, episodes=1, best=True, **SILENT) == expected


@pytest.mark.usefixtures("toy")
def test_run_without_replay_buffer_returns_its_result_but_is_not_resumed(original, pushed, tmp_path):
    pulled = pull(str(pushed), tmp_path / "pulled", **SILENT)
    config = replace(read_config(original / "config.yaml"), out=str(pulled))
    assert cdred.train(config, quiet=True) == json.loads((original / "result.json").read_text())
    before = contents(pulled)
    with pytest.raises(UserError, match=r"cannot be resumed, only evaluated.\nPull one that was pushed with"):
        cdred.train(replace(config, steps=config.steps + 40), quiet=True)
    assert contents(pulled) == before


@pytest.mark.usefixtures("toy")
def test_run_with_replay_buffer_is_resumed_exactly(run, tmp_path):
    pushed = push(run, str(tmp_path / "pushed"), replay_buffer=True, **SILENT)
    pulled, config = pull(pushed, tmp_path / "pulled", **SILENT), read_config(run / "config.yaml")
    for out in (run, pulled):
        cdred.train(replace(config, out=str(out), steps=config.steps + 40), quiet=True)
    assert_same_arrays(arrays(run), arrays(pulled))
    assert metric_lines(run) == metric_lines(pulled)


def test_paths_of_this_machine_are_not_pushed(run, tmp_path, monkeypatch):
    home = tmp_path / "jane"
    monkeypatch.setenv("HOME", str(home))
    config = read_config(run / "config.yaml")
    text = yaml.safe_load((run / "config.yaml").read_text())
    text |= {"demos": str(home / "demos.npz"), "imports": [str(home / "task.py")]}
    (run / "config.yaml").write_text(yaml.safe_dump(text))
    result = json.loads((run / "result.json").read_text())
    result["demos_provenance"] = {"rescaled": f"from {home}/demos.npz", "author": "Jane"}
    (run / "result.json").write_text(json.dumps(result))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 1, "kind": "note", "text": f"in {run}/x and {home}"}) + "\n")
    messages = []
    pushed = Path(push(run, str(tmp_path / "pushed"), log=messages.append))
    for name, content in contents(pushed).items():
        assert str(tmp_path).encode() not in content, name
        assert str(home).encode() not in content, name
    assert read_config(pushed / "config.yaml") == replace(config, demos="demos.npz", imports=("task.py",), out="")
    assert json.loads((pushed / "result.json").read_text())["demos_provenance"]["rescaled"] == "from demos.npz"
    assert any("paths of this machine left out" in message for message in messages)
    assert any("task.py, is not pushed" in message for message in messages)
    pulled = []
    pull(str(pushed), tmp_path / "pulled", log=pulled.append)
    assert "names code that is executed" in pulled[-1]
    assert "task.py" in pulled[-1]


def test_sizes_are_logged_before_anything_is_uploaded(original, tmp_path):
    messages = []
    pushed = Path(push(original, str(tmp_path / "pushed"), log=messages.append))
    total = sum(size for name, size in list_files(pushed).items() if name not in (MANIFEST, "README.md"))
    assert messages[0] == f"8 files, {total:,} bytes:"
    sizes = [int(line.split()[-1].replace(",", "")) for line in messages[1:-1]]
    assert sum(sizes) == total
    assert "--replay-buffer" in messages[-1]


def alter(folder):
    path = next(folder.rglob("state.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def truncate(folder):
    next(folder.rglob("state.safetensors")).write_bytes(b"")


def remove(folder):
    (folder / "metrics.jsonl").unlink()


def add(folder):
    (folder / "checkpoints" / "more.py").write_text("")


def link(folder):
    (folder / "metrics.jsonl").rename(folder.parent / "metrics.jsonl")
    (folder / "metrics.jsonl").symlink_to(folder.parent / "metrics.jsonl")


def leave(folder):
    content = json.loads((folder / MANIFEST).read_text())
    content["files"]["../escaped"] = content["files"].pop("report.png")
    (folder / MANIFEST).write_text(json.dumps(content))


def damage_settings(folder):
    (folder / "config.yaml").write_text("steps: never")
    (folder / MANIFEST).unlink()
    write_manifest(folder, "1.0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (alter, "is not the file that was pushed: its SHA-256"),
        (truncate, "has 0 bytes, in manifest.json"),
        (remove, "metrics.jsonl is missing"),
        (add, "checkpoints/more.py is not in manifest.json"),
        (link, "is a link, which is not followed"),
        (leave, "'../escaped', which is not a path below"),
        (damage_settings, "steps"),
        (lambda folder: (folder / MANIFEST).unlink(), "has no manifest.json"),
    ],
)
def test_what_was_not_pushed_is_refused_and_nothing_is_written(change, message, pushed, tmp_path):
    change(pushed)
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match=message):
        pull(str(pushed), tmp_path / "new" / "run", **SILENT)
    assert list((tmp_path / "new").iterdir()) == []
    assert not (tmp_path / "escaped").exists()


def test_edited_model_card_is_neither_verified_nor_pulled(pushed, tmp_path):
    (pushed / "README.md").write_text("edited on the hub")
    pulled = pull(str(pushed), tmp_path / "pulled", **SILENT)
    assert not (pulled / "README.md").exists()


def test_existing_run_is_kept_if_it_is_the_same_and_an_error_otherwise(pushed, tmp_path):
    pulled, messages = pull(str(pushed), tmp_path / "pulled", **SILENT), []
    (pulled / ".lock").write_text("process 1")
    before = contents(pulled)
    assert pull(str(pushed), pulled, log=messages.append) == pulled
    assert messages == [f"{pulled} has the same files already"]
    assert contents(pulled) == before
    alter(pulled)
    with pytest.raises(UserError, match=r"not the same run: .*state\.safetensors has other content"):
        pull(str(pushed), pulled, **SILENT)
    (pulled / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not the same run: mine\.txt is not in"):
        pull(str(pushed), pulled, **SILENT)


def test_interrupted_push_or_pull_leaves_nothing(original, pushed, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    (tmp_path / "new").mkdir()
    monkeypatch.setattr(push_module, "write_manifest", interrupt)
    with pytest.raises(KeyboardInterrupt):
        push(original, str(tmp_path / "new" / "pushed"), **SILENT)
    monkeypatch.setattr("cdred.hub.pull.read_config", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pull(str(pushed), tmp_path / "new" / "pulled", **SILENT)
    assert list((tmp_path / "new").iterdir()) == []


def test_push_to_an_existing_folder_is_refused(original, pushed):
    before = contents(pushed)
    with pytest.raises(UserError, match="pushed exists already"):
        push(original, str(pushed), **SILENT)
    assert contents(pushed) == before


def test_damaged_checkpoint_is_not_pushed(run, tmp_path):
    alter(checkpoint.latest(run / "checkpoints"))
    with pytest.raises(UserError, match=r"state\.safetensors is damaged"):
        push(run, str(tmp_path / "pushed"), **SILENT)
    assert not (tmp_path / "pushed").exists()


def test_run_in_training_is_not_pushed(run, tmp_path):
    with (run / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is in use by"):
            push(run, str(tmp_path / "pushed"), **SILENT)


def test_unfinished_run_is_pushed_and_its_card_says_so(run, tmp_path):
    (run / "result.json").unlink()
    pushed = Path(push(run, str(tmp_path / "pushed"), **SILENT))
    assert "result.json" not in list_files(pushed)
    card = (pushed / "README.md").read_text()
    assert "the run has not finished" in card
    assert "no final evaluation" in card
    assert "commit `unknown`" in card


def test_card_states_the_run_and_its_scores(original, pushed, tmp_path):
    result = json.loads((original / "result.json").read_text())
    _, front, body = (pushed / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["library_name"] == "cdred"
    assert {"imitation-learning", "cdred", "probe/point"} <= set(front["tags"])
    assert "license" not in front
    demos = json.loads((original / "demonstrations.json").read_text())
    assert f"{demos['episodes']} episodes, {demos['steps']} steps" in body
    assert demos["sha256"][:60] in body
    assert "cdred pull pushed runs/pulled" in body
    rows = [line.split(" | ") for line in body.splitlines() if line.startswith(("| 0 |", "| 1 |", "| IQM"))]
    assert [row[0] for row in rows] == ["| 0", "| 1", "| IQM (95 % interval)"]
    assert [row[2] for row in rows[:2]] == [f"{rate:.0%}".replace("%", " %") for rate in result["eval"]["success"]]
    licensed = Path(push(original, str(tmp_path / "licensed"), license="mit", **SILENT))
    assert yaml.safe_load((licensed / "README.md").read_text().split("---\n")[1])["license"] == "mit"


def test_commands_push_and_pull(original, tmp_path, capsys):
    assert main(["push", str(original), str(tmp_path / "pushed"), "--no-videos"]) == 0
    assert f"pushed: {tmp_path / 'pushed'}" in capsys.readouterr().out
    assert main(["pull", str(tmp_path / "pushed"), str(tmp_path / "pulled")]) == 0
    assert str(tmp_path / "pulled") in capsys.readouterr().out
    assert (tmp_path / "pulled" / "config.yaml").exists()
    assert not (tmp_path / "pulled" / "videos").exists()
