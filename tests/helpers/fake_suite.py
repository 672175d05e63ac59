"""Suite with one environment that counts its steps, for tests of environments in other interpreters."""

import os
import signal
import types

import numpy as np


class UserError(Exception):
    """Stands for `cdred.errors.UserError`, by its name."""


class Counter:
    """Observes (seed, steps, number of environments made); the action's first component selects a failure."""

    num_made = 0

    def __init__(self, name, render_size):
        if name == "unknown":
            raise UserError("no such environment: pip install it")
        type(self).num_made += 1
        self.size = render_size or 4
        self.spec = types.SimpleNamespace(
            task=name,
            obs_shape=(3,),
            action_dim=2,
            episode_length=5,
            action_repeat=1,
            has_success=True,
            obs_parts=(("seed", 1), ("counts", 2)),
        )

    def reset(self, seed):
        self.seed, self.steps = seed, 0
        return self.obs()

    def obs(self):
        return np.array([self.seed, self.steps, self.num_made], np.float32)

    def step(self, action):
        self.steps += 1
        failure = int(action[0])
        if failure == 2:
            raise FloatingPointError("exploded")
        if failure == 3:
            print("out of memory", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if failure == 4:
            raise LookupError("of a type with children")
        if failure == 5:
            return np.full(3, np.nan, np.float32), 0.0, False, False, False
        return self.obs(), np.float64(0.1) + float(action[1]), np.bool_(False), self.steps == 5, np.bool_(True)

    def render(self):
        return np.full((self.size, self.size, 3), self.steps, np.uint8)


def make(name, render_size=None):
    return Counter(name, render_size)


def plan(name, seed):
    return np.full((seed, 2), len(name), np.float32)
