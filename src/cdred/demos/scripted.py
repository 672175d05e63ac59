"""Demonstrations by the suites' scripted experts and planners, and the cache of collected demonstrations.

Episodes come from the stream `demos`: no demonstration is an episode that an agent is trained or evaluated on.
"""

import json
import math
import os
import re
import shlex
import zlib
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from cdred.data.action_repeat import REPEAT_KEY
from cdred.data.demonstrations import bundled_demos, load_demos, save_demos
from cdred.data.formats.obs_keys import parts_provenance
from cdred.data.images import match_images
from cdred.data.quality import select_best
from cdred.data.rescale import BOUNDS_KEY, normalized_bounds
from cdred.demos.episodes import Policy, PolicyFactory, RestartingEnv
from cdred.demos.reference_scores import ReferenceScore, mean_score
from cdred.demos.render import render_demos
from cdred.envs.base import Env
from cdred.envs.registry import NoExpertError, get_env_spec, planned_expert, scripted_expert
from cdred.envs.seeding import episode_seed
from cdred.errors import UserError
from cdred.provenance import package_versions
from cdred.task_name import has_images, with_obs
from cdred.types import DemoDataset, Trajectory

# Episodes of a pilot run, which decides if the expert stops after its first success, and which success to require.
PILOT_EPISODES = 8
# Environment index in the episode seeds of the collection and of the pilot run.
COLLECTION, PILOT = 0, 1
# Packages that determine simulators and experts; their versions are part of provenance and cache key.
VERSIONED = ("metaworld", "mujoco", "numpy")
# To be increased when the same call would collect other episodes; older caches are then ignored.
CACHE_VERSION = 2

# Policy of one episode, given the environment, the episode's seed, and whether to stop after the first success.
ExpertFactory = Callable[[Env, int, bool], Policy]
OnEpisode = Callable[[int, int], None]


def collect_scripted(
    task: str,
    num: int,
    *,
    seed: int = 0,
    noise_std: float = 0.0,
    stop_after_success: bool | None = None,
    max_attempts: int | None = None,
    on_episode: OnEpisode | None = None,
) -> DemoDataset:
    """Collect `num` successful episodes of the task's scripted expert or planner, rendered for a task with images.

    The first n episodes are those that `num=n` collects. If at least two of the eight episodes of a pilot run end in
    success, only episodes that end in success are kept, otherwise those with a success at any step; the provenance
    records which. Its expert score is over all attempts.

    Args:
        task: as in `registry.make`.
        num: number of episodes to keep.
        seed: seed of the collection.
        noise_std: standard deviation of Gaussian noise on the expert's actions, which is recorded with them: a worse
            expert.
        stop_after_success: hold still after the first success; None chooses what ends in success more often in the
            pilot run.
        max_attempts: maximum number of episodes; None for ten times `num` plus fifty.
        on_episode: called after each attempt with the numbers of kept and of attempted episodes.

    Raises:
        UserError: no expert for this task, or too few successes.
    """
    check_num_demos(num)
    if seed < 0:
        raise UserError(f"--seed must be an integer >= 0, got {seed}.")
    if not 0.0 <= noise_std < math.inf:
        raise UserError(f"--noise-std must be a number >= 0, got {noise_std}.")
    plain = with_obs(task, "state")
    if has_images(task):
        keywords = {"stop_after_success": stop_after_success, "max_attempts": max_attempts, "on_episode": on_episode}
        states = collect_scripted(plain, num, seed=seed, noise_std=noise_std, **keywords)
        return render_demos(states, f"demonstrations of {plain}", task)
    description, expert = _expert(task)
    if noise_std:
        description, expert = f"{description}, with noise of {noise_std:g} on its actions", _noisy(expert, noise_std)
    with RestartingEnv(task) as env:
        choices = (False, True) if stop_after_success is None else (stop_after_success,)
        pilots = {choice: _pilot(env, expert, seed, choice) for choice in choices}
        rates = {choice: pilots[choice].success_at_end or 0.0 for choice in choices}
        stop = max(rates, key=lambda choice: rates[choice])
        at_end = rates[stop] * PILOT_EPISODES >= 2
        limit = max_attempts or 10 * num + 50
        policy_factory: PolicyFactory = lambda env, episode: expert(env, episode, stop)  # noqa: E731
        kept, attempts = _collect(env, policy_factory, num, seed, at_end, limit, on_episode)
        provenance = _provenance(env.env, description, seed, stop, at_end, attempts)
    return DemoDataset(task, tuple(kept), provenance)


