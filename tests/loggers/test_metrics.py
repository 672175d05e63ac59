"""The metrics file, and forwarding to several loggers."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cdred.loggers.metrics import JsonlLogger, MultiLogger, read_lines


def test_numbers_of_any_array_library_are_written(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "run" / "metrics.jsonl")
    logger.log(3, {"a": jnp.float32(0.1), "b": np.arange(2), "c": [1.5, 2], "d": None}, "train")
    logger.close()
    (line,) = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert line.pop("time") > 1e9
    assert line == {"step": 3, "kind": "train", "a": pytest.approx(0.1), "b": [0, 1], "c": [1.5, 2], "d": None}
    assert np.float32(line["a"]) == np.float32(0.1)


def test_non_finite_values_are_null_and_listed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JsonlLogger(path)
    logger.log(1, {"loss": [1.0, float("nan")], "finite": 2.0, "norm": float("inf"), "unknown": None}, "train")
    logger.close()
    line = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (line["loss"], line["norm"]) == ([1.0, None], None)
    assert line["non_finite"] == ["loss", "norm"]


@pytest.mark.parametrize(("resume_step", "kept"), [(None, [1, 2, 3]), (2, [1, 2]), (-1, [])])
def test_resuming_drops_later_lines(tmp_path: Path, resume_step: int | None, kept: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonlLogger(path)
    for step in (1, 2, 3):
        first.log(step, {}, "train")
    first.close()
    path.write_text(path.read_text() + '{"step": 4, "ki')  # a kill in the middle of a line
    before = path.read_bytes()
    second = JsonlLogger(path, resume_step)
    assert path.read_bytes() == before
    second.log(9, {}, "train")
    second.close()
    assert [line["step"] for line in read_lines(path)] == [*kept, 9]
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_repeated_final_evaluation_is_logged_once(tmp_path: Path) -> None:
    """The final evaluation is logged at the step of the last checkpoint, and repeated if the run is killed after it."""
    path = tmp_path / "metrics.jsonl"
    first = JsonlLogger(path)
    for step, kind in ((1, "eval"), (2, "train"), (2, "eval")):
        first.log(step, {}, kind)
    first.close()
    second = JsonlLogger(path, 2, repeated_kind="eval")
    second.log(2, {}, "eval")
    second.close()
    assert [(line["step"], line["kind"]) for line in read_lines(path)] == [(1, "eval"), (2, "train"), (2, "eval")]


class RecordingLogger:
    def __init__(self, fails: bool = False):
        self.logged: list[tuple] = []
        self.closed, self.fails = False, fails

    def log(self, *args: object) -> None:
        self.logged.append(args)

    def close(self) -> None:
        self.closed = True
        if self.fails:
            raise OSError("disk full")


def test_multi_logger_forwards_to_all_and_closes_all() -> None:
    first, second = RecordingLogger(fails=True), RecordingLogger()
    logger = MultiLogger([first, second])
    logger.log(1, {"a": 1.0}, "eval")
    assert first.logged == second.logged == [(1, {"a": 1.0}, "eval")]
    with pytest.raises(OSError, match="disk full"):
        logger.close()
    assert first.closed
    assert second.closed
