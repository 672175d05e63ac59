"""Study of the count correction at a size for tests."""

from dataclasses import replace

import pytest

from cdred.config import preset
from cdred.studies.count_estimator import COUNTS, Design, count_table, draw_counts, measure

NETS = {"embedding_dim": 16, "target_hidden_dims": (32,), "predictor_hidden_dims": (64,)}


@pytest.fixture(scope="module")
def rows():
    config = replace(preset("cpu").cdred, num_targets=4, **NETS)
    return measure(Design(2, config, "per visit", (20, 400)), 2)


def test_rows_have_every_checkpoint_and_count(rows):
    assert [(row.updates, row.visits) for row in rows] == [(u, n) for u in (20, 400) for n in COUNTS]
    assert {(row.dimension, row.targets, row.drawn) for row in rows} == {(2, 4, "per visit")}


def test_often_visited_points_are_predicted_better_with_more_updates(rows):
    early, late = ({row.visits: row for row in rows if row.updates == u} for u in (20, 400))
    assert late[128].distance < 0.5 * early[128].distance
    assert late[128].distance < late[1].distance
    assert late[1].distance_correlation < -0.1


def test_seeds_are_repeatable_and_draws_differ():
    config = replace(preset("cpu").cdred, num_targets=4, **NETS)
    visit, again, update = (
        measure(Design(2, config, drawn, (20,)), 1) for drawn in ("per visit", "per visit", "per update")
    )
    assert visit == again
    assert [row.y for row in visit] != [row.y for row in update]


def test_table_and_figure(rows):
    lines = count_table(rows).splitlines()
    assert len(lines) == 2 + 2
    assert lines[2].startswith("| 2 | 4 | per visit | 20 |")
    figure = draw_counts(rows)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["K = 4, d = 2"]
