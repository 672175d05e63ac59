"""Simulators behind one interface; a suite is imported when it is first used."""

import os
import sys

# MuJoCo reads this once, on import; without a display its own default cannot render.
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")
