"""Environments of users, registered by a module or file that `imports` names, in this and in worker processes."""

import json
import sys

import gymnasium
import numpy as np
import pytest

import cdred
from cdred.cli.main import main
from cdred.config_file import read_config
from cdred.envs import imports
from cdred.envs.executors import make_executor
from cdred.envs.imports import import_modules, resolve_import
from cdred.errors import UserError

# `Trajectory` needs the whole package, also in a worker process, and `own_physics` the folder of the file.
ENVIRONMENT = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box

import cdred
from own_physics import PACE

WORKS_WITH = cdred.Trajectory


class Slide(gymnasium.Env):
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1)
        return np.array([self.place, PACE], np.float32), {}

    def step(self, action):
        self.place += PACE * float(action[0])
        return np.array([self.place, PACE], np.float32), -abs(self.place), False, False, {}


gymnasium.register("Slide-v0", "own_slide:Slide", max_episode_steps=20)
"""


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    """File that registers `gym/Slide-v0`; the registration and imports of the test are undone."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "own_physics.py").write_text("PACE = 0.25\n")
    (folder / "own_slide.py").write_text(ENVIRONMENT)
    monkeypatch.setattr(imports, "_imported", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(gymnasium.registry)
    yield folder / "own_slide.py"
    gymnasium.registry.clear()
    gymnasium.registry.update(before)
    for name in ("own_slide", "own_physics"):
        sys.modules.pop(name, None)


@pytest.fixture
def demos(tmp_path):
    """File of three demonstrations of `gym/Slide-v0`."""
    rng, zeros = np.random.default_rng(0), np.zeros(20, np.float32)
    trajectories = [
        cdred.Trajectory(
            np.stack([rng.normal(size=21), np.full(21, 0.25)], 1).astype(np.float32),
            rng.uniform(-1, 1, (20, 1)).astype(np.float32),
            zeros,
            terminated=False,
            truncated=True,
        )
        for _ in range(3)
    ]
    cdred.save_demos(cdred.DemoDataset("gym/Slide-v0", tuple(trajectories)), tmp_path / "demos.npz")
    return tmp_path / "demos.npz"


def test_own_environment_is_trained_in_processes_and_evaluated(own_file, demos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(own_file.parent)
    options = ["--preset", "debug", "--algo", "bc", "--steps", "40", "--no-video", "--demos", str(demos)]
    command = ["train", "gym/Slide-v0", *options, "--vectorization", "process", "--out", str(tmp_path / "run")]
    assert main([*command, "--import", "own_slide.py"]) == 0, capsys.readouterr().err
    assert read_config(tmp_path / "run" / "config.yaml").imports == (str(own_file),)
    # As in a new process, in another folder.
    monkeypatch.chdir(tmp_path)
    imports._imported.clear()
    del sys.modules["own_slide"], gymnasium.registry["Slide-v0"]
    assert main(["eval", "run", "--episodes", "1", "--json", "scores.json"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())["return"][0] < 0
    # The same command in another folder names a file that is not there.
    assert main([*command, "--import", "own_slide.py"]) == 2
    assert f"there is no file {tmp_path / 'own_slide.py'}" in capsys.readouterr().err


def test_demonstrations_of_an_own_environment_are_checked_and_rescaled(own_file, tmp_path, capsys):
    """The recorded episode is that of an environment with other dynamics, so that the replay disagrees."""
    trajectory = cdred.Trajectory(
        np.zeros((21, 2), np.float32), np.zeros((20, 1), np.float32), None, terminated=False, truncated=True, seed=1
    )
    cdred.save_demos(cdred.DemoDataset("", (trajectory,)), tmp_path / "demos.npz")
    options = [str(tmp_path / "demos.npz"), "--task", "gym/Slide-v0"]
    assert main(["demos", "check", *options]) == 2
    assert "Slide-v0" in capsys.readouterr().err
    assert main(["demos", "check", *options, "--import", str(own_file)]) == 1
    assert "First observations differ" in " ".join(capsys.readouterr().out.split())
    imports._imported.clear()
    del sys.modules["own_slide"], gymnasium.registry["Slide-v0"]
    convert = ["demos", "convert", options[0], str(tmp_path / "out.npz"), *options[1:], "--rescale-actions"]
    assert main(convert) == 2
    assert main([*convert, "--import", str(own_file)]) == 0
    assert cdred.load_demos(tmp_path / "out.npz").task == "gym/Slide-v0"


def test_run_resumes_after_the_file_was_moved(own_file, demos, tmp_path):
    settings = {"preset": "debug", "task": "gym/Slide-v0", "algo": "bc", "demos": demos, "video": False, "quiet": True}
    first = cdred.train(**settings, steps=40, imports=own_file, out=tmp_path / "run")
    moved = own_file.parent / "moved"
    moved.mkdir()
    own_file.rename(moved / "own_slide.py")
    imports._imported.clear()
    with pytest.raises(UserError, match=r"there is no file .*own_slide\.py"):
        cdred.evaluate(tmp_path / "run", episodes=1)
    del sys.modules["own_slide"], gymnasium.registry["Slide-v0"]
    again = cdred.train(**settings, steps=40, imports=[moved / "own_slide.py"], out=tmp_path / "run")
    assert again["eval"] == first["eval"]
    imports._imported.clear()
    assert cdred.load(tmp_path / "run").spec.obs_shape == (2,)


def test_code_in_a_run_folder_is_not_executed(own_file, demos, tmp_path):
    settings = {"preset": "debug", "task": "gym/Slide-v0", "algo": "bc", "demos": demos, "video": False, "quiet": True}
    cdred.train(**settings, steps=40, imports=own_file, out=tmp_path / "run")
    inside = own_file.rename(tmp_path / "run" / own_file.name)
    config = tmp_path / "run/config.yaml"
    config.write_text(config.read_text().replace(str(own_file), str(inside)))
    with pytest.raises(UserError, match=r"imports .*own_slide\.py, a file of the run folder, .* not executed"):
        cdred.load(tmp_path / "run")


@pytest.mark.parametrize("vectorization", ["sync", "thread", "process"])
def test_every_executor_knows_the_environment(own_file, vectorization):
    import_modules([str(own_file)])
    executor = make_executor("gym/Slide-v0", ["a", "b"], vectorization)
    try:
        observations, failures = executor.call("reset", {0: 1, 1: 2})
        assert failures == {}
        assert observations[0][0] != observations[1][0]
        assert observations[0][1] == np.float32(0.25)
    finally:
        executor.close()


def test_module_is_found_on_the_import_path(own_file, monkeypatch):
    monkeypatch.syspath_prepend(own_file.parent)
    import_modules(["own_slide"])
    assert imports.imported() == ("own_slide",)
    assert "Slide-v0" in gymnasium.registry


def test_file_is_imported_once(own_file):
    import_modules([str(own_file)])
    gymnasium.registry.pop("Slide-v0")
    import_modules([str(own_file)])
    assert "Slide-v0" not in gymnasium.registry
    assert imports.imported() == (str(own_file),)


def test_relative_path_is_made_absolute_and_a_module_name_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_import("envs/own.py") == str(tmp_path / "envs" / "own.py")
    assert resolve_import("package.module") == "package.module"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("no_such_module", None, "no module no_such_module on the import path.*no_such_module.py"),
        ("absent.py", None, "there is no file .*absent.py"),
        ("broken_envs.py", "x = 1\ny = x / 0\n", r"ZeroDivisionError: division by zero \(.*broken_envs.py, line 2\)"),
        ("needs_envs.py", "import no_such_package\n", "No module named 'no_such_package'"),
        ("gymnasium.py", "", "has the name of another module .*rename"),
        ("./folder", None, "there is no file"),
    ],
)
def test_module_that_cannot_be_imported_is_a_user_error(name, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if code is not None:
        (tmp_path / name).write_text(code)
    with pytest.raises(UserError, match=message):
        import_modules([name])
    assert "broken_envs" not in sys.modules
    assert name not in imports.imported()


def test_unregistered_environment_in_processes_names_the_option():
    gymnasium.register("OnlyHere-v0", "no:where", max_episode_steps=5)
    try:
        with pytest.raises(UserError, match="--import the module or file that registers"):
            make_executor("gym/OnlyHere-v0", ["a"], "process")
    finally:
        del gymnasium.registry["OnlyHere-v0"]
