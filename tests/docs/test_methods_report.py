"""The tables of methods are those of the runs in results/."""

import csv
import json

import methods_report
import methods_table
import pytest
from methods_report import method_scores, read_scores, score_table
from methods_table import Budget

from cdred.report.result_files import COLUMNS


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Three tasks: one with successes, one with returns from 20 (random) to 120 (expert), one without a run of GAIL."""
    monkeypatch.setattr(methods_table, "RESULTS", tmp_path)
    monkeypatch.setattr(methods_report, "RESULTS", tmp_path)
    write(tmp_path / "metaworld/reach/cdred-pretrain", (0, 1, 2), [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], success=True)
    write(tmp_path / "metaworld/reach/cdred-pretrain-seeds-3-4", (3, 4), [0.4, 0.5], [0.7, 0.8], success=True)
    write(tmp_path / "metaworld/reach/gail-pretrain", (0, 1), [0.1, 0.2], [0.5, 0.9], success=True)
    write(tmp_path / "dmc/walker-walk/cdred-pretrain", (0, 1), [20.0, 45.0], [120.0, 70.0], success=False)
    write(tmp_path / "dmc/walker-walk/gail-pretrain", (0, 1), [20.0, 45.0], [20.0, 70.0], success=False)
    write(tmp_path / "metaworld/box-close/cdred-pretrain", (0,), [0.0], [0.25], success=True)
    write(tmp_path / "metaworld/box-close/cdred-pretrain-1demos", (0,), [0.0], [0.75], success=True)
    return tmp_path


def write(path, seeds, bc, agent, *, success):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for step, scores in ((0, bc), (5000, agent)):
            rows = zip(seeds, scores, strict=True)
            writer.writerows((step, seed, 1.0, s, 40) if success else (step, seed, s, "", 10) for seed, s in rows)
    result = {"seeds": list(seeds), "commit": "0123456789", "acting": ["agent"] * len(seeds)}
    result["eval"] = {"random_return": 20.0, "expert_return": 120.0}
    path.with_suffix(".json").write_text(
        json.dumps({"result": result, "config": {"pretrain": {"selection_episodes": 10}}})
    )


def test_pages_are_up_to_date():
    outdated = [path.name for path, text in methods_report.pages().items() if path.read_text() != text]
    assert not outdated, "run python benchmarks/methods_report.py"


@pytest.mark.usefixtures("results")
def test_scores_are_successes_or_normalized_returns_of_all_seeds():
    reach = read_scores("metaworld/reach", "cdred", Budget(10, 5000))
    assert reach.bc == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert reach.agent == [0.4, 0.5, 0.6, 0.7, 0.8]
    walker = read_scores("dmc/walker-walk", "cdred", Budget(10, 5000))
    assert (walker.bc, walker.agent) == ([0.0, 0.25], [1.0, 0.5])
    assert read_scores("metaworld/box-close", "cdred", Budget(1, 5000)).agent == [0.75]


@pytest.mark.usefixtures("results")
def test_table_leaves_out_what_was_not_run():
    columns = method_scores(Budget(10, 5000))
    assert [column.name for column in columns] == ["BC", "CDRED", "GAIL"]
    lines = score_table(columns).splitlines()
    assert lines[2:5] == [
        "| metaworld/box-close | 0 (0) | 25 (25) |  |",
        "| metaworld/reach | 30 (10 20 30 40 50) | 60 (40 50 60 70 80) | 70 (50 90) |",
        "| dmc/walker-walk | 12 (0 25) | 75 (100 50) | 25 (0 50) |",
    ]
    # Over both tasks that GAIL has been run on; of its four scores 0, 50, 50 and 90 the middle two are 50.
    assert lines[5].startswith("| IQM, 2 tasks | ")
    assert lines[5].split(" | ")[3].startswith("50 (")
    assert [line.split(" | ")[0] for line in score_table(columns, seeds=False).splitlines()[2:5]] == [
        line.split(" | ")[0] for line in lines[2:5]
    ]


@pytest.mark.usefixtures("results")
def test_improvement_counts_common_tasks_and_ties_half():
    lines = methods_report.improvements(method_scores(Budget(10, 5000)))
    # reach: 23 of 25 pairs; all of the other two, of which one has a single seed.
    assert lines[0] == f"P(CDRED better than BC): {(0.92 + 2) / 3:.2f} (no interval), 3 tasks"
    # reach: of ten pairs, 4 higher than .5 and 1 equal; walker-walk: 1 against 0 and .5, .5 against 0, and a tie.
    assert lines[1].startswith(f"P(CDRED better than GAIL): {(0.35 + 0.875) / 2:.2f}")
    assert lines[1].endswith("2 tasks")


def test_gain_is_that_of_the_same_seeds(results):
    write(
        results / "metaworld/reach/cdred-pretrain-20000steps", (0, 1, 2), [0.1, 0.2, 0.3], [0.5, 0.5, 0.3], success=True
    )
    write(results / "dmc/walker-walk/cdred-pretrain-20000steps", (0, 1), [20.0, 45.0], [120.0, 90.0], success=False)
    write(results / "dmc/walker-walk/gail-pretrain-20000steps", (0, 1), [20.0, 45.0], [20.0, 80.0], success=False)
    lines = methods_report.gain_table(Budget(10, 20_000)).splitlines()
    assert lines[0] == "| task | CDRED, 20,000 minus 5,000 steps | GAIL, 20,000 minus 5,000 steps |"
    assert lines[2:4] == [
        "| metaworld/reach | -7 (+10 +0 -30) |  |",
        "| dmc/walker-walk | +10 (+0 +20) | +5 (+0 +10) |",
    ]
    assert lines[4].startswith("| mean | +0 (-")
    assert "20,000 minus 5,000" in methods_report.section(Budget(10, 20_000))
    assert "minus" not in methods_report.section(Budget(10, 5000))


def test_choice_of_older_runs_is_that_of_todays_rule(results):
    """Of the seeds the lead is too small, large enough, 0 of 0, and decided by BC already."""
    path = results / "metaworld/stick-pull/cdred-pretrain"
    write(path, (0, 1, 2, 3), [0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.8, 0.4], success=True)
    document = json.loads(path.with_suffix(".json").read_text())
    document["result"]["acting"] = ["agent", "policy", "agent", "pretrained"]
    rates = {"agent": [0.6, 0.2, 0.0, 0.2], "policy": [0.5, 0.8, 0.0, 0.5], "pretrained": [0.5, 0.5, 0.0, 0.5]}
    document["selection"] = {f"{name}_detected_success": values for name, values in rates.items()}
    path.with_suffix(".json").write_text(json.dumps(document))
    budget = Budget(10, 5000)
    assert read_scores("metaworld/stick-pull", "cdred", budget).agent == [0.1, 0.7, 0.8, 0.4]
    assert "| BC policy agent BC |" in methods_report.file_table(budget)
    # As recorded, if the run knew the rule.
    document["selection"]["standard_error"] = [0.2] * 4
    path.with_suffix(".json").write_text(json.dumps(document))
    assert read_scores("metaworld/stick-pull", "cdred", budget).agent == [0.6, 0.7, 0.8, 0.4]


def test_page_without_the_two_lines_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="has no lines"):
        methods_report._replaced("# A page\n", "| a |", tmp_path / "page.md")
