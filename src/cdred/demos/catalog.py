"""List of all tasks: sizes, where demonstrations come from, and if a task loads here."""

from collections.abc import Callable, Iterable
from contextlib import closing
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Any, NamedTuple

from cdred.data.demonstrations import bundled_demos, num_bundled
from cdred.envs import registry
from cdred.errors import UserError
from cdred.text import shorten

# Characters that make a pattern one of the shell's; without them it is a part of the name.
GLOB = frozenset("*?[")
MUJOCO_ENTRY_POINT = "gymnasium.envs.mujoco"


class TaskInfo(NamedTuple):
    """What is known of a task; None where it is not.

    Attributes:
        task: its name.
        obs_shape: shape of an observation.
        action_dim: action components.
        episode_length: steps.
        bundled: number of demonstrations that come with the package.
        expert: what records further ones: `scripted` or `planned`; `none` if nothing does.
        loads: whether the environment can be made here; None if it was not tried.
        install: command that installs what is missing.
        reason: why it does not load.
    """

    task: str
    obs_shape: tuple[int, ...] | None = None
    action_dim: int | None = None
    episode_length: int | None = None
    bundled: int = 0
    expert: str | None = None
    loads: bool | None = None
    install: str | None = None
    reason: str | None = None


def list_tasks(pattern: str = "") -> tuple[list[TaskInfo], dict[str, str]]:
    """List the tasks that match a pattern, without making their environments.

    A suite without its packages cannot list its tasks; only those with bundled demonstrations are returned then.

    Args:
        pattern: part of a name in lower or upper case, or with one of `*?[` a pattern of the shell for the whole name.

    Returns:
        The tasks, and for each suite that cannot list its tasks the command that installs it.
    """
    bundled, tasks, unlisted = bundled_demos(), [], {}
    for suite in registry.PUBLIC_SUITES:
        try:
            names, command = registry.list_tasks(suite), None
        except UserError:
            names, command = [name for name in bundled if name.startswith(f"{suite}/")], registry.install_command(suite)
            unlisted[suite] = command
        matching = [name for name in names if matches(name, pattern)]
        tasks += [_describe(name, num_bundled(bundled[name]) if name in bundled else 0, command) for name in matching]
    return tasks, unlisted


def matches(task: str, pattern: str) -> bool:
    """Check if the name of a task matches a pattern (see `list_tasks`)."""
    task, pattern = task.lower(), pattern.lower()
    return fnmatchcase(task, pattern) if GLOB & set(pattern) else pattern in task


def _describe(task: str, bundled: int, command: str | None) -> TaskInfo:
    """Describe a task by what its suite states; `command` installs the suite, if its packages are missing."""
    if command is not None:
        return TaskInfo(task, bundled=bundled, loads=False, install=command, reason="the suite is not installed")
    info = TaskInfo(task, bundled=bundled, expert=_expert(task))
    if _needs_mujoco(task) and find_spec("mujoco") is None:
        command = registry.install_command(task, "mujoco")
        return info._replace(loads=False, install=command, reason="MuJoCo is not installed")
    try:
        registry.remote_interpreter(task)
    except UserError as error:
        reason = str(error).splitlines()[0]
        return info._replace(loads=False, install=registry.install_command(task), reason=reason)
    return info


def _expert(task: str) -> str:
    try:
        if registry.planned_expert(task):
            return "planned"
        registry.scripted_expert(task)
    except registry.NoExpertError:
        return "none"
    return "scripted"


def _needs_mujoco(task: str) -> bool:
    """Check if a task is a MuJoCo task of Gymnasium: these are registered without MuJoCo, too."""
    suite, _, name = task.partition("/")
    if suite != "gym":
        return False
    import gymnasium

    spec = gymnasium.registry.get(name)
    return spec is not None and str(spec.entry_point).startswith(MUJOCO_ENTRY_POINT)


def with_sizes(tasks: Iterable[TaskInfo], on_progress: Callable[[int], Any]) -> list[TaskInfo]:
    """Make the environment of each task that may load here, one after the other, and return the tasks with sizes.

    Args:
        tasks: of `list_tasks`.
        on_progress: called with the number of tasks that are done.
    """
    described = []
    for info in tasks:
        described.append(info if info.loads is False else _with_size(info))
        on_progress(len(described))
    return described


def _with_size(info: TaskInfo) -> TaskInfo:
    try:
        with closing(registry.make(info.task)) as env:
            spec = env.spec
    except Exception as error:  # whatever the simulator raises
        return info._replace(loads=False, reason=shorten(str(error) or type(error).__name__, 300))
    return info._replace(
        obs_shape=spec.obs_shape, action_dim=spec.action_dim, episode_length=spec.episode_length, loads=True
    )
