"""Reading and drawing of runs that are long, short, damaged or empty."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from cdred.errors import UserError
from cdred.loggers.metrics import JsonlLogger
from cdred.report.comparison import draw_curves
from cdred.report.results import read_run
from cdred.report.run_report import draw_report, write_report

RESULT = {
    "task": "metaworld/reach",
    "algo": "cdred",
    "preset": "cpu",
    "seeds": [0, 1],
    "steps": 400,
    "demos": 10,
    "device": "cpu",
    "wall_seconds": 90.0,
    "eval": {"success": [0.9, 1.0], "normalized": [0.95, None], "expert_return": 11.0, "random_success": None},
}
DIAGNOSTICS = {"reward_margin": [0.5, 0.25], "open_loop_fvu": [0.1, 0.2], "mean_abs_q": [1.0, 2.0]}


def write_run(folder: Path, reports: int = 4, success: bool = True, diagnostics: bool = False) -> Path:
    logger = JsonlLogger(folder / "metrics.jsonl")
    logger.log(0, {"expert_return": 10.0, "random_return": 1.0, "expert_success": 1.0}, "reference")
    for step in range(100, 100 * reports + 1, 100):
        scores = {"episode_return": [step / 50, step / 60]} | ({"success": [0.0, 0.5]} if success else {})
        logger.log(step, scores, "rollout")
        logger.log(step, {"grad_norm": [1.0, float("nan")], "critic_loss": 2.0, "reward_agent": [-1.0, -2.0]}, "train")
        logger.log(step, {**scores, "episodes": 20}, "eval")
        if diagnostics:
            logger.log(step, DIAGNOSTICS, "diagnostics")
    logger.close()
    return folder


def title(axes: Axes) -> str:
    return axes.get_title(loc="left")


def texts(artist: Figure | Axes) -> list[str]:
    return [text.get_text() for text in artist.texts]


def panels(figure: Figure) -> dict[str, Axes]:
    return {title(axes): axes for axes in figure.axes}


def test_read_run_returns_curves_and_reference_scores(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    logger = JsonlLogger(run / "metrics.jsonl")
    logger.log(400, {"episode_return": [7.0, None]}, "eval")
    logger.close()
    (run / "result.json").write_text(json.dumps(RESULT))
    results = read_run(run)
    series = results.series("eval", "episode_return")
    assert series.steps.tolist() == [100, 200, 300, 400]
    np.testing.assert_array_equal(series.values[-1], [7.0, np.nan])
    assert results.series("train", "critic_loss").values.shape == (4, 1)
    assert len(results.series("train", "unknown")) == 0
    assert results.reference_scores == {"expert_return": 11.0, "random_return": 1.0, "expert_success": 1.0}
    assert results.last_step == 400


def test_metadata_of_an_unfinished_run_is_its_config(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "config.yaml").write_text("task: metaworld/reach\nseeds: [0, 1]\n")
    metadata = read_run(run).metadata
    assert (metadata["task"], metadata["seeds"]) == ("metaworld/reach", (0, 1))


@pytest.mark.parametrize("reports", [0, 1, 30])
def test_report_is_an_image_of_fixed_size(tmp_path: Path, reports: int) -> None:
    image = imread(write_report(write_run(tmp_path, reports)))
    assert image.shape[:2] == (1000, 1600)
    assert image.std() > 0.01


@pytest.mark.parametrize("diagnostics", [True, False])
@pytest.mark.parametrize("success", [True, False])
def test_report_has_a_panel_per_reported_group(tmp_path: Path, success: bool, diagnostics: bool) -> None:
    figure = draw_report(read_run(write_run(tmp_path, success=success, diagnostics=diagnostics)))
    expected = ["Success"] * success + ["Return", "Learned reward", "Losses", "Gradient norm"]
    assert [title(axes) for axes in figure.axes] == expected + ["Diagnostics"] * diagnostics
    for axes in figure.axes:
        assert axes.get_xlim() == (0, 400)
        assert axes.get_xlabel() == "steps per seed"


def test_report_panels_plot_the_reported_values(tmp_path: Path) -> None:
    drawn = panels(draw_report(read_run(write_run(tmp_path, diagnostics=True))))
    returns, (reported, second) = drawn["Return"].lines, ([2, 4, 6, 8], [5 / 3, 10 / 3, 5, 20 / 3])
    # Two seeds and their mean of rollouts (a running mean) and of evaluations, then expert and random policy.
    assert len(returns) == 8
    np.testing.assert_allclose(returns[0].get_ydata(), [2, 3, 4, 5])
    np.testing.assert_allclose(returns[2].get_ydata(), (np.array([2, 3, 4, 5]) * (1 + 5 / 6)) / 2)
    np.testing.assert_allclose(returns[3].get_ydata(), reported)
    np.testing.assert_allclose(returns[5].get_ydata(), (np.array(reported) + second) / 2)
    assert [list(line.get_ydata()) for line in returns[6:]] == [[10.0, 10.0], [1.0, 1.0]]
    assert set(texts(drawn["Return"])[1:]) == {"rollouts", "evaluation", "expert", "random"}
    # The success of a random policy is unknown.
    assert len(drawn["Success"].lines) == 7
    assert set(texts(drawn["Success"])[1:]) == {"rollouts", "evaluation", "expert"}
    assert texts(drawn["Learned reward"])[1:] == ["agent data"]
    assert texts(drawn["Losses"])[1:] == ["critic"]
    # The mean ignores a seed with a gradient norm of NaN.
    np.testing.assert_array_equal(drawn["Gradient norm"].lines[-1].get_ydata(), np.ones(4))
    assert set(texts(drawn["Diagnostics"])[1:]) == {"reward", "critics", "dynamics"}
    assert "20 episodes each" in texts(drawn["Return"])[0]


def write_constant_run(folder: Path, scale: float) -> Path:
    """Write a run of nearly constant scores and losses: ticks have many digits, and labels are close."""
    scores = {"episode_return": [-scale, -1.01 * scale], "success": [0.0, 0.01], "episodes": 1}
    train = {"critic_loss": 1.01 * scale, "consistency_loss": scale, "reward_loss": scale, "grad_norm": scale}
    rewards = {"reward_expert": -1.001 * scale, "reward_agent": -scale}
    logger = JsonlLogger(folder / "metrics.jsonl")
    levels = {"expert_return": -1.02 * scale, "random_return": -scale, "expert_success": 0.01, "random_success": 0.0}
    logger.log(0, levels, "reference")
    for step in range(125_000, 500_001, 125_000):
        for metrics, kind in ((scores, "rollout"), (train | rewards, "train"), (scores, "eval")):
            logger.log(step, metrics, kind)
        logger.log(step, DIAGNOSTICS, "diagnostics")
    logger.close()
    return folder


def shown_ticks(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    places = (*axis.get_ticklocs(), *axis.get_ticklocs(minor=True))
    labels = (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True))
    return [label for place, label in zip(places, labels, strict=True) if low <= place <= high and label.get_text()]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Return the pairs of texts that overlap, and texts that are not within the figure."""
    drawn = [text for axes in figure.axes for text in (*axes.texts, axes.xaxis.label)] + list(figure.texts)
    drawn += [tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in shown_ticks(axis)]
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn if text.get_text()]
    outside = [(name, "edge") for name, box in boxes if box.x0 < 0 or box.x1 > figure.bbox.x1]
    return outside + [(a, b) for (a, x), (b, y) in combinations(boxes, 2) if x.overlaps(y)]


