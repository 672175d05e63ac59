"""Commands `cdred demos collect`, `convert`, `info`, `check`, `render` and `list`."""

import json
import shlex
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from cdred.cli.demos_render import Render, render
from cdred.cli.options import check_options
from cdred.console import SafeConsole, print_text, progress_bar
from cdred.data.formats.common import sanitize_text
from cdred.data.formats.registry import FormatName, check_output_path
from cdred.errors import UserError
from cdred.files import check_new_path

if TYPE_CHECKING:
    # At run time it would delay `cdred --help`.
    from cdred.data.formats.cameras import ImageRequest
    from cdred.data.rescale import ActionBounds
    from cdred.demos.replay import Replay
    from cdred.types import DemoDataset


ImportOption = Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--import",))]


@dataclass(frozen=True)
class Collect:
    """Record successful episodes of a task's scripted expert or planner as a Minari dataset folder or an .npz file."""

    task: Annotated[str, tyro.conf.Positional]
    """Task with a scripted expert: metaworld/<task> or maniskill/<task>."""
    out: Path
    """Output folder or .npz file; must not exist."""
    num: int = 10
    """Number of successful episodes to record."""
    seed: int = 0
    """Random seed."""
    noise_std: float = 0.0
    """Standard deviation of noise on the expert's actions, which is recorded with them: a worse expert."""


@dataclass(frozen=True)
class Convert:
    """Convert demonstrations of a supported format (Minari, LeRobot, robomimic, ManiSkill, D4RL, npz) for training."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Input folder or file; its format is detected from the content."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")]
    """Output folder or .npz file; must not exist."""
    task: str | None = None
    """Task name to store, as in `cdred train`, such as metaworld/window-open; None keeps the name in the file."""
    imports: ImportOption = ()
    """Modules or .py files that register the task's environment, as in `cdred train`."""
    obs_keys: tuple[str, ...] | None = None
    """Names of the observation arrays to concatenate, in this order. None for all vectors sorted by name (LeRobot:
    the state and the environment's state). Images are used as vectors only if named."""
    camera: str | None = None
    """Name of the camera to read images of as well, such as observation.images.top (LeRobot) or agentview_image
    (robomimic); None for the only one. `cdred demos info` shows the cameras."""
    image_size: int | None = None
    """Read camera images as well, resized to squares of this height and width, without cropping. None reads those of
    recordings by cdred only, as they are; with --camera, or a --task with images, None is the size of the task."""
    format: FormatName | None = None
    """Output format; None for npz if the name ends in .npz, else minari."""
    rescale_actions: bool = False
    """Rescale actions to [-1, 1] from the bounds that the file declares, or else from those of the environment of
    --task. The bounds are stored in the provenance."""
    action_low: tuple[float, ...] | None = None
    """Lower bounds of the actions in the file, one number or one per component: rescale from these bounds, whatever the
    file declares."""
    action_high: tuple[float, ...] | None = None
    """Upper bounds of the actions, given with --action-low."""
    num: int | None = None
    """Number of episodes to keep, None for all: the first ones that did not fail (as `cdred demos info` finds), then
    failed ones of highest return. The provenance has their indices."""
    skip_bad_episodes: bool = False
    """Leave out episodes that are damaged (non-finite values, wrong counts or shapes), failed, equal to an earlier one,
    or cut short (as `cdred demos info` finds), instead of refusing the file. The provenance names them."""
    action_repeat: int | None = None
    """Simulator frames per step of the output: successive steps with the same action become one, with the sum of their
    rewards. The input's action repeat is what the file states, or else 1."""


