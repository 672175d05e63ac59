"""Checks of Python and of the installed packages against what cdred requires."""

import platform
from importlib.metadata import PackageNotFoundError, metadata, requires

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cdred.doctor.checks import Check
from cdred.provenance import package_versions

# Of the required packages, the versions of these are shown.
SHOWN = ("cdred", "jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium")
REINSTALL = "pip install ."


def check_python() -> Check:
    """Check the version of Python; the operating system is stated."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    try:
        required = metadata("cdred")["Requires-Python"] or ""
    except PackageNotFoundError:
        return Check("Python", "ok", found)
    if not SpecifierSet(required).contains(platform.python_version(), prereleases=True):
        return Check("Python", "problem", f"{found}, required is {required}")
    return Check("Python", "ok", found if platform.system() == "Linux" else f"{found}, on which nothing was tested")


def check_packages() -> Check:
    """Check the versions of the packages that cdred needs without any extra."""
    try:
        required = requirements()
    except PackageNotFoundError:
        return Check("packages", "problem", "cdred runs from a folder that is not installed", REINSTALL)
    unmet = unmet_requirements(required)
    if unmet:
        fix = "pip install " + " ".join(f"'{requirement}'" for requirement in unmet)
        return Check("packages", "problem", describe_unmet(unmet), fix)
    return Check("packages", "ok", format_versions(SHOWN))


def requirements(extra: str = "") -> list[Requirement]:
    """Return the requirements of cdred for this Python: those of an extra alone, or else those without any extra.

    Raises:
        PackageNotFoundError: cdred is not installed.
    """
    parsed = [Requirement(text) for text in requires("cdred") or ()]
    core = [requirement for requirement in parsed if _applies(requirement, "")]
    if not extra:
        return core
    return [requirement for requirement in parsed if requirement not in core and _applies(requirement, extra)]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def unmet_requirements(required: list[Requirement]) -> list[Requirement]:
    """Return the requirements that are not met: not installed, or in another version."""
    installed = package_versions(requirement.name for requirement in required)
    return [
        requirement
        for requirement in required
        if requirement.name not in installed
        or not requirement.specifier.contains(installed[requirement.name], prereleases=True)
    ]


def not_installed(required: list[Requirement]) -> list[str]:
    """Return the names of the packages that are not installed in any version."""
    installed = package_versions(requirement.name for requirement in required)
    return [requirement.name for requirement in required if requirement.name not in installed]


def describe_unmet(unmet: list[Requirement]) -> str:
    """Say which packages are not installed, or in which version in place of which."""
    installed = package_versions(requirement.name for requirement in unmet)
    return ", ".join(
        f"{requirement.name} {installed[requirement.name]} is installed, required is {requirement.specifier}"
        if requirement.name in installed
        else f"{requirement.name} is not installed"
        for requirement in unmet
    )


def format_versions(packages: tuple[str, ...]) -> str:
    """Format the versions of those packages that are installed."""
    return ", ".join(f"{name} {number}" for name, number in package_versions(packages).items())
