"""Thread in which an environment renders, so that environments of one process do not draw in each other's images."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from cdred.envs.opengl import VARIABLE

P = ParamSpec("P")
R = TypeVar("R")

# Values of `MUJOCO_GL` that work in any thread; others want the main thread.
ANY_THREAD = ("egl", "osmesa")


class RenderThread:
    """Thread of the OpenGL calls of one environment, which starts at the first call.

    OpenGL draws in the context that is current in the calling thread, and libraries rely on that being theirs:
    Gymnasium does not make its own current again, dm_control only if it remembers another one of its own, and MuJoCo
    frees a renderer's objects by their numbers in whatever context is current, even if it is another environment's.
    Images are then of the wrong scene, upside down or of random memory, without an error. In a thread of its own an
    environment has the only context.
    """

    def __init__(self):
        self._executor: ThreadPoolExecutor | None = None

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function` in the thread, and return its result or raise its exception.

        It is called in the calling thread if `MUJOCO_GL` is neither `egl` nor `osmesa`.
        """
        if os.environ.get(VARIABLE, "").strip().lower() not in ANY_THREAD:
            return function(*args, **kwargs)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "render")
        return self._executor.submit(function, *args, **kwargs).result()

    def close(self, free: Callable[[], object]) -> None:
        """Call `free`, which frees what was made in the thread, and end the thread."""
        if self._executor is None:
            free()
            return
        try:
            self.run(free)
        finally:
            self._executor.shutdown()
            self._executor = None
