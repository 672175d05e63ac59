"""Simulators behind one interface; a suite is imported when it is first used."""

import os
import sys

from cdred.envs.opengl import VARIABLE, Choice, choose_backend

# MuJoCo reads the variable once, on import; without a display its own default cannot render.
opengl_choice: Choice | None = None
"""The OpenGL library that was chosen for MuJoCo; None where `MUJOCO_GL` was set, or there is a display."""

if sys.platform == "linux" and not os.environ.get("DISPLAY") and not os.environ.get(VARIABLE):
    opengl_choice = choose_backend()
    os.environ[VARIABLE] = opengl_choice.backend
