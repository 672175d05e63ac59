"""Run folders of known content, for tests of reports."""

import json
from dataclasses import replace
from pathlib import Path

import cdred
from cdred.config_file import to_yaml
from cdred.loggers.metrics import JsonlLogger

SEEDS = (0, 1, 2)


def result(task: str, algo: str, success: list[float] | None, returns: list[float]) -> dict:
    """Make the content of a `result.json`: the expert's return is 110 and a random agent's 10."""
    return {
        "task": task,
        "algo": algo,
        "preset": "debug",
        "seeds": list(SEEDS),
        "steps": 200,
        "updates": 200,
        "divergence_restarts": [0, 0, 0],
        "acting": ["agent", "policy", "pretrained"],
        "demos": 10,
        "device": "cpu: test device",
        "commit": "0123abc",
        "versions": {"cdred": "0.1.0", "jax": "0.10.2"},
        "wall_seconds": 754.0,
        "demos_provenance": {"expert": "scripted", "notes": "recorded by hand"},
        "eval": {
            "episodes": 20,
            "return": returns,
            "success": success,
            "normalized": [(value - 10) / 100 for value in returns],
            "expert_return": 110.0,
            "expert_success": None if success is None else 1.0,
            "random_return": 10.0,
            "random_success": None if success is None else 0.05,
        },
    }


def write_run(
    folder: Path,
    task: str = "suite/lift",
    algo: str = "cdred",
    success: list[float] | None = (0.5, 0.75, 1.0),
    returns: list[float] = (60.0, 85.0, 110.0),
    finished: bool = True,
    **changes: object,
) -> Path:
    """Write a run of three seeds and 200 steps, stopped at step 120 if it is not finished.

    Args:
        folder: the run folder.
        task, algo: of the run.
        success, returns: of the final evaluation, per seed.
        finished: write `result.json`.
        changes: settings that differ from the preset `debug`.
    """
    known_success = None if success is None else list(success)
    config = replace(cdred.preset("debug"), task=task, algo=algo, seeds=SEEDS, **changes)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "demonstrations.json").write_text(json.dumps({"episodes": 10, "steps": 1000, "sha256": "5ha"}))
    if finished:
        (folder / "result.json").write_text(json.dumps(result(task, algo, known_success, list(returns))))
    logger = JsonlLogger(folder / "metrics.jsonl")
    reference = {"expert_return": 110.0, "random_return": 10.0}
    logger.log(0, reference | ({} if success is None else {"expert_success": 1.0, "random_success": 0.05}), "reference")
    for updates in (20, 40):
        logger.log(0, {"bc_loss": [1 / updates] * 3, "consistency_loss": [0.1] * 3, "updates": updates}, "pretrain")
    for step in range(0, 201 if finished else 121, 20):
        scores = {"episode_return": [10.0 + step / 2] * 3}
        scores |= {} if success is None else {"success": [0.25, 0.25 + step / 400, 0.25]}
        if step % 100 == 0:
            logger.log(step, scores | {"episodes": 5}, "eval")
        logger.log(step, scores, "rollout")
        losses = {"critic_loss": [2.0, 3.0, 4.0], "consistency_loss": [0.2] * 3, "grad_norm": [1.0, float("nan"), 2.0]}
        logger.log(step, losses | {"reward_expert": [1.0] * 3, "reward_agent": [-1.0] * 3}, "train")
        logger.log(step, {"reward_margin": [0.5] * 3, "q_gradient_share": [0.1, 0.2, 0.3]}, "diagnostics")
        logger.log(step, {"seconds": 0.5, "bytes": 10}, "checkpoint")
    if finished:
        detected = {"agent": [0.9, 0.1, 0.2], "policy": [0.8, 0.6, 0.9], "pretrained": [0.7, 0.5, 0.3]}
        metrics = {f"{name}_detected_success": rates for name, rates in detected.items()}
        logger.log(200, metrics | {"chosen": [0, 1, 2]}, "selection")
    logger.close()
    return folder
