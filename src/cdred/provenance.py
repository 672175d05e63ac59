"""What a result was made with."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    "cdred",
    "jax",
    "jaxlib",
    "equinox",
    "optax",
    "numpy",
    "gymnasium",
    "mujoco",
    "mujoco-mjx",
    "playground",
    "metaworld",
    "dm-control",
)


def origin() -> dict[str, Any]:
    """`{"device", "commit", "versions"}`: commit is None outside a git checkout of cdred, `+` marks local changes."""
    device = jax.devices()[0]
    return {"device": f"{device.platform}: {device.device_kind}", "commit": _commit(), "versions": _versions()}


def _commit() -> str | None:
    here = Path(__file__).resolve()
    # An installed copy may lie inside somebody else's checkout, whose commit says nothing about it.
    if here.parents[2].name != "src":
        return None
    head = _git(here.parent, "rev-parse", "--short=12", "HEAD")
    return head and head + ("+" if _git(here.parents[2], "status", "--porcelain", "--", ".") else "")


def _git(folder: Path, *words: str) -> str | None:
    try:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
