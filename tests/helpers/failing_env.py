"""`probe/point` with faults that a file tells, which serves this process and others alike."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from cdred.envs.suites.probes import Point
from cdred.envs.vector_env import episode_seed

FILE = "FAULTS_OF_THE_TESTS"


class Faulty(Point):
    """Breaks at the steps (0: the reset) of the episodes that the file names, each time or once in all."""

    def reset(self, seed):
        self.seed, self.count = seed, 0
        obs = super().reset(seed)
        return spoilt_obs(self._fault(), obs)

    def step(self, action):
        self.count += 1
        wanted = self._fault()
        step = super().step(action)
        return spoilt(wanted, step)

    def _fault(self):
        path = Path(os.environ[FILE])
        for number, (seed, step, what, once) in enumerate(json.loads(path.read_text())):
            if seed in (self.seed, None) and step == self.count:
                met = path.with_name(f"{path.name}.{number}")
                if once and met.exists():
                    continue
                met.touch()
                return happening(what)
        return ""


def happening(what):
    if what == "raise":
        raise ZeroDivisionError("the wheel\ncame off")
    if what == "leave":
        sys.exit(3)
    if what == "die":
        print("out of luck", flush=True)
        os._exit(7)
    if what == "hang":
        time.sleep(1000)
    return what


def spoilt_obs(what, obs):
    return {"nan": np.full_like(obs, np.nan), "shape": obs[:-1]}.get(what, obs)


def spoilt(what, step):
    changed = {"reward": {"reward": float("inf")}, "large": {"reward": 1e300}, "success": {"success": float("nan")}}
    step = step._replace(obs=spoilt_obs(what, step.obs), **changed.get(what, {}))
    return step._replace(success=None) if what == "none" else step


def make(name, render_size=None):
    del name
    return Faulty(render_size)


def plan_faults(path, *faults):
    """Write them, each as `row` takes it."""
    for met in path.parent.glob(f"{path.name}.*"):
        met.unlink()
    path.write_text(json.dumps([row(*fault) for fault in faults]))


def row(seed, env, episode, step, what, once=False, stream="train"):
    """Of the `episode`-th episode of an environment; of every episode of all of them if that is None."""
    return [None if episode is None else episode_seed(seed, stream, env, episode), step, what, once]
