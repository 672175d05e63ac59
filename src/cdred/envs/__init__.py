"""Simulators behind one interface; each suite is imported when first used."""

import os
import sys

# MuJoCo reads this once, when it is first imported; without a display its own default cannot render.
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")
