"""Check of the OpenGL libraries with which MuJoCo may render."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

from cdred import envs
from cdred.doctor.checks import Check, ProbeError, run_probe
from cdred.envs.opengl import VARIABLE, Choice
from cdred.text import shorten

MODULE = "cdred.doctor.render_probe"
BACKENDS: tuple[str, ...] = ("egl", "osmesa", "glfw")
# A display or driver that does not answer would be waited for.
SECONDS = 60
LIBRARIES = "apt-get install libosmesa6 libegl1  # Debian and Ubuntu, as root"


def check_rendering() -> Check:
    """Check which backends can render here, and if the one that `MUJOCO_GL` selects can."""
    if find_spec("mujoco") is None:
        return Check("rendering", "missing", "MuJoCo is not installed: its tasks have no videos")
    with ThreadPoolExecutor() as pool:
        failures = dict(zip(BACKENDS, pool.map(render_failure, BACKENDS), strict=True))
    return rendering_check(os.environ.get(VARIABLE, ""), failures, envs.opengl_choice)


def render_failure(backend: str) -> str | None:
    """Return why a frame cannot be rendered by a backend; None if it can."""
    try:
        run_probe(MODULE, seconds=SECONDS, variables={VARIABLE: backend})
    except ProbeError as error:
        return str(error)
    return None


def rendering_check(selected: str, failures: Mapping[str, str | None], choice: Choice | None = None) -> Check:
    """Return the check of what MuJoCo renders with.

    Args:
        selected: value of `MUJOCO_GL`. Other values than those of `BACKENDS` stand for MuJoCo's default, glfw, which
            needs a display.
        failures: why each backend failed; None if it can render.
        choice: what cdred chose; None if the user did, or nothing is chosen.
    """
    usable = [backend for backend, failure in failures.items() if failure is None]
    in_effect = selected.strip().lower() if selected.strip().lower() in failures else "glfw"
    setting = f"{VARIABLE}={selected}" if selected else f"{VARIABLE} is not set, which is glfw"
    setting += f", chosen by cdred because {choice.reason}" if choice else ""
    text = f"{setting}; can render: {', '.join(usable) or 'none'}"
    if in_effect in usable:
        return Check("rendering", "ok", text)
    if choice is None or choice.backend in failures:
        text += f"; {in_effect} cannot ({shorten(failures[in_effect] or '')}), so runs have no video"
    return Check("rendering", "missing", text, f"export {VARIABLE}={usable[0]}" if usable else LIBRARIES)
