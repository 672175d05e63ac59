"""The results table."""

import json
from pathlib import Path

import pytest

from cdred.errors import UserError
from cdred.report.table import markdown_table

FULL = {
    "task": "metaworld/door-open",
    "demos": 10,
    "steps": 5000,
    "wall_seconds": 725.0,
    "eval": {"success": [0.85, 1.0], "random_success": 0.0, "expert_success": 1.0, "normalized": [0.9, 1.0]},
}
MINIMAL = {"task": "dmc/walker-walk", "steps": 20000, "eval": {"success": None, "normalized": [0.5, None]}}


def write_result(folder: Path, result: dict) -> Path:
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_rows_and_summary(tmp_path: Path) -> None:
    text = markdown_table([write_result(tmp_path / "a", FULL), write_result(tmp_path / "b", MINIMAL)])
    header, rule, full, minimal, blank, summary = text.splitlines()
    assert header.count("|") == rule.count("|") == full.count("|") == minimal.count("|") == 10
    assert full == "| metaworld/door-open | 10 | 5,000 | 85 %, 100 % | **92 %** | 0 % | 100 % | 0.90, 1.00 | 12 |"
    assert minimal == "| dmc/walker-walk | – | 20,000 | – | – | – | – | 0.50 | – |"
    assert blank == ""
    assert summary.startswith("Normalized return, interquartile mean over 3 seeds of 2 runs: **0.80** (95 %")


def test_single_run_has_no_summary(tmp_path: Path) -> None:
    assert len(markdown_table([write_result(tmp_path / "a", FULL)]).splitlines()) == 3


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has not finished"):
        markdown_table([tmp_path])
