"""The results table."""

import json
from pathlib import Path

import pytest

from cdred.errors import UserError
from cdred.report.statistics import bootstrap_interval
from cdred.report.table import markdown_table

FULL = {
    "task": "metaworld/door-open",
    "algo": "cdred",
    "seeds": [0, 1],
    "demos": 10,
    "steps": 5000,
    "wall_seconds": 725.0,
    "eval": {"success": [0.85, 1.0], "random_success": 0.0, "expert_success": 1.0, "normalized": [0.9, 1.0]},
}
MINIMAL = {
    "task": "dmc/walker-walk",
    "algo": "cdred",
    "steps": 20000,
    "eval": {"success": None, "normalized": [0.5, None]},
}


def write_result(folder: Path, result: dict) -> Path:
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_rows_and_summary(tmp_path: Path) -> None:
    text = markdown_table([write_result(tmp_path / "a", FULL), write_result(tmp_path / "b", MINIMAL)])
    header, rule, full, minimal, *_, summary = text.splitlines()
    assert header.count("|") == rule.count("|") == full.count("|") == minimal.count("|") == 12
    row = "| metaworld/door-open | cdred | 0 1 | 10 | 5,000 | 85 %, 100 % | **92 %** | 0 % | 100 % | 0.90, 1.00 | 12 |"
    assert full == row
    assert minimal == "| dmc/walker-walk | cdred | – | – | 20,000 | – | – | – | – | 0.50 | – |"
    assert summary == "- cdred, 3 seeds on 2 tasks: **0.80** (no interval: a task has one seed)"


def test_methods_are_summarized_apart_and_groups_of_seeds_together(tmp_path: Path) -> None:
    """Scores of different methods have no common mean; runs of one task are samples of the same distribution."""
    scores = {"a": ("cdred", [1.0, 0.9]), "b": ("cdred", [0.8, 0.7]), "c": ("bc", [0.1, 0.2]), "d": ("red", [0.5, 0.5])}
    runs = [
        write_result(tmp_path / name, FULL | {"algo": algo, "eval": {"normalized": normalized}})
        for name, (algo, normalized) in scores.items()
    ]
    runs.append(write_result(tmp_path / "e", FULL | {"algo": "bc", "task": "x/y", "eval": {"normalized": [0.3, 0.4]}}))
    cdred, bc = markdown_table(runs).splitlines()[-2:]
    low, high = bootstrap_interval([[1.0, 0.9, 0.8, 0.7]])
    assert cdred == f"- cdred, 4 seeds on 1 task: **0.85** (95 % bootstrap interval {low:.2f} to {high:.2f})"
    assert bc.startswith("- bc, 4 seeds on 2 tasks: **0.25** (95 %")


def test_single_run_has_no_summary(tmp_path: Path) -> None:
    assert len(markdown_table([write_result(tmp_path / "a", FULL)]).splitlines()) == 3


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has not finished"):
        markdown_table([tmp_path])
