"""Findings about demonstrations that can be read but teach little or the wrong thing, and the choice of good episodes.

An episode failed if its success flags say so. Without flags it failed if its return is far below the others': below
the median by more than five standard deviations, estimated as 1.4826 times the median absolute deviation (MAD), and by
more than a quarter of the median magnitude of the returns. Without rewards, and where that magnitude is zero, the
outcome is unknown, and unknown is not failed.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64

from cdred.action_units import ACTION_TOLERANCE
from cdred.data.rescale import ActionBounds
from cdred.data.validate import damaged_episodes
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory

Severity = Literal["warning", "unfit"]
FindingKind = Literal[
    "invalid",
    "failure",
    "duplicate",
    "near_duplicate",
    "constant_action",
    "constant_observation",
    "saturated_action",
    "cut_short",
]
# Kinds that make single episodes bad; of a group of duplicates, all but the first episode.
BAD_EPISODE_KINDS = ("failure", "duplicate", "cut_short")
# Keys of the provenance: which episodes were chosen, and which were left out.
SELECTED_KEY, SKIPPED_KEY = "selected_episodes", "skipped_episodes"

MAD_TO_STD = 1.4826
OUTLIER_STDS, OUTLIER_FRACTION = 5.0, 0.25
# Components are constant if their range is below this fraction of their magnitude, which float32 does not resolve.
ROUNDING = 1e-6
# Largest difference of near-duplicates at any step, in standard deviations of the component over the set.
NEAR_DUPLICATE_STDS = 0.01
# A component is at a bound within this fraction of the range, and saturated if it is there in half of the steps.
BOUND_MARGIN, SATURATED_FRACTION = 1e-3, 0.5
SHORT_FRACTION = 0.5
LISTED_RUNS = 12


@dataclass(frozen=True)
class Finding:
    """Fault of a set of demonstrations.

    Attributes:
        kind: which fault.
        severity: `unfit` if the set cannot be trained on because of it.
        episodes: indices of the episodes concerned; empty if it concerns the whole set.
        components: indices of the action or observation components concerned (flattened).
        message: description for users.
    """

    kind: FindingKind
    severity: Severity
    episodes: tuple[int, ...]
    components: tuple[int, ...]
    message: str


def find_faults(dataset: DemoDataset, problem: str | None = None) -> list[Finding]:
    """Return all findings about validated demonstrations; the set is fit for training if none of them is `unfit`.

    Args:
        dataset: episodes of equal shapes and finite values, with actions in any bounds.
        problem: the reason why `load_demos` rejects them, as `inspect_demos` returns it.
    """
    invalid = [] if problem is None else [Finding("invalid", "unfit", (), (), problem)]
    return [
        *invalid,
        *_find_failures(dataset),
        *_find_duplicates(dataset),
        *_find_constant_components(dataset),
        *_find_saturation(dataset),
        *_find_cut_short(dataset),
    ]


def is_fit(findings: Iterable[Finding]) -> bool:
    """Return True if no finding makes the set unfit for training."""
    return all(finding.severity != "unfit" for finding in findings)


def bad_episodes(findings: Iterable[Finding]) -> dict[int, list[FindingKind]]:
    """Return the kinds of the findings that make an episode bad, by its index: failed, a copy, or cut short."""
    kinds: dict[int, list[FindingKind]] = {}
    for finding in findings:
        if finding.kind in BAD_EPISODE_KINDS:
            # The first of equal episodes is as good as any other.
            for index in finding.episodes[1:] if finding.kind == "duplicate" else finding.episodes:
                kinds.setdefault(index, []).append(finding.kind)
    return dict(sorted(kinds.items()))


def failed_episodes(dataset: DemoDataset) -> list[int]:
    """Return the indices of the episodes that failed by their success flags, or without flags by their return."""
    outliers = _low_returns(dataset)
    return [
        index
        for index, trajectory in enumerate(dataset)
        if (index in outliers if trajectory.success is None else not trajectory.success_once)
    ]


def _unflagged_returns(dataset: DemoDataset) -> dict[int, float]:
    """Return the known returns of the episodes without success flags, by index."""
    return {
        index: value
        for index, trajectory in enumerate(dataset)
        if trajectory.success is None and (value := trajectory.episode_return) is not None
    }


def _low_returns(dataset: DemoDataset) -> dict[int, float]:
    """Return the returns of the episodes without success flags that failed by their return, by index."""
    returns = _unflagged_returns(dataset)
    limit = _lowest_return([*returns.values()])
    return {index: value for index, value in returns.items() if value < limit}


def _lowest_return(returns: Sequence[float]) -> float:
    """Return the limit below which an episode without success flags failed; minus infinity if that is unknown."""
    magnitude = float(np.median(np.abs(returns))) if returns else 0.0
    if magnitude == 0.0:
        return -np.inf
    median = float(np.median(returns))
    std = MAD_TO_STD * float(np.median(np.abs(np.asarray(returns) - median)))
    return median - max(OUTLIER_STDS * std, OUTLIER_FRACTION * magnitude)


def select_best(dataset: DemoDataset, num: int) -> DemoDataset:
    """Return the `num` best episodes in the order of the file, and record their indices in the provenance.

    The first `num` of those that did not fail; if they are too few, the failed ones of highest return as well. A set
    without failures thus gives its first `num` episodes, whatever their returns.

    Raises:
        UserError: some of the failed ones have to be chosen, and returns of failed ones are unknown.
    """
    failed = failed_episodes(dataset)
    fit = [index for index in range(len(dataset)) if index not in failed]
    ranked = _by_return(dataset, failed, num) if len(fit) < num < len(dataset) else failed
    chosen = sorted([*fit, *ranked][:num])
    selected = {"indices": chosen, "of": len(dataset), "failed": failed}
    return _subset(dataset, chosen, {SELECTED_KEY: selected})


def _by_return(dataset: DemoDataset, failed: Sequence[int], num: int) -> list[int]:
    """Return the indices of the failed episodes, those of highest return first."""
    returns = {index: value for index in failed if (value := dataset[index].episode_return) is not None}
    if len(returns) < len(failed):
        fit = len(dataset) - len(failed)
        raise UserError(
            f"{num} of {len(dataset)} episodes were requested, but only {fit} did not fail, and which of the failed "
            f"ones are best is unknown, because {len(failed) - len(returns)} of them have no rewards: request at most "
            f"{fit}, or all of them."
        )
    return sorted(failed, key=lambda index: -returns[index])


def format_selection(dataset: DemoDataset) -> str:
    """Format what `select_best` recorded, such as `episodes 1-3 of 6 (failed: 0)`; empty if it recorded nothing."""
    selected: Any = dataset.provenance.get(SELECTED_KEY)
    if selected is None:
        return ""
    failed = f" (failed: {format_indices(selected['failed'])})" if selected["failed"] else ""
    return f"{_named('episode', selected['indices'])} of {selected['of']}{failed}"


def skip_bad_episodes(dataset: DemoDataset, source: str) -> tuple[DemoDataset, dict[int, str]]:
    """Leave out damaged, failed, duplicate and cut-short episodes, and record them in the provenance.

    Args:
        dataset: as returned by a reader, not yet validated.
        source: its path, for messages.

    Returns:
        The other episodes, and the reason for each one left out, by its index.

    Raises:
        UserError: no episode remains.
    """
    reasons = damaged_episodes(dataset)
    sound = [index for index in range(len(dataset)) if index not in reasons]
    if sound:
        bad = bad_episodes(find_faults(_subset(dataset, sound)))
        reasons |= {sound[index]: ", ".join(map(_in_words, kinds)) for index, kinds in bad.items()}
    kept = [index for index in range(len(dataset)) if index not in reasons]
    if not kept:
        index, reason = next(iter(reasons.items()), (0, "there is none"))
        raise UserError(f"{source}: no good episode among {len(dataset)}; episode {index}: {reason}")
    reasons = dict(sorted(reasons.items()))
    skipped = {"of": len(dataset), "reasons": {str(index): reason for index, reason in reasons.items()}}
    return _subset(dataset, kept, {SKIPPED_KEY: skipped} if reasons else {}), reasons


def _subset(dataset: DemoDataset, indices: Sequence[int], provenance: dict[str, object] | None = None) -> DemoDataset:
    trajectories = tuple(dataset[index] for index in indices)
    return replace(dataset, trajectories=trajectories, provenance=dataset.provenance | (provenance or {}))


def format_indices(indices: Iterable[int]) -> str:
    """Format ascending indices as runs, such as `0, 4-9`; at most twelve, followed by the number of further indices."""
    runs = [[index for _, index in run] for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])]
    shown = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:LISTED_RUNS])
    more = sum(map(len, runs[LISTED_RUNS:]))
    return f"{shown} and {more} more" if more else shown


def _in_words(kind: FindingKind) -> str:
    return kind.replace("_", " ")


def _named(noun: str, indices: Sequence[int]) -> str:
    return f"{noun}{'s' * (len(indices) > 1)} {format_indices(indices)}"


def _find_failures(dataset: DemoDataset) -> list[Finding]:
    failed = failed_episodes(dataset)
    flagged = tuple(index for index in failed if dataset[index].success is not None)
    outliers = _low_returns(dataset)
    findings = []
    if flagged:
        known = sum(trajectory.success is not None for trajectory in dataset)
        succeed = known - len(flagged)
        message = f"{succeed} of {known} episodes succeed ({succeed / known:.0%}), not {_named('episode', flagged)}"
        # Episodes whose outcome is unknown may still be good.
        severity: Severity = "unfit" if len(flagged) == len(dataset) else "warning"
        findings.append(Finding("failure", severity, flagged, (), message))
    if outliers:
        returns, highest = [*_unflagged_returns(dataset).values()], max(outliers.values())
        message = (
            f"{_named('episode', [*outliers])} failed by the return, {highest:,.4g}{' at most' * (len(outliers) > 1)}: "
            f"the median is {np.median(returns):,.4g}, and returns below {_lowest_return(returns):,.4g} are outliers"
        )
        findings.append(Finding("failure", "warning", tuple(outliers), (), message))
    return findings


def _find_duplicates(dataset: DemoDataset) -> list[Finding]:
    exact: dict[bytes, list[int]] = {}
    for index, trajectory in enumerate(dataset):
        digest = hashlib.sha256(repr(trajectory.obs.shape).encode())
        for array in (trajectory.obs, trajectory.image, trajectory.action):
            digest.update(b"" if array is None else array.tobytes())
        exact.setdefault(digest.digest(), []).append(index)
    findings = [
        Finding("duplicate", "warning", tuple(group), (), f"{_named('episode', group)} are identical")
        for group in exact.values()
        if len(group) > 1
    ]
    for group in _near_duplicates(dataset, [group[0] for group in exact.values()]):
        message = f"{_named('episode', group)} are nearly identical at every step that they share"
        findings.append(Finding("near_duplicate", "warning", tuple(group), (), message))
    return findings


def _near_duplicates(dataset: DemoDataset, candidates: list[int]) -> list[list[int]]:
    """Return groups of candidates that differ from the first of the group by rounding or slight noise at every step.

    The longer of two episodes may have at most twice the steps of the other.
    """
    if not dataset[0].obs.size:
        # Images are compared exactly only.
        return []
    tolerance = _near_duplicate_tolerance(dataset)
    shortest = min(map(len, dataset))
    # Comparing three steps first leaves few pairs to compare in full.
    probe = slice(None, None, max((shortest - 1) // 2, 1))
    probes = np.stack([_transitions(dataset[index], shortest)[probe] for index in candidates])
    remaining = np.arange(len(candidates))
    groups = []
    while len(remaining):
        first, remaining = remaining[0], remaining[1:]
        similar = remaining[(np.abs(probes[remaining] - probes[first]) <= tolerance).all(axis=(1, 2))]
        original = dataset[candidates[first]]
        copies = [row for row in similar if _equal_steps(original, dataset[candidates[row]], tolerance)]
        if copies:
            groups.append([candidates[row] for row in (first, *copies)])
            remaining = np.setdiff1d(remaining, copies)
    return groups


def _equal_steps(first: Trajectory, second: Trajectory, tolerance: Float64[np.ndarray, " D"]) -> bool:
    """Return True if the steps that both have are equal within `tolerance`, and these are at least half of each."""
    short, long = sorted((len(first), len(second)))
    difference = np.abs(_transitions(first, short) - _transitions(second, short))
    return 2 * short >= long and bool((difference <= tolerance).all())


def _transitions(trajectory: Trajectory, steps: int) -> Float64[np.ndarray, "T D"]:
    """Return flattened observation and action of the first `steps` steps."""
    obs = trajectory.obs[:steps].reshape(steps, prod(trajectory.obs.shape[1:]))
    return np.hstack([obs, trajectory.action[:steps]]).astype(np.float64)


def _near_duplicate_tolerance(dataset: DemoDataset) -> Float64[np.ndarray, " D"]:
    # Sums over episodes, because all of them at once would need as much memory as the dataset.
    total = sum(map(len, dataset))
    mean = sum(_transitions(trajectory, len(trajectory)).sum(axis=0) for trajectory in dataset) / total
    variance = (
        sum(np.square(_transitions(trajectory, len(trajectory)) - mean).sum(axis=0) for trajectory in dataset) / total
    )
    return NEAR_DUPLICATE_STDS * np.sqrt(variance) + ROUNDING * np.abs(mean)


def _constant_components(arrays: Sequence[np.ndarray]) -> Bool[np.ndarray, " D"]:
    """Return which flattened components have one value, up to rounding, in all arrays."""
    rows = [array.reshape(len(array), -1) for array in arrays]
    low = np.min([array.min(axis=0) for array in rows], axis=0)
    high = np.max([array.max(axis=0) for array in rows], axis=0)
    return high - low <= ROUNDING * np.maximum(np.abs(low), np.abs(high))


def _find_constant_components(dataset: DemoDataset) -> list[Finding]:
    arrays: tuple[tuple[FindingKind, str, list[np.ndarray]], ...] = (
        ("constant_action", "action component", [trajectory.action for trajectory in dataset]),
        ("constant_observation", "observation component", [trajectory.obs for trajectory in dataset]),
    )
    findings = []
    for kind, noun, values in arrays:
        constant = _constant_components(values)
        components = tuple(np.flatnonzero(constant).tolist())
        if components:
            verb = "never move" if kind == "constant_action" else "never change"
            message = f"{_named(noun, components)} of {len(constant)} {verb}{'s' * (len(components) == 1)}"
            findings.append(Finding(kind, "unfit" if constant.all() else "warning", (), components, message))
    return findings


def _find_saturation(dataset: DemoDataset) -> list[Finding]:
    actions = [trajectory.action for trajectory in dataset]
    bounds = _action_bounds(dataset)
    if bounds is None:
        return []
    low, high = bounds
    margin = BOUND_MARGIN * (high - low)
    at_bound = np.sum(
        [((action <= low + margin) | (action >= high - margin)).sum(axis=0) for action in actions], axis=0
    )
    fraction = at_bound / sum(map(len, actions))
    saturated = (fraction >= SATURATED_FRACTION) & ~_constant_components(actions)
    components = tuple(np.flatnonzero(saturated).tolist())
    if not components:
        return []
    shares = ", ".join(f"{fraction[component]:.0%}" for component in components[:LISTED_RUNS])
    message = (
        f"{_named('action component', components)} at a bound in {shares} of the steps: expected of a gripper, else "
        "check the bounds that the actions were rescaled from"
    )
    return [Finding("saturated_action", "warning", (), components, message)]


def _action_bounds(dataset: DemoDataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the bounds of the action components: those declared, else -1 and 1; None if the actions exceed these."""
    size = dataset[0].action.shape[1]
    declared = ActionBounds.declared(dataset)
    if declared is not None:
        return (declared.low, declared.high) if declared.low.shape == declared.high.shape == (size,) else None
    largest = max(float(np.abs(trajectory.action).max(initial=0.0)) for trajectory in dataset)
    return (np.full(size, -1.0), np.full(size, 1.0)) if largest <= 1.0 + ACTION_TOLERANCE else None


def _find_cut_short(dataset: DemoDataset) -> list[Finding]:
    lengths = [len(trajectory) for trajectory in dataset]
    median = float(np.median(lengths))
    common, count = Counter(lengths).most_common(1)[0]
    short = tuple(
        index
        for index, trajectory in enumerate(dataset)
        if len(trajectory) < SHORT_FRACTION * median
        and not (trajectory.terminated or trajectory.success_at_end)
        and not (count > 1 and len(trajectory) == common)
    )
    if not short:
        return []
    longest = max(lengths[index] for index in short)
    message = (
        f"{_named('episode', short)} may be cut short: at most {longest} steps, the median is {median:g}, and they "
        "neither terminate nor end in success"
    )
    return [Finding("cut_short", "warning", short, (), message)]
