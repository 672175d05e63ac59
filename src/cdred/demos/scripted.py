"""Demonstrations by the suites' scripted experts and planners, and the levels an agent is measured between.

Episodes come from streams of their own: no demonstration is an episode that an agent trains or is evaluated on.
"""

import importlib.metadata
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from cdred.data.demonstrations import load_demos, save_demos
from cdred.data.shipped import shipped
from cdred.demos.episodes import Act, ActorOf, Simulator
from cdred.envs.base import Env
from cdred.envs.failures import warned
from cdred.envs.jax_vector_env import Grid, make_vector_env
from cdred.envs.registry import NoExpertError, functional, planned_expert, scripted_expert
from cdred.envs.remote.client import STEP_SECONDS
from cdred.envs.vector_env import episode_seed
from cdred.errors import UserError
from cdred.train.collect import random_actions
from cdred.train.compiled import EVALUATE, seed_keys
from cdred.train.evaluate import evaluate
from cdred.types import DemoDataset, LogFn, Trajectory, VectorizationMode

# Episodes with which to find out whether holding still keeps a success, and which success can be asked for.
PILOT_EPISODES = 8
COLLECTION, PILOT = 0, 1
VERSIONED = ("metaworld", "mujoco", "numpy")
# Change it whenever the same call would collect other episodes: caches made before are then not used.
RECIPE = 2

# Of an environment, the seed of an episode, and whether to hold still after its first success.
ExpertOf = Callable[[Env, int, bool], Act]


class Level(NamedTuple):
    """How well somebody does a task, on average over episodes."""

    episode_return: float
    success_once: float
    success_at_end: float


