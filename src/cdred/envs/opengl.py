"""Choice of the OpenGL library with which MuJoCo renders on a machine without a display.

MuJoCo and dm_control read `MUJOCO_GL` when they are imported, and cannot be imported if the library that it names is
missing. So the choice is made before, without them.
"""

import ctypes
import ctypes.util
from typing import NamedTuple

VARIABLE = "MUJOCO_GL"
QUERY_DEVICES = b"eglQueryDevicesEXT"


class Choice(NamedTuple):
    """Value for `MUJOCO_GL`, and the reason for it."""

    backend: str
    reason: str


def choose_backend() -> Choice:
    """Return `egl` where a device answers, which renders on a GPU or by software, else `osmesa`, or else `disable`."""
    if num_egl_devices() > 0:
        return Choice("egl", "an EGL device answers")
    if ctypes.util.find_library("OSMesa"):
        return Choice("osmesa", "no EGL device answers, and libOSMesa is installed")
    return Choice("disable", "no EGL device answers, and libOSMesa is not installed: nothing can be rendered")


def num_egl_devices() -> int:
    """Return the number of EGL devices, none of which is opened; 0 without EGL or its device extension."""
    try:
        library = ctypes.CDLL("libEGL.so.1")
        library.eglGetProcAddress.restype = ctypes.c_void_p
        address = library.eglGetProcAddress(QUERY_DEVICES)
    except (OSError, AttributeError):
        return 0
    if not address:
        return 0
    number = ctypes.c_int(0)
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))(address)
    return number.value if query(0, None, ctypes.byref(number)) else 0
