"""Which OpenGL library can render, and what to set."""

import pytest

from cdred.doctor import rendering
from cdred.doctor.rendering import rendering_check
from cdred.envs.opengl import Choice


@pytest.mark.parametrize(
    ("selected", "usable", "mark", "fix"),
    [
        ("egl", "egl osmesa", "ok", ""),
        ("EGL ", "egl", "ok", ""),
        ("egl", "osmesa", "missing", "export MUJOCO_GL=osmesa"),
        ("", "egl", "missing", "export MUJOCO_GL=egl"),
        ("", "glfw egl", "ok", ""),
        ("osmesa", "", "missing", rendering.LIBRARIES),
    ],
)
def test_fix_is_a_backend_that_can_render(selected, usable, mark, fix):
    failures = {name: None if name in usable.split() else "no library" for name in rendering.BACKENDS}
    check = rendering_check(selected, failures)
    assert (check.mark, check.fix) == (mark, fix)
    assert ("no library" in check.result) == (mark == "missing")


def test_what_cdred_chose_is_explained():
    failures = dict.fromkeys(rendering.BACKENDS, "no library")
    check = rendering_check("osmesa", failures | {"osmesa": None}, Choice("osmesa", "no EGL device answers"))
    assert check.result == ("MUJOCO_GL=osmesa, chosen by cdred because no EGL device answers; can render: osmesa")
    nothing = rendering_check("disable", failures, Choice("disable", "nothing can be rendered"))
    assert (nothing.mark, nothing.fix) == ("missing", rendering.LIBRARIES)
    assert nothing.result == "MUJOCO_GL=disable, chosen by cdred because nothing can be rendered; can render: none"


def test_backend_without_its_library_gives_the_reason(monkeypatch, tmp_path):
    """A package of MuJoCo that renders nothing stands for one without OpenGL."""
    (tmp_path / "mujoco.py").write_text("import os\nraise ImportError(f\"no {os.environ['MUJOCO_GL']} library\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert rendering.render_failure("osmesa") == "ImportError: no osmesa library (exit code 1)"


def test_without_mujoco_nothing_is_rendered(monkeypatch):
    monkeypatch.setattr(rendering, "find_spec", lambda _: None)
    assert rendering.check_rendering().mark == "missing"
