"""The health panel's alarms: what each watches, what it means and what can be tried (docs/health.md)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Of one seed: the signs of health by name, None where there is none.
Signs = Mapping[str, float | None]

LARGEST_DYNAMICS_ERROR, LARGEST_BONUS_RATIO, LARGEST_CRITIC_GROWTH = 0.5, 3.0, 10.0
# Critics begin at 0: below this their growth means nothing.
SMALLEST_CRITIC_SCALE = 1.0


class Alarm(NamedTuple):
    """One entry of the table.

    Attributes:
        name: at most nine letters.
        level: of the signs now and one report before, as a share of what is healthy at most; None without them.
        means: what is the matter from level 1 on.
        remedy: what to try.
    """

    name: str
    level: Callable[[Signs, Signs], float | None]
    means: str
    remedy: str

    def raised(self, now: Signs, before: Signs) -> bool:
        """Whether it is time to look. A sign that is not a number is no good one."""
        level = self.level(now, before)
        return level is not None and not level < 1.0


def _reward(now: Signs, _before: Signs) -> float | None:
    gap = now.get("reward_margin")
    return None if gap is None else 1.0 - gap


def _density(now: Signs, _before: Signs) -> float | None:
    learned, validation = now.get("novelty_expert"), now.get("novelty_validation")
    if learned is None or validation is None:
        return None
    return validation / (LARGEST_BONUS_RATIO * max(learned, 1e-12))


def _critics(now: Signs, before: Signs) -> float | None:
    scale, earlier = now.get("mean_abs_q"), before.get("mean_abs_q")
    if scale is None or earlier is None:
        return None
    return scale / (LARGEST_CRITIC_GROWTH * max(earlier, SMALLEST_CRITIC_SCALE))


def _dynamics(now: Signs, _before: Signs) -> float | None:
    error = now.get("open_loop_fvu")
    return None if error is None else error / LARGEST_DYNAMICS_ERROR


ALARMS = (
    Alarm(
        "reward",
        _reward,
        "the learned reward does not prefer the expert's data to the agent's own",
        "whether demonstrations and task agree (`cdred demos info`), more demonstrations, a larger --reward.zeta",
    ),
    Alarm(
        "density",
        _density,
        "held-out demonstrations are far less familiar than those learned: the expert's density is overfitted",
        "more demonstrations, smaller --reward.predictor-hidden-dims",
    ),
    Alarm(
        "critics",
        _critics,
        "the critics' values have grown tenfold since the last report",
        "a longer --reward.warmup-updates, a smaller --optim.learning-rate or --optim.tau",
    ),
    Alarm(
        "dynamics",
        _dynamics,
        "the model misses half of what moves within its horizon, so plans are made on sand",
        "more --random-episodes, a larger --optim.consistency-coef, a shorter --mppi.horizon",
    ),
)


class Watch:
    """Which alarms each seed has at the moment.

    Args:
        seeds: in the order of the rows that `update` is given.
    """

    def __init__(self, seeds: Sequence[int]):
        self._seeds, self._before = tuple(seeds), [dict[str, float | None]() for _ in seeds]
        self.active: list[tuple[Alarm, ...]] = [() for _ in seeds]

    def update(self, rows: Sequence[Signs]) -> list[str]:
        """Take a report, one row a seed; what is to be said of alarms that begin with it."""
        said = []
        for i, (seed, now) in enumerate(zip(self._seeds, rows, strict=True)):
            raised = tuple(alarm for alarm in ALARMS if alarm.raised(now, self._before[i]))
            begun = [alarm for alarm in raised if alarm not in self.active[i]]
            said += [f"health, seed {seed}, {alarm.name}: {alarm.means}. Try {alarm.remedy}." for alarm in begun]
            self.active[i], self._before[i] = raised, dict(now)
        return said


def levels(alarm: Alarm, lines: Sequence[Mapping[str, Any]]) -> list[list[float | None]]:
    """An alarm's level per report and seed, from the `health` lines of a metrics file."""
    found, before = [], {}
    for line in lines:
        now = by_seed(line)
        found.append([alarm.level(signs, before.get(i, {})) for i, signs in enumerate(now)])
        before = dict(enumerate(now))
    return found


def by_seed(line: Mapping[str, Any]) -> list[Signs]:
    """The per-seed lists of a report as one mapping a seed."""
    lists = {name: value for name, value in line.items() if isinstance(value, list)}
    return [{name: value[i] for name, value in lists.items()} for i in range(max(map(len, lists.values()), default=0))]