def collect_scripted(
    task: str,
    num: int,
    *,
    seed: int = 0,
    hold: bool | None = None,
    max_attempts: int | None = None,
    on_episode: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """`num` successful episodes of the task's scripted expert or planner; the first n are what `num=n` collects.

    Where a pilot of eight episodes ends in success at least twice, only episodes that end in success are kept,
    elsewhere those with a success at any time; provenance says which. Its expert statistics are over all attempts.

    Args:
        task: as in `registry.make`.
        num: episodes to keep.
        seed: of the collection.
        hold: stand still after the first success; None takes what ends in success more often in the pilot.
        max_attempts: episodes to try; None for ten times `num` and fifty.
        on_episode: called after each attempt with the numbers of kept and of attempted episodes.

    Raises:
        UserError: no expert for this task, or too few successes.
    """
    check_num_demos(num)
    if seed < 0:
        raise UserError(f"--seed must be an integer >= 0, got {seed}.")
    about, expert = _expert(task)
    with Simulator(task) as simulator:
        choices = (False, True) if hold is None else (hold,)
        pilots = {choice: _pilot(simulator, expert, seed, choice) for choice in choices}
        hold = max(pilots, key=lambda choice: pilots[choice].success_at_end)
        at_end = pilots[hold].success_at_end * PILOT_EPISODES >= 2
        limit = max_attempts or 10 * num + 50
        actor: ActorOf = lambda env, one: expert(env, one, hold)  # noqa: E731
        kept, attempts = _collect(simulator, actor, num, seed, at_end, limit, on_episode)
        provenance = _provenance(simulator.env, about, seed, hold, at_end, attempts)
    return DemoDataset(task, tuple(kept), provenance)


def check_num_demos(num: int) -> None:
    """Raises UserError where no demonstration is asked for."""
    if num < 1:
        raise UserError(f"at least one demonstration is needed, got {num}.")


def _expert(task: str) -> tuple[str, ExpertOf]:
    """What the task's expert is, and its maker; raises UserError where there is none."""
    planned = planned_expert(task)
    if planned is not None:
        return planned.about, planned
    scripted = scripted_expert(task)
    return "scripted", lambda _env, _seed, hold: scripted(hold=hold)


def _pilot(simulator: Simulator, expert: ExpertOf, seed: int, hold: bool) -> Level:
    episodes = simulator.episodes(_seeds(seed, "demos", PILOT), lambda env, one: expert(env, one, hold))
    return level(list(islice(episodes, PILOT_EPISODES)))


def _seeds(seed: int, stream: str, env: int) -> Iterator[int]:
    return (episode_seed(seed, stream, env, index) for index in count())


def _collect(
    simulator: Simulator,
    actor: ActorOf,
    num: int,
    seed: int,
    at_end: bool,
    limit: int,
    on_episode: Callable[[int, int], None] | None,
) -> tuple[list[Trajectory], list[Trajectory]]:
    kept, attempts = [], []
    episodes = simulator.episodes(_seeds(seed, "demos", COLLECTION), actor)
    while len(kept) < num:
        if len(attempts) == limit:
            raise UserError(
                f"the expert of {simulator.env.spec.task} succeeded in {len(kept)} of {limit} episodes, {num} "
                "successes were asked for: ask for fewer demonstrations, or give your own with --demos PATH."
            )
        one = next(episodes)
        attempts.append(one)
        if one.success_at_end if at_end else one.success_once:
            kept.append(one)
        if on_episode:
            on_episode(len(kept), len(attempts))
    return kept, attempts


def _provenance(
    env: Env, about: str, seed: int, hold: bool, at_end: bool, attempts: list[Trajectory]
) -> dict[str, object]:
    return {
        "expert": f"{about}, holding still after the first success" if hold else about,
        "hold": hold,
        "kept": "success at the end" if at_end else "success at any time",
        "attempts": len(attempts),
        "expert_level": level(attempts)._asdict(),
        "action_repeat": env.spec.action_repeat,
        "seed": seed,
        "versions": _versions() | getattr(env, "versions", {}),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in VERSIONED:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def level(trajectories: list[Trajectory] | tuple[Trajectory, ...]) -> Level:
    """Mean return and success rates of these episodes."""
    rows = [(one.episode_return, one.success_once, one.success_at_end) for one in trajectories]
    return Level(*(float(mean) for mean in np.mean(rows, axis=0)))


def expert_level(dataset: DemoDataset) -> Level:
    """The expert's level: over all its attempts where the dataset knows them, else over what it holds."""
    recorded = dataset.provenance.get("expert_level")
    if isinstance(recorded, dict) and set(recorded) == set(Level._fields):
        return Level(**recorded)
    return level(dataset.trajectories)


def random_level(
    task: str,
    episodes: int,
    seed: int = 0,
    *,
    vectorization: VectorizationMode = "sync",
    env_step_timeout: float = STEP_SECONDS,
    say: LogFn = warned,
) -> Level:
    """Level of actions drawn uniformly from [-1, 1]; simulators on the device play all episodes at once.

    For an episode that breaks another one is played. `workers`, `env_step_timeout` and `say` as in `Simulator`.

    Raises:
        SimulatorError: too many episodes in a row broke.
    """
    if functional(task) is not None:
        return _random_level_on_device(task, episodes, seed, say)
    with Simulator(task, vectorization=vectorization, env_step_timeout=env_step_timeout, say=say) as simulator:
        return level(list(islice(simulator.episodes(_seeds(seed, "random", 0), _uniform), episodes)))


def _random_level_on_device(task: str, episodes: int, seed: int, say: LogFn) -> Level:
    with make_vector_env(task, (seed,), episodes, "random", say=say) as grid:
        result = evaluate(_Random(grid), None, grid, seed_keys((seed,), EVALUATE), episodes)
    return Level(*(float(getattr(result, name)[0]) for name in Level._fields))


class _Random:
    """Acts without looking."""

    def __init__(self, grid: Grid):
        self._grid = grid

    def init_plan(self, num_seeds: int, num_envs: int) -> None:
        pass

    def act(self, _learner, _plan, _obs, _fresh, _keys, counter, _explore) -> tuple[Float32[np.ndarray, "S E A"], None]:
        return random_actions(self._grid, int(counter)), None


def _uniform(env: Env, seed: int) -> Act:
    generator, size = np.random.default_rng(seed), env.spec.action_dim
    return lambda _obs, _success: generator.uniform(-1.0, 1.0, size).astype(np.float32)


def get_demos(task: str, num: int, on_episode: Callable[[int, int], None] | None = None) -> DemoDataset:
    """The first `num` demonstrations of a task: of those that come with the package, or else of its scripted expert.

    Args:
        task: as in `registry.make`.
        num: how many.
        on_episode: as in `collect_scripted`.

    Raises:
        UserError: as `collect_scripted`; or too few come with the package, and there is no expert to record more.
    """
    check_num_demos(num)
    path = shipped(task)
    if path is None:
        return cached_demos(task, num, on_episode=on_episode)
    dataset = load_demos(path)
    if num <= len(dataset):
        return dataset.take(num)
    try:
        return cached_demos(task, num, on_episode=on_episode)
    except NoExpertError as error:
        raise UserError(
            f"{len(dataset)} demonstrations of {task} come with the package, {num} were asked for: ask for fewer, "
            f"make an expert with `cdred expert {task}`, or give your own with --demos PATH."
        ) from error


def cached_demos(
    task: str,
    num: int,
    cache_dir: str | Path | None = None,
    on_episode: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """The first `num` scripted demonstrations of a task: collected once, afterwards read from the cache.

    Args:
        task: as in `registry.make`.
        num: how many.
        cache_dir: where to keep them; None for `$XDG_CACHE_HOME/cdred/demos`, by default `~/.cache/cdred/demos`.
        on_episode: as in `collect_scripted`; not called where the cache has them.

    Raises:
        UserError: as `collect_scripted`.
    """
    _expert(task)
    folder = (Path(cache_dir) if cache_dir else default_cache_dir()) / task / _recipe_key()
    found = _smallest_holding(folder, num)
    if found is None:
        found = folder / str(num)
        _save_unless_there(collect_scripted(task, num, on_episode=on_episode), found)
    return load_demos(found).take(num)


def _save_unless_there(dataset: DemoDataset, path: Path) -> None:
    try:
        save_demos(dataset, path)
    except (UserError, OSError):
        # Another process may have put the same episodes there meanwhile; its copy is as good.
        if not path.exists():
            raise


def default_cache_dir() -> Path:
    """Where collected demonstrations are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdred" / "demos"


def _recipe_key() -> str:
    return f"{zlib.crc32(json.dumps([RECIPE, _versions()]).encode()):08x}"


def _smallest_holding(folder: Path, num: int) -> Path | None:
    sizes = sorted(int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal())
    return next((folder / str(size) for size in sizes if size >= num), None)