def check_num_demos(num: int) -> None:
    """Raise UserError unless `num` is at least 1."""
    if num < 1:
        raise UserError(f"at least one demonstration is needed, got {num}.")


def _expert(task: str) -> tuple[str, ExpertFactory]:
    """Return the description and the factory of the task's expert; raises UserError if there is none."""
    planned = planned_expert(task)
    if planned is not None:
        return planned.description, planned
    scripted = scripted_expert(task)
    return "scripted", lambda _env, _seed, stop_after_success: scripted(stop_after_success=stop_after_success)


def _noisy(expert: ExpertFactory, std: float) -> ExpertFactory:
    """Return an expert with noise on its actions, which the episode's seed determines."""

    def make_policy(env: Env, seed: int, stop_after_success: bool) -> Policy:
        policy, rng = expert(env, seed, stop_after_success), np.random.default_rng(seed)

        def act(obs: Any, success: bool) -> Float32[np.ndarray, " A"]:
            action = policy(obs, success)
            return np.clip(action + std * rng.normal(size=action.shape), -1.0, 1.0).astype(np.float32)

        return act

    return make_policy


def _pilot(env: RestartingEnv, expert: ExpertFactory, seed: int, stop_after_success: bool) -> ReferenceScore:
    policy_factory: PolicyFactory = lambda env, episode: expert(env, episode, stop_after_success)  # noqa: E731
    return mean_score(list(islice(env.episodes(_episode_seeds(seed, PILOT), policy_factory), PILOT_EPISODES)))


def _episode_seeds(seed: int, env: int) -> Iterator[int]:
    return (episode_seed(seed, "demos", env, index) for index in count())


def _collect(
    env: RestartingEnv,
    policy_factory: PolicyFactory,
    num: int,
    seed: int,
    at_end: bool,
    limit: int,
    on_episode: OnEpisode | None,
) -> tuple[list[Trajectory], list[Trajectory]]:
    kept, attempts = [], []
    episodes = env.episodes(_episode_seeds(seed, COLLECTION), policy_factory)
    while len(kept) < num:
        if len(attempts) == limit:
            raise UserError(
                f"the expert of {env.env.spec.task} succeeded in {len(kept)} of {limit} episodes, expected {num} "
                "successes: collect fewer demonstrations, or give your own with --demos PATH."
            )
        episode = next(episodes)
        attempts.append(episode)
        if episode.success_at_end if at_end else episode.success_once:
            kept.append(episode)
        if on_episode:
            on_episode(len(kept), len(attempts))
    return kept, attempts


def _provenance(
    env: Env, description: str, seed: int, stop_after_success: bool, at_end: bool, attempts: list[Trajectory]
) -> dict[str, object]:
    return {
        "expert": f"{description}, holding still after the first success" if stop_after_success else description,
        "hold": stop_after_success,
        "kept": "success at the end" if at_end else "success at any time",
        "attempts": len(attempts),
        "expert_level": mean_score(attempts)._asdict(),
        REPEAT_KEY: env.spec.action_repeat,
        BOUNDS_KEY: normalized_bounds(env.spec.action_dim),
        **parts_provenance(env.spec.obs_parts),
        "seed": seed,
        "versions": package_versions(VERSIONED) | getattr(env, "versions", {}),
    }


