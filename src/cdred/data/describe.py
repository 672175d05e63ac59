"""Summary of a set of demonstrations as plain values, as text, and as histograms of the actions."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cdred.data.quality import Finding, bad_episodes, format_indices, is_fit
from cdred.errors import UserError
from cdred.files import new_file
from cdred.types import DemoDataset

BINS, COLUMNS = 41, 4


def summarize(dataset: DemoDataset) -> dict[str, Any]:
    """Return counts, lengths in steps, returns, ranges and success rates as plain Python values, ready for JSON.

    `return` and `success` are those of the `episodes` in which they are known, None if they are in no episode.
    """
    lengths = [len(trajectory) for trajectory in dataset]
    return {
        "task": dataset.task,
        "episodes": len(dataset),
        "steps": {"min": min(lengths), "max": max(lengths), "total": sum(lengths)},
        "terminated": sum(trajectory.terminated for trajectory in dataset),
        "truncated": sum(trajectory.truncated for trajectory in dataset),
        "observation": {
            "shape": list(dataset[0].obs.shape[1:]),
            **_range([trajectory.obs for trajectory in dataset], None),
        },
        "image": None if dataset[0].image is None else list(dataset[0].image.shape[1:]),
        "action": {"size": dataset[0].action.shape[1], **_range([trajectory.action for trajectory in dataset], 0)},
        "return": _summarize_returns(dataset),
        "success": _summarize_success(dataset),
        "provenance": dataset.provenance,
    }


def _summarize_returns(dataset: DemoDataset) -> dict[str, Any] | None:
    returns = [value for trajectory in dataset if (value := trajectory.episode_return) is not None]
    if not returns:
        return None
    return {"mean": float(np.mean(returns)), "min": min(returns), "max": max(returns), "episodes": len(returns)}


def _summarize_success(dataset: DemoDataset) -> dict[str, Any] | None:
    known = [success for trajectory in dataset if (success := trajectory.success) is not None]
    if not known:
        return None
    once, at_end = np.mean([(success.any(), success[-1]) for success in known], axis=0).tolist()
    return {"once": once, "at_end": at_end, "episodes": len(known)}


def summarize_findings(dataset: DemoDataset, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings and what follows from them for the set and each episode as plain Python values, ready for JSON.

    `usable` states if the set can be trained on; `episode_quality` lists, per episode, if it is good, and the kinds of
    the findings that make it bad.
    """
    bad = bad_episodes(findings)
    return {
        "usable": is_fit(findings),
        "findings": [asdict(finding) for finding in findings],
        "episode_quality": [
            {
                "episode": index,
                "good": index not in bad,
                "findings": bad.get(index, []),
                "steps": len(trajectory),
                "return": trajectory.episode_return,
                "success": trajectory.success_once,
            }
            for index, trajectory in enumerate(dataset)
        ],
    }


def format_findings(dataset: DemoDataset, findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Format findings as rows of label and text: the verdict on the set, its good episodes, and one row per finding."""
    bad = bad_episodes(findings)
    good = f"{len(dataset) - len(bad)} of {len(dataset)}"
    rows = [
        ("usable for training", "yes" if is_fit(findings) else "no"),
        ("good episodes", f"{good}, not {format_indices(bad)}" if bad else good),
    ]
    return rows + [(finding.severity, finding.message) for finding in findings]


def _range(arrays: list[np.ndarray], axis: int | None) -> dict[str, Any]:
    """Return the smallest and largest value, per component if `axis` is 0; None for arrays without components."""
    if not arrays[0].size:
        return {"min": None, "max": None}
    low, high = (np.array([reduce(array, axis=axis) for array in arrays]) for reduce in (np.min, np.max))
    return {"min": low.min(axis=0).tolist(), "max": high.max(axis=0).tolist()}


def format_summary(summary: dict[str, Any]) -> dict[str, str]:
    """Format the result of `summarize` as text by row label."""
    steps, action = summary["steps"], summary["action"]
    text = {
        "task": summary["task"] or "unknown",
        "episodes": f"{summary['episodes']}, {steps['min']} to {steps['max']} steps",
        "ends": f"{summary['terminated']} terminated, {summary['truncated']} truncated",
        "observation": _format_observation(summary),
        "action": "none (observations only)",
        "return": _format_known(summary, "return", "{mean:,.1f} on average, {min:,.1f} to {max:,.1f}"),
        "success": _format_known(summary, "success", "{once:.0%} at least once, {at_end:.0%} at the end"),
    }
    if action["size"]:
        text["action"] = f"({action['size']},), from {min(action['min']):.2f} to {max(action['max']):.2f}"
    return text | {key: str(value) for key, value in summary["provenance"].items()}


def _format_observation(summary: dict[str, Any]) -> str:
    obs, image = summary["observation"], summary["image"]
    images = [] if image is None else [f"RGB images of {image[0]} x {image[1]}"]
    vector = [] if obs["min"] is None else [f"{tuple(obs['shape'])}, from {obs['min']:.2f} to {obs['max']:.2f}"]
    return "; ".join(vector + images)


def _format_known(summary: dict[str, Any], key: str, template: str) -> str:
    """Format what may be unknown, in all episodes or in some."""
    values, episodes = summary[key], summary["episodes"]
    if values is None:
        return "unknown"
    unknown = episodes - values["episodes"]
    return template.format(**values) + (f"; unknown in {unknown} of {episodes} episodes" if unknown else "")


def draw_actions(dataset: DemoDataset, path: Path, title: str) -> None:
    """Draw histograms of the action components, one panel each, and save them as a new PNG file.

    Args:
        dataset: demonstrations with actions.
        path: file to create.
        title: name of the dataset, for the figure's title.

    Raises:
        UserError: there are no actions, or `path` exists.
    """
    if not dataset.has_actions:
        raise UserError(f"{title}: no actions to draw, it holds observations only.")
    from matplotlib.figure import Figure

    actions = np.concatenate([trajectory.action for trajectory in dataset])
    rows, columns = -(-actions.shape[1] // COLUMNS), min(actions.shape[1], COLUMNS)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.0 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    figure.suptitle(f"{title}: {len(actions)} actions of {len(dataset)} episodes", fontsize=9)
    bounds = (min(float(actions.min()), -1.0), max(float(actions.max()), 1.0))
    for index, panel in enumerate(panels):
        panel.set_visible(index < actions.shape[1])
        if index < actions.shape[1]:
            panel.hist(actions[:, index], bins=BINS, range=bounds, weights=np.full(len(actions), 1.0 / len(actions)))
            panel.set_title(f"action[{index}]", fontsize=8)
            panel.tick_params(labelsize=7)
    for panel in panels[::columns]:
        panel.set_ylabel("fraction", fontsize=8)
    with new_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
