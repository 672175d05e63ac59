"""Measure how close each method comes to an expert with a known action, for four values of one option each.

The task is a probe: observations that no action changes, an expert that acts by half the observation, no BC term.
A quarter of the agent's actions are random, the rest are samples of the current policy. All methods run on soft
actor-critic, because it is cheap; the losses are those of the methods on the world model.

    python benchmarks/baselines_probe.py --json results/benchmarks/baselines_probe.json
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
from json_output import write_json

import cdred
from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.config import RunConfig
from cdred.provenance import provenance
from cdred.types import EnvSpec, Segment

SPEC = EnvSpec("probe/half", (3,), 2, episode_length=100)
SETTINGS: dict[str, tuple[str, tuple[float, ...], Callable[[RunConfig, float], RunConfig]]] = {
    "cdred-sac": (
        "cdred.zeta",
        (0.5, 0.65, 0.8, 1.0),
        lambda config, value: replace(config, cdred=replace(config.cdred, zeta=value)),
    ),
    "iqlearn-sac": (
        "iq.gradient_penalty",
        (0.0, 0.1, 1.0, 10.0),
        lambda config, value: replace(config, iq=replace(config.iq, gradient_penalty=value)),
    ),
    "gail-sac": (
        "gail.gradient_penalty",
        (0.0, 0.1, 1.0, 10.0),
        lambda config, value: replace(config, gail=replace(config.gail, gradient_penalty=value)),
    ),
    "red-sac": (
        "red.sigma",
        (0.3, 1.0, 3.0, 10.0),
        lambda config, value: replace(config, red=replace(config.red, sigma=value)),
    ),
}


def main() -> None:
    """Train every setting, print one line each, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quarters = [options.updates * part // 4 for part in (1, 2, 3, 4)]
    print(f"mean distance from the expert's action after {quarters} updates, averaged over {options.seeds} seeds")
    rows = []
    for algo, (option, values, with_value) in SETTINGS.items():
        for value in values:
            errors = distances(with_value(probe_config(algo, options.updates), value), options.seeds)
            rows.append({"algo": algo, "setting": option, "value": value, "distance": errors})
            means = [sum(seeds) / len(seeds) for seeds in errors]
            print(f"{algo:12} {option} {value:<5} {' '.join(f'{mean:.3f}' for mean in means)}", flush=True)
    write_json(options.json, provenance() | {"updates": quarters, "rows": rows})


def probe_config(algo: str, updates: int) -> RunConfig:
    """Return settings with small networks and a learning rate that learns in seconds."""
    base = cdred.preset("debug")
    return replace(
        base,
        algo=algo,
        steps=updates,
        model=replace(base.model, hidden_dims=(32, 32)),
        cdred=replace(base.cdred, predictor_hidden_dims=(32, 32)),
        gail=replace(base.gail, hidden_dims=(32, 32)),
        red=replace(base.red, predictor_hidden_dims=(32, 32)),
        optim=replace(base.optim, learning_rate=2e-3, lr_decay_fraction=0.0, tau=0.05, bc_coef=0.0),
    )


def distances(config: RunConfig, seeds: int, num: int = 32) -> list[list[float]]:
    """Return |policy mode - expert's action| per quarter of the updates and seed, averaged over unseen observations."""
    algorithm = make_algorithm(config, SPEC)
    obs = jax.random.uniform(jax.random.key(50), (256, 3), minval=-1.0)

    def step(state, key):
        expert_key, agent_key, random_key, policy_key, update_key = jax.random.split(key, 5)
        expert, agent = expert_segments(expert_key, num), expert_segments(agent_key, num)
        random = jax.random.uniform(random_key, agent.action.shape, minval=-1.0)
        policy = jax.vmap(jax.vmap(lambda o, k: state.model.pi(state.model.encode(o)).sample(k)[0]))
        action = policy(agent.obs[:, :-1], jax.random.split(policy_key, agent.action.shape[:2]))
        agent = agent._replace(action=jnp.where(jnp.arange(num)[:, None, None] % 4 == 0, random, action))
        return algorithm.update(state, Batch(expert, agent), update_key)[0], None

    @jax.jit
    @jax.vmap
    def train_quarter(state, keys):
        state, _ = jax.lax.scan(step, state, keys)
        modes = jax.vmap(lambda o: state.model.pi(state.model.encode(o)).mode)(obs)
        return state, jnp.mean(jnp.linalg.norm(modes - 0.5 * obs[:, :2], axis=-1))

    state = jax.jit(jax.vmap(algorithm.init))(jax.vmap(jax.random.key)(jnp.arange(seeds)))
    result = []
    for part in range(4):
        keys = jax.random.split(jax.random.key(part), (seeds, config.steps // 4))
        state, error = train_quarter(state, keys)
        result.append(error.tolist())
    return result


def expert_segments(key, num: int) -> Segment:
    """Return `num` segments of three steps with independent observations and the expert's actions."""
    obs = jax.random.uniform(key, (num, 4, 3), minval=-1.0)
    return Segment(obs, 0.5 * obs[:, :-1, :2], jnp.zeros((num, 3)), jnp.zeros((num, 4), bool))


if __name__ == "__main__":
    main()
