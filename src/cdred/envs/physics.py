"""Physics of MuJoCo models that differ from a suite's."""

from typing import Any

import mujoco

from cdred.task_name import PLAIN_PHYSICS, PhysicsFactors


def scale_physics(model: Any, data: Any, factors: PhysicsFactors) -> None:
    """Scale masses and friction of a compiled model, and recompute the constants that depend on them.

    Args:
        model: the `MjModel`.
        data: its `MjData`, which has to be reset afterwards.
        factors: `mass` of all masses and inertias, `friction` of the sliding, torsional and rolling friction of all
            geoms and contact pairs.
    """
    if factors == PLAIN_PHYSICS:
        return
    model.body_mass[:] *= factors.mass
    model.body_inertia[:] *= factors.mass
    model.geom_friction[:] *= factors.friction
    model.pair_friction[:] *= factors.friction
    mujoco.mj_setConst(model, data)  # pyright: ignore[reportAttributeAccessIssue]
