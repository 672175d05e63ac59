"""Environments that a function of the user makes, given as `env=` or named by a task."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import cdred
from cdred.cli.main import main
from cdred.config_file import read_config
from cdred.envs import imports
from cdred.envs.callables import given_env, name_env
from cdred.envs.executors import make_executor
from cdred.envs.registry import make
from cdred.errors import UserError
from runs import arrays, assert_same_arrays, metric_lines, run_config

MODULE = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import TimeLimit


class Slide(gymnasium.Env):
    observation_space = Dict(place=Box(-np.inf, np.inf, (2,)), time=Box(0, 99, (1,)))
    action_space = Box(np.float32([-0.5, -1.0]), np.float32([3.0, 1.0]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = self.np_random.uniform(-1, 1, 2), 0
        return self.observe(), {}

    def step(self, action):
        self.place, self.time = self.place + 0.1 * action, self.time + 1
        near = float(np.abs(self.place).max())
        return self.observe(), -near, False, False, {"success": near < 0.5}

    def observe(self):
        return {"place": self.place.astype(np.float32), "time": np.float32([self.time])}


def make_slide():
    return TimeLimit(Slide(), 20)


class Makers:
    def make(self):
        return make_slide()


def make_local():
    return lambda: make_slide()


def needs_size(size):
    return Slide()


def make_number():
    return 3


shared = Slide()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Module `own_slides` in a file that is not on the import path; its import is undone afterwards."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "own_slides.py").write_text(MODULE)
    monkeypatch.setattr(imports, "_imported", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    imports.import_modules([str(folder / "own_slides.py")])
    yield sys.modules["own_slides"]
    sys.modules.pop("own_slides", None)


def forget(own):
    """Forget the module, as in a new process in another folder."""
    sys.modules.pop("own_slides")
    sys.path.remove(os.path.dirname(own.__file__))
    imports._imported.clear()


@pytest.fixture
def demos(own):
    """Three episodes of uniform actions."""
    rng, episodes = np.random.default_rng(0), []
    env = cdred_env(own.make_slide)
    for seed in range(3):
        obs, actions, steps = [env.reset(seed)], rng.uniform(-1, 1, (20, 2)).astype(np.float32), []
        for action in actions:
            steps.append(env.step(action))
            obs.append(steps[-1].obs)
        rewards = np.array([step.reward for step in steps], np.float32)
        episodes.append(cdred.Trajectory(np.stack(obs), actions, rewards, False, True))
    return cdred.DemoDataset("", tuple(episodes), {"action_bounds": {"low": [-1, -1], "high": [1, 1]}})


def cdred_env(factory):
    with given_env(factory):
        return make(name_env(factory).task)


@pytest.mark.usefixtures("toy")
def test_training_equals_that_on_the_registered_environment(own, demos, tmp_path):
    """In this process and in worker processes, from the simulators to the last number."""
    gymnasium.register("Slide-v0", own.Slide, max_episode_steps=20)
    settings = {"demos": demos, "quiet": True}
    try:
        registered = cdred.train(run_config(tmp_path / "gym", task="gym/Slide-v0"), **settings)
    finally:
        del gymnasium.registry["Slide-v0"]
    for name, options in {"sync": {}, "process": {"vectorization": "process"}}.items():
        result = cdred.train(run_config(tmp_path / name, task=""), env=own.make_slide, **settings, **options)
        assert result["task"] == "env/own_slides:make_slide"
        assert result["eval"] == registered["eval"]
        assert_same_arrays(arrays(tmp_path / "gym"), arrays(tmp_path / name))
        assert metric_lines(tmp_path / "gym") == metric_lines(tmp_path / name)
    # A function that is given replaces the one of the run, which worker processes would import.
    made = []
    cdred.evaluate(tmp_path / "process", env=lambda: made.append(1) or own.make_slide(), episodes=1, log=made.append)
    assert 1 in made


@pytest.mark.usefixtures("toy")
def test_run_folder_names_the_function(own, demos, tmp_path, monkeypatch):
    options = {"demos": demos, "quiet": True, "out": tmp_path / "run"}
    cdred.train(run_config("", task=""), env=own.make_slide, **options)
    config = read_config(tmp_path / "run/config.yaml")
    assert (config.task, config.imports) == ("env/own_slides:make_slide", (own.__file__,))
    file, forgotten = own.__file__, own.make_slide
    forget(own)
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "run", "--episodes", "1"]) == 0
    assert cdred.load("run").spec.action_low == (-0.5, -1.0)
    # The task and the file are all that a resumed run needs.
    forget(sys.modules["own_slides"])
    resumed = cdred.train(run_config("", task="env/own_slides:make_slide"), imports=file, **options, steps=220)
    assert resumed["steps"] == 220
    # A function that is given needs no file.
    Path(file).unlink()
    imports._imported.clear()
    with pytest.raises(UserError, match=r"there is no file .*own_slides\.py"):
        cdred.load("run")
    assert cdred.load("run", env=lambda: forgotten()).spec.episode_length == 20


@pytest.mark.usefixtures("toy")
def test_local_function_is_needed_again(own, demos, tmp_path):
    options = {"demos": demos, "quiet": True, "out": tmp_path / "run"}
    local = own.make_local()
    cdred.train(run_config("", task=""), env=local, **options)
    config = read_config(tmp_path / "run/config.yaml")
    assert (config.task, config.imports) == ("env/own_slides:make_local.<locals>.<lambda>", ())
    for function in (cdred.load, cdred.evaluate):
        with pytest.raises(UserError, match=r"is a lambda, a function within .* cannot be imported: give it as env="):
            function(tmp_path / "run")
    scores = cdred.evaluate(tmp_path / "run", env=local, episodes=2, log=lambda _text: None)
    assert scores["task"] == config.task
    assert cdred.train(run_config("", task=""), env=local, **options, steps=220)["steps"] == 220
    with pytest.raises(UserError, match="cannot be imported by the processes of vectorization='process'"):
        cdred.train(run_config("", task=""), env=local, **options | {"out": tmp_path / "new"}, vectorization="process")
    assert not (tmp_path / "new").exists()


def test_env_cannot_replace_a_named_task(finished_run, own):
    for function in (cdred.load, cdred.evaluate):
        with pytest.raises(UserError, match=r"is a run of probe/point, which env cannot replace: omit env"):
            function(finished_run, env=own.make_slide)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda own: own.Slide(), "env should be a function or class .* got Slide"),
        (lambda own: partial(own.Slide), "env should be a function or class .* got partial"),
        (lambda own: own.needs_size, "called without arguments, but needs_size has a missing .* argument: 'size'"),
        (lambda own: own.make_number, "returns a gymnasium.Env, it returned int"),
        (lambda own: lambda: own.shared, "returned the same environment twice"),
        (lambda _own: lambda: gymnasium.make("FrozenLake-v1"), "only continuous .Box. spaces are supported"),
    ],
)
def test_unusable_function_is_refused(own, tmp_path, env, message):
    with pytest.raises(UserError, match=message):
        cdred.train(run_config(tmp_path / "run", task=""), env=env(own), quiet=True)
    assert not (tmp_path / "run").exists()


def test_task_beside_env_is_refused(own):
    with pytest.raises(UserError, match=r"env is the task env/own_slides:make_slide, omit task='gym/Slide-v0'"):
        cdred.train(task="gym/Slide-v0", env=own.make_slide, quiet=True)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("env/own_slides", "expected env/MODULE:NAME"),
        ("env/no_such_slides:make", "no module no_such_slides on the import path"),
        ("env/own_slides:make_nothing", "no function make_nothing in own_slides"),
        ("env/own_slides:make_slide?repeat=2", "have no parameter repeat"),
    ],
)
@pytest.mark.usefixtures("own")
def test_unknown_function_is_refused(task, message):
    with pytest.raises(UserError, match=message):
        make(task)


def test_method_of_an_object_is_not_taken_for_that_of_the_class(own):
    assert name_env(own.Makers().make) == ("env/own_slides:<Makers.make>", (), False)
    assert name_env(own.Slide).importable


def test_given_function_counts_only_within(own):
    with given_env(own.make_slide), given_env(None):
        assert make("env/own_slides:<lambda>").spec.episode_length == 20
    with pytest.raises(UserError, match="cannot be imported"):
        make("env/own_slides:<lambda>")


@pytest.mark.parametrize("vectorization", ["thread", "process"])
def test_executors_import_the_function(own, vectorization):
    executor = make_executor("env/own_slides:make_slide", ["a"], vectorization)
    try:
        observations, _ = executor.call("reset", {0: 7})
        np.testing.assert_array_equal(observations[0], cdred_env(own.make_slide).reset(7))
        assert executor.spec.obs_parts == (("place", 2), ("time", 1))
    finally:
        executor.close()


def test_time_limit_of_a_wrapper_is_that_of_the_task(own):
    inner = cdred_env(lambda: gymnasium.wrappers.TimeLimit(gymnasium.wrappers.TimeLimit(own.Slide(), 30), 50))
    assert inner.spec.episode_length == 30


SCRIPT = """
from cdred.envs.callables import name_env
from cdred.envs.executors import make_executor
from cdred.envs.imports import import_modules
from own_slides import make_slide


