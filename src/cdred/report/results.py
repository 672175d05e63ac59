"""Results of a run: the schema of `result.json`, and the reader of a run folder."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cdred.config import RunConfig
from cdred.config_file import read_config
from cdred.data.quality import SELECTED_KEY
from cdred.demos.reference_scores import ReferenceScore
from cdred.errors import UserError
from cdred.files import atomic_write_text
from cdred.loggers.metrics import read_lines
from cdred.report.statistics import normalized_score
from cdred.train.evaluate import Evaluation
from cdred.train.loop import TrainResult
from cdred.types import DemoDataset, EnvSpec

# Types of the entries of `result.json` that its readers rely on.
RESULT_TYPES = {"task": str, "seeds": list, "steps": int, "eval": dict}
DEMOS_PROVENANCE_KEY = "demos_provenance"
REFERENCE_KEYS = ("expert_return", "expert_success", "random_return", "random_success")


@dataclass(frozen=True)
class Series:
    """One metric over a run.

    Attributes:
        steps: steps per seed at which it was reported.
        values: `values[i, j]` is the value of seed j at `steps[i]`; NaN if unknown.
    """

    steps: Int[np.ndarray, " N"]
    values: Float[np.ndarray, "N seeds"]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True)
class RunResults:
    """Content of a run folder, finished or not.

    Attributes:
        folder: the run folder.
        lines: the objects of `metrics.jsonl`.
        metadata: content of `result.json` or, before the run has finished, of `config.yaml`.
    """

    folder: Path
    lines: list[dict[str, Any]]
    metadata: dict[str, Any]

    def series(self, kind: str, key: str) -> Series:
        """Return a metric's history; empty if it was never reported. The last of several reports at a step counts.

        Raises:
            UserError: a value is not a number.
        """
        try:
            rows = {line["step"]: _row(line[key]) for line in self.lines if line["kind"] == kind and key in line}
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.folder / 'metrics.jsonl'}: '{key}' is not always a number ({error}).") from error
        width = max((len(row) for row in rows.values()), default=1)
        complete = {step: row for step, row in sorted(rows.items()) if len(row) == width}
        return Series(np.array([*complete], int), np.array([*complete.values()], float).reshape(len(complete), width))

    def pretrained_score(self, key: str) -> float | None:
        """Return the mean evaluation of the pretrained policy over the seeds; None without pretraining."""
        evaluations = self.series("eval", key)
        if not len(evaluations) or evaluations.steps[0] > 0:
            return None
        score = float(np.mean(evaluations.values[0]))
        return score if math.isfinite(score) else None

    @property
    def last_step(self) -> int:
        """Largest step reported."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def reference_scores(self) -> dict[str, float]:
        """Scores of the expert and a random policy, as far as known."""
        sources = [line for line in self.lines if line["kind"] == "reference"] + [self.metadata.get("eval") or {}]
        return {key: source[key] for source in sources for key in REFERENCE_KEYS if source.get(key) is not None}


def read_run(run_dir: Path) -> RunResults:
    """Read a run folder, finished or not.

    Raises:
        UserError: the folder has no metrics, or a damaged result.
    """
    metrics = run_dir / "metrics.jsonl"
    if not metrics.is_file():
        raise UserError(f"{run_dir} has no metrics.jsonl.\nGive the folder of a run (the --out of `cdred train`).")
    config, metadata = run_dir / "config.yaml", {}
    if (run_dir / "result.json").exists():
        metadata = read_result(run_dir)
    elif config.exists():
        metadata = asdict(read_config(config))
    return RunResults(run_dir, read_lines(metrics), metadata)


