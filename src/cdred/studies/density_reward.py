"""Study of the transform g: the reward against two densities that are known, as their dimension grows.

Expert and agent data are samples of Gaussian mixtures that have half of their components in common. The reward that
CDRED would have with exact densities is zeta log p_E - (1 - zeta) log p_A.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cdred.algos.cdred import TRANSFORMS, CDREDConfig, CoupledRND, cdred_reward
from cdred.config import preset
from cdred.nn.layers import Ensemble
from cdred.report.aggregate import style_panel
from cdred.report.plots import PALETTE, QUIET
from cdred.report.statistics import mean_interval, probability_of_improvement, rank_correlation
from cdred.studies.fit import BATCH, fit, update_bounds
from cdred.studies.study import Scale, StudyResult
from cdred.types import LogFn

if TYPE_CHECKING:
    # At run time it would delay every command.
    from matplotlib.figure import Figure

DATA_POINTS, TEST_POINTS = 2000, 500
# Components of each mixture, and how many of them both have.
COMPONENTS, COMMON = 4, 2
EXPERT_STD, AGENT_STD = 0.2, 0.4
# Slope of g below which the expert bonus of a point does not count any more.
FLAT = 0.01
LINE_STYLES = ("-", "--", ":")


class Row(NamedTuple):
    """Reward of one seed at new points of both densities.

    Attributes:
        dimension: of the space, d.
        transform: of the bonuses, g.
        updates: updates of the predictors.
        seed: of densities, data and networks.
        correlation: rank correlation of the reward with that of the exact densities, over all points.
        agent_correlation: the same over the agent's points, among which learning has to tell good from bad.
        separation: probability that an expert's point has a higher reward than an agent's.
        flat: fraction of the agent's points where the slope of g, at the expert bonus, is below `FLAT`.
    """

    dimension: int
    transform: str
    updates: int
    seed: int
    correlation: float
    agent_correlation: float
    separation: float
    flat: float


SCORES = {
    "correlation": "rank correlation, all points",
    "agent_correlation": "agent's points",
    "separation": "P(expert's point has more)",
    "flat": f"points with a slope below {FLAT:g}",
}


class GaussianMixture(NamedTuple):
    """Gaussian mixture with equal weights and one standard deviation."""

    means: Float[Array, "m d"]
    std: float

    def sample(self, num: int, key: Key[Array, ""]) -> Float[Array, "num d"]:
        """Draw points."""
        component_key, noise_key = jax.random.split(key)
        component = jax.random.randint(component_key, (num,), 0, len(self.means))
        return self.means[component] + self.std * jax.random.normal(noise_key, (num, self.means.shape[1]))

    def log_density(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """Compute the logarithm of the density at a point."""
        num, dimension = self.means.shape
        exponents = -jnp.sum((x[None] - self.means) ** 2, axis=1) / (2 * self.std**2)
        scale = jnp.log(num) + 0.5 * dimension * jnp.log(2 * jnp.pi * self.std**2)
        return jax.nn.logsumexp(exponents) - scale


class Measured(NamedTuple):
    """Rewards of a seed at the test points after some updates, the expert's points first.

    Attributes:
        exact: reward of the exact densities.
        reward: learned reward with each transform.
        slope: of each transform at the expert bonus.
    """

    exact: Float[Array, "*batch points"]
    reward: Float[Array, "*batch transforms points"]
    slope: Float[Array, "*batch transforms points"]


def measure_densities(scale: Scale, num_seeds: int, log: LogFn) -> StudyResult:
    """Measure the reward with each transform at several dimensions."""
    cpu = scale == "cpu"
    dimensions = (2, 8, 32, 128, 512) if cpu else (2, 8, 32, 128, 512, 1024)
    checkpoints = (500, 5000) if cpu else (500, 5000, 50_000)
    rows = []
    for dimension in dimensions:
        new = measure(dimension, preset(scale).cdred, checkpoints, num_seeds)
        rows += new
        last = _by_transform([row for row in new if row.updates == checkpoints[-1]])
        text = ", ".join(f"{name} {np.mean([row.correlation for row in group]):.2f}" for name, group in last.items())
        log(f"d {dimension}: rank correlation with the exact reward {text}")
    details = {"data_points": DATA_POINTS, "test_points": TEST_POINTS}
    return StudyResult(Row._fields, rows, density_table(rows), draw_densities(rows), details)


def measure(dimension: int, config: CDREDConfig, checkpoints: Sequence[int], num_seeds: int) -> list[Row]:
    """Train the predictors of all seeds; return a row per checkpoint, transform and seed."""
    # The reward of the trained predictors, and not of EMA copies.
    config, keys = replace(config, ema_rate=1.0), jax.random.split(jax.random.key(0), num_seeds)
    train = jax.jit(jax.vmap(partial(train_densities, dimension, config), in_axes=(0, None), out_axes=1))
    exact, reward, slope = map(np.asarray, jax.device_get(train(keys, update_bounds(checkpoints))))
    return [
        Row(dimension, transform, updates, seed, *_scores(exact[at, seed], reward[at, seed, g], slope[at, seed, g]))
        for at, updates in enumerate(checkpoints)
        for g, transform in enumerate(TRANSFORMS)
        for seed in range(num_seeds)
    ]


def _scores(
    exact: Float[np.ndarray, " points"], reward: Float[np.ndarray, " points"], slope: Float[np.ndarray, " points"]
) -> tuple[float, float, float, float]:
    expert, agent = slice(None, TEST_POINTS), slice(TEST_POINTS, None)
    return (
        rank_correlation(reward.tolist(), exact.tolist()),
        rank_correlation(reward[agent].tolist(), exact[agent].tolist()),
        probability_of_improvement(reward[expert].tolist(), reward[agent].tolist()),
        float(np.mean(slope[agent] < FLAT)),
    )


def make_densities(dimension: int, key: Key[Array, ""]) -> tuple[GaussianMixture, GaussianMixture]:
    """Draw the densities of expert and agent."""
    means = jax.random.uniform(key, (2 * COMPONENTS - COMMON, dimension), minval=-1.0, maxval=1.0)
    return GaussianMixture(means[:COMPONENTS], EXPERT_STD), GaussianMixture(means[-COMPONENTS:], AGENT_STD)


def train_densities(
    dimension: int, config: CDREDConfig, key: Key[Array, ""], bounds: Int[Array, "checkpoints 2"]
) -> Measured:
    """Train both predictors on samples of the densities; return the rewards at new ones at each checkpoint.

    Args:
        dimension: of the space.
        config: of the reward, with an `ema_rate` of 1; its transform does not matter.
        key: of densities, samples, networks and updates.
        bounds: as from `update_bounds`.
    """
    density_key, net_key, update_key, *sample_keys = jax.random.split(key, 7)
    expert, agent = make_densities(dimension, density_key)
    data = jnp.stack([expert.sample(DATA_POINTS, sample_keys[0]), agent.sample(DATA_POINTS, sample_keys[1])])
    points = jnp.concatenate([expert.sample(TEST_POINTS, sample_keys[2]), agent.sample(TEST_POINTS, sample_keys[3])])
    initial = CoupledRND.create(dimension, config, key=net_key)
    log_densities = jax.vmap(expert.log_density)(points), jax.vmap(agent.log_density)(points)
    exact = config.zeta * log_densities[0] - (1.0 - config.zeta) * log_densities[1]

    def loss(predictors: Ensemble, update: Int[Array, ""]) -> Float[Array, ""]:
        batch_key, target_key = jax.random.split(jax.random.fold_in(update_key, update))
        rows = jax.random.randint(batch_key, (2, BATCH), 0, DATA_POINTS)
        x = jnp.take_along_axis(data, rows[:, :, None], axis=1).reshape(2 * BATCH, 1, dimension)
        return jnp.mean(cdred_reward(_with_predictors(initial, predictors), x, target_key).loss)

    def rewards(predictors: Ensemble) -> Measured:
        trained = _with_predictors(initial, predictors)
        with_transform = [replace(trained, config=replace(config, transform=name)) for name in TRANSFORMS]
        reward = jnp.stack([jax.vmap(model)(points) for model in with_transform])
        bonus = jax.vmap(trained.expert_novelty)(points)
        slope = jnp.stack([jax.vmap(jax.grad(g))(-config.sigma * bonus) for g in TRANSFORMS.values()])
        return Measured(exact, reward, slope)

    return fit(loss, initial.predictors, bounds, rewards)


def _with_predictors(reward: CoupledRND, predictors: Ensemble) -> CoupledRND:
    return eqx.tree_at(lambda r: r.predictors, reward, predictors)


def density_table(rows: Sequence[Row]) -> str:
    """Return a row per dimension, number of updates and transform: means over the seeds, with 95 % intervals."""
    heads = ["d", "updates", "g", *SCORES.values()]
    lines = [heads, ["---:", "---:", "---", *["---:"] * len(SCORES)]]
    for dimension in dict.fromkeys(row.dimension for row in rows):
        for updates in dict.fromkeys(row.updates for row in rows):
            shown = [row for row in rows if (row.dimension, row.updates) == (dimension, updates)]
            for transform, group in _by_transform(shown).items():
                cells = [_cell([getattr(row, name) for row in group]) for name in SCORES]
                lines.append([str(dimension), str(updates), transform, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    interval = mean_interval(values)
    return f"{np.mean(values):.2f}" + ("" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})")


def _by_transform(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [row for row in rows if row.transform == name] for name in TRANSFORMS}


def draw_densities(rows: Sequence[Row]) -> "Figure":
    """Draw each score after the last checkpoint against the dimension: dots are seeds, lines their means."""
    from matplotlib.figure import Figure

    last = max(row.updates for row in rows)
    figure = Figure(figsize=(15, 4.2), facecolor="white", layout="constrained")
    figure.suptitle(f"Reward of two known densities after {last:,} updates", x=0.01, ha="left", size=13)
    for axes, (score, title) in zip(figure.subplots(1, len(SCORES)), SCORES.items(), strict=True):
        style_panel(axes, title, "")
        # Of different styles, as identity and logarithm often coincide.
        for colour, style, (transform, group) in zip(PALETTE, LINE_STYLES, _by_transform(rows).items(), strict=False):
            values: dict[int, list[float]] = {}
            for row in group:
                if row.updates == last:
                    values.setdefault(row.dimension, []).append(getattr(row, score))
            means = [np.mean(of_seeds) for of_seeds in values.values()]
            axes.plot([*values], means, style, color=colour, label=transform)
            for dimension, of_seeds in values.items():
                axes.plot([dimension] * len(of_seeds), of_seeds, "o", color=colour, markersize=4, alpha=0.5)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda d, _: f"{d:g}")
        axes.set_xlabel("dimension d", size=10.5, color=QUIET)
    figure.axes[0].legend(fontsize=9.5, frameon=False)
    return figure
