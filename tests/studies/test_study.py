"""`cdred study`: every study is valid, and one is made end to end."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

import cdred.cli.study as cli
from cdred.cli.main import main
from cdred.errors import Interrupted
from cdred.studies import catalog
from cdred.studies.catalog import STUDIES
from cdred.studies.study import TrainingStudy
from cdred.sweep.plan import plan_runs

TRAINING = {name: study for name, study in STUDIES.items() if isinstance(study, TrainingStudy)}
TINY = {"preset": "debug", "demos": "3", "steps": 60, "eval_every": 20, "eval_episodes": 1, "final_eval_episodes": 2}


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("name", TRAINING)
def test_every_study_has_valid_runs_and_a_reference(name, scale, tmp_path):
    runs = cli.study_runs(TRAINING[name], scale, 5, tmp_path)
    assert {run.config.preset for run in runs} == {scale}
    assert len({run.folder for run in runs}) == len(runs)
    by_setting = {}
    for run in runs:
        by_setting.setdefault((run.config.task, run.label), []).extend(run.config.seeds)
    assert all(seeds == [0, 1, 2, 3, 4] for seeds in by_setting.values())
    labels = {label for _, label in by_setting}
    references = TRAINING[name].references
    assert {TRAINING[name].reference, *references, *references.values()} <= labels
    assert len(labels) > 1
    # Three evaluations in a row can reach a threshold before the end.
    assert all(run.config.steps // run.config.eval_every >= 5 for run in runs)


def test_settings_vary_what_the_study_is_about(tmp_path):
    zetas = {run.config.cdred.zeta for run in cli.study_runs(TRAINING["coupling"], "cpu", 1, tmp_path)}
    assert zetas == {0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0}
    stability = cli.study_runs(TRAINING["stability"], "cpu", 1, tmp_path)
    assert {run.config.optim.lr_decay_fraction for run in stability} == {0.0}
    assert {run.config.steps for run in stability} == {25_000}


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_agents_act_as_trained_where_rewards_are_compared(scale, tmp_path):
    chosen = {"bin-picking-100", "data-efficiency", "multi-expert", "finetune"}
    for name, study in TRAINING.items():
        episodes = {run.config.pretrain.selection_episodes for run in cli.study_runs(study, scale, 1, tmp_path)}
        assert episodes == ({10} if name in chosen and scale == "cpu" else {0})


def test_fine_tuning_begins_with_the_runs_of_its_seeds(tmp_path):
    runs = cli.study_runs(TRAINING["finetune"], "cpu", 5, tmp_path)
    folders = {str(run.folder): run.config for run in runs}
    tuned = [run.config for run in runs if run.config.init_from]
    assert len(tuned) == 2 * 2 * 2
    for config in tuned:
        source = folders[config.init_from]
        assert (source.task, source.seeds) == ("metaworld/bin-picking", config.seeds)
        assert config.task == "metaworld/bin-picking?mass=0.3"
        assert f"/bc-from-{source.algo}-" in config.out


def test_runs_that_begin_with_others_come_after_them(tmp_path, monkeypatch, capsys):
    executed = []
    # Which collects demonstrations.
    monkeypatch.setattr(cli, "check_runs", lambda runs, *_, **__: (runs, ["missing"] * len(runs)))
    monkeypatch.setattr(cli, "execute", lambda missing, *_: executed.append([run.label for run in missing]) or [])
    assert main(["study", "finetune", "--seeds", "1", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    first, second = executed
    assert {"bc", "cdred", "bc-scratch-demos-15"} <= set(first)
    assert set(second) == {f"bc-from-{source}-demos-{n}" for source in ("bc", "cdred") for n in (15, 50)}
    assert "Without a result, 8 of 8 runs" in capsys.readouterr().out


def small(monkeypatch, settings, name="coupling"):
    """Put a study of tiny runs in the place of another."""

    def sweeps(scale):
        # BC compiles fastest.
        plan = catalog.sweep(scale, ["probe/point"], methods=["bc"], settings={"default": {}, **settings})
        return [replace(plan, common=plan.common | TINY)]

    monkeypatch.setitem(STUDIES, name, TrainingStudy("Does it end?", sweeps, "bc"))


def test_study_ends_in_data_table_figure_and_provenance(tmp_path, monkeypatch, capsys):
    small(monkeypatch, {"slow": {"optim": {"learning_rate": 1e-5}}})
    words = ["study", "coupling", "--seeds", "2", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert main([*words, "--dry-run"]) == 0
    assert "2 runs: 2 missing" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(words) == 0
    out = tmp_path / "out" / "coupling"
    with (out / "data.csv").open() as file:
        data = list(csv.DictReader(file))
    assert {row["label"] for row in data} == {"bc", "bc-slow"}
    assert {(row["seed"], row["step"]) for row in data} >= {(s, t) for s in "01" for t in ("20", "40", "60")}
    table = (out / "table.md").read_text()
    assert "All 2 runs have finished." in table
    assert (out / "figure.png").stat().st_size > 10_000
    about = json.loads((out / "study.json").read_text())
    assert about["missing_runs"] == []
    assert about["run_devices"] == ["cpu: cpu"]
    assert about["run_commits"] == [str(about["commit"])]
    assert about["command"].startswith("cdred study coupling --seeds 2")
    assert about["scale"] == "cpu"
    assert about["versions"]["cdred"]
    capsys.readouterr()
    # Again: nothing is trained.
    assert main(words) == 0
    assert "2 runs: 2 finished" in capsys.readouterr().out
    # Without the run folders, too, and in another study that has one of the runs.
    shutil.rmtree(tmp_path / "runs")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(words) == 0
    assert f"already in {tmp_path / 'out'}: 2 of 2 runs, trained at {about['commit']}" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert set(before) == {"data.csv", "table.md", "figure.png", "study.json", "runs.json"}
    small(monkeypatch, {"fast": {"optim": {"learning_rate": 1e-2}}}, "stability")
    assert main(["study", "stability", *words[2:], "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "1 of 2 runs, trained at" in shown
    assert "1 run: 1 missing" in shown


def test_results_of_an_interrupted_study_are_written(tmp_path, monkeypatch):
    words = ["study", "coupling", "--seeds", "1", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    small(monkeypatch, {})
    assert main(words) == 0
    small(monkeypatch, {"slow": {"optim": {"learning_rate": 1e-5}}})

    def stop(*_):
        raise Interrupted("stopped", 130)

    monkeypatch.setattr(cli, "execute", stop)
    assert main(words) == 130
    table = (tmp_path / "out" / "coupling" / "table.md").read_text()
    assert "Without a result, 1 of 2 runs" in table
    assert "| bc | " in table
    # Nothing has finished: what is there stays.
    before = (tmp_path / "out" / "coupling" / "study.json").read_bytes()
    small(monkeypatch, {})
    assert main([*words[:5], str(tmp_path / "others"), *words[6:], "--scale", "paper"]) == 130
    assert not (tmp_path / "out" / "paper").exists()
    assert (tmp_path / "out" / "coupling" / "study.json").read_bytes() == before


def test_failed_run_is_listed(tmp_path, monkeypatch, capsys):
    small(monkeypatch, {})
    runs = cli.study_runs(STUDIES["coupling"], "cpu", 1, tmp_path / "runs")
    monkeypatch.setattr(cli, "execute", lambda missing, *_: [cli.Failure(missing[0], "it stopped")])
    words = ["study", "coupling", "--seeds", "1", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    table = (tmp_path / "out" / "coupling" / "table.md").read_text()
    assert f"Without a result, 1 of 1 run:\n\n- {runs[0].name}" in table
    assert "it stopped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cupling"], "Did you mean coupling?"),
        (["coupling", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["coupling", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["count-estimator", "--dry-run"], "--dry-run has no effect on count-estimator: remove it"),
        (["count-estimator", "--runs", "folder"], "--runs has no effect on count-estimator"),
        (["reward-free-signals", "--seeds", "3"], "--seeds has no effect on reward-free-signals"),
        (["reward-free-signals", "--scale", "paper"], "--scale has no effect on reward-free-signals"),
        (["reward-free-signals", "--runs", "folder"], "--runs has no effect on reward-free-signals"),
        (["reward-free-signals"], "no study has finished runs"),
    ],
)
def test_wrong_words_are_refused(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    assert message in capsys.readouterr().err


def test_list_has_every_question(capsys):
    assert main(["study", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(STUDIES)
    assert all(line.endswith("?") for line in lines)


def test_runs_of_several_sweeps_are_together(tmp_path):
    runs = cli.study_runs(TRAINING["data-efficiency"], "cpu", 1, tmp_path)
    sweeps = TRAINING["data-efficiency"].sweeps("cpu")
    plans = [plan_runs(replace(plan, out=str(tmp_path), seed_groups=((0,),))) for plan in sweeps]
    assert [run.folder for run in runs] == [run.folder for plan in plans for run in plan]
    assert {run.config.task for run in runs} == {"metaworld/box-close", "dmc/walker-walk", "maniskill/PullCube"}