def read_result(run_dir: Path) -> dict[str, Any]:
    """Read the `result.json` of a finished run.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = run_dir / "result.json"
    try:
        result = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: the run has not finished.\nRerun its command to resume it.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, f" is not JSON ({error})") from error
    if not isinstance(result, dict):
        raise _damaged(path, " is not a JSON object")
    for key, expected in RESULT_TYPES.items():
        if not isinstance(result.get(key, expected()), (expected, type(None))):
            raise _damaged(path, f": '{key}' is not of type {expected.__name__}")
    for key, value in (result.get("eval") or {}).items():
        numbers = [number for item in _listed(value) for number in _listed(item)]
        if not all(isinstance(number, (int, float, type(None))) for number in numbers):
            raise _damaged(path, f": 'eval.{key}' has a value that is not a number")
    return result


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(f"{path}{problem}.\nDelete it and rerun the run's command to write it again.")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _row(value: Any) -> list[float]:
    return [float("nan") if item is None else float(item) for item in _listed(value)]


def reference_dict(spec: EnvSpec, expert: ReferenceScore | None, random: ReferenceScore) -> dict[str, float | None]:
    """Return the scores of the expert and a random policy; None for what is unknown or not defined for the task."""
    return {
        "expert_return": expert and expert.episode_return,
        "expert_success": expert and expert.success if spec.has_success else None,
        "random_return": random.episode_return,
        "random_success": random.success if spec.has_success else None,
    }


def evaluation_dict(spec: EnvSpec, evaluation: Evaluation) -> dict[str, Any]:
    """Return the scores of an evaluation as lists per seed; None for what is not defined for the task."""
    return {
        "episodes": evaluation.episodes,
        "return": evaluation.episode_return.tolist(),
        "returns": evaluation.returns.tolist(),
        "success": evaluation.success.tolist() if spec.has_success else None,
        "success_at_end": evaluation.success_at_end.tolist() if spec.has_success else None,
        "length": evaluation.episode_length.tolist() if spec.can_terminate else None,
        **evaluation.failure_counts(),
    }


def result_dict(
    config: RunConfig,
    spec: EnvSpec,
    provenance: dict[str, Any],
    demos: DemoDataset | None,
    outcome: TrainResult,
    reference: dict[str, float | None],
    trackers: dict[str, str],
) -> dict[str, Any]:
    """Return the content of `result.json`.

    Args:
        config: settings of the run.
        spec: the task.
        provenance: device, commit and package versions.
        demos: the demonstrations; None for a method that uses none.
        outcome: what training returned.
        reference: as from `reference_dict`.
        trackers: as from `TrackerLogger.status`.
    """
    scores: dict[str, Any] = evaluation_dict(spec, outcome.evaluation) | reference
    scores["normalized"] = _normalized(scores["return"], reference["random_return"], reference["expert_return"])
    return {
        "task": config.task,
        "algo": config.algo,
        "preset": config.preset,
        "seeds": list(config.seeds),
        "steps": outcome.steps,
        "updates": outcome.updates,
        "divergence_restarts": outcome.divergence_restarts,
        "acting": outcome.acting,
        "demos": len(demos) if demos else 0,
        SELECTED_KEY: demos.provenance.get(SELECTED_KEY) if demos else None,
        DEMOS_PROVENANCE_KEY: _json_copy(demos.provenance) if demos else None,
        "precision": asdict(config.precision),
        **provenance,
        "wall_seconds": outcome.wall_seconds,
        "trackers": trackers,
        "eval": scores,
    }


def write_result(run_dir: Path, result: dict[str, Any]) -> None:
    """Write `result.json`."""
    atomic_write_text(run_dir / "result.json", json.dumps(result, indent=1) + "\n")


def _json_copy(tree: Any) -> Any:
    """Return a copy as JSON has it; what JSON does not have becomes text. A run must not fail when it has ended."""
    try:
        return json.loads(json.dumps(tree, default=str, allow_nan=False))
    except (TypeError, ValueError):
        return str(tree)


def _normalized(returns: list[float], random: float | None, expert: float | None) -> list[float | None] | None:
    """Normalize returns; None where the score is not defined, as JSON has no NaN."""
    if random is None or expert is None:
        return None
    scores = [normalized_score(value, random, expert) for value in returns]
    return [score if math.isfinite(score) else None for score in scores]
