"""Study of the count correction: y(x) against true numbers of visits in a continuous space.

Points of a d-dimensional space are visited 0 to 128 times, and a predictor is distilled from K targets at the visits.
If a visit has one target for good, as in the derivation of y (DRND, arXiv 2401.09750, Lemma 1), the best prediction
after n visits is the mean of n draws, and E[y] = 1/n. If the target is drawn in every update, as in CDRED's loss, the
best prediction is the mean of all targets, whatever n.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from cdred.algos.cdred import CDREDConfig, CoupledRND, distillation_loss, inverse_count, target_moments
from cdred.config import preset
from cdred.nn.layers import Ensemble
from cdred.report.aggregate import style_panel
from cdred.report.plots import INK, PALETTE, QUIET
from cdred.report.statistics import rank_correlation
from cdred.studies.fit import BATCH, fit, update_bounds
from cdred.studies.study import Scale, StudyResult
from cdred.types import LogFn

if TYPE_CHECKING:
    # At run time it would delay every command.
    from matplotlib.figure import Figure

Drawn = Literal["per visit", "per update"]

COUNTS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
POINTS_PER_COUNT = 16


class Row(NamedTuple):
    """Estimates at the points with a number of visits, over all seeds.

    Attributes:
        dimension: of the space, d.
        targets: number of targets, K.
        drawn: when the target of a visit is drawn.
        updates: updates of the predictor.
        visits: visits of each point, n.
        y: mean of y, which is averaged over the embedding as in the bonus.
        y_std: standard deviation of y over points and seeds.
        count_term: mean of sqrt(|y|), the second term of the bonus.
        distance: mean of |f - mu|^2, its first term.
        y_correlation: rank correlation of |y| with n over all visited points, the same for all numbers of visits.
        distance_correlation: rank correlation of |f - mu|^2 with n.
    """

    dimension: int
    targets: int
    drawn: Drawn
    updates: int
    visits: int
    y: float
    y_std: float
    count_term: float
    distance: float
    y_correlation: float
    distance_correlation: float


class Estimates(NamedTuple):
    """Estimates y and |f - mu|^2 of all points of each seed after some updates."""

    y: Float[Array, "*batch counts points"]
    distance: Float[Array, "*batch counts points"]


def measure_counts(scale: Scale, num_seeds: int, log: LogFn) -> StudyResult:
    """Measure y at several dimensions and numbers of targets."""
    cpu = scale == "cpu"
    dimensions, target_numbers = ((2, 16, 128), (2, 5, 20)) if cpu else ((2, 8, 32, 128, 512), (2, 5, 10, 20, 50))
    checkpoints = (500, 2000, 5000) if cpu else (500, 2000, 8000, 32_000, 128_000)
    rows = []
    for dimension in dimensions:
        for number in target_numbers:
            new = measure(dimension, replace(preset(scale).cdred, num_targets=number), checkpoints, num_seeds)
            rows += new
            # Of the last checkpoint.
            by_draw = {row.drawn: row.y_correlation for row in new}
            text = ", ".join(f"{value:.2f} (target drawn {drawn})" for drawn, value in by_draw.items())
            log(f"d {dimension}, K {number}: rank correlation of y with the visits {text}")
    return StudyResult(Row._fields, rows, count_table(rows), draw_counts(rows), {"points_per_count": POINTS_PER_COUNT})


def measure(dimension: int, config: CDREDConfig, checkpoints: Sequence[int], num_seeds: int) -> list[Row]:
    """Train the predictors of all seeds; return a row per draw of targets, checkpoint and number of visits."""
    keys, bounds = jax.random.split(jax.random.key(0), num_seeds), update_bounds(checkpoints)
    train = jax.jit(jax.vmap(partial(distil, dimension, config), in_axes=(0, None, None), out_axes=1))
    rows = []
    for drawn in ("per visit", "per update"):
        history = jax.device_get(train(keys, bounds, drawn == "per visit"))
        for index, updates in enumerate(checkpoints):
            estimates = jax.tree.map(lambda x, i=index: np.asarray(x[i], np.float64), history)
            rows += _rows(dimension, config.num_targets, drawn, updates, estimates)
    return rows


def _rows(dimension: int, num_targets: int, drawn: Drawn, updates: int, estimates: Estimates) -> list[Row]:
    y, distance = estimates
    # Unvisited points have no 1/n.
    visits = np.broadcast_to(np.array(COUNTS)[:, None], y.shape)[:, 1:].ravel().tolist()
    correlations = [rank_correlation(values[:, 1:].ravel().tolist(), visits) for values in (np.abs(y), distance)]
    return [
        Row(
            dimension,
            num_targets,
            drawn,
            updates,
            count,
            float(y[:, index].mean()),
            float(y[:, index].std()),
            float(np.sqrt(np.abs(y[:, index])).mean()),
            float(distance[:, index].mean()),
            *correlations,
        )
        for index, count in enumerate(COUNTS)
    ]


def distil(
    dimension: int,
    config: CDREDConfig,
    key: Key[Array, ""],
    bounds: Int[Array, "checkpoints 2"],
    one_target_per_visit: Bool[Array, ""],
) -> Estimates:
    """Distil a predictor at visited points; return the estimates after the updates of each checkpoint.

    Args:
        dimension: of the space.
        config: of targets and predictor.
        key: of networks, points, visits and updates.
        bounds: as from `update_bounds`.
        one_target_per_visit: a visit has one target for good, not another one in every update.
    """
    net_key, point_key, visit_key, update_key = jax.random.split(key, 4)
    reward = CoupledRND.create(dimension, config, key=net_key)
    points = jax.random.uniform(point_key, (len(COUNTS) * POINTS_PER_COUNT, dimension), minval=-1.0, maxval=1.0)
    embeddings = jax.vmap(reward.targets)(points)
    moments = jax.vmap(target_moments)(embeddings)
    # The point of each visit.
    visited = np.repeat(np.arange(len(points)), np.repeat(COUNTS, POINTS_PER_COUNT))
    target_of_visit = jax.random.randint(visit_key, visited.shape, 0, config.num_targets)

    def predict(predictor: Ensemble, x: Float[Array, "n d"]) -> Float[Array, "n e"]:
        return jax.vmap(predictor)(x)[:, 0]

    def loss(predictor: Ensemble, update: Int[Array, ""]) -> Float[Array, ""]:
        visit_key, target_key = jax.random.split(jax.random.fold_in(update_key, update))
        visit = jax.random.randint(visit_key, (BATCH,), 0, len(visited))
        drawn_now = jax.random.randint(target_key, (BATCH,), 0, config.num_targets)
        target = jnp.where(one_target_per_visit, target_of_visit[visit], drawn_now)
        index = jnp.asarray(visited)[visit]
        losses = jax.vmap(distillation_loss)(predict(predictor, points[index]), embeddings[index], target)
        return jnp.mean(losses)

    def estimates(predictor: Ensemble) -> Estimates:
        predictions = predict(predictor, points)
        y = jnp.mean(jax.vmap(partial(inverse_count, eps=config.variance_eps))(predictions, moments), axis=1)
        distance = jnp.sum((predictions - moments.mean) ** 2, axis=1)
        shape = len(COUNTS), POINTS_PER_COUNT
        return Estimates(y.reshape(shape), distance.reshape(shape))

    predictor = reward.predictors.subset(jnp.array([CoupledRND.EXPERT]))
    return fit(loss, predictor, bounds, estimates)


def count_table(rows: Sequence[Row]) -> str:
    """Return a row per dimension, K, draw and checkpoint: bias of y, and rank correlations with the visits."""
    shown = (1, 16, 128)
    heads = ["d", "K", "target drawn", "updates", *(f"y - 1/n (std) at n = {n}" for n in shown)]
    heads += ["count term, n = 0 / 1 / 128", "squared distance, n = 0 / 1 / 128"]
    heads += ["rank correlation with n: y", "squared distance"]
    lines = [heads, ["---:", "---:", "---", *["---:"] * (len(heads) - 3)]]
    for group in _groups(rows, lambda row: row[:4]).values():
        by_visits = {row.visits: row for row in group}
        first = group[0]
        lines.append(
            [
                *map(str, first[:4]),
                *(f"{by_visits[n].y - 1 / n:+.2f} ({by_visits[n].y_std:.2f})" for n in shown),
                " / ".join(f"{by_visits[n].count_term:.2f}" for n in (0, 1, 128)),
                " / ".join(f"{by_visits[n].distance:.2g}" for n in (0, 1, 128)),
                f"{first.y_correlation:.2f}",
                f"{first.distance_correlation:.2f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _groups(rows: Sequence[Row], key) -> dict[tuple, list[Row]]:
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def draw_counts(rows: Sequence[Row]) -> "Figure":
    """Draw the count term after the last checkpoint against the visits: a row of panels per K, a column per d."""
    from matplotlib.figure import Figure

    last = max(row.updates for row in rows)
    shown = [row for row in rows if row.updates == last and row.visits]
    panels = _groups(shown, lambda row: (row.targets, row.dimension))
    targets, dimensions = (list(dict.fromkeys(key[i] for key in panels)) for i in (0, 1))
    size = 3.6 * len(dimensions), 3.1 * len(targets) + 0.6
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    figure.suptitle(f"Count term of the bonus after {last:,} updates", x=0.01, ha="left", size=13)
    axes_of = figure.subplots(len(targets), len(dimensions), squeeze=False, sharex=True, sharey=True)
    for (number, dimension), group in panels.items():
        axes = axes_of[targets.index(number)][dimensions.index(dimension)]
        style_panel(axes, f"K = {number}, d = {dimension}", "")
        for colour, (drawn, of_draw) in zip(PALETTE, _groups(group, lambda row: row.drawn).items(), strict=False):
            visits, terms = zip(*((row.visits, row.count_term) for row in of_draw), strict=True)
            axes.plot(visits, terms, "o-", color=colour, label=f"target drawn {drawn}")
        axes.plot(COUNTS[1:], [n**-0.5 for n in COUNTS[1:]], "--", color=INK, label="1 / sqrt(n)")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda n, _: f"{n:g}")
    axes_of[-1][0].set_xlabel("visits n", size=10.5, color=QUIET)
    axes_of[0][0].legend(fontsize=8.5, frameon=False)
    return figure
