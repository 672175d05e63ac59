"""Checks of the simulator suites: one task of each is made in another process."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.metadata import PackageNotFoundError
from typing import NamedTuple

from cdred.doctor.checks import MAX_REASON, Check
from cdred.doctor.packages import describe_unmet, format_versions, not_installed, requirements, unmet_requirements
from cdred.envs.registry import install_command, remote_interpreter
from cdred.envs.remote.client import SLOW_CALL_FACTOR, RemoteEnv
from cdred.envs.remote.interpreter import Interpreter, current_interpreter
from cdred.errors import UserError
from cdred.text import plural, shorten
from cdred.types import EnvSpec

# Seconds to import a suite and to make a task of it.
SECONDS = 120


class Probe(NamedTuple):
    """A task that stands for a suite.

    Attributes:
        name: of the suite, or of a part of it.
        task: the task that is made.
        extra: the extra of cdred that installs what it needs; None if it needs none.
        shown: show the versions of these packages; if empty, of those that the suite states.
        own_interpreter: the suite runs in another interpreter.
    """

    name: str
    task: str
    extra: str | None
    shown: tuple[str, ...] = ()
    own_interpreter: bool = False


PROBES = (
    Probe("dmc", "dmc/walker-walk", "dmc", ("dm-control", "mujoco")),
    Probe("metaworld", "metaworld/reach", "metaworld", ("metaworld", "mujoco")),
    Probe("gym", "gym/Pendulum-v1", None, ("gymnasium",)),
    Probe("gym, MuJoCo", "gym/Hopper-v5", "mujoco", ("gymnasium", "mujoco")),
    Probe("maniskill", "maniskill/PushCube", None, own_interpreter=True),
    Probe("mjx", "mjx/CartpoleBalance", "mjx", ("playground", "mujoco-mjx", "mujoco")),
)


class Probed(NamedTuple):
    """The check of a suite, and the spec of the task that was made; None if it was not."""

    check: Check
    spec: EnvSpec | None = None


def probe_suites(probes: tuple[Probe, ...] = PROBES) -> list[Probed]:
    """Check suites in parallel."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(probe_suite, probes))


def probe_suite(probe: Probe) -> Probed:
    """Make the task of a suite in another process.

    A suite without its packages is `missing`, one that has them and does not work is a `problem`.
    """
    command = install_command(probe.task, probe.extra)
    if absent := _absent_packages(probe.extra):
        listed = ", ".join(absent)
        verb = "is" if len(absent) == 1 else "are"
        return Probed(Check(probe.name, "missing", f"{listed} {verb} not installed", command))
    try:
        remote = remote_interpreter(probe.task) if probe.own_interpreter else None
    except UserError as error:
        return Probed(_missing_interpreter(probe, str(error)))
    try:
        spec, versions = task_spec(probe.task, remote)
    except Exception as error:  # whatever the simulator raises, or its process dies of
        reason = shorten(str(error) or type(error).__name__, MAX_REASON)
        unmet = "; ".join(_other_versions(probe.extra))
        text = f"{probe.task} cannot be made: {reason}" + (f" ({unmet})" if unmet else "")
        return Probed(Check(probe.name, "problem", text, command))
    shown = format_versions(probe.shown) or ", ".join(f"{key} {value}" for key, value in versions.items())
    where = f", in {remote.python}" if remote else ""
    return Probed(Check(probe.name, "ok", f"{shown}{where}: {describe_spec(spec)}"), spec)


def _absent_packages(extra: str | None) -> list[str]:
    return not_installed(_required(extra))


def _other_versions(extra: str | None) -> Iterator[str]:
    if unmet := unmet_requirements(_required(extra)):
        yield describe_unmet(unmet)


def _required(extra: str | None) -> list:
    try:
        return requirements(extra) if extra else []
    except PackageNotFoundError:
        return []


def _missing_interpreter(probe: Probe, message: str) -> Check:
    """Return the check of a suite without its interpreter; the message ends with the commands that make it."""
    reason, *commands = message.splitlines()
    fix = "\n".join(command.strip() for command in commands) or install_command(probe.task)
    return Check(probe.name, "missing", reason, fix)


def task_spec(task: str, remote: Interpreter | None = None, seconds: float = SECONDS) -> tuple[EnvSpec, dict[str, str]]:
    """Make a task in another process and return its spec, and the versions of packages that its suite states.

    Args:
        task: as in `registry.make`.
        remote: interpreter of the suite (`registry.remote_interpreter`); None for the current one.
        seconds: time limit.

    Raises:
        UserError: as `registry.make`.
        TimeoutError: it takes longer than the time limit.
        Exception: whatever else ends the process or is raised in it.
    """
    name = task.partition("/")[2] if remote else task
    with closing(RemoteEnv.spawn(remote or current_interpreter(), task, name, None, seconds / SLOW_CALL_FACTOR)) as env:
        return env.spec, dict(env.versions)


def describe_spec(spec: EnvSpec) -> str:
    """Describe the sizes of a task in one line."""
    actions = plural(spec.action_dim, "action")
    return f"{spec.task} has {spec.obs_shape[0]} observations, {actions}, {spec.episode_length} steps"
