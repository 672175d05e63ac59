"""Study of the reward against known densities, at a size for tests."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cdred.algos.cdred import TRANSFORMS
from cdred.config import preset
from cdred.studies.density_reward import (
    AGENT_STD,
    COMMON,
    EXPERT_STD,
    GaussianMixture,
    Row,
    density_table,
    draw_densities,
    make_densities,
    measure,
)

NETS = {"embedding_dim": 16, "target_hidden_dims": (32,), "predictor_hidden_dims": (64,)}
CONFIG = replace(preset("cpu").cdred, **NETS)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def rows():
    return measure(8, CONFIG, (10, 500), 2)


def of(rows, transform, updates, score="correlation"):
    return np.array([getattr(row, score) for row in rows if (row.transform, row.updates) == (transform, updates)])


def test_mixture_has_its_density_and_samples():
    means = np.array([[0.0, 1.0, 0.0], [0.5, -1.0, 0.2]])
    mixture, x = GaussianMixture(jnp.asarray(means), 0.3), np.array([0.1, 0.6, -0.2])
    expected = np.log(np.mean([multivariate_normal(mean, 0.09 * np.eye(3)).pdf(x) for mean in means]))
    np.testing.assert_allclose(mixture.log_density(jnp.asarray(x)), expected, rtol=1e-5)
    samples = mixture.sample(20_000, KEY)
    np.testing.assert_allclose(samples.mean(0), means.mean(0), atol=0.03)
    np.testing.assert_allclose(samples.var(0), 0.09 + means.var(0), atol=0.03)


def test_densities_have_components_in_common():
    expert, agent = make_densities(5, KEY)
    assert jnp.array_equal(expert.means[-COMMON:], agent.means[:COMMON])
    assert not jnp.isin(expert.means[:-COMMON], agent.means).any()
    assert (expert.std, agent.std) == (EXPERT_STD, AGENT_STD)


def test_rows_have_every_checkpoint_transform_and_seed(rows):
    assert [row[:4] for row in rows] == [(8, g, u, s) for u in (10, 500) for g in TRANSFORMS for s in (0, 1)]


@pytest.mark.parametrize("transform", [*TRANSFORMS])
def test_training_brings_the_reward_close_to_that_of_the_densities(rows, transform):
    assert (of(rows, transform, 500) > 0.8).all()
    assert (of(rows, transform, 500) > of(rows, transform, 10)).all()
    assert (of(rows, transform, 500, "separation") > 0.8).all()


def test_only_the_exponential_becomes_flat(rows):
    assert (of(rows, "exp", 10, "flat") > 0.05).all()
    assert not of(rows, "identity", 10, "flat").any()


def test_checkpoints_do_not_change_the_training(rows):
    assert measure(8, CONFIG, (500,), 2) == [row for row in rows if row.updates == 500]


def test_table_shows_means_over_seeds_with_intervals():
    rows = [Row(2, "exp", 10, seed, value, 0.0, 1.0, 0.0) for seed, value in enumerate((0.2, 0.4))]
    rows += [row._replace(transform=name) for row in rows for name in ("identity", "log")]
    line = next(line for line in density_table(rows).splitlines() if "| exp |" in line)
    assert line.startswith("| 2 | 10 | exp | 0.30 (0.20 to 0.40) | 0.00 (0.00 to 0.00) | 1.00 ")


def test_figure_has_a_panel_per_score(rows):
    titles = [axes.get_title(loc="left") for axes in draw_densities(rows).axes]
    assert titles[:2] == ["rank correlation, all points", "agent's points"]
    assert len(titles) == 4
