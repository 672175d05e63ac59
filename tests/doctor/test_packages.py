"""Installed versions against requirements."""

import pytest
from packaging.requirements import Requirement

from cdred.doctor import packages


@pytest.fixture
def required(monkeypatch):
    """Return a function that sets the requirements of cdred, as its metadata has them."""

    def set_requirements(*texts):
        monkeypatch.setattr(packages, "requires", lambda _: list(texts))

    return set_requirements


def test_installed_packages_are_ok():
    check = packages.check_packages()
    assert (check.mark, check.fix) == ("ok", "")
    assert "jax 0." in check.result


def test_other_version_and_absence_are_problems_with_the_command(required):
    required("numpy<2,>=1", "no-such-package>=3; python_version>'3'", "pytest", "other; extra == 'dmc'")
    check = packages.check_packages()
    assert check.mark == "problem"
    assert "is installed, required is <2,>=1, no-such-package is not installed" in check.result
    assert check.fix.startswith("pip install 'numpy<2,>=1' 'no-such-package>=3")
    assert "pytest" not in check.result
    assert "other" not in check.fix


def test_requirements_of_an_extra_are_its_own(required):
    required("numpy", "one; extra == 'dmc'", "two>=2; extra == 'mjx'")
    assert [requirement.name for requirement in packages.requirements()] == ["numpy"]
    assert [requirement.name for requirement in packages.requirements("dmc")] == ["one"]
    assert packages.not_installed(packages.requirements("dmc")) == ["one"]


def test_prereleases_are_compared_like_releases():
    (unmet,) = packages.unmet_requirements([Requirement("pytest>=1"), Requirement("pytest<1")])
    assert str(unmet) == "pytest<1"


def test_python_that_is_not_supported_is_a_problem(monkeypatch):
    assert packages.check_python().mark == "ok"
    monkeypatch.setattr(packages.platform, "python_version", lambda: "3.10.1")
    check = packages.check_python()
    assert check.mark == "problem"
    assert ">=3.11" in check.result
