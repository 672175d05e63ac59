"""How near each method comes to an expert whose action is known, four settings of its own knob each, the same effort.

The world is a probe: observations that no action changes, an expert who plays half of what it sees, no imitation term.
Own data are a quarter random and otherwise what the policy of the moment does. Everything is learned by soft
actor-critic on observations, because it is cheap; the losses are those of the methods on the world model.

    python benchmarks/peers.py --json results/peers/probe.json
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

import cdred
from cdred.algos.base import Batch
from cdred.algos.factory import make_algorithm
from cdred.config import GAILConfig, IQLearnConfig, REDConfig, RunConfig
from cdred.provenance import origin
from cdred.types import EnvSpec, Segment

SPEC = EnvSpec("probe/half", (3,), 2, episode_length=100)
SETTINGS: dict[str, tuple[str, tuple[float, ...], Callable[[RunConfig, float], RunConfig]]] = {
    "cdred-sac": (
        "reward.zeta",
        (0.5, 0.65, 0.8, 1.0),
        lambda config, value: replace(config, reward=replace(config.reward, zeta=value)),
    ),
    "iqlearn-sac": (
        "iqmpc.gradient_penalty",
        (0.0, 0.1, 1.0, 10.0),
        lambda config, value: replace(config, iqmpc=IQLearnConfig(gradient_penalty=value)),
    ),
    "gail-sac": (
        "gail.gradient_penalty",
        (0.0, 0.1, 1.0, 10.0),
        lambda config, value: replace(config, gail=GAILConfig(gradient_penalty=value)),
    ),
    "red-sac": (
        "red.sigma",
        (0.3, 1.0, 3.0, 10.0),
        lambda config, value: replace(config, red=REDConfig(sigma=value)),
    ),
}


def main() -> None:
    """Learn, print a line per setting, write them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quarters = [options.updates * part // 4 for part in (1, 2, 3, 4)]
    print(f"mean distance from the expert's action after {quarters} updates, the mean over {options.seeds} seeds")
    rows = []
    for algo, (knob, values, change) in SETTINGS.items():
        for value in values:
            errors = distances(change(probe_config(algo, options.updates), value), options.seeds)
            rows.append({"algo": algo, "setting": knob, "value": value, "distance": errors})
            means = [sum(seeds) / len(seeds) for seeds in errors]
            print(f"{algo:12} {knob} {value:<5} {' '.join(f'{mean:.3f}' for mean in means)}", flush=True)
    if options.json:
        about = origin() | {"updates": quarters}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def probe_config(algo: str, updates: int) -> RunConfig:
    """Small networks, a step that learns in seconds."""
    base = cdred.preset("debug")
    return replace(
        base,
        algo=algo,
        steps=updates,
        model=replace(base.model, hidden_dims=(32, 32)),
        reward=replace(base.reward, predictor_hidden_dims=(32, 32)),
        optim=replace(base.optim, learning_rate=2e-3, lr_decay_fraction=0.0, tau=0.05, bc_coef=0.0),
    )


def distances(config: RunConfig, seeds: int, num: int = 32) -> list[list[float]]:
    """|mode - expert's action| per quarter of the updates and seed, the mean over fresh observations."""
    algorithm = make_algorithm(config, SPEC)
    obs = jax.random.uniform(jax.random.key(50), (256, 3), minval=-1.0)

    def step(state, key):
        expert_key, own_key, random_key, policy_key, update_key = jax.random.split(key, 5)
        expert, own = played(expert_key, num), played(own_key, num)
        random = jax.random.uniform(random_key, own.action.shape, minval=-1.0)
        policy = jax.vmap(jax.vmap(lambda o, k: state.model.pi(state.model.encode(o)).sample(k)[0]))
        action = policy(own.obs[:, :-1], jax.random.split(policy_key, own.action.shape[:2]))
        own = own._replace(action=jnp.where(jnp.arange(num)[:, None, None] % 4 == 0, random, action))
        return algorithm.update(state, Batch(expert, own), update_key)[0], None

    @jax.jit
    @jax.vmap
    def quarter(state, keys):
        state, _ = jax.lax.scan(step, state, keys)
        modes = jax.vmap(lambda o: state.model.pi(state.model.encode(o)).mode)(obs)
        return state, jnp.mean(jnp.linalg.norm(modes - 0.5 * obs[:, :2], axis=-1))

    state = jax.jit(jax.vmap(algorithm.init))(jax.vmap(jax.random.key)(jnp.arange(seeds)))
    result = []
    for part in range(4):
        keys = jax.random.split(jax.random.key(part), (seeds, config.steps // 4))
        state, error = quarter(state, keys)
        result.append(error.tolist())
    return result


def played(key, num: int) -> Segment:
    """Three steps each of the expert, in observations that come as they please."""
    obs = jax.random.uniform(key, (num, 4, 3), minval=-1.0)
    return Segment(obs, 0.5 * obs[:, :-1, :2], jnp.zeros((num, 3)), jnp.zeros((num, 4), bool))


if __name__ == "__main__":
    main()
