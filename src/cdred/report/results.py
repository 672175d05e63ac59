"""A run folder as its readers see it: the result, the description and the curves, whichever are there yet."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cdred.config_file import read_config
from cdred.errors import UserError
from cdred.loggers.metrics import read_lines

# Of what `result.json` holds, as far as its readers count on it.
KINDS = {"task": str, "seeds": list, "steps": int, "eval": dict}
LEVELS = ("expert_return", "expert_success", "random_return", "random_success")


@dataclass(frozen=True)
class Series:
    """One metric over a run: `values[i, j]` is that of seed j at `steps[i]` steps; NaN where there is none."""

    steps: Int[np.ndarray, " N"]
    values: Float[np.ndarray, "N seeds"]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class Record:
    """What a run folder holds; `about` is `result.json` or, while the run goes on, `config.yaml`."""

    folder: Path
    lines: list[dict[str, Any]]
    about: dict[str, Any]

    def series(self, kind: str, key: str) -> Series:
        """A metric's history; empty if it was never reported, the last word where a step was reported twice."""
        try:
            found = {line["step"]: _row(line[key]) for line in self.lines if line["kind"] == kind and key in line}
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.folder / 'metrics.jsonl'}: '{key}' is not always a number ({error}).") from error
        width = max((len(row) for row in found.values()), default=1)
        whole = {step: row for step, row in sorted(found.items()) if len(row) == width}
        return Series(np.array([*whole], int), np.array([*whole.values()], float).reshape(len(whole), width))

    @property
    def last_step(self) -> int:
        return max((line["step"] for line in self.lines), default=0)

    @property
    def levels(self) -> dict[str, float]:
        """What the expert and a random agent reach, as far as known."""
        told = [line for line in self.lines if line["kind"] == "reference"] + [self.about.get("eval") or {}]
        return {key: source[key] for source in told for key in LEVELS if source.get(key) is not None}


def read_record(run_dir: Path) -> Record:
    """Read a run, finished or not.

    Raises:
        UserError: the folder has no metrics, or a damaged result.
    """
    metrics = run_dir / "metrics.jsonl"
    if not metrics.is_file():
        raise UserError(f"{run_dir} has no metrics.jsonl.\nGive the folder of a run (the --out of `cdred train`).")
    config, about = run_dir / "config.yaml", {}
    if (run_dir / "result.json").exists():
        about = read_result(run_dir)
    elif config.exists():
        about = asdict(read_config(config))
    return Record(run_dir, read_lines(metrics), about)


def read_result(run_dir: Path) -> dict[str, Any]:
    """The `result.json` of a finished run.

    Raises:
        UserError: there is none, or it is not as a run writes it.
    """
    path = run_dir / "result.json"
    try:
        result = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be read: the run has not finished.\nRe-run its command to go on.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}).\nRe-run its command to write it again.") from error
    if not isinstance(result, dict):
        raise UserError(f"{path} is not a JSON object.\nRe-run its command to write it again.")
    for key, kind in KINDS.items():
        if not isinstance(result.get(key, kind()), (kind, type(None))):
            raise UserError(f"{path}: '{key}' is no {kind.__name__}.\nRe-run its command to write it again.")
    for key, value in (result.get("eval") or {}).items():
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(one, (int, float, type(None))) for one in numbers):
            raise UserError(f"{path}: 'eval.{key}' is not all numbers.\nRe-run its command to write it again.")
    return result


def _row(value: Any) -> list[float]:
    return [float("nan") if item is None else float(item) for item in (value if isinstance(value, list) else [value])]
