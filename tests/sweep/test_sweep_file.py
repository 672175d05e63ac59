"""The file of a sweep: the runs that it expands to, and the mistakes that are refused before any run starts."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cdred.cli.main import main
from cdred.cli.train import parse
from cdred.config import preset
from cdred.data.demonstrations import save_demos
from cdred.demos.scripted import collect_scripted
from cdred.errors import UserError
from cdred.sweep.collect import train_command
from cdred.sweep.plan import check_runs, plan_runs
from cdred.sweep.sweep_file import read_sweep

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep.yaml"
SMALL = {"out": "out", "tasks": ["probe/point"], "methods": ["bc"], "seed_groups": [[0]], "common": {"demos": 3}}


def write(tree, path="sweep.yaml"):
    Path(path).write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False))
    return Path(path)


def plan(tree):
    return plan_runs(read_sweep(write(tree)))


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_file_expands_to_tasks_x_methods_x_settings_x_seed_groups(working_directory):
    runs = plan(
        {
            "out": "out",
            "tasks": {"probe/point": {"steps": 400}, "jaxprobe/point": None},
            "methods": ["bc", "gail"],
            "seed_groups": [[3, 4], [0, 1, 2]],
            "settings": {"default": None, "short": {"mppi": {"horizon": 2}, "steps": 60}},
            "common": {"preset": "debug", "steps": 200, "mppi": {"iterations": 3}, "demos": 3},
        }
    )
    assert len(runs) == len({run.folder for run in runs}) == 2 * 2 * 2 * 2
    assert [str(run.folder.relative_to(working_directory / "out")) for run in runs[:5]] == [
        "probe/point/bc/seeds-3-4",
        "probe/point/bc/seeds-0-1-2",
        "probe/point/bc-short/seeds-3-4",
        "probe/point/bc-short/seeds-0-1-2",
        "probe/point/gail/seeds-3-4",
    ]
    # The group of the lowest seeds has no suffix.
    assert [str(run.result_stem) for run in runs[:3]] == [
        "probe/point/bc-seeds-3-4",
        "probe/point/bc",
        "probe/point/bc-short-seeds-3-4",
    ]
    by_stem = {str(run.result_stem): run.config for run in runs}
    assert by_stem["probe/point/gail"].steps == 400
    assert by_stem["jaxprobe/point/gail"].steps == 200
    short = by_stem["jaxprobe/point/gail-short-seeds-3-4"]
    assert (short.steps, short.mppi.horizon, short.mppi.iterations, short.seeds) == (60, 2, 3, (3, 4))
    assert short.mppi.num_samples == preset("debug").mppi.num_samples
    assert runs[0].name == "probe/point bc seeds 3 4"


def test_options_of_a_method_and_a_preset_override_common_ones():
    runs = plan(
        SMALL | {"methods": {"bc": {"preset": "debug"}, "gail": {"steps": 80}}, "common": {"steps": 40, "demos": 3}}
    )
    assert [(run.config.preset, run.config.steps) for run in runs] == [("debug", 40), ("cpu", 80)]


def test_relative_paths_become_absolute(working_directory):
    (run,) = plan(SMALL | {"common": {"demos": "d.npz", "imports": "envs.py"}})
    assert run.config.demos == str(working_directory / "d.npz")
    assert run.config.imports == (str(working_directory / "envs.py"),)


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "debug", "demos": "some demos.npz", "video": False, "model": {"normalize_obs": False}},
        {"mppi": {"horizon": 4}, "optim": {"learning_rate": 1e-4, "grad_clip_norm": 5.0}, "trackers": ["wandb"]},
        {"preset": "paper", "model": {"hidden_dims": [64, 32]}, "obs": "pixels", "num_validation_demos": 2},
    ],
)
def test_command_of_a_run_parses_to_its_settings(options):
    (run,) = plan(SMALL | {"tasks": ["dmc/walker-walk"], "methods": ["cdred"], "common": options})
    words = shlex.split(train_command(run.config))
    assert words[:2] == ["cdred", "train"]
    assert parse([*words[2:], "--out", str(run.folder)]) == run.config


@pytest.mark.parametrize(
    ("changes", "phrases"),
    [
        ({"method": ["bc"]}, ["unknown entry method. Did you mean methods?"]),
        ({"tasks": []}, ["tasks is missing"]),
        ({"methods": ["cdrde"]}, ["'cdrde'", "Did you mean cdred?"]),
        ({"methods": ["bc", "bc"]}, ["methods: bc is given twice"]),
        ({"tasks": "probe/point"}, ["tasks should be a list"]),
        ({"seed_groups": [0, 1]}, ["[[0, 1, 2]] for one run of three seeds", "[0, 1]"]),
        ({"seed_groups": [[0, 1], [1, 2]]}, ["seed 1 is given twice"]),
        ({"seed_groups": [["x"]]}, ["probe/point, bc: seeds should be"]),
        ({"settings": {"default": {"steps": 20}}}, ["settings.default has options"]),
        ({"settings": {"a/b": {"steps": 20}}}, ["the name 'a/b'"]),
        ({"settings": {False: {"steps": 20}}}, ["expected a name, got False", "in quotes"]),
        ({"settings": {"a": {"seeds": [1]}}}, ["settings.a has seeds, which seed_groups determines"]),
        ({"common": {"out": "x"}}, ["common has out"]),
        ({"common": {"lerning_rate": 1}}, ["probe/point, bc: unknown setting lerning_rate", "optim.learning_rate"]),
        ({"common": {"optim": {"lr": 1}}}, ["unknown setting optim.lr. Did you mean optim.learning_rate?"]),
        ({"common": {"steps": "many"}}, ["steps should be", "'many'"]),
        ({"common": {"optim": 3}}, ["optim: expected a mapping"]),
        ({"common": {"envs": 7}}, ["--envs must divide"]),
        ({"common": {"preset": "cup"}}, ["'cup'", "Did you mean cpu?"]),
        ({"settings": {"a": {"steps": 40}, "b": {"steps": 40}}}, ["bc-a", "bc-b", "the same run"]),
        (
            {"methods": ["cdred", "cdred-sac"], "settings": {"default": None, "sac": {"steps": 20}}},
            ["have the same folder", "rename a setting"],
        ),
        ({"tasks": ["probe/pont"]}, ["no task 'probe/pont'", "Did you mean probe/point?"]),
        ({"tasks": ["probe/point", "point"]}, ["'point' is not a task"]),
        ({"common": {"demos": 0}}, ["at least one demonstration"]),
        ({"common": {"demos": "nowhere.npz"}}, ["no demonstrations at", "nowhere.npz"]),
        ({"common": {"imports": "nowhere.py"}}, ["nowhere.py"]),
    ],
)
def test_mistake_is_refused_before_anything_is_written(changes, phrases, capsys):
    write(SMALL | changes)
    assert main(["sweep", "sweep.yaml"]) == 2
    message = capsys.readouterr().err
    assert [phrase for phrase in phrases if phrase not in message] == []
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("settings: {a: {steps: 1}, a: {steps: 2}}", "a is given twice"),
        ("out: &x out\ntasks: *x", "anchors and aliases are not allowed"),
        ("out: !!python/object:os.system x", "tag"),
        ("[]", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_file_that_is_no_plain_yaml_is_refused(text, phrase):
    with pytest.raises(UserError, match=phrase) as error:
        read_sweep(write(text))
    assert "sweep.yaml" in str(error.value)
    assert "run wrote" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ("--jobs 0", "--jobs must be at least 1"),
        ("--on ray --jobs 2", "--jobs is for --on local, got --on ray"),
        ("--gpus-per-run 0.5", "--gpus-per-run is for --on ray and slurm"),
        ("--on ray --gpus-per-run -1", "--gpus-per-run must be at least 0"),
        ("--on local --slurm.partition gpu", "--slurm.* is for --on slurm"),
        ("--on slurm --slurm.memory-gb 0", "--slurm.memory-gb must be at least 1"),
        ("--on slrum", "Did you mean slurm?"),
    ],
)
def test_option_without_effect_or_out_of_range_is_refused(options, phrase, capsys):
    write(SMALL)
    assert main(["sweep", "sweep.yaml", *options.split()]) == 2
    assert phrase in capsys.readouterr().err


def test_missing_extra_is_named(monkeypatch, capsys):
    write(SMALL)
    for package, extra in (("ray", "ray"), ("submitit", "slurm")):
        monkeypatch.setitem(sys.modules, package, None)
        assert main(["sweep", "sweep.yaml", "--on", extra]) == 2
        assert f"pip install 'cdred[{extra}]'" in capsys.readouterr().err


def test_dry_run_prints_runs_and_writes_nothing(capsys):
    write(SMALL | {"methods": ["bc", "gail"]})
    assert main(["sweep", "sweep.yaml", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [["missing", "probe/point", label] for label in ("bc", "gail")]
    assert lines[2] == "2 runs: 2 missing"
    assert not Path("out").exists()


def test_method_that_needs_actions_is_refused_with_demonstrations_without(capsys):
    demos = collect_scripted("probe/point", 3)
    observed = tuple(replace(trajectory, action=trajectory.action[:, :0]) for trajectory in demos)
    save_demos(replace(demos, trajectories=observed), Path("d.npz"))
    common = {"demos": "d.npz", "pretrain": {"updates": 40}}
    write(SMALL | {"methods": {"cdred": {"cdred": {"input": "transition"}}, "iqmpc": None}, "common": common})
    assert main(["sweep", "sweep.yaml", "--dry-run"]) == 2
    assert "probe/point iqmpc seeds 0: " in (message := capsys.readouterr().err)
    assert "holds observations only" in message
    runs = plan({**SMALL, "methods": {"cdred": {"cdred": {"input": "transition"}}}, "common": common})
    ((adapted,), states) = check_runs(runs, print, collect=False)
    assert (adapted.config.pretrain.updates, states) == (0, ["missing"])


def test_example_expands():
    runs = plan_runs(read_sweep(EXAMPLE))
    assert len(runs) == len({run.config for run in runs}) > 8
