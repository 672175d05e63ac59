"""The library's face: train, evaluate, load. The command line says nothing that these do not."""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from cdred.checkpoint import checkpoint
from cdred.config import AlgoName, PlannerName, RunConfig, check, preset, total_steps
from cdred.config_file import first_difference, read_config, to_yaml
from cdred.data.demonstrations import load_demos, save_demos
from cdred.data.formats.registry import require_place
from cdred.demos.record_agent import record_agent
from cdred.demos.scripted import check_num_demos, expert_level, get_demos, random_level
from cdred.envs.failures import one_line
from cdred.envs.jax_vector_env import make_vector_env
from cdred.envs.registry import make
from cdred.errors import UserError
from cdred.files import disk_errors
from cdred.files import replace as replace_file
from cdred.loggers.metrics import JsonlLogger, Logger, MultiLogger
from cdred.loggers.terminal import Terminal
from cdred.provenance import origin
from cdred.report.comparison import write_comparison
from cdred.report.outcome import told_levels, told_result, told_scores
from cdred.report.results import read_result
from cdred.report.run_report import write_report
from cdred.report.video import film
from cdred.train.agent import Agent, select_seed
from cdred.train.compiled import EVALUATE, INIT, seed_keys
from cdred.train.evaluate import evaluate, evaluation_keys
from cdred.train.interrupt import Stop, lock_folder
from cdred.train.loop import train_loop
from cdred.train.setup import build_run, make_compiled_fns, stepping
from cdred.types import DemoDataset, EnvSpec, LogFn

# Enough to tell a task that chance solves from one that it does not; a second of simulation.
RANDOM_EPISODES = 50
RECORDED_AT_ONCE = 10
# Between two words on how far the collecting of demonstrations is.
COLLECTING_SECONDS = 10.0


def train(config: RunConfig | None = None, *, quiet: bool = False, **changes: Any) -> dict[str, Any]:
    """Train an agent, or go on with a run that was interrupted; returns what `result.json` says.

    Everything the run makes is in its folder (`config.out`): settings, metrics, checkpoints, result, report, video.
    The same call again resumes, or returns at once if the run is finished.

    Args:
        config: all settings; the preset named in `changes` (by default `cpu`) if None.
        quiet: show nothing on the terminal.
        changes: settings to override, e.g. `task="metaworld/button-press", steps=5000, seeds=(0, 1, 2)`.

    Raises:
        UserError: whatever about task, demonstrations, settings or folder cannot be used.
        Interrupted: Ctrl-C or SIGTERM came; the state is saved. A second one ends the process as always.
    """
    config = config or preset(changes.get("preset", "cpu"))
    config = replace(config, **changes)
    check(config)
    folder, spec = run_folder(config), get_env_spec(config.task)
    finished = _finished(folder, config)
    if finished is not None:
        return finished
    use_compilation_cache()
    parts = (_title(config), total_steps(config), config.seeds, spec.has_success)
    with closing(_Silent() if quiet else Terminal(*parts)) as terminal:
        # Before anything is written: they may be unusable.
        demos = demonstrations(config, spec, terminal.message)
        with lock_folder(folder), disk_errors(folder), Stop().listening() as stop:
            _claim(folder, config)
            return _train(config, folder, spec, demos, terminal, stop)


def _train(
    config: RunConfig,
    folder: Path,
    spec: EnvSpec,
    demos: DemoDataset | None,
    terminal: "Terminal | _Silent",
    stop: Stop,
) -> dict[str, Any]:
    made_with = origin()  # now, not at the end: the source tree may move on meanwhile
    by_chance = random_level(config.task, RANDOM_EPISODES, **stepping(config, terminal.message))
    levels = told_levels(spec, expert_level(demos) if demos else None, by_chance)
    resumed = checkpoint.latest(folder / "checkpoints")
    step = int(resumed.name) if resumed else -1
    # The last evaluation comes after the last save: it is made again.
    again = "eval" if step >= total_steps(config) else None
    lines = JsonlLogger(folder / "metrics.jsonl", step, again)
    tracker = MultiLogger([lines, terminal])
    try:
        # The file of a resumed run has them already.
        (terminal if resumed else tracker).log(0, levels, "reference")
        run = build_run(config, demos, folder, tracker, terminal.message)
        outcome = train_loop(replace(run, stop=stop))
    finally:
        lines.close()
    result = told_result(config, spec, made_with, demos, outcome, levels)
    replace_file(folder / "result.json", json.dumps(result, indent=1) + "\n")
    terminal.message(f"report: {write_report(folder)}")
    if config.video:
        _film(folder, demos, terminal.message)
    return result


