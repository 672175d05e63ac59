"""Public API: train, evaluate, compare and load agents."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, get_args

import jax

from cdred.checkpoint import checkpoint
from cdred.compilation_cache import use_compilation_cache
from cdred.config import AlgoName, PlannerName, RunConfig, needs_actions, total_steps
from cdred.config_file import plain_settings
from cdred.console import print_text
from cdred.constraints import check_choice
from cdred.data.rescale import to_task_units
from cdred.data.validate import validate_demos
from cdred.demos.reference_scores import expert_score, random_score
from cdred.envs.callables import EnvFactory, given_env
from cdred.envs.failures import format_exception
from cdred.envs.imports import import_modules, refuse_during_import
from cdred.envs.make import make_vector_env
from cdred.envs.registry import get_env_spec
from cdred.errors import Interrupted, UserError
from cdred.files import disk_errors
from cdred.initial_networks import load_networks
from cdred.keywords import TrainKeywords
from cdred.loggers.metrics import JsonlLogger, MultiLogger
from cdred.loggers.terminal import NullLogger, TerminalLogger
from cdred.loggers.trackers import TrackedRun, Tracker, make_trackers, separate_trackers
from cdred.loggers.tracking import TrackerLogger
from cdred.provenance import provenance
from cdred.report.comparison import write_comparison
from cdred.report.results import evaluation_dict, reference_dict, result_dict, write_result
from cdred.report.run_report import write_report
from cdred.report.video import comparison_video
from cdred.resolve import adapt_to_demos, load_run_demos, locate_demos, resolve_demos, resolve_settings
from cdred.run_folder import (
    LoadedRun,
    check_same_demos,
    finished_result,
    load_run,
    record_demos,
    run_folder,
    write_config,
)
from cdred.text import plural
from cdred.train.agent import Agent, select_seed
from cdred.train.callbacks import Callback, Callbacks
from cdred.train.evaluate import evaluate as evaluate_agents
from cdred.train.evaluate import evaluation_keys, unseen_episode
from cdred.train.interrupt import SignalHandler, lock_folder
from cdred.train.keys import EVALUATE, seed_keys
from cdred.train.loop import train_loop
from cdred.train.saving import repeats_evaluation
from cdred.train.selection import acting_names
from cdred.train.setup import build_run, env_options, make_compiled_fns
from cdred.types import DemoDataset, EnvSpec, LogFn

# Enough episodes to recognize a task that a random policy solves, about a second of simulation.
RANDOM_EPISODES = 50


def train(
    config: RunConfig | None = None,
    *,
    env: EnvFactory | None = None,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
    **changes: Unpack[TrainKeywords],
) -> dict[str, Any]:
    """Train an agent, or resume an interrupted run.

    All outputs are written to the run folder (`config.out`): settings, metrics, checkpoints, result, report and video.
    The same call again resumes the run, or returns its result if it has finished. With more steps, a finished run goes
    on from its last checkpoint, too; settings of logging, evaluation and video may change as well.

    Args:
        config: all settings; by default the preset named in `changes`, or `cpu`.
        env: function or class that makes a new Gymnasium environment at each call, in place of a task. The task is then
            `env/<module>:<name>`, from which worker processes, `cdred eval` and `cdred.load` import it. A lambda or a
            function within a function cannot be imported: give it to `evaluate` and `load` again.
        quiet: disable terminal output.
        callbacks: functions called with an `EvaluationRecord` after every evaluation that is made, in this thread. If
            one returns True, the run stops after the next block of steps, saves its state and raises `Stopped`. An
            exception of one ends the run as any error does: it resumes from its last checkpoint.
        changes: settings to override, e.g. `task="metaworld/button-press", steps=5000, seeds=(0, 1, 2)`. `demos` is a
            number, a path, an address, a `DemoDataset` or a list of `Trajectory`; the latter two are saved in the run
            folder and have to be the same when the run is resumed. `seeds=3` is the single seed 3. `trackers` are names
            or objects of the protocol `cdred.Tracker`. A group of settings is changed by a dict, as in
            `mppi={"horizon": 4}`, or replaced by a config object.

    Returns:
        The content of `result.json`.

    Raises:
        UserError: task, demonstrations, settings or folder cannot be used.
        Interrupted: Ctrl-C or SIGTERM was received, and the state or the result is saved. Not an `Exception`. A second
            signal ends the process at once.
        Stopped: a callback stopped the run, and the state is saved; not by the one of the final evaluation.
        DivergenceError: training diverged in every restart.
    """
    refuse_during_import("cdred.train")
    called_back = Callbacks(callbacks)
    names, trackers = separate_trackers(changes.get("trackers", config.trackers if config else ()))
    config, given = resolve_settings(config, {**changes, "trackers": names}, env)
    with given_env(env):
        return _train_or_resume(config, given, quiet, trackers, called_back)


def _train_or_resume(
    config: RunConfig, given: DemoDataset | None, quiet: bool, objects: Sequence[Tracker], callbacks: Callbacks
) -> dict[str, Any]:
    """Train with checked settings, and the demonstrations and trackers that were given as objects."""
    import_modules(config.imports)
    folder, spec = run_folder(config), get_env_spec(config.task)
    if given is not None:
        given = to_task_units(given, "demos", spec)
        given = validate_demos(
            given,
            "demos",
            spec,
            allow_variable_horizon=config.allow_variable_horizon,
            require_actions=needs_actions(config),
        )
    source = locate_demos(config, NullLogger().message if quiet else print_text)
    config = adapt_to_demos(config, given, source)
    result = finished_result(folder, config)
    if given is not None:
        check_same_demos(folder, given)
    if result is not None:
        if source and source.path.exists():
            check_same_demos(folder, load_run_demos(config, spec, source))
        with disk_errors(folder):
            write_config(folder, config)
        if (config.trackers or objects) and not quiet:
            print_text(f"{folder} has a finished run: nothing is logged to trackers.")
        return result
    use_compilation_cache()
    settings = (_title(config), total_steps(config), config.seeds, spec.has_success)
    with closing(NullLogger() if quiet else TerminalLogger(*settings)) as terminal:
        # Before anything is written, because they may be unusable.
        trackers = make_trackers(config.trackers, objects)
        demos = resolve_demos(config, spec, terminal.message, source) if given is None else given
        if demos is not None and not demos.has_actions:
            terminal.message("demonstrations: they have no actions, so there is no pretraining and no BC term")
        with lock_folder(folder), disk_errors(folder), SignalHandler().installed() as signal_handler:
            if demos is not None:
                record_demos(folder, demos, save=given is not None)
            write_config(folder, config)
            result = _train(config, folder, spec, demos, terminal, signal_handler, trackers, callbacks)
    if signal_handler.received:
        # Too late for a checkpoint, and not to be ignored by a caller that would start another run.
        raise Interrupted(f"the run has finished, its result is in {folder}.", 128 + signal_handler.received)
    return result


def _train(
    config: RunConfig,
    folder: Path,
    spec: EnvSpec,
    demos: DemoDataset | None,
    terminal: TerminalLogger | NullLogger,
    signal_handler: SignalHandler,
    trackers: Mapping[str, Tracker],
    callbacks: Callbacks,
) -> dict[str, Any]:
    made_with = provenance()  # before training, because the source tree may change meanwhile
    resumed = checkpoint.latest(folder / "checkpoints")
    # First, because the other run may not fit.
    initialize = load_networks(config, spec) if config.init_from and not resumed else None
    random_reference = random_score(config.task, RANDOM_EPISODES, **env_options(config, terminal.message))
    reference = reference_dict(spec, expert_score(demos) if demos else None, random_reference)
    step = int(resumed.name) if resumed else -1
    repeated_kind = "eval" if resumed and repeats_evaluation(config, resumed) else None
    name, settings = run_folder(replace(config, out="")).name, plain_settings(config)
    tracked = TrackedRun("", name, folder, settings, step if resumed else None)
    with ExitStack() as stack:
        file_logger = JsonlLogger(folder / "metrics.jsonl", step, repeated_kind)
        stack.callback(file_logger.close)
        tracking = TrackerLogger(trackers, tracked, config.seeds, terminal.message, file_logger)
        stack.callback(tracking.close)
        # The file of a resumed run has the reference scores already.
        for logger in (terminal, tracking, *(() if resumed else (file_logger,))):
            logger.log(0, reference, "reference")
        run = build_run(config, demos, folder, MultiLogger([file_logger, terminal, tracking]), terminal.message)
        run = replace(run, signal_handler=signal_handler, callbacks=callbacks, initialize=initialize)
        outcome = train_loop(run)
        result = result_dict(config, spec, made_with, demos, outcome, reference, tracking.status())
        write_result(folder, result)
        terminal.message(f"report: {write_report(folder)}")
        if config.video:
            _write_video(folder, demos, terminal.message)
        tracking.finish(result)
        if result["trackers"] != tracking.status():
            result["trackers"] = tracking.status()
            write_result(folder, result)
    return result


def compare(config: RunConfig, algos: Sequence[AlgoName], *, quiet: bool = False) -> str:
    """Train each method with the same settings, demonstrations and seeds, and compare their results.

    Each method has a run folder in `config.out`; finished runs are not repeated. `table.md`, `table.json` and
    `curves.png` in `config.out` are rewritten after each method.

    Args:
        config: settings of every run, except `algo`.
        algos: the methods; the others are compared with the first.
        quiet: disable terminal output.

    Returns:
        The table, in Markdown.

    Raises:
        UserError: no output folder is given, a method is unknown or given twice, or as `train`.
    """
    for algo in algos:
        check_choice("--algos", algo, get_args(AlgoName))
    if not config.out:
        raise UserError("no output folder is given: set --out to a folder for the runs of all methods.")
    if not algos or len(set(algos)) < len(algos):
        raise UserError(f"--algos must be one or more different methods, got {' '.join(algos)!r}.")
    folder, runs, table = Path(config.out), {}, ""
    for algo in algos:
        runs[algo] = folder / algo
        train(replace(config, algo=algo, out=str(runs[algo])), quiet=quiet)
        table = write_comparison(folder, runs)
    return table


def evaluate(
    run: str | Path,
    *,
    env: EnvFactory | None = None,
    episodes: int = 20,
    planner: PlannerName | None = None,
    best: bool = False,
    log: LogFn = print,
) -> dict[str, Any]:
    """Evaluate the agents of a run on unseen episodes without exploration. Only the run folder is needed.

    Args:
        run: the run folder.
        env: makes the environments of a run that was trained with `env`, in this process, in place of the function that
            the run names.
        episodes: episodes per seed.
        planner: how to act; None as at the end of the training run.
        best: evaluate the checkpoint of the best evaluation instead of the last one. It is selected by the
            environment's success and return, which an imitation learner does not have.
        log: called with messages.

    Returns:
        `{"task", "planner", "steps", "episodes", "seeds", "return", "returns", "success", "success_at_end", "length"}`,
        with lists per seed, of which `"returns"` has the return of each episode, and with pretraining `"acting"`: what
        acts, the `agent` by its planner, its `policy`, or the `pretrained` policy. Success is None if the task does not
        report it, length if episodes of the task cannot terminate. `"failed_episodes"` is added if a simulator failed;
        these episodes were replaced by others.

    Raises:
        UserError: the folder is not that of a run, or its files are damaged.
    """
    if episodes < 1:
        raise UserError(f"--episodes must be at least 1, got {episodes}.")
    use_compilation_cache()
    with given_env(env):
        return _evaluate(load_run(Path(run), planner, best, env), episodes, log)


def _evaluate(loaded: LoadedRun, episodes: int, log: LogFn) -> dict[str, Any]:
    config = loaded.config
    with make_vector_env(config.task, config.seeds, config.envs, "eval", **env_options(config, log)) as envs:
        envs.restore(loaded.eval_envs)
        fns = make_compiled_fns(config, envs.spec)
        evaluated = f"{plural(episodes, 'episode')} of {plural(len(config.seeds), 'seed')}"
        log(f"{config.task}: {evaluated}, planner {config.planner}")
        keys = evaluation_keys(seed_keys(config.seeds, EVALUATE), loaded.steps + 1)
        first = unseen_episode(envs, config.final_eval_episodes)
        evaluation = evaluate_agents(fns, loaded.learner, envs, keys, episodes, first_episode=first)
    metadata = {"task": config.task, "planner": config.planner, "steps": loaded.steps, "seeds": list(config.seeds)}
    acting = {"acting": names} if (names := acting_names(fns.algorithm, loaded.learner)) else {}
    return metadata | acting | evaluation_dict(envs.spec, evaluation)


def load(
    run: str | Path,
    *,
    env: EnvFactory | None = None,
    seed: int | None = None,
    planner: PlannerName | None = None,
    best: bool = False,
) -> Agent:
    """Load the agent of a run; `load(run).act(obs)` returns an action.

    Args:
        run: the run folder.
        env: as in `evaluate`.
        seed: one of the run's seeds; the first if None.
        planner: how to act; None as at the end of the training run.
        best: as in `evaluate`.

    Raises:
        UserError: the folder is not that of a run, its files are damaged, or the run has no such seed.
    """
    use_compilation_cache()
    with given_env(env):
        config, learner, *_ = load_run(Path(run), planner, best, env)
        spec = get_env_spec(config.task)
    state, seed = select_seed(learner, config, seed)
    return Agent(make_compiled_fns(config, spec).algorithm, state, spec, seed, config.algo)


def _write_video(folder: Path, demos: DemoDataset | None, log: LogFn) -> None:
    """Write the video of a finished run. A failure, such as a missing renderer, is logged and does not fail the run."""
    start = time.perf_counter()
    try:
        replayed = demos if demos and demos.has_actions else None
        name = "expert-and-agent.mp4" if replayed else "agent.mp4"
        path = comparison_video(load(folder), replayed, folder / "videos" / name)
        log(f"video: {path} ({time.perf_counter() - start:.0f} s)")
    except Exception as error:
        log(f"no video: {error if isinstance(error, UserError) else format_exception(error)}")


def _title(config: RunConfig) -> str:
    seeds = plural(len(config.seeds), "seed")
    device = jax.devices()[0]
    return f"{config.task} · {config.algo} · preset {config.preset} · {seeds} · {device.device_kind}"
