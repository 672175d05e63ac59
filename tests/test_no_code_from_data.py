"""No data can run code: no pickle, no evaluated text, no YAML tags; and no secrets in the files that are written."""

import ast
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

import cdred
from cdred.checkpoint import checkpoint
from cdred.config_file import from_yaml, read_config
from cdred.data.demonstrations import load_demos
from cdred.data.formats.lerobot_write import save_lerobot
from cdred.data.formats.minari import save_minari
from cdred.data.formats.npz import save_npz
from cdred.envs.executors import make_executor
from cdred.errors import UserError
from cdred.types import DemoDataset, Trajectory
from demo_files import write_imitation

SOURCE = Path(cdred.__file__).parent
# Modules that unpickle, calls that execute text, and modules that listen on the network.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pandas"}
NAMES = {"eval", "exec", "compile", "__import__"}
METHODS = {
    ("yaml", "load"),
    ("yaml", "load_all"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("np", "load"),
    ("numpy", "load"),
    ("torch", "load"),
    ("os", "system"),
    ("os", "popen"),
    ("connection", "recv"),
    ("socket", "socket"),
}
SERVERS = {"socket", "socketserver", "http", "xmlrpc", "flask", "fastapi", "aiohttp", "uvicorn", "tornado"}


def forbidden_uses(tree):
    """Yield line and name of every forbidden import and call in a syntax tree."""
    for node in ast.walk(tree):
        imported = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        yield from ((node.lineno, name) for name in imported if name.partition(".")[0] in MODULES | SERVERS)
        if isinstance(node, ast.Call):
            yield from ((node.lineno, name) for name in _forbidden_calls(node) if name)
            if any(keyword.arg == "shell" for keyword in node.keywords):
                yield node.lineno, "shell="
            for keyword in node.keywords:
                if keyword.arg == "allow_pickle" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield node.lineno, "allow_pickle"


def _forbidden_calls(call):
    if isinstance(call.func, ast.Name) and call.func.id in NAMES:
        yield call.func.id
    if isinstance(call.func, ast.Attribute):
        owner = call.func.value
        last = owner.attr.lstrip("_") if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
        if (last, call.func.attr) in METHODS:
            yield f"{last}.{call.func.attr}"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "torch.load(f)",
        "import http.server",
        "eval('1')",
        "np.load(f)",
        "np.lib.format.read_array(f, allow_pickle=True)",
        "yaml.load(f, Loader)",
        "self._connection.recv()",
        "run('ls', shell=True)",
    ],
)
def test_forbidden_use_is_detected(text):
    assert list(forbidden_uses(ast.parse(text)))


def test_source_has_no_forbidden_uses():
    sources = sorted(SOURCE.rglob("*.py"))
    assert len(sources) > 80
    uses_by_file = {str(path.relative_to(SOURCE)): [*forbidden_uses(ast.parse(path.read_text()))] for path in sources}
    assert {path: uses for path, uses in uses_by_file.items() if uses} == {}


@pytest.fixture
def no_pickle(monkeypatch):
    """Make any unpickling fail the test."""

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    # Used by multiprocessing connections.
    monkeypatch.setattr("multiprocessing.reduction.ForkingPickler.loads", refuse)


def _write(kind, dataset, folder):
    if kind in ("minari", "lerobot"):
        {"minari": save_minari, "lerobot": save_lerobot}[kind](dataset, folder / "d")
        return folder / "d"
    if kind == "npz":
        save_npz(dataset, folder / "d.npz")
        return folder / "d.npz"
    if kind == "imitation":
        return write_imitation(folder / "d.npz", (5,))
    with h5py.File(folder / "d.h5", "w") as file:
        if kind == "robomimic":
            file["data/demo_0/obs/state"], file["data/demo_0/actions"] = np.zeros((5, 2)), np.zeros((5, 2))
        elif kind == "maniskill":
            file["traj_0/obs"], file["traj_0/actions"] = np.zeros((6, 2)), np.zeros((5, 2))
            file["traj_0/terminated"], file["traj_0/truncated"] = np.zeros(5, bool), np.arange(5) == 4
        else:
            file["observations"], file["actions"] = np.zeros((5, 2)), np.zeros((5, 2))
            file["terminals"], file["timeouts"] = np.zeros(5, bool), np.arange(5) == 4
    return folder / "d.h5"


@pytest.mark.parametrize("kind", ["minari", "lerobot", "npz", "imitation", "robomimic", "maniskill", "d4rl"])
@pytest.mark.usefixtures("no_pickle")
def test_formats_are_read_without_pickle(kind, tmp_path):
    obs, action = np.zeros((6, 2), np.float32), np.zeros((5, 2), np.float32)
    dataset = DemoDataset("", (Trajectory(obs, action, np.zeros(5, np.float32), False, True),))
    assert len(load_demos(_write(kind, dataset, tmp_path))) == 1


@pytest.mark.usefixtures("no_pickle")
def test_checkpoint_is_read_without_pickle(tmp_path):
    state = {"x": np.arange(3.0)}
    folder = checkpoint.save(tmp_path, 1, state, {"note": "n"})
    assert checkpoint.load(folder, state)[1] == {"note": "n"}


class _Payload:
    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return (Path.touch, (self._path,))


@pytest.mark.parametrize("name", ["d.npz", "d.h5", "d.hdf5", "d.pkl", "d"])
def test_disguised_pickle_is_not_executed(name, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps(_Payload(tmp_path / "ran")))
    with pytest.raises(UserError):
        load_demos(tmp_path / name)
    np.savez(tmp_path / "object.npz", obs=np.array([[_Payload(tmp_path / "ran")]], object))
    with pytest.raises(UserError, match="without pickle"):
        load_demos(tmp_path / "object.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "task: !!python/object/apply:os.system ['false']",
        "task: !!python/name:os.system",
        "task: !!str probe/point",
        "steps: !!int '3'",
        "!!map {task: probe/point}",
        "task: !mine probe/point",
        "task: &a probe/point\ndemos: *a",
    ],
)
def test_config_rejects_tags_and_aliases(text):
    with pytest.raises(UserError, match=r"(is|are) not allowed"):
        from_yaml(text)


@pytest.mark.usefixtures("no_pickle")
def test_config_is_read_without_pickle(tmp_path):
    (tmp_path / "config.yaml").write_text("task: probe/point\nseeds: [0, 1]\n")
    assert read_config(tmp_path / "config.yaml").seeds == (0, 1)


def test_run_contains_no_environment_secrets(bc_run, secrets):
    files = [path for path in (bc_run / "run").rglob("*") if path.is_file()]
    assert len(files) >= 6
    for path in files:
        content = path.read_bytes()
        assert not [value for value in secrets.values() if value.encode() in content], path


@pytest.mark.usefixtures("no_pickle")
def test_process_executor_does_not_unpickle():
    executor = make_executor("probe/point", ["one"], "process")
    try:
        results, failures = executor.call("reset", {0: 3})
        assert results[0].shape == executor.spec.obs_shape
        assert not failures
    finally:
        executor.close()
