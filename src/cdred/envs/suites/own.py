"""Gymnasium environments that a function of the user makes (`cdred.envs.callables`)."""

from typing import Any
from weakref import WeakValueDictionary

import gymnasium

from cdred.envs.callables import SUITE, resolve_env
from cdred.envs.suites.gym import Gym
from cdred.errors import UserError

RENDERS_SIZE, OBSERVES_IMAGES = True, True
# Environments in use by the id of their innermost one, to refuse a function that returns one twice.
_made: WeakValueDictionary[int, gymnasium.Env] = WeakValueDictionary()


def make(name: str, render_size: int | None = None, image_size: int | None = None) -> Gym:
    """Make the environment of the task `env/<name>`; with `image_size` its observations may have an image.

    Raises:
        UserError: the function cannot be found, or does not return a new environment with supported spaces.
    """
    task = f"{SUITE}/{name}"
    factory = resolve_env(task, name)
    return Gym(task, lambda: _call(task, factory), render_size, factory, image_size)


def _call(task: str, factory: Any) -> gymnasium.Env:
    env = factory()
    if not isinstance(env, gymnasium.Env):
        raise UserError(f"{task}: expected a function that returns a gymnasium.Env, it returned {type(env).__name__}.")
    innermost = env.unwrapped
    if id(innermost) in _made:
        raise UserError(
            f"{task} returned the same environment twice, but episodes of training and evaluation alternate: make a "
            "new environment at each call."
        )
    _made[id(innermost)] = innermost
    return env


def task_names() -> tuple[str, ...]:
    """List no tasks: a task is any function."""
    return ()
