"""What a finished run's `result.json` says."""

from dataclasses import asdict
from typing import Any

from cdred.config import RunConfig
from cdred.demos.scripted import Level
from cdred.report.statistics import normalized
from cdred.train.evaluate import Evaluation
from cdred.train.loop import Outcome
from cdred.types import DemoDataset, EnvSpec


def told_levels(spec: EnvSpec, expert: Level | None, random: Level) -> dict[str, float | None]:
    """What an expert and a random agent reach; None for what is not known."""
    return {
        "expert_return": expert and expert.episode_return,
        "expert_success": expert and expert.success_once if spec.has_success else None,
        "random_return": random.episode_return,
        "random_success": random.success_once if spec.has_success else None,
    }


def told_scores(spec: EnvSpec, evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation, lists per seed; None for what the task does not say or the world cannot do."""
    return {
        "episodes": evaluation.episodes,
        "return": evaluation.episode_return.tolist(),
        "success": evaluation.success_once.tolist() if spec.has_success else None,
        "success_at_end": evaluation.success_at_end.tolist() if spec.has_success else None,
        "length": evaluation.episode_length.tolist() if spec.can_terminate else None,
        **evaluation.broken(),
    }


def told_result(
    config: RunConfig,
    spec: EnvSpec,
    made_with: dict[str, Any],
    demos: DemoDataset | None,
    outcome: Outcome,
    levels: dict[str, float | None],
) -> dict[str, Any]:
    """All that `result.json` says; `made_with` as `origin` tells it."""
    scores: dict[str, Any] = told_scores(spec, outcome.evaluation) | levels
    worst, best = levels["random_return"], levels["expert_return"]
    scores["normalized"] = None
    if worst is not None and best is not None:
        scores["normalized"] = [normalized(one, worst, best) for one in scores["return"]]
    return {
        "task": config.task,
        "algo": config.algo,
        "preset": config.preset,
        "seeds": list(config.seeds),
        "steps": outcome.steps,
        "updates": outcome.updates,
        "divergence_restarts": outcome.divergence_restarts,
        "demos": len(demos) if demos else 0,
        "precision": asdict(config.precision),
        **made_with,
        "wall_seconds": outcome.wall_seconds,
        "eval": scores,
    }