def compare(config: RunConfig, algos: Sequence[AlgoName], *, quiet: bool = False) -> str:
    """Train each method with the same settings, demonstrations and seeds, and write what came out.

    Each method's run is a folder of `config.out`; those that are finished are not run again. `table.md`, `table.json`
    and `curves.png` beside them are written anew after each method.

    Args:
        config: of every run, but for `algo`.
        algos: the methods; the others are held against the first.
        quiet: show nothing on the terminal.

    Returns:
        The table, in Markdown.

    Raises:
        UserError: no folder is named, a method is named twice; and whatever `train` raises.
    """
    if not config.out:
        raise UserError("give --out, the folder for the methods' runs.")
    if not algos or len(set(algos)) < len(algos):
        raise UserError(f"--algos must name one or more different methods, got {' '.join(algos)!r}.")
    folder, runs, table = Path(config.out), {}, ""
    for algo in algos:
        runs[algo] = folder / algo
        train(replace(config, algo=algo, out=str(runs[algo])), quiet=quiet)
        table = write_comparison(folder, runs)
    return table


def evaluate_run(
    run: str | Path,
    *,
    episodes: int = 20,
    planner: PlannerName | None = None,
    best: bool = False,
    say: LogFn = print,
) -> dict[str, Any]:
    """Evaluate a run's agents on fresh episodes without exploration, from its folder alone.

    Args:
        run: the run's folder.
        episodes: per seed.
        planner: how to act; as the run was trained if None.
        best: take the agents that did best in one of the run's evaluations, by the environment's own success and
            return, which an imitator does not have; else those of the last checkpoint.
        say: told what happens.

    Returns:
        `{"task", "planner", "steps", "episodes", "seeds", "return", "success", "success_at_end", "length"}`, lists per
        seed; no list but None for the success at a task that does not say whether its goal is reached, and for the
        length where the world cannot end an episode. `"failed_episodes"` besides, where a simulator broke: other
        episodes were then run for these.
    """
    if episodes < 1:
        raise UserError(f"--episodes must be at least 1, got {episodes}.")
    use_compilation_cache()
    saved = _load(Path(run), planner, best)
    config = saved.config
    with make_vector_env(config.task, config.seeds, config.envs, "eval", **stepping(config, say)) as grid:
        grid.restore(saved.eval_grid)
        programs = make_compiled_fns(config, grid.spec)
        say(f"{config.task}: {episodes} fresh episodes for each of {len(config.seeds)} seeds, {config.planner}")
        keys = evaluation_keys(seed_keys(config.seeds, EVALUATE), saved.steps + 1)
        outcome, spec = evaluate(programs, saved.learner, grid, keys, episodes), grid.spec
    about = {"task": config.task, "planner": config.planner, "steps": saved.steps, "seeds": list(config.seeds)}
    return about | told_scores(spec, outcome)


def train_expert(
    config: RunConfig,
    out: str | Path,
    *,
    num: int = 100,
    threshold: float | None = None,
    quiet: bool = False,
    on_episode: Callable[[int, int], None] | None = None,
) -> DemoDataset:
    """Train TD-MPC2 on the environment's own reward, and keep its best seed's episodes as demonstrations.

    Args:
        config: of the training run, `algo` being `tdmpc2`; if its folder holds the run already, nothing is trained.
        out: where the demonstrations go: a new folder, or a new `.npz` file.
        num: episodes to keep.
        threshold: least return of an episode that is kept; None keeps every one.
        quiet: show no training on the terminal.
        on_episode: called after each recorded episode with the numbers of kept and of attempted ones.

    Raises:
        UserError: whatever cannot be used; or too few episodes reach the threshold.
    """
    out = Path(out)
    require_place(out)
    check_num_demos(num)
    result = train(config, quiet=quiet)
    best = int(np.argmax(result["eval"]["return"]))
    seed = config.seeds[best]
    saved = _load(run_folder(config), None)
    learner = jax.tree.map(lambda x: x[best : best + 1], saved.learner)
    provenance = {
        "expert": f"{config.algo} on the true reward, {result['steps']} steps, best of {len(config.seeds)}",
        **{key: result[key] for key in ("preset", "commit", "versions")},
    }
    with make_vector_env(config.task, (seed,), min(num, RECORDED_AT_ONCE), "demos") as grid:
        programs = make_compiled_fns(replace(saved.config, seeds=(seed,)), grid.spec)
        least = -np.inf if threshold is None else threshold
        demos = record_agent(
            programs, learner, grid, num, threshold=least, provenance=provenance, on_episode=on_episode
        )
    save_demos(demos, out)
    return demos


def load(run: str | Path, *, seed: int | None = None, planner: PlannerName | None = None, best: bool = False) -> Agent:
    """The agent of a run, ready to act: `load(run).act(obs)`.

    Args:
        run: the run's folder.
        seed: which of its seeds; the first if None.
        planner: how to act; as the run was trained if None.
        best: as in `evaluate_run`.
    """
    config, learner, *_ = _load(Path(run), planner, best)
    state, seed = select_seed(learner, config, seed)
    spec = get_env_spec(config.task)
    return Agent(make_compiled_fns(config, spec).algorithm, state, spec, seed)


def run_folder(config: RunConfig) -> Path:
    """Where a run lives: `out`, or a name that its settings give."""
    if config.out:
        return Path(config.out)
    return Path("runs") / f"{config.task.replace('/', '-')}-{config.algo}-{config.preset}"


