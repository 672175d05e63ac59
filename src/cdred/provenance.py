"""Provenance of results: device, commit and package versions."""

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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


def provenance() -> dict[str, Any]:
    """Return `{"device", "commit", "versions"}`; the commit is None outside a git checkout, `+` marks local changes."""
    import jax  # here: versions are also read where JAX is not needed

    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "commit": _commit(),
        "versions": package_versions(PACKAGES),
    }


def _commit() -> str | None:
    package = Path(__file__).resolve().parent
    # An installed copy may be inside a git checkout of another project.
    if package.parent.name != "src":
        return None
    head = _git(package, "rev-parse", "--short=12", "HEAD")
    return head and head + ("+" if _git(package, "status", "--porcelain", "--", ".") else "")


def _git(folder: Path, *args: str) -> str | None:
    try:
        return subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of packages, without those that are not installed."""
    versions = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
