"""Study of the count correction at a size for tests."""

from dataclasses import replace

import pytest

from cdred.config import preset
from cdred.studies.count_estimator import COUNTS, count_table, draw_counts, measure

NETS = {"embedding_dim": 16, "target_hidden_dims": (32,), "predictor_hidden_dims": (64,)}


@pytest.fixture(scope="module")
def rows():
    config = replace(preset("cpu").cdred, num_targets=4, **NETS)
    return measure(2, config, (20, 400), 2)


def of(rows, drawn, updates):
    return {row.visits: row for row in rows if (row.drawn, row.updates) == (drawn, updates)}


def test_rows_have_every_draw_checkpoint_and_count(rows):
    drawn = ("per visit", "per update")
    assert [row[2:5] for row in rows] == [(d, u, n) for d in drawn for u in (20, 400) for n in COUNTS]
    assert {(row.dimension, row.targets) for row in rows} == {(2, 4)}


@pytest.mark.parametrize("drawn", ["per visit", "per update"])
def test_often_visited_points_are_predicted_better_with_more_updates(rows, drawn):
    early, late = of(rows, drawn, 20), of(rows, drawn, 400)
    assert late[128].distance < 0.5 * early[128].distance
    assert late[128].distance < late[1].distance
    assert late[1].distance_correlation < -0.1


def test_draws_differ(rows):
    assert of(rows, "per visit", 400)[8].y != of(rows, "per update", 400)[8].y


def test_checkpoints_do_not_change_the_training(rows):
    config = replace(preset("cpu").cdred, num_targets=4, **NETS)
    assert measure(2, config, (400,), 2) == [row for row in rows if row.updates == 400]


def test_table_and_figure(rows):
    lines = count_table(rows).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith("| 2 | 4 | per visit | 20 |")
    figure = draw_counts(rows)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["K = 4, d = 2"]