def get_demos(task: str, num: int, on_episode: OnEpisode | None = None) -> DemoDataset:
    """Return `num` demonstrations of a task: the best that come with the package, or its scripted expert's first.

    The best ones are the first that did not fail (`cdred.data.quality.select_best`); the provenance has their indices.
    Episodes of a scripted expert are recorded only if they succeed. For a task with images they are rendered.

    Args:
        task: as in `registry.make`.
        num: number of demonstrations.
        on_episode: as in `collect_scripted`.

    Raises:
        UserError: as `collect_scripted`; or too few come with the package, and there is no expert to collect more.
    """
    check_num_demos(num)
    plain = with_obs(task, "state")
    if has_images(task):
        return _cached_renderings(task, get_demos(plain, num, on_episode), on_episode)
    path = bundled_demos().get(task)
    if path is None:
        return cached_demos(task, num, on_episode=on_episode)
    dataset = load_demos(path)
    if num <= len(dataset):
        return select_best(dataset, num)
    try:
        return cached_demos(task, num, on_episode=on_episode)
    except NoExpertError as error:
        raise UserError(
            f"{len(dataset)} demonstrations of {task} come with the package, {num} were requested: use fewer, "
            f"train an expert with `cdred train-expert {shlex.quote(task)}`, or give your own with --demos PATH."
        ) from error


def cached_demos(
    task: str, num: int, cache_dir: str | Path | None = None, on_episode: OnEpisode | None = None
) -> DemoDataset:
    """Return the first `num` scripted demonstrations of a task from the cache; collect and save them if missing.

    Args:
        task: as in `registry.make`.
        num: number of demonstrations.
        cache_dir: folder of the cache; None for `default_cache_dir()`.
        on_episode: as in `collect_scripted`; not called if the cache has them.

    Raises:
        UserError: as `collect_scripted`.
    """
    # Without an expert an old cache must not be used either.
    _expert(task)
    folder = _cache_folder(task, cache_dir)
    path = _smallest_sufficient(folder, num)
    if path is None:
        path = folder / str(num)
        _save_unless_present(collect_scripted(task, num, on_episode=on_episode), path)
    return load_demos(path).take(num)


def _cached_renderings(task: str, dataset: DemoDataset, on_episode: OnEpisode | None) -> DemoDataset:
    """Return demonstrations of the task without images, rendered; images of the same episodes come from the cache."""
    episodes = [(trajectory.seed, zlib.crc32(trajectory.action.tobytes())) for trajectory in dataset]
    key = zlib.crc32(json.dumps([episodes, os.environ.get("MUJOCO_GL", "")]).encode())
    path = _cache_folder(task) / f"{key:08x}.npz"
    if not path.exists():
        _save_unless_present(render_demos(dataset, f"demonstrations of {dataset.task}", task, on_episode), path)
    return match_images(load_demos(path), str(path), get_env_spec(task))


def _cache_folder(task: str, cache_dir: str | Path | None = None) -> Path:
    # As in `run_folder`: a name with parameters has characters that not every file system accepts.
    return (Path(cache_dir) if cache_dir else default_cache_dir()) / re.sub(r"[^\w.+/-]", "-", task) / _cache_key()


def _save_unless_present(dataset: DemoDataset, path: Path) -> None:
    try:
        save_demos(dataset, path)
    except (UserError, OSError):
        # Another process may have saved the same episodes in the meantime.
        if not path.exists():
            raise


def default_cache_dir() -> Path:
    """Return the cache of collected demonstrations: `$XDG_CACHE_HOME/cdred/demos`, by default in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdred" / "demos"


def _cache_key() -> str:
    return f"{zlib.crc32(json.dumps([CACHE_VERSION, package_versions(VERSIONED)]).encode()):08x}"


def _smallest_sufficient(folder: Path, num: int) -> Path | None:
    sizes = sorted(int(entry.name) for entry in folder.glob("*") if entry.name.isdecimal())
    return next((folder / str(size) for size in sizes if size >= num), None)
