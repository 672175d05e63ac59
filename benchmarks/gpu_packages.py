"""Archives of packages for a machine without a network, and the check that nothing is missing in them.

    .venv-gpu/bin/python benchmarks/gpu_packages.py    # `make gpu-wheels`

Run in an interpreter that holds `gpu_requirements/machine.txt` only. Wheels of each other list in `gpu_requirements`
are downloaded without their dependencies, unpacked, and packed into `.gpu/<list>.tar.xz`, which is smaller than they
are. Then, for each set of archives that a stage carries, all modules of this package and all packages of the archives
are imported in this interpreter without its user's packages, and a simulator makes a step. The sizes are those of what
a call carries: archives and the files that git tracks.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS, ARCHIVES = ROOT / "benchmarks" / "gpu_requirements", ROOT / ".gpu"
LISTS = ("common", "mjx", "metaworld", "dmc")
# Archives and a task of each stage.
STAGES = {"a": (("common",), ""), "b": (("common", "mjx"), "mjx/WalkerRun")}
STAGES["c"] = ("common", "metaworld"), "metaworld/bin-picking"
STAGES["d"] = ("common", "dmc"), "dmc/walker-run"
LIMIT_MIB = 64.0
# Parts of packages that no stage uses. No model of Meta-World has the texture.
LEFT_OUT = {"mujoco/experimental", "mujoco/include", "mujoco/mjx/test_data", "bin"}
LEFT_OUT |= {"metaworld/assets/textures/real_door.png"}
LEFT_OUT |= {f"dm_control/{part}" for part in ("locomotion", "suite/dog_assets", "blender", "viewer")}

CHECK = """
import importlib, pkgutil, sys
from pathlib import Path

site, task = Path(sys.argv[1]).resolve(), sys.argv[2]
suites = {"mjx", "metaworld", "dmc", "maniskill"} - {task.partition("/")[0]}
import cdred
for module in pkgutil.walk_packages(cdred.__path__, "cdred."):
    names = module.name.split(".")
    if not ("suites" in names and names[-1] in suites) and names[-1] not in sys.argv[4].split(","):
        importlib.import_module(module.name)
for path in sorted(site.iterdir()):
    if (path / "__init__.py").exists() and path.name not in sys.argv[3].split(","):
        importlib.import_module(path.name)
if task:
    from cdred.envs.make import make_vector_env
    with make_vector_env(task, (0,), 1, "train") as envs:
        envs.reset()
        assert envs.step(envs.reset()[..., : envs.spec.action_dim] * 0).obs.shape[-1] == envs.spec.obs_shape[0]
"""
# Packages whose top level needs what is carried for no stage.
NOT_IMPORTED = "brax,mujoco_playground"
# Modules of this package that need what is carried for no stage, or MuJoCo, which is not carried for all.
NOT_USED = "__main__,onnx_file,render_probe"


def main() -> None:
    """Build the archives and check them."""
    ARCHIVES.mkdir(exist_ok=True)
    for name in LISTS:
        build(name)
    tracked = tree_mib()
    for stage, (archives, task) in STAGES.items():
        check(archives, task)
        carried = sum(archive(name).stat().st_size for name in archives) / 2**20
        print(f"stage {stage}: {carried:.1f} MiB in archives, {carried + tracked:.1f} MiB with the working tree")
        if carried + tracked > LIMIT_MIB:
            raise SystemExit(f"stage {stage} carries more than {LIMIT_MIB:g} MiB: shorten its list of packages.")


def archive(name: str) -> Path:
    """Return the archive of a list."""
    return ARCHIVES / f"{name}.tar.xz"


def build(name: str) -> None:
    """Download, unpack and pack the wheels of a list, unless its archive is newer than the list."""
    requirements = REQUIREMENTS / f"{name}.txt"
    if archive(name).exists() and archive(name).stat().st_mtime > requirements.stat().st_mtime:
        return
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
        subprocess.run([*pip, "--target", folder, "-r", str(requirements)], check=True)
        for path in LEFT_OUT:
            left_out = Path(folder) / path
            shutil.rmtree(left_out) if left_out.is_dir() else left_out.unlink(missing_ok=True)
        temporary = archive(name).with_suffix(".partial")
        with tarfile.open(temporary, "w:xz", preset=9) as tar:
            for path in sorted(Path(folder).iterdir()):
                tar.add(path, path.name)
        temporary.replace(archive(name))


def check(archives: tuple[str, ...], task: str) -> None:
    """Import everything in an interpreter that has its own packages, these archives and this checkout only."""
    with tempfile.TemporaryDirectory() as folder:
        for name in archives:
            with tarfile.open(archive(name)) as tar:
                tar.extractall(folder, filter="data")
        environment = {"PYTHONPATH": f"{ROOT / 'src'}:{folder}", "PYTHONNOUSERSITE": "1", "HOME": folder}
        environment |= {"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
        subprocess.run([sys.executable, "-c", CHECK, folder, task, NOT_IMPORTED, NOT_USED], env=environment, check=True)


def tree_mib() -> float:
    """Return the size of the files that git tracks."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return sum((ROOT / name).stat().st_size for name in listing.split("\0") if name) / 2**20


if __name__ == "__main__":
    main()
