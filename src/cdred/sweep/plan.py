"""The runs of a sweep: their settings, which are all checked before the first one starts, their folders and states."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from cdred.config import RunConfig, needs_actions, parse_settings, preset
from cdred.config_file import plain_settings
from cdred.demos.scripted import check_num_demos
from cdred.envs.imports import import_modules
from cdred.envs.registry import get_env_spec
from cdred.errors import UserError
from cdred.files import check_writable_parent
from cdred.resolve import adapt_to_demos, demos_path, locate_demos, resolve_demos, resolve_settings
from cdred.run_folder import check_same_demos, finished_result, has_checkpoint
from cdred.sweep.sweep_file import DEFAULT, Options, SweepFile
from cdred.text import plural
from cdred.train.interrupt import lock_owner
from cdred.types import LogFn

State = Literal["finished", "running", "resumable", "missing"]


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        config: its settings; `config.out` is its folder.
        label: the method, and the setting unless it is the default.
        result_stem: path of its exported results without their endings, in the folder of results.
    """

    config: RunConfig
    label: str
    result_stem: Path

    @property
    def folder(self) -> Path:
        """Run folder."""
        return Path(self.config.out)

    @property
    def name(self) -> str:
        """Name for messages."""
        return run_name(self.config, self.label)


def plan_runs(sweep: SweepFile) -> list[SweepRun]:
    """Return the runs of a sweep, by task, method, setting and group of seeds, without looking at their folders.

    Relative paths of demonstrations, runs and modules become absolute, as workers may have another working directory.

    Raises:
        UserError: the settings of a run are refused, or two runs have the same settings or folder.
    """
    runs = list(_expand(sweep))
    folders: dict[Path, SweepRun] = {}
    labels: dict[RunConfig, SweepRun] = {}
    for run in runs:
        settings = replace(run.config, out="")
        if same := folders.get(run.folder) or folders.get(run.result_stem):
            raise UserError(f"{same.name} and {run.name} have the same folder, {run.folder}: rename a setting.")
        if same := labels.get(settings):
            raise UserError(f"{same.name} and {run.name} are the same run: all of their settings are equal. Omit one.")
        folders |= {run.folder: run, run.result_stem: run}
        labels[settings] = run
    return runs


def _expand(sweep: SweepFile) -> Iterator[SweepRun]:
    out, first_seeds = Path(sweep.out).expanduser().absolute(), min(sweep.seed_groups)
    for task in sweep.tasks:
        for method in sweep.methods:
            for setting, changes in sweep.settings.items():
                label = method if setting == DEFAULT else f"{method}-{setting}"
                options = merge(merge(sweep.common, sweep.tasks[task]), merge(sweep.methods[method], changes))
                for seeds in sweep.seed_groups:
                    config = _settings(options, task, method, seeds, f"{task}, {label}")
                    # As in `run_folder`: task names may have characters that not every file system accepts.
                    path = Path(re.sub(r"[^\w.+/-]", "-", config.task)) / label
                    # Of the lowest seeds, so that names do not depend on the order of the groups.
                    suffix = "" if seeds == first_seeds else f"-{seeds_name(seeds)}"
                    folder = out / path / seeds_name(seeds)
                    yield SweepRun(replace(config, out=str(folder)), label, path.with_name(f"{label}{suffix}"))


def merge(options: Options, changes: Options) -> Options:
    """Return options with those of `changes` in their place; groups, such as `optim`, are merged."""
    merged = dict(options)
    for key, value in changes.items():
        group = merged.get(key)
        merged[key] = merge(group, value) if isinstance(group, dict) and isinstance(value, dict) else value
    return merged


def _settings(options: Options, task: str, method: str, seeds: tuple[int, ...], where: str) -> RunConfig:
    changes = options | {"task": task, "algo": method, "seeds": list(seeds)}
    try:
        tree = merge(plain_settings(preset(options.get("preset", "cpu"))), changes)
        config, _ = resolve_settings(parse_settings(tree, ".".join), {})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    path = demos_path(config)
    if config.init_from:
        config = replace(config, init_from=str(Path(config.init_from).expanduser().absolute()))
    return config if path is None else replace(config, demos=str(path.absolute()))


def run_name(config: RunConfig, label: str) -> str:
    """Return the name of a run for messages: task, label and seeds."""
    return f"{config.task} {label} {seeds_name(config.seeds).replace('-', ' ')}"


def seeds_name(seeds: tuple[int, ...]) -> str:
    """Return the name of the folder of a run of these seeds."""
    return "seeds-" + "-".join(map(str, seeds))


def check_runs(runs: list[SweepRun], log: LogFn, *, collect: bool) -> tuple[list[SweepRun], list[State]]:
    """Check tasks, demonstrations and run folders as `cdred train` does.

    Args:
        runs: the runs.
        log: called with messages.
        collect: collect demonstrations that a number asks for and that are not in the cache, once for all runs.

    Returns:
        The runs, without settings that need actions if their demonstrations have none; and their states.

    Raises:
        UserError: for the first run that `cdred train` would refuse.
    """
    adapted, states = [], []
    loaded: dict[tuple[Any, ...], Any] = {}
    for run in runs:
        try:
            config = _check(run, loaded, log, collect)
            states.append(_state(replace(run, config=config)))
        except UserError as error:
            raise UserError(f"{run.name}: {error}") from None
        adapted.append(replace(run, config=config))
    return adapted, states


def _check(run: SweepRun, loaded: dict[tuple[Any, ...], Any], log: LogFn, collect: bool) -> RunConfig:
    """Return the settings of a run, adapted to its demonstrations."""
    config = run.config
    import_modules(config.imports)
    key = ("spec", config.task)
    if key not in loaded:
        loaded[key] = get_env_spec(config.task)
    spec = loaded[key]
    check_writable_parent(run.folder)
    key = ("source", config.demos, config.algo == "tdmpc2")
    if key not in loaded:
        # Once for all runs, as they may be downloaded.
        loaded[key] = locate_demos(config, log)
    source = loaded[key]
    if source is not None and not source.path.exists():
        raise UserError(f"no demonstrations at {source.path}.")
    config = adapt_to_demos(config, None, source)
    if config.algo == "tdmpc2":
        return config
    if source is None:
        check_num_demos(int(config.demos))
    if source is not None or collect:
        key = (config.task, config.demos, config.allow_variable_horizon, needs_actions(config))
        if key not in loaded:
            loaded[key] = resolve_demos(config, spec, log, source)
        check_same_demos(run.folder, loaded[key])
    return config


def _state(run: SweepRun) -> State:
    if finished_result(run.folder, run.config) is not None:
        return "finished"
    if lock_owner(run.folder) is not None:
        return "running"
    return "resumable" if has_checkpoint(run.folder) else "missing"


def format_plan(runs: Sequence[SweepRun], states: Sequence[State]) -> str:
    """Return a line per run with its state and folder, and the numbers of runs in each state."""
    width = max(len(run.name) for run in runs)
    lines = [f"{state:<9}  {run.name:<{width}}  {run.folder}" for run, state in zip(runs, states, strict=True)]
    counts = [f"{states.count(state)} {state}" for state in get_args(State) if state in states]
    return "\n".join([*lines, f"{plural(len(runs), 'run')}: {', '.join(counts)}"])