def make_env():
    return make_slide()


if __name__ == "__main__":
    task, files, _ = name_env(make_env)
    import_modules(files)
    executor = make_executor(task, ["a"], "process")
    print(task, executor.call("reset", {0: 1})[0][0].shape)
    executor.close()
"""


def test_function_of_a_script_is_imported_by_workers(own):
    script = Path(own.__file__).with_name("my_script.py")
    script.write_text(SCRIPT)
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("env/my_script:make_env (3,)\n", 0), result.stderr


def test_script_that_would_train_again_is_refused(own):
    script = Path(own.__file__).with_name("my_script.py")
    script.write_text("import cdred\nfrom own_slides import make_slide\ncdred.train(env=make_slide)\n")
    with pytest.raises(UserError, match=r"my_script\.py is imported for its .* calls cdred\.train itself: .*__main__"):
        imports.import_modules([str(script)])


def test_task_of_a_file_imports_nothing(own, demos, tmp_path, capsys):
    path = tmp_path / "demos.npz"
    cdred.save_demos(cdred.DemoDataset("env/own_slides:make_slide", demos.trajectories), path)
    forget(own)
    for task in ("env/own_slides:make_slide", "gym/own_slides:Slide-v0"):
        path.unlink(missing_ok=True)
        cdred.save_demos(cdred.DemoDataset(task, demos.trajectories), path)
        assert main(["demos", "check", str(path)]) == 2
        assert main(["demos", "convert", str(path), str(tmp_path / "out"), "--rescale-actions"]) == 2
        assert capsys.readouterr().err.count("modules that a file names are not imported") == 2
    assert "own_slides" not in sys.modules
