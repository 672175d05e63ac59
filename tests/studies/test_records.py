"""Records of the finished runs of studies: round trip, and when one stands for a run."""

import json
from dataclasses import replace

import pytest

import cdred.cli.study as cli
from cdred.errors import UserError
from cdred.studies.catalog import STUDIES
from cdred.studies.records import FILE, RunRecord, find_record, portable, read_records, recorded_runs, write_records
from cdred.studies.scores import Curve

CURVE = Curve(
    task="metaworld/bin-picking",
    label="cdred",
    seed=0,
    kind="success",
    steps=[0, 500],
    scores=[0.25, 0.5],
    gradient_norm=(1.5, 4.0),
    minutes=12.5,
    acting="agent",
    signals={"bc_loss": [None, 0.125]},
)


@pytest.fixture
def runs(tmp_path):
    return cli.study_runs(STUDIES["finetune"], "cpu", 1, tmp_path / "runs")


def record(run, folder, **changes):
    return RunRecord(portable(run.config, folder), "abc", "cpu: cpu", [CURVE])._replace(**changes)


def test_records_are_read_as_written(runs, tmp_path):
    records = [record(run, tmp_path / "runs") for run in runs]
    (tmp_path / "finetune").mkdir()
    write_records(tmp_path / "finetune", records)
    assert read_records(tmp_path / "finetune") == records
    # Nothing in the file depends on where the runs were.
    assert str(tmp_path) not in (tmp_path / "finetune" / FILE).read_text()


def test_record_stands_for_the_run_of_the_same_settings_elsewhere(runs, tmp_path):
    records = [record(run, tmp_path / "runs", commit=run.label) for run in runs]
    elsewhere = tmp_path / "elsewhere"
    for run in cli.study_runs(STUDIES["finetune"], "cpu", 1, elsewhere):
        assert find_record(records, run, elsewhere).commit == run.label
    other = replace(runs[0], config=replace(runs[0].config, steps=501))
    assert find_record(records, other, tmp_path / "runs") is None


def test_curves_take_the_label_of_the_run(runs, tmp_path):
    run = replace(runs[0], label="another name")
    found = find_record([record(runs[0], tmp_path / "runs")], run, tmp_path / "runs")
    assert found.curves == [CURVE._replace(label="another name")]


def test_records_of_other_studies_come_after_those_of_the_study(runs, tmp_path):
    for name in ("a", "finetune", "z"):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name, [record(runs[0], tmp_path, commit=name)])
    assert [found.commit for found in read_records(tmp_path / "finetune")] == ["finetune", "a", "z"]


def test_records_of_more_runs_are_kept(runs, tmp_path):
    first, second = (record(run, tmp_path) for run in runs[:2])
    (tmp_path / "finetune").mkdir()
    write_records(tmp_path / "finetune", [first, second])
    write_records(tmp_path / "finetune", [first._replace(commit="new")])
    assert read_records(tmp_path / "finetune") == [first._replace(commit="new"), second]


def test_run_of_an_option_that_no_longer_exists_is_left_out(runs, tmp_path):
    (tmp_path / "finetune").mkdir()
    write_records(tmp_path / "finetune", [record(run, tmp_path) for run in runs[:2]])
    path = tmp_path / "finetune" / FILE
    entries = json.loads(path.read_text())
    entries[0]["config"]["gone"] = 1
    path.write_text(json.dumps(entries))
    assert [found.config for found in read_records(path.parent)] == [portable(runs[1].config, tmp_path)]


@pytest.mark.parametrize("text", ["[", "[1]", '[{"curves": []}]', '[{"curves": [{"seed": 0}]}]', "{}x", "\xff"])
def test_damaged_file_is_refused(text, tmp_path):
    (tmp_path / "finetune").mkdir()
    (tmp_path / "finetune" / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"is damaged.*\n.*trained again"):
        read_records(tmp_path / "finetune")


def test_run_that_another_one_begins_with_is_trained_with_it(runs, tmp_path):
    folder = tmp_path / "runs"
    by_label = {run.label: record(run, folder) for run in runs}
    assert set(recorded_runs(runs, [*by_label.values()], folder)) == set(runs)
    del by_label["bc-from-cdred-demos-15"]
    without = {run.label for run in runs} - {run.label for run in recorded_runs(runs, [*by_label.values()], folder)}
    assert without == {"cdred", "bc-from-cdred-demos-15"}