def demonstrations(config: RunConfig, spec: EnvSpec, say: LogFn) -> DemoDataset | None:
    """The demonstrations that `config.demos` names, a number of scripted ones or a file; None for a method without."""
    if config.algo == "tdmpc2":
        return None
    if not config.demos.isdecimal():
        return load_demos(config.demos, spec, allow_variable_horizon=config.allow_variable_horizon)
    num = int(config.demos)
    demos = get_demos(config.task, num, on_episode=_collecting(config.task, num, say))
    say(f"demonstrations: {len(demos)} of {config.task}, {demos.provenance.get('expert', 'unknown expert')}")
    return demos


def _collecting(task: str, num: int, say: LogFn) -> Callable[[int, int], None]:
    """Says now and then how many demonstrations there are: a planner takes a second or more for each."""
    told = time.monotonic()

    def tell(kept: int, attempts: int) -> None:
        nonlocal told
        if time.monotonic() - told >= COLLECTING_SECONDS:
            told = time.monotonic()
            say(f"collecting demonstrations of {task}: {kept} of {num}, from {attempts} attempts")

    return tell


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, in `$XDG_CACHE_HOME/cdred/xla`, unless JAX was told otherwise."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "cdred" / "xla"))


def get_env_spec(task: str) -> EnvSpec:
    """What an agent needs to know of a task."""
    env = make(task)
    try:
        return env.spec
    finally:
        env.close()


def _finished(folder: Path, config: RunConfig) -> dict[str, Any] | None:
    """The result of the run in this folder, if there is a finished one with these settings.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    written, done = folder / "config.yaml", folder / "result.json"
    if not _begun(folder):
        return None
    if not written.exists():
        raise UserError(f"{folder} holds a run without its settings, config.yaml: put it back, or give another --out.")
    # Neither says what a run comes to; and a run that a slow simulator stopped must be able to go on.
    as_it_was = replace(read_config(written), out=config.out, env_step_timeout=config.env_step_timeout)
    difference = first_difference(as_it_was, config)
    if difference:
        raise UserError(
            f"{folder} holds a run with another setting: {difference}.\n"
            "Give the same settings to resume it, or another --out."
        )
    return read_result(folder) if done.exists() else None


def _begun(folder: Path) -> bool:
    """Whether a run has got to its first checkpoint here: until then its settings may still be mended."""
    return checkpoint.latest(folder / "checkpoints") is not None or (folder / "result.json").exists()


def _claim(folder: Path, config: RunConfig) -> None:
    """Make the folder this run's.

    Raises:
        UserError: another process has made it another run's since it was looked at.
    """
    _finished(folder, config)
    if not _begun(folder):
        replace_file(folder / "config.yaml", to_yaml(config))


class Saved(NamedTuple):
    """Settings, learner, the evaluation simulators' snapshot and the step count of a run's checkpoint."""

    config: RunConfig
    learner: Any
    eval_grid: dict[str, Any]
    steps: int


def _load(run: Path, planner: PlannerName | None, best: bool = False) -> Saved:
    written, root = run / "config.yaml", run / "checkpoints"
    folder = checkpoint.best(root) if best else checkpoint.latest(root)
    if not written.exists() or folder is None:
        wanted = "the best checkpoint of an evaluation" if best else "a checkpoint"
        raise UserError(f"{run} is not a run with {wanted}: expected config.yaml and checkpoints/ in it.")
    config = read_config(written)
    config = replace(config, planner=planner or config.planner)
    with make_vector_env(config.task, config.seeds, config.envs, "eval", vectorization=config.vectorization) as grid:
        programs, snapshot = make_compiled_fns(config, grid.spec), grid.snapshot()
    like = eqx.filter_eval_shape(programs.init, seed_keys(config.seeds, INIT))
    learner, _ = checkpoint.load(folder, like, "learner")
    eval_grid, _ = checkpoint.load(folder, snapshot, "eval_grid")
    return Saved(config, learner, eval_grid, int(folder.name.removeprefix(checkpoint.BEST)))


def _film(folder: Path, demos: DemoDataset | None, say: LogFn) -> None:
    """A missing renderer, or whatever else goes wrong with a film, is no reason to fail a run that has learned."""
    began = time.perf_counter()
    try:
        path = film(load(folder), demos, folder / "videos" / ("expert-and-agent.mp4" if demos else "agent.mp4"))
        say(f"video: {path} ({time.perf_counter() - began:.0f} s)")
    except Exception as error:
        say(f"no video: {error if isinstance(error, UserError) else one_line(error)}")


def _title(config: RunConfig) -> str:
    seeds = f"{len(config.seeds)} seed{'s' * (len(config.seeds) > 1)}"
    device = jax.devices()[0]
    return f"{config.task} · {config.algo} · preset {config.preset} · {seeds} · {device.device_kind}"


class _Silent(Logger):
    """A terminal for runs that nobody watches."""

    def log(self, step, metrics, kind) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass
