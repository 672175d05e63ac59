"""Choice of the OpenGL library before MuJoCo is imported."""

import ctypes
import os
import subprocess
import sys

import pytest

from cdred.envs import opengl

PROGRAM = "import cdred.envs, os; print(os.environ.get('MUJOCO_GL'), cdred.envs.opengl_choice is not None)"


@pytest.mark.parametrize(
    ("devices", "osmesa", "backend"),
    [(1, None, "egl"), (2, "libOSMesa.so.8", "egl"), (0, "libOSMesa.so.8", "osmesa"), (0, None, "disable")],
)
def test_osmesa_is_chosen_where_no_egl_device_answers(monkeypatch, devices, osmesa, backend):
    monkeypatch.setattr(opengl, "num_egl_devices", lambda: devices)
    monkeypatch.setattr(ctypes.util, "find_library", {"OSMesa": osmesa}.get)
    assert opengl.choose_backend().backend == backend


def test_without_egl_there_are_no_devices(monkeypatch):
    def missing(_):
        raise OSError("libEGL.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert opengl.num_egl_devices() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a backend is chosen on Linux only")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MUJOCO_GL": "glfw"}, "glfw False"),
        ({"DISPLAY": ":0"}, "None False"),
        ({}, f"{opengl.choose_backend().backend} True"),
        ({"MUJOCO_GL": ""}, f"{opengl.choose_backend().backend} True"),
    ],
)
def test_what_the_user_set_is_kept(variables, expected):
    others = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    command = [sys.executable, "-c", PROGRAM]
    out = subprocess.run(command, env=others | variables, capture_output=True, text=True, check=True).stdout
    assert out.strip() == expected
