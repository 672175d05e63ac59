"""Measure how well the success detector of a run tells successful episodes of its pretrained policy from others.

    python benchmarks/success_detector.py RUN --json results/benchmarks/success_detector.json

The pretrained policy acts with noise, so that some episodes fail. An episode is near the demonstrations' ends by its
nearest state, among all of its states or among its last ones only; precision and recall are given for several
tolerances. The task has to report success, which the detector does not use. Results of several runs are collected in
the same file.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from json_output import write_json

import cdred
from cdred.config_file import read_config
from cdred.demos.episodes import rollout
from cdred.envs.registry import make
from cdred.provenance import provenance

TOLERANCES = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
LAST = 20
FIRST_SEED = 50_000


def measure(run: Path, seed: int, episodes: int, noise: float) -> dict[str, Any]:
    """Return precision, recall and AUC of the detector of one seed of a run."""
    agent, config = cdred.load(run, seed=seed), read_config(run / "config.yaml")
    learner, rng = agent._learner, np.random.default_rng(seed)
    pretrained = learner.pretrained
    mode = jax.jit(lambda obs: pretrained.mode(learner.model, obs))
    distances = jax.jit(jax.vmap(lambda obs: pretrained.detector.distance(pretrained.encode(learner.model, obs))))

    def policy(obs: np.ndarray, _success: bool) -> np.ndarray:
        action = np.asarray(mode(jnp.asarray(obs)))
        return np.clip(action + noise * rng.normal(size=action.shape), -1, 1).astype(np.float32)

    env = make(config.task)
    trajectories = [rollout(env, FIRST_SEED + episode, policy) for episode in range(episodes)]
    env.close()
    success = np.array([trajectory.success_once for trajectory in trajectories])
    unit = float(pretrained.detector.threshold) / config.pretrain.success_tolerance
    distance = [np.asarray(distances(jnp.asarray(trajectory.obs[1:]))) / unit for trajectory in trajectories]
    nearest = {"all_states": [d.min() for d in distance], f"last_{LAST}": [d[-LAST:].min() for d in distance]}
    return {
        "seed": seed,
        "episodes": episodes,
        "success": float(success.mean()),
        "demos_detected": float(pretrained.demos_detected),
    } | {states: scores(np.array(values), success) for states, values in nearest.items()}


def scores(nearest: np.ndarray, success: np.ndarray) -> dict[str, Any]:
    """Return the AUC, and precision and recall at every tolerance; None where they are undefined."""
    pairs = nearest[success][:, None] - nearest[~success][None]
    auc = float(np.mean((pairs < 0) + 0.5 * (pairs == 0))) if pairs.size else None

    def ratio(part: np.ndarray, whole: np.ndarray) -> float | None:
        return round(float(part.sum() / whole.sum()), 3) if whole.any() else None

    detected = {tolerance: nearest <= tolerance for tolerance in TOLERANCES}
    return {"auc": auc} | {
        str(tolerance): {"precision": ratio(found & success, found), "recall": ratio(found & success, success)}
        for tolerance, found in detected.items()
    }


def main() -> None:
    """Measure the seeds of a run, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run with pretraining")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.2, help="standard deviation of the noise on actions")
    parser.add_argument("--json", type=Path, help="add the result to this file")
    options = parser.parse_args()
    rows = [measure(options.run, seed, options.episodes, options.noise) for seed in options.seeds]
    document = {read_config(options.run / "config.yaml").task: provenance() | {"noise": options.noise, "seeds": rows}}
    print(json.dumps(document, indent=1))
    if options.json:
        old = json.loads(options.json.read_text()) if options.json.exists() else {}
        write_json(options.json, old | document)


if __name__ == "__main__":
    main()
