"""What a set of demonstrations holds, as facts, as lines to read and as a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from cdred.errors import UserError
from cdred.files import new_file
from cdred.types import DemoDataset

BINS, COLUMNS = 41, 4


def facts(dataset: DemoDataset) -> dict[str, Any]:
    """Counts, lengths (in steps), returns, ranges and success; plain Python values, ready for JSON."""
    lengths = [len(one) for one in dataset]
    returns = [one.episode_return for one in dataset]
    success = [(one.success_once, one.success_at_end) for one in dataset if one.success is not None]
    return {
        "task": dataset.task,
        "episodes": len(dataset),
        "steps": {"min": min(lengths), "max": max(lengths), "total": sum(lengths)},
        "terminated": sum(one.terminated for one in dataset),
        "truncated": sum(one.truncated for one in dataset),
        "observation": {"shape": list(dataset[0].obs.shape[1:]), **_range([one.obs for one in dataset], None)},
        "action": {"size": dataset[0].action.shape[1], **_range([one.action for one in dataset], 0)},
        "return": {"mean": float(np.mean(returns)), "min": min(returns), "max": max(returns)},
        "success": dict(zip(("any", "end"), np.mean(success, axis=0).tolist(), strict=True)) if success else None,
        "provenance": dataset.provenance,
    }


def _range(pieces: list[np.ndarray], axis: int | None) -> dict[str, Any]:
    """Smallest and largest number, of each component if `axis` is 0; None where there is no number."""
    if not pieces[0].size:
        return {"min": None, "max": None}
    low, high = (np.array([find(piece, axis=axis) for piece in pieces]) for find in (np.min, np.max))
    return {"min": low.min(axis=0).tolist(), "max": high.max(axis=0).tolist()}


def lines(found: dict[str, Any]) -> dict[str, str]:
    """`facts`, ready to read."""
    steps, obs, action, returns = (found[key] for key in ("steps", "observation", "action", "return"))
    text = {
        "task": found["task"] or "not said",
        "episodes": f"{found['episodes']}, {steps['min']} to {steps['max']} steps",
        "ends": f"{found['terminated']} terminated by the world, {found['truncated']} truncated",
        "observation": f"{tuple(obs['shape'])}, from {obs['min']:.2f} to {obs['max']:.2f}",
        "action": "none: observations only",
        "return": f"{returns['mean']:,.1f} on average, {returns['min']:,.1f} to {returns['max']:,.1f}",
    }
    if action["size"]:
        text["action"] = f"({action['size']},), from {min(action['min']):.2f} to {max(action['max']):.2f}"
    if found["success"]:
        text["success"] = f"{found['success']['any']:.0%} at any time, {found['success']['end']:.0%} at the end"
    return text | {key: str(value) for key, value in found["provenance"].items()}


def draw_actions(dataset: DemoDataset, path: Path, title: str) -> None:
    """Histograms of the action's components, one panel each, as a PNG in a new file.

    Raises:
        UserError: there are no actions, or `path` is taken.
    """
    if not dataset.has_actions:
        raise UserError(f"{title}: no actions in it to draw, observations only.")
    from matplotlib.figure import Figure

    actions = np.concatenate([one.action for one in dataset])
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
        panel.set_ylabel("share", fontsize=8)
    with new_file(path) as file:
        figure.savefig(file, format="png", dpi=120)