@dataclass(frozen=True)
class Info:
    """Summarise a demonstration file and check its quality: failures, duplicates, components that never change,
    saturated actions, episodes cut short. The exit code is 1 if it cannot be used for training."""

    path: Annotated[Path, tyro.conf.Positional]
    """Folder or file in any format that `cdred demos convert` reads."""
    obs_keys: tuple[str, ...] | None = None
    """As in `cdred demos convert`."""
    plot: Path | None = None
    """PNG file for histograms of the action components; must not exist."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Check:
    """Replay recorded actions from recorded seeds and compare with the recording. Exit code 1 if they disagree."""

    path: Annotated[Path, tyro.conf.Positional]
    """Folder or file in any format that `cdred demos convert` reads."""
    task: str | None = None
    """Task to replay in, as in `cdred train`; None for the one that the file states."""
    imports: ImportOption = ()
    """Modules or .py files that register the task's environment, as in `cdred train`."""
    obs_keys: tuple[str, ...] | None = None
    """As in `cdred demos convert`."""
    num: int | None = None
    """Number of episodes to replay, from the first; None for all."""
    tolerance: float = 1e-4
    """Largest absolute difference of observations, and relative difference of returns, that counts as agreement."""


@dataclass(frozen=True)
class List:
    """List the demonstrations that come with the package, which `cdred train TASK --demos N` uses."""


def main(arguments: list[str]) -> int | None:
    """Run the subcommand given by `arguments`; returns the exit code of `info` and `check`, else None."""
    verbs = {"collect": Collect, "convert": Convert, "info": Info, "check": Check, "render": Render, "list": List}
    if arguments and arguments[0] in verbs:
        check_options(verbs[arguments[0]], arguments[1:], f"cdred demos {arguments[0]}")
    options = tyro.extras.subcommand_cli_from_dict(verbs, args=arguments, prog="cdred demos")
    commands = {Collect: collect, Convert: convert, Info: info, Check: check, Render: _render, List: list_bundled}
    return commands[type(options)](options)


def collect(options: Collect) -> None:
    """Record demonstrations with a progress bar, save and summarise them."""
    from cdred.data.demonstrations import save_demos
    from cdred.demos.scripted import collect_scripted

    check_output_path(options.out)
    with Progress(console=SafeConsole()) as progress:
        bar = progress.add_task(escape(options.task), total=options.num)
        dataset = collect_scripted(
            options.task,
            options.num,
            seed=options.seed,
            noise_std=options.noise_std,
            on_episode=lambda kept, attempts: progress.update(
                bar, completed=kept, description=escape(f"{options.task}: {kept} of {attempts} episodes kept")
            ),
        )
        # Before the bar is finished, because the output may be closed.
        save_demos(dataset, options.out)
    info(Info(options.out))


def convert(options: Convert) -> None:
    """Read demonstrations, set their task, save and summarise them."""
    from cdred.data.action_repeat import REPEAT_KEY, fold_steps, stated_repeat
    from cdred.data.demonstrations import given_bounds, read_demos, save_demos
    from cdred.data.images import check_requested
    from cdred.data.quality import format_selection, select_best, skip_bad_episodes
    from cdred.data.rescale import rescale_actions
    from cdred.data.validate import validate_demos
    from cdred.demos.scripted import check_num_demos
    from cdred.envs.imports import import_modules

    check_output_path(options.out, options.format)
    import_modules(options.imports)
    if options.num is not None:
        check_num_demos(options.num)
    given, source = given_bounds(options.action_low, options.action_high), str(options.source)
    images = _requested_images(options)
    with progress_bar(f"reading {source}") as on_progress:
        dataset = read_demos(source, options.obs_keys, on_progress, images)
    check_requested(dataset, source, images)
    if options.skip_bad_episodes:
        episodes = len(dataset)
        dataset, reasons = skip_bad_episodes(dataset, source)
        print_text(f"left out {len(reasons)} of {episodes} episodes")
        for index, reason in reasons.items():
            print_text(f"  episode {index}: {reason}")
    recorded = stated_repeat(dataset, source)
    task = _output_task(dataset.task, options)
    # The name of the task in the file may be all that states the action repeat.
    provenance = dataset.provenance | ({} if recorded is None else {REPEAT_KEY: recorded})
    dataset = replace(dataset, task=task, provenance=provenance)
    if options.rescale_actions or given:
        dataset = rescale_actions(
            dataset, source, given, None if given else _task_bounds(dataset, options.task is None)
        )
    dataset = validate_demos(dataset, source, allow_variable_horizon=True)
    if options.action_repeat is not None:
        dataset = fold_steps(dataset, source, options.action_repeat, recorded)
    if options.num is not None:
        if options.num > len(dataset):
            raise UserError(f"--num {options.num}: {source} has {len(dataset)} episodes to choose from.")
        dataset = select_best(dataset, options.num)
        print_text(f"kept {format_selection(dataset)}")
    with progress_bar(f"writing {options.out}") as on_progress:
        save_demos(dataset, options.out, options.format, on_progress=on_progress)
    info(Info(options.out))