@pytest.mark.parametrize("scale", [1.0, 0.0123, 12345.0])
def test_texts_of_a_report_do_not_overlap(tmp_path: Path, scale: float) -> None:
    results = read_run(write_constant_run(tmp_path, scale))
    report = draw_report(results)
    assert overlaps(report) == []
    assert "evaluation: 1 episode each" in texts(panels(report)["Return"])[0]
    assert overlaps(draw_curves({f"method-{index}": results for index in range(10)})) == []


def test_report_shows_the_pretrained_policy_as_a_level(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    logger = JsonlLogger(run / "metrics.jsonl")
    logger.log(0, {"episode_return": [3.0, 4.0], "success": [0.25, 0.5], "episodes": 40}, "eval")
    logger.close()
    drawn = panels(draw_report(read_run(run)))
    assert list(drawn["Return"].lines[-1].get_ydata()) == [3.5, 3.5]
    assert set(texts(drawn["Success"])[1:]) == {"rollouts", "evaluation", "expert", "BC"}
    assert "20 to 40 episodes each" in texts(drawn["Return"])[0]


def test_panels_without_data_are_annotated(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log(100, {"grad_norm": [float("nan"), None], "critic_loss": 2.0}, "train")
    logger.close()
    drawn = panels(draw_report(read_run(tmp_path)))
    marked = {name for name, axes in drawn.items() if "not reported" in texts(axes)}
    assert marked == {"Return", "Learned reward", "Gradient norm"}
    assert all(len(drawn[name].get_yticks()) == 0 for name in marked)


def test_report_of_a_run_without_lines_is_all_annotated(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    for axes in draw_report(read_run(tmp_path)).axes:
        assert texts(axes)[-1] == "not reported"


def test_headline_of_a_finished_run_has_settings_and_scores(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "result.json").write_text(json.dumps(RESULT))
    headline = texts(draw_report(read_run(run)))
    assert headline == [
        "metaworld/reach",
        "cdred   ·   preset cpu   ·   2 seeds   ·   10 demonstrations   ·   400 steps per seed   ·   2 min on cpu",
        "final evaluation:  success 95 %,  normalized return 0.95",
        "thin: seeds   bold: their mean",
    ]


def test_headline_of_an_unfinished_run_has_no_scores(tmp_path: Path) -> None:
    headline = texts(draw_report(read_run(write_run(tmp_path))))
    assert headline == [tmp_path.name, "", ""]


def test_report_of_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metrics.jsonl"):
        write_report(tmp_path)
    run = write_run(tmp_path)
    (run / "result.json").write_text('{"task":')
    with pytest.raises(UserError, match=r"result.json is not JSON"):
        write_report(run)
