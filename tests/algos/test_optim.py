"""Discount and learning-rate schedule."""

from dataclasses import replace

import pytest

from cdred.algos.optim import OptimConfig, discount, lr_schedule


@pytest.mark.parametrize(
    ("episode_length", "gamma"), [(10, 0.95), (100, 0.95), (200, 0.975), (500, 0.99), (1000, 0.995), (5000, 0.995)]
)
def test_discount_follows_episode_length_within_bounds(episode_length, gamma):
    assert discount(episode_length, 0.95) == pytest.approx(gamma)
    assert discount(episode_length, 0.98) == pytest.approx(max(gamma, 0.98))


def test_learning_rate_decays_over_last_fraction():
    config = OptimConfig(learning_rate=2.0, lr_decay_fraction=0.25)
    decaying, constant = lr_schedule(config, 100), lr_schedule(replace(config, lr_decay_fraction=0.0), 100)
    assert [float(decaying(update)) for update in (0, 75, 80, 90, 100)] == pytest.approx([2.0, 2.0, 1.6, 0.8, 0.0])
    assert float(constant(100)) == 2.0