def _requested_images(options: Convert) -> "ImageRequest | None":
    """Return the images to read: those that the options name, or that the task observes, or those of recordings."""
    from cdred.data.demonstrations import requested_images
    from cdred.task_name import IMAGE_SIZE, reconcile_obs

    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"--image-size {options.image_size} should be a positive number of pixels.")
    _, obs, size = reconcile_obs(options.task or "", "state", IMAGE_SIZE)
    size = options.image_size if options.image_size is not None or obs == "state" else size
    return requested_images(None, options.camera, size)


def _output_task(recorded: str, options: Convert) -> str:
    """Return the name of the task of the output, with its action repeat if that is changed.

    Raises:
        UserError: --task is at another action repeat than --action-repeat.
    """
    from cdred.envs.registry import at_action_repeat

    task = recorded if options.task is None else options.task
    if not task or options.action_repeat is None:
        return task
    named = at_action_repeat(task, options.action_repeat)
    if options.task not in (None, named):
        raise UserError(
            f"--task {task} has another action repeat than --action-repeat {options.action_repeat}: "
            f"use --task {shlex.quote(named)}."
        )
    return named


def _task_bounds(dataset: "DemoDataset", stated_by_file: bool) -> "ActionBounds | None":
    """Return the bounds of the environment of the dataset's task; None without a task.

    Args:
        dataset: with its task, if it is known.
        stated_by_file: the file states the task, not the user.

    Raises:
        UserError: the environment cannot be made, and the file declares no bounds either.
    """
    from cdred.data.rescale import ActionBounds
    from cdred.envs.registry import get_env_spec

    try:
        if stated_by_file:
            _refuse_code_of_a_file(dataset.task)
        return ActionBounds.of_task(get_env_spec(dataset.task)) if dataset.task else None
    except UserError:
        if ActionBounds.declared(dataset) is None:
            raise
        return None


def _refuse_code_of_a_file(task: str) -> None:
    """Refuse a task that names a module, gym/<module>:<Id> or env/<module>:<name>, if only a file states it."""
    if ":" in task:
        raise UserError(
            f"the task {sanitize_text(task)} is stated by the file only, and modules that a file names are not "
            "imported: repeat the task with --task, if you trust its module."
        )


def info(options: Info) -> int:
    """Print a summary of the demonstrations and what is wrong with them; draw their actions if requested.

    Returns:
        0 if they can be used for training, else 1.
    """
    from cdred.data.demonstrations import inspect_demos
    from cdred.data.describe import draw_actions, format_findings, format_summary, summarize, summarize_findings
    from cdred.data.quality import find_faults, is_fit

    if options.plot:
        check_new_path(options.plot)
    with progress_bar(f"reading {options.path}") as on_progress:
        dataset, problem = inspect_demos(options.path, options.obs_keys, on_progress)
    summary, findings = summarize(dataset), find_faults(dataset, problem)
    if options.json:
        print(json.dumps(summary | summarize_findings(dataset, findings), indent=1))
    else:
        table = Table(show_header=False, box=None, title=str(options.path), title_justify="left")
        for name, value in (*format_summary(summary).items(), *format_findings(dataset, findings)):
            table.add_row(name, value)
        SafeConsole().print(table)
    if options.plot:
        draw_actions(dataset, options.plot, options.path.name)
    return 0 if is_fit(findings) else 1


