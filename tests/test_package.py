"""The package's public names, and what is imported before they are used."""

import importlib
import subprocess
import sys

import pytest

import cdred
from cdred.data.demonstrations import bundled_demos


def test_every_public_name_is_the_one_of_its_module():
    assert set(cdred.__all__) <= set(dir(cdred))
    for name in cdred.__all__:
        value = getattr(cdred, name)
        assert value is getattr(importlib.import_module(value.__module__), name)


def test_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cdred.nothing  # pyright: ignore[reportAttributeAccessIssue]


def modules_after(code):
    """Return the names of the modules that an interpreter has imported after executing `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(process.stdout.splitlines()[-1].split())


def test_train_stays_a_function_after_an_import_from_its_package():
    assert "jax" in modules_after("import cdred\nfrom cdred.train.interrupt import LOCK\nassert callable(cdred.train)")


def test_exported_policy_needs_no_jax_and_export_stays_a_function():
    code = "import cdred, sys\nfrom cdred.export.numpy_policy import NumpyPolicy\nassert 'jax' not in sys.modules\n"
    assert "jax" in modules_after(code + "assert callable(cdred.export)")


def test_import_of_the_package_imports_nothing_else():
    assert modules_after("import cdred") & {"jax", "numpy", "scipy", "matplotlib", "rich", "tyro"} == set()


def test_training_does_not_import_what_only_its_report_needs():
    imported = modules_after("import cdred.api")
    assert "cdred.report.run_report" in imported
    assert imported & {"scipy.stats", "matplotlib", "av"} == set()


def test_demonstrations_are_inspected_without_jax():
    file = next(iter(bundled_demos().values()))
    code = f"from cdred.cli.main import main\nassert main(['demos', 'info', {str(file)!r}]) == 0"
    imported = modules_after(code)
    assert "numpy" in imported
    assert imported & {"jax", "equinox", "optax", "matplotlib", "scipy"} == set()
