"""Checks of `cdred.api` before training starts."""

import os
import signal
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import gymnasium
import numpy as np
import pytest

import cdred
from cdred import api, resolve
from cdred.config import RunConfig
from cdred.config_file import read_config
from cdred.data.demonstrations import load_demos
from cdred.demos import scripted
from cdred.demos.scripted import collect_scripted
from cdred.errors import DivergenceError, Interrupted, UserError
from cdred.keywords import TrainKeywords
from cdred.report.results import read_run
from cdred.run_folder import DEMOS_FILE, run_folder
from cdred.types import DemoDataset, EnvSpec, Trajectory
from runs import arrays, assert_same_arrays, run_config, stopped_at

SPEC = EnvSpec("probe/point", (4,), 2, 20, has_success=True)


@pytest.fixture
def mixed_lengths(tmp_path):
    """Settings of a run with two truncated demonstrations of different lengths."""

    def episode(steps):
        return Trajectory(
            obs=np.zeros((steps + 1, 4), np.float32),
            action=np.zeros((steps, 2), np.float32),
            reward=np.zeros(steps, np.float32),
            terminated=False,
            truncated=True,
        )

    cdred.save_demos(DemoDataset("probe/point", (episode(10), episode(12))), tmp_path / "demos")
    return replace(cdred.preset("debug"), task="probe/point", demos=str(tmp_path / "demos"))


def test_variable_horizon_needs_an_option(mixed_lengths):
    with pytest.raises(UserError, match=r"10 to 12 steps long.*--allow-variable-horizon"):
        api.resolve_demos(mixed_lengths, SPEC, print)
    demos = api.resolve_demos(replace(mixed_lengths, allow_variable_horizon=True), SPEC, print)
    assert [len(demo) for demo in demos] == [10, 12]


def test_method_without_demonstrations_reads_none(mixed_lengths):
    assert api.resolve_demos(replace(mixed_lengths, algo="tdmpc2", demos="no such file"), SPEC, print) is None


def test_collection_of_demonstrations_logs_its_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(resolve, "PROGRESS_SECONDS", 0.0)
    settings = replace(cdred.preset("debug"), task="probe/point", demos="3")
    collected, cached = [], []
    api.resolve_demos(settings, SPEC, collected.append)
    assert all(line.startswith("collecting demonstrations of probe/point: ") for line in collected[:-1])
    assert collected[-2].count("3 of 3, from") == 1
    assert collected[-1].startswith("demonstrations: 3 of probe/point")
    api.resolve_demos(settings, SPEC, cached.append)
    assert cached == collected[-1:], "cached demonstrations were collected again"


def test_chosen_demonstrations_are_logged(tmp_path, monkeypatch):
    demos = collect_scripted("probe/point", 3)
    cdred.save_demos(demos, tmp_path / "set.npz")
    monkeypatch.setattr(scripted, "bundled_demos", lambda: {"probe/point": tmp_path / "set.npz"})
    messages = []
    api.resolve_demos(replace(cdred.preset("debug"), task="probe/point", demos="2"), SPEC, messages.append)
    assert messages == ["demonstrations: 2 of probe/point, scripted, episodes 0-1 of 3"]


