"""Renders one frame by the backend that the environment variable MUJOCO_GL selects.

python -m cdred.doctor.render_probe
"""

import os

import mujoco

SCENE = "<mujoco><worldbody><light pos='0 0 3'/><geom type='sphere' size='.5'/></worldbody></mujoco>"
SIZE = 32


def render() -> None:
    """Render a sphere.

    Raises:
        RuntimeError: the frame has one color only.
    """
    model = mujoco.MjModel.from_xml_string(SCENE)  # pyright: ignore[reportAttributeAccessIssue]
    data = mujoco.MjData(model)  # pyright: ignore[reportAttributeAccessIssue]
    mujoco.mj_forward(model, data)  # pyright: ignore[reportAttributeAccessIssue]
    renderer = mujoco.Renderer(model, SIZE, SIZE)
    renderer.update_scene(data)
    if renderer.render().std() == 0:
        raise RuntimeError("the frame is empty")


if __name__ == "__main__":
    render()
    print("{}", flush=True)
    # Without exit handlers: those of some backends fail after everything has worked.
    os._exit(0)
