"""The metrics file and the fan-out."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cdred.loggers.metrics import JsonlLogger, MultiLogger, read_lines


def test_writes_numbers_of_any_library(tmp_path: Path) -> None:
    sink = JsonlLogger(tmp_path / "run" / "metrics.jsonl")
    sink.log(3, {"a": jnp.float32(0.1), "b": np.arange(2), "c": [1.5, 2], "d": None}, "train")
    sink.close()
    (line,) = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert line.pop("time") > 1e9
    assert line == {"step": 3, "kind": "train", "a": pytest.approx(0.1), "b": [0, 1], "c": [1.5, 2], "d": None}
    assert np.float32(line["a"]) == np.float32(0.1)


def test_what_is_not_finite_is_null_and_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlLogger(path)
    sink.log(1, {"loss": [1.0, float("nan")], "fine": 2.0, "norm": float("inf"), "absent": None}, "train")
    sink.close()
    line = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (line["loss"], line["norm"]) == ([1.0, None], None)
    assert line["non_finite"] == ["loss", "norm"]


@pytest.mark.parametrize(("resume_step", "kept"), [(None, [1, 2, 3]), (2, [1, 2]), (-1, [])])
def test_resuming_drops_what_will_be_told_again(tmp_path: Path, resume_step: int | None, kept: list[int]) -> None:
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


def test_what_follows_the_last_save_at_its_own_step_is_told_once(tmp_path: Path) -> None:
    """The last evaluation is logged at the step of the last checkpoint, and made again if the run is killed then."""
    path = tmp_path / "metrics.jsonl"
    first = JsonlLogger(path)
    for step, kind in ((1, "eval"), (2, "train"), (2, "eval")):
        first.log(step, {}, kind)
    first.close()
    second = JsonlLogger(path, 2, again="eval")
    second.log(2, {}, "eval")
    second.close()
    assert [(line["step"], line["kind"]) for line in read_lines(path)] == [(1, "eval"), (2, "train"), (2, "eval")]


class Recorder:
    def __init__(self, fails: bool = False):
        self.logged: list[tuple] = []
        self.closed, self.fails = False, fails

    def log(self, *args: object) -> None:
        self.logged.append(args)

    def close(self) -> None:
        self.closed = True
        if self.fails:
            raise OSError("disk full")


def test_fan_out_reaches_all_and_closes_all() -> None:
    first, second = Recorder(fails=True), Recorder()
    both = MultiLogger([first, second])
    both.log(1, {"a": 1.0}, "eval")
    assert first.logged == second.logged == [(1, {"a": 1.0}, "eval")]
    with pytest.raises(OSError, match="disk full"):
        both.close()
    assert first.closed
    assert second.closed
