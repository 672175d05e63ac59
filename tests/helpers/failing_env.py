"""`probe/point` with failures planned in a file, which is read in this process and in others alike."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from cdred.envs.seeding import episode_seed
from cdred.envs.suites.probes import Point

FILE_VARIABLE = "CDRED_TEST_FAILURES"


class FailingPoint(Point):
    """Fails at the steps (0: the reset) of the episodes that the file names, each time or only once."""

    def reset(self, seed):
        self.seed, self.count = seed, 0
        obs = super().reset(seed)
        return corrupt_obs(self._failure(), obs)

    def step(self, action):
        self.count += 1
        failure = self._failure()
        step = super().step(action)
        return corrupt_step(failure, step)

    def _failure(self):
        path = Path(os.environ[FILE_VARIABLE])
        for number, (seed, step, kind, once) in enumerate(json.loads(path.read_text())):
            if seed in (self.seed, None) and step == self.count:
                happened = path.with_name(f"{path.name}.{number}")
                if once and happened.exists():
                    continue
                happened.touch()
                return fail(kind)
        return ""


def fail(kind):
    """Raise, exit or hang, or return a kind that corrupts the result instead."""
    if kind == "raise":
        raise ZeroDivisionError("the wheel\ncame off")
    if kind == "exit":
        sys.exit(3)
    if kind == "die":
        print("out of luck", flush=True)
        os._exit(7)
    if kind == "hang":
        time.sleep(1000)
    return kind


def corrupt_obs(kind, obs):
    return {"nan": np.full_like(obs, np.nan), "shape": obs[:-1]}.get(kind, obs)


def corrupt_step(kind, step):
    changes = {"reward": {"reward": float("inf")}, "large": {"reward": 1e300}, "success": {"success": float("nan")}}
    step = step._replace(obs=corrupt_obs(kind, step.obs), **changes.get(kind, {}))
    return step._replace(success=None) if kind == "none" else step


def make(name, render_size=None):
    del name
    return FailingPoint(render_size)


def plan_failures(path, *failures):
    """Write the file, with the arguments of `row` for each failure."""
    for happened in path.parent.glob(f"{path.name}.*"):
        happened.unlink()
    path.write_text(json.dumps([row(*failure) for failure in failures]))


def row(seed, env, episode, step, kind, once=False, stream="train"):
    """Return the file's row of a failure in one episode, or in every episode if `episode` is None."""
    return [None if episode is None else episode_seed(seed, stream, env, episode), step, kind, once]
