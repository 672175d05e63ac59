"""Comparison of named parts of observations: those that demonstrations are joined from with those of a task."""

import warnings
from dataclasses import replace

import numpy as np

from cdred.data.formats.obs_keys import ORDER_KEY, Parts, format_parts, parts_provenance, recorded_parts
from cdred.errors import UserError
from cdred.types import DemoDataset, EnvSpec


def match_obs_names(dataset: DemoDataset, source: str, spec: EnvSpec) -> DemoDataset:
    """Return `dataset` with the columns of its observations in the task's order.

    Demonstrations whose observations are one array without names are taken to be in that order; a warning says so.

    Args:
        dataset: demonstrations, with names and widths in the provenance if the file had several arrays.
        source: their path, for messages.
        spec: spec of the task.

    Raises:
        UserError: names or widths differ from the task's; or the task has none, and the demonstrations were joined in
            the default order of the file's reader.
    """
    if not spec.obs_parts:
        _require_chosen_order(dataset, source, spec)
        return dataset
    parts = recorded_parts(dataset.provenance, source)
    if not parts:
        if len(spec.obs_parts) > 1:
            warnings.warn(
                f"{source}: its observations are one array without names; its columns are taken to be those of "
                f"{spec.task}, in this order: {format_parts(spec.obs_parts)}.",
                stacklevel=4,
            )
        return dataset
    if dict(parts) != dict(spec.obs_parts):
        raise UserError(
            f"{source}: its observations are joined from {format_parts(parts)}, but those of {spec.task} from "
            f"{format_parts(spec.obs_parts)}: select the same parts with `cdred demos convert SRC DST --obs-keys ...`, "
            "or rename them in the file or in the environment's space."
        )
    return dataset if parts == spec.obs_parts else _reorder(dataset, parts, spec)


def _require_chosen_order(dataset: DemoDataset, source: str, spec: EnvSpec) -> None:
    if ORDER_KEY in dataset.provenance:
        raise UserError(
            f"{source}: its observations are joined from {format_parts(recorded_parts(dataset.provenance, source))}, "
            f"in this order because no other was given. Those of {spec.task} are one array without names, so the order "
            "cannot be compared: give the names in the order of the task, "
            "`cdred demos convert SRC DST --obs-keys ...`."
        )


def _reorder(dataset: DemoDataset, parts: Parts, spec: EnvSpec) -> DemoDataset:
    names, widths = zip(*parts, strict=True)
    starts = dict(zip(names, np.cumsum(widths) - widths, strict=True))
    columns = np.concatenate([starts[name] + np.arange(width) for name, width in spec.obs_parts])
    trajectories = tuple(
        # One of another shape is left as it is, for the check of shapes to report.
        replace(trajectory, obs=trajectory.obs[:, columns])
        if trajectory.obs.shape[1:] == spec.obs_shape
        else trajectory
        for trajectory in dataset
    )
    provenance = {key: value for key, value in dataset.provenance.items() if key != ORDER_KEY}
    return replace(dataset, trajectories=trajectories, provenance=provenance | parts_provenance(spec.obs_parts))
