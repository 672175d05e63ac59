import subprocess

import pytest

from cdred import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Folder of a git checkout with the package in `src`, from which the module is run."""
    file = tmp_path / "src/cdred/provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--message", "m")
    monkeypatch.setattr(provenance, "__file__", str(file))
    return tmp_path


def git(folder, *args):
    return subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_that_of_the_checkout(checkout):
    head = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert provenance.provenance()["commit"] == head
    # Only changes of the package count.
    (checkout / "notes").write_text("x")
    assert provenance.provenance()["commit"] == head
    (checkout / "src/cdred/provenance.py").write_text("x")
    assert provenance.provenance()["commit"] == f"{head}+"


def test_installed_copy_has_no_commit(checkout, monkeypatch):
    installed = checkout / "site-packages/cdred/provenance.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.provenance()["commit"] is None
