"""A suite of one counting world, in plain NumPy, for tests of the door to other interpreters."""

import os
import signal
import types

import numpy as np


class UserError(Exception):
    """A stranger's, of the same name."""


class Counter:
    """Observes (seed, steps, number of environments made); the action's first number says what goes wrong."""

    made = 0

    def __init__(self, name, render_size):
        if name == "unknown":
            raise UserError("no such world: pip install it")
        type(self).made += 1
        self.size = render_size or 4
        self.spec = types.SimpleNamespace(
            task=name, obs_shape=(3,), action_dim=2, episode_length=5, action_repeat=1, has_success=True
        )

    def reset(self, seed):
        self.seed, self.steps = seed, 0
        return self.obs()

    def obs(self):
        return np.array([self.seed, self.steps, self.made], np.float32)

    def step(self, action):
        self.steps += 1
        wish = int(action[0])
        if wish == 2:
            raise FloatingPointError("exploded")
        if wish == 3:
            print("out of memory", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if wish == 4:
            raise LookupError("of a type with children")
        if wish == 5:
            return np.full(3, np.nan, np.float32), 0.0, False, False, False
        return self.obs(), np.float64(0.1) + float(action[1]), np.bool_(False), self.steps == 5, np.bool_(True)

    def render(self):
        return np.full((self.size, self.size, 3), self.steps, np.uint8)


def make(name, render_size=None):
    return Counter(name, render_size)


def plan(name, seed):
    return np.full((seed, 2), len(name), np.float32)