def test_checkpoints_without_config_are_neither_resumed_nor_overwritten(tmp_path):
    settings = {"preset": "debug", "task": "probe/point", "demos": "2", "video": False, "out": str(tmp_path / "run")}
    settings["algo"] = "bc"
    cdred.train(**settings, quiet=True, steps=40)
    for name in ("config.yaml", "result.json"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(UserError, match=r"without its settings, config\.yaml"):
        cdred.train(**settings, quiet=True, steps=60)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no task is given"),
        ({"tsk": "probe/point"}, "unknown setting tsk. Did you mean task?"),
        ({"lr": 1e-3}, "unknown setting lr. Did you mean optim.learning_rate?"),
        ({"mppi": {"horizn": 4}}, "unknown setting mppi.horizn. Did you mean mppi.horizon?"),
        ({"algo": "sqil"}, "got 'sqil'. Did you mean iqlearn-sac?"),
        ({"planner": "cem"}, "got 'cem'. Did you mean mppi?"),
        ({"preset": "fast"}, "got 'fast'. Did you mean cpu?"),
        ({"config": RunConfig(task="probe/point", planner="cem")}, "got 'cem'. Did you mean mppi?"),
        ({"config": cdred.preset("debug"), "preset": "cpu"}, "preset cannot be changed in a given config"),
        ({"demos": ["a.npz"]}, "got an item of str"),
        ({"demos": []}, "demos: no trajectory in it"),
        ({"demos": 0}, "at least one demonstration is needed, got 0"),
        ({"demos": -1}, "at least one demonstration is needed, got -1"),
        ({"demos": 2.5}, "--demos should be a valid string, got 2.5"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "demos" in settings:
        settings = {"task": "probe/point", "preset": "debug"} | settings
    with pytest.raises(UserError) as error:
        cdred.train(**settings, quiet=True)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_unknown_planner_or_method_is_refused_at_once(tmp_path):
    for function in (cdred.evaluate, cdred.load):
        with pytest.raises(UserError, match=r"--planner should be .* got 'cem'\. Did you mean mppi\?"):
            function(tmp_path, planner="cem")
    config = replace(cdred.preset("debug"), task="probe/point", out=str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"--algos should be .* got 'sqil'\. Did you mean iqlearn-sac\?"):
        cdred.compare(config, ["bc", "sqil"], quiet=True)
    assert not (tmp_path / "out").exists()


def test_keywords_are_the_settings():
    """So that a type checker finds a misspelt one."""
    assert list(get_type_hints(TrainKeywords)) == [setting.name for setting in fields(RunConfig)]
    types, keywords = get_type_hints(RunConfig), get_type_hints(TrainKeywords)
    hints = get_type_hints(cdred.train, localns={"gymnasium": gymnasium})
    assert hints["changes"].__args__ == (TrainKeywords,)
    sequences = ("seeds", "imports", "trackers")
    for name, hint in types.items():
        assert keywords[name] == hint or hint in get_args(keywords[name]) or name in sequences, name


@pytest.fixture(scope="module")
def demos():
    return collect_scripted("probe/point", 3)


@pytest.mark.usefixtures("toy")
def test_demonstrations_given_as_an_object_are_saved_with_the_run(demos, tmp_path):
    def train(name, given, **changes):
        return cdred.train(run_config(tmp_path / name), demos=given, quiet=True, **changes)

    cdred.save_demos(demos, tmp_path / "demos.npz")
    result = train("path", tmp_path / "demos.npz")
    with stopped_at(140):
        train("object", demos)
    saved = load_demos(tmp_path / "object" / DEMOS_FILE)
    assert [demo.obs.tolist() for demo in saved] == [demo.obs.tolist() for demo in demos]
    with pytest.raises(UserError, match="holds a run with other demonstrations"):
        train("object", demos.take(2))
    # A list of the same trajectories resumes the run, also in a folder that was moved.
    (tmp_path / "object").rename(tmp_path / "moved")
    resumed = train("moved", list(demos))
    assert_same_arrays(arrays(tmp_path / "path"), arrays(tmp_path / "moved"))
    assert resumed["eval"] == result["eval"]
    # Finished: the same demonstrations return the result, others are refused.
    assert train("moved", demos) == resumed
    with pytest.raises(UserError, match="holds a run with other demonstrations"):
        train("moved", [replace(demo, action=-demo.action) for demo in demos])
    with pytest.raises(UserError, match=r"another setting: demos: .*demonstrations\.npz, not 3"):
        train("moved", 3)


@pytest.mark.usefixtures("toy")
def test_unknown_rewards_give_unknown_scores(demos, tmp_path):
    unknown = replace(demos, trajectories=tuple(replace(demo, reward=None) for demo in demos))
    unknown = replace(unknown, provenance={})
    result = cdred.train(run_config(tmp_path / "run"), demos=unknown, quiet=True)
    assert [demo.reward for demo in load_demos(tmp_path / "run" / DEMOS_FILE)] == [None] * 3
    scores = result["eval"]
    assert (scores["expert_return"], scores["expert_success"], scores["normalized"]) == (None, 1.0, None)
    assert "expert_return" not in read_run(tmp_path / "run").reference_scores
    with pytest.raises(UserError, match="holds a run with other demonstrations"):
        cdred.train(run_config(tmp_path / "run"), demos=demos, quiet=True)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("as_object", [True, False])
def test_demonstrations_without_actions_switch_bc_off(demos, tmp_path, as_object, capsys):
    observed = [replace(demo, action=demo.action[:, :0]) for demo in demos]
    given = DemoDataset("probe/point", tuple(observed), demos.provenance)
    if not as_object:
        cdred.save_demos(given, tmp_path / "demos.npz")
        given = tmp_path / "demos.npz"
    config = run_config(tmp_path / "run")
    config = replace(config, pretrain=replace(config.pretrain, updates=40))
    with pytest.raises(UserError, match=r"holds observations only.*--cdred\.input transition"):
        cdred.train(config, demos=given, quiet=True)
    result = cdred.train(config, demos=given, cdred={"input": "transition"})
    assert "they have no actions, so there is no pretraining and no BC term" in capsys.readouterr().out
    saved = read_config(tmp_path / "run/config.yaml")
    assert (saved.optim.bc_coef, saved.pretrain.updates, saved.cdred.input) == (0.0, 0, "transition")
    # The same settings as given return the finished run.
    assert cdred.train(config, demos=given, cdred={"input": "transition"}, quiet=True) == result
    # With actions, they are used.
    cdred.train(replace(config, out=str(tmp_path / "all")), demos=demos, cdred={"input": "transition"}, quiet=True)
    assert read_config(tmp_path / "all/config.yaml").pretrain.updates == 40


@pytest.mark.usefixtures("toy")
def test_finished_run_notices_that_its_file_has_changed(demos, tmp_path):
    path = tmp_path / "demos.npz"
    cdred.save_demos(demos, path)
    config = run_config(tmp_path / "run", demos=str(path))
    result = cdred.train(config, quiet=True)
    path.unlink()
    # The run needs the file no more.
    assert cdred.train(config, quiet=True) == result
    cdred.save_demos(replace(demos, trajectories=demos[1:]), path)
    message = r"(?s)other demonstrations: {'episodes': 3, .*, now {'episodes': 2, .*Give the same ones, or"
    with pytest.raises(UserError, match=message):
        cdred.train(config, quiet=True)
    path.unlink()
    cdred.save_demos(demos, path)
    assert cdred.train(config, quiet=True) == result


@pytest.mark.usefixtures("toy")
def test_run_is_not_resumed_with_a_file_of_other_content(demos, tmp_path):
    path = tmp_path / "demos.npz"
    cdred.save_demos(demos, path)
    with stopped_at(140):
        cdred.train(run_config(tmp_path / "run", demos=str(path)), quiet=True)
    original = path.read_bytes()
    path.unlink()
    other = replace(demos, trajectories=(*demos[:2], replace(demos[2], reward=demos[2].reward + 1.0)))
    cdred.save_demos(other, path)
    with pytest.raises(UserError, match=r"other demonstrations: {'episodes': 3, 'steps': 60, 'sha256': .*, now {'epis"):
        cdred.train(run_config(tmp_path / "run", demos=str(path)), quiet=True)
    (tmp_path / "run/demonstrations.json").rename(tmp_path / "record")
    path.write_bytes(original)
    with pytest.raises(UserError, match=r"demonstrations\.json cannot be read"):
        cdred.train(run_config(tmp_path / "run", demos=str(path)), quiet=True)
    (tmp_path / "record").rename(tmp_path / "run/demonstrations.json")
    assert cdred.train(run_config(tmp_path / "run", demos=str(path)), quiet=True)["demos"] == 3


@pytest.mark.usefixtures("toy")
def test_run_of_an_object_resumes_from_the_saved_file(demos, tmp_path, monkeypatch):
    """As on the command line, where there is no object."""
    monkeypatch.chdir(tmp_path)
    with stopped_at(140):
        cdred.train(run_config("run"), demos=demos, quiet=True)
    assert read_config(Path("run/config.yaml")).demos == "run/demonstrations.npz"
    assert cdred.train(run_config("run", demos="run/demonstrations.npz"), quiet=True)["demos"] == 3


@pytest.mark.usefixtures("toy")
def test_object_replaces_the_one_of_a_run_without_a_checkpoint(demos, tmp_path):
    (tmp_path / "run").mkdir()
    cdred.save_demos(demos.take(1), tmp_path / "run" / DEMOS_FILE)
    assert cdred.train(run_config(tmp_path / "run"), demos=demos, quiet=True)["demos"] == 3
    assert len(load_demos(tmp_path / "run" / DEMOS_FILE)) == 3


def test_object_of_another_task_is_refused(demos, tmp_path):
    with pytest.raises(UserError, match="demos: its demonstrations are of probe/other, expected probe/point"):
        cdred.train(run_config(tmp_path / "run"), demos=replace(demos, task="probe/other"), quiet=True)
    assert not (tmp_path / "run").exists()


def test_double_precision_trajectories_are_the_same_run(demos, tmp_path):
    doubles = [replace(demo, obs=demo.obs.astype(np.float64), reward=demo.reward.tolist()) for demo in demos]
    _, dataset = resolve.resolve_settings(run_config(tmp_path), {"demos": doubles})
    assert {array.dtype for demo in dataset for array in (demo.obs, demo.action, demo.reward)} == {np.dtype("float32")}
    np.testing.assert_array_equal(dataset[0].obs, demos[0].obs)


@pytest.mark.parametrize("task", ["gym/module:Point-v0", "gym/a b*c", "metaworld/reach"])
def test_default_folder_has_only_portable_characters(task):
    folder = run_folder(replace(cdred.preset("debug"), task=task))
    assert folder.parent == Path("runs")
    assert not set(folder.name) & set(' :*?"<>|\\/')
    assert folder.name.endswith("-cdred-debug")


def test_default_folder_of_a_task_is_readable():
    assert str(run_folder(replace(cdred.preset("cpu"), task="gym/Hopper-v5"))) == "runs/gym-Hopper-v5-cdred-cpu"


@pytest.mark.usefixtures("toy")
def test_signal_is_no_exception_that_a_sweep_swallows(tmp_path):
    assert (cdred.Interrupted, cdred.DivergenceError) == (Interrupted, DivergenceError)
    started = []

    def sweep():
        for name in ("a", "b"):
            started.append(name)
            try:
                cdred.train(run_config(tmp_path / name), quiet=True)
            except Exception as error:
                pytest.fail(f"swallowed {error!r}")

    with stopped_at(140):
        sweep()
    assert started == ["a"]


@pytest.mark.usefixtures("toy")
def test_signal_after_the_last_checkpoint_stops_the_caller(tmp_path, monkeypatch):
    def report(folder, write=api.write_report):
        os.kill(os.getpid(), signal.SIGTERM)
        return write(folder)

    monkeypatch.setattr(api, "write_report", report)
    with pytest.raises(Interrupted, match="has finished") as error:
        cdred.train(run_config(tmp_path / "run"), quiet=True)
    assert error.value.code == 128 + signal.SIGTERM
    assert cdred.train(run_config(tmp_path / "run"), quiet=True)["steps"] == 200
