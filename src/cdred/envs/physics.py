"""Physics of MuJoCo models that differ from a suite's."""

from typing import Any

import mujoco


def scale_physics(model: Any, data: Any, mass: float, friction: float) -> None:
    """Multiply all masses and friction coefficients of a compiled model, and compute anew what depends on them.

    Args:
        model: the `MjModel`.
        data: its `MjData`, which has to be reset afterwards.
        mass: factor of masses and inertias.
        friction: factor of the sliding, torsional and rolling friction of all geoms and contact pairs.
    """
    if mass == friction == 1.0:
        return
    model.body_mass[:] *= mass
    model.body_inertia[:] *= mass
    model.geom_friction[:] *= friction
    model.pair_friction[:] *= friction
    mujoco.mj_setConst(model, data)  # pyright: ignore[reportAttributeAccessIssue]
