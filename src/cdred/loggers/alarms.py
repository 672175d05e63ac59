"""Alarms on the diagnostics of a run: threshold, meaning and suggested remedy of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Diagnostics of one seed by name; None for what is unknown.
Diagnostics = Mapping[str, float | None]

MAX_OPEN_LOOP_FVU, MAX_NOVELTY_RATIO, MAX_CRITIC_GROWTH = 0.5, 3.0, 10.0
# Steps before which no alarm is active: networks that have hardly been trained meet the conditions of most alarms.
MIN_STEPS = 500
# Critics are initialized at 0, where a growth factor means nothing.
MIN_MEAN_ABS_Q = 1.0


class Alarm(NamedTuple):
    """A condition on the diagnostics of one seed.

    Attributes:
        name: at most nine letters.
        level: from the current and the previous diagnostics, the ratio of the monitored quantity to its threshold; None
            if it is unknown.
        meaning: the problem that a level of 1 or more indicates.
        remedy: suggested changes.
    """

    name: str
    level: Callable[[Diagnostics, Diagnostics], float | None]
    meaning: str
    remedy: str

    def is_active(self, current: Diagnostics, previous: Diagnostics) -> bool:
        """Check if the level is 1 or more, or NaN."""
        level = self.level(current, previous)
        return level is not None and not level < 1.0


def _reward_level(current: Diagnostics, _previous: Diagnostics) -> float | None:
    margin = current.get("reward_margin")
    return None if margin is None else 1.0 - margin


def _density_level(current: Diagnostics, _previous: Diagnostics) -> float | None:
    expert, validation = current.get("novelty_expert"), current.get("novelty_validation")
    if expert is None or validation is None:
        return None
    return validation / (MAX_NOVELTY_RATIO * max(expert, 1e-12))


def _critics_level(current: Diagnostics, previous: Diagnostics) -> float | None:
    scale, previous_scale = current.get("mean_abs_q"), previous.get("mean_abs_q")
    if scale is None or previous_scale is None:
        return None
    return scale / (MAX_CRITIC_GROWTH * max(previous_scale, MIN_MEAN_ABS_Q))


def _dynamics_level(current: Diagnostics, _previous: Diagnostics) -> float | None:
    error = current.get("open_loop_fvu")
    return None if error is None else error / MAX_OPEN_LOOP_FVU


ALARMS = (
    Alarm(
        "reward",
        _reward_level,
        "the learned reward is not higher on expert data than on agent data",
        "checking that demonstrations and task agree (`cdred demos info`), more demonstrations, a larger --cdred.zeta",
    ),
    Alarm(
        "density",
        _density_level,
        "validation demonstrations are far more novel than training demonstrations: the expert density is overfitted",
        "more demonstrations, smaller --cdred.predictor-hidden-dims",
    ),
    Alarm(
        "critics",
        _critics_level,
        "mean |Q| has grown by a factor of ten or more since the last report",
        "a longer --optim.reward-warmup-updates, a smaller --optim.learning-rate or --optim.tau",
    ),
    Alarm(
        "dynamics",
        _dynamics_level,
        "the dynamics model leaves half of the latent variance within its horizon unexplained: plans are unreliable",
        "more --pretrain.steps (without pretraining, --random-episodes), a larger --optim.consistency-coef, "
        "a shorter --mppi.horizon",
    ),
)


class AlarmMonitor:
    """Active alarms of each seed, updated with each report of diagnostics, from step `MIN_STEPS` on.

    Args:
        seeds: in the order of the rows that `update` takes.

    Attributes:
        active: per seed, the alarms active at the last report.
    """

    def __init__(self, seeds: Sequence[int]):
        self._seeds, self._previous = tuple(seeds), [dict[str, float | None]() for _ in seeds]
        self.active: list[tuple[Alarm, ...]] = [() for _ in seeds]

    def update(self, step: int, rows: Sequence[Diagnostics]) -> list[str]:
        """Take a report, one row per seed, and return a message for each alarm that became active with it.

        An active alarm stays active while its level is unknown, and returns no second message when it is known again.
        """
        messages = []
        for i, (seed, current) in enumerate(zip(self._seeds, rows, strict=True)):
            active = tuple(alarm for alarm in ALARMS if step >= MIN_STEPS and self._holds(alarm, i, current))
            new = [alarm for alarm in active if alarm not in self.active[i]]
            messages += [f"alarm, seed {seed}, {alarm.name}: {alarm.meaning}. Try {alarm.remedy}." for alarm in new]
            self.active[i], self._previous[i] = active, dict(current)
        return messages

    def _holds(self, alarm: Alarm, i: int, current: Diagnostics) -> bool:
        if alarm.level(current, self._previous[i]) is None:
            return alarm in self.active[i]
        return alarm.is_active(current, self._previous[i])


def alarm_levels(alarm: Alarm, lines: Sequence[Mapping[str, Any]]) -> list[list[float | None]]:
    """Return an alarm's level per report and seed, from the `diagnostics` lines of a metrics file."""
    levels, previous = [], {}
    for line in lines:
        rows = split_by_seed(line)
        levels.append([alarm.level(current, previous.get(i, {})) for i, current in enumerate(rows)])
        previous = dict(enumerate(rows))
    return levels


def split_by_seed(line: Mapping[str, Any]) -> list[Diagnostics]:
    """Split the per-seed lists of a report into one mapping per seed."""
    lists = {name: value for name, value in line.items() if isinstance(value, list) and name != "non_finite"}
    return [{name: value[i] for name, value in lists.items()} for i in range(max(map(len, lists.values()), default=0))]