def check(options: Check) -> int:
    """Print how far each episode and its replay agree; return 1 if they disagree, else 0."""
    from cdred.data.demonstrations import RECORDED, read_demos, requested_images
    from cdred.data.rescale import to_task_units
    from cdred.data.validate import validate_demos
    from cdred.demos.replay import replay_demos
    from cdred.demos.scripted import check_num_demos
    from cdred.envs.imports import import_modules
    from cdred.envs.registry import get_env_spec, make

    import_modules(options.imports)
    source = str(options.path)
    images = requested_images(get_env_spec(options.task)) if options.task else RECORDED
    with progress_bar(f"reading {source}") as on_progress:
        dataset = read_demos(source, options.obs_keys, on_progress, images)
    task = options.task or dataset.task
    if not task:
        raise UserError(f"{source}: it does not state its task, give --task.")
    if not options.task:
        _refuse_code_of_a_file(task)
    if options.num is not None:
        check_num_demos(options.num)
        dataset = dataset.take(options.num)
    with closing(make(task)) as env, progress_bar(f"replaying {source}") as on_progress:
        dataset = to_task_units(dataset, source, env.spec)
        dataset = validate_demos(dataset, source, env.spec, allow_variable_horizon=True, require_actions=True)
        replays = []
        for replay in replay_demos(dataset, source, env, options.tolerance):
            replays.append(replay)
            on_progress(replay.episode + 1, len(dataset))
    _print_replays(replays, len(dataset), task, options.tolerance)
    return 0 if all(replay.agrees for replay in replays) else 1


def _print_replays(replays: "list[Replay]", num_episodes: int, task: str, tolerance: float) -> None:
    """Print one line per replayed episode, how many agree, and what their disagreement suggests."""
    console = SafeConsole()
    columns = ("episode", "seed", "largest difference", "first beyond", "recorded return", "replayed return", "agrees")
    table = Table(*columns, box=None)
    for replay in replays:
        table.add_row(
            str(replay.episode),
            str(replay.seed),
            f"{replay.max_difference:.3g}",
            "-" if replay.first_step is None else f"step {replay.first_step}",
            "unknown" if replay.recorded_return is None else f"{replay.recorded_return:,.3f}",
            f"{replay.replayed_return:,.3f}",
            "yes" if replay.agrees else f"no{replay.end and ': '}{replay.end}",
        )
    console.print(table)
    agreeing = sum(replay.agrees for replay in replays)
    console.print(f"{agreeing} of {len(replays)} replayed episodes agree with {task} within {tolerance:g}.")
    if len(replays) < num_episodes:
        console.print(f"Not checked: {num_episodes - len(replays)} episodes without a seed.")
    if any(replay.recorded_return is None for replay in replays):
        console.print("Unknown returns are not compared: no rewards are recorded.")
    if any(replay.first_step == 0 for replay in replays):
        console.print(
            "First observations differ: the seeds may be those of another library or version, or the columns may have "
            "another order (--obs-keys)."
        )
    elif agreeing < len(replays):
        console.print(
            "First observations agree: the actions may be in other units or at another action repeat, or the "
            "simulator may have another version."
        )


def _render(options: Render) -> None:
    render(options)
    info(Info(options.out))


def list_bundled(_options: List) -> None:
    """Print one line per task with bundled demonstrations."""
    from cdred.data.demonstrations import bundled_demos, load_demos
    from cdred.data.describe import summarize

    table = Table("task", "episodes", "return", "expert", box=None)
    for task, path in bundled_demos().items():
        dataset = load_demos(path)
        spread = "{mean:,.0f} ({min:,.0f} to {max:,.0f})".format(**summarize(dataset)["return"])
        table.add_row(task, str(len(dataset)), spread, str(dataset.provenance["expert"]))
    SafeConsole().print(table)
